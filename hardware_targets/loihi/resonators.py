"""Populations that oscillate: resonate-and-fire neurons of Loihi 2, a complex state turned and shrunk at every tick.

Equations follow lava-nc 0.10.0: lava.proc.rf, lava.proc.rf_iz, lava.proc.resfire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hardware_targets.loihi.connections import IntArray
from hardware_targets.loihi.populations import WORD, Neurons, Range

Fires = Literal["phase", "threshold"]

ROTATION_SHIFT = 15  # of PhaseVector


@dataclass(frozen=True, eq=False, kw_only=True)
class Resonator(Neurons):
    """Resonate-and-fire neurons. Ports 0 and 1 feed the real and the imaginary part:

        real' = clip( [cosine real] - [sine imag] + a_real 2**state_exp, +-(2**23 - 1) )
        imag' = clip( [sine real] + [cosine imag] + a_imag 2**state_exp, +-(2**23 - 1) )

    [x] = x / 2**decay_bits toward zero. Lava's PyRFModelFixed, fires='phase': spike if real' >= theta, imag' >= 0 and
    imag < 0. PyRF_IZModelFixed, fires='threshold': spike if imag' >= theta; then real' = 0, imag' = theta - 1.
    theta = vth 2**state_exp. cosine, sine: one integer or one per neuron, see `resonator_decays`.
    """

    cosine: IntArray | int
    sine: IntArray | int
    decay_bits: int = 12
    vth: int = 1
    state_exp: int = 0
    fires: Fires = "phase"

    per_neuron = ("cosine", "sine")
    ports = ("a_real", "a_imag")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("fires", Fires)

    @property
    def ranges(self) -> Mapping[str, Range]:
        decays = (-(2**16), 2**16)
        return {"cosine": decays, "sine": decays, "decay_bits": (1, 16), "state_exp": (0, 8), "vth": (-(2**23), 2**23)}

    @property
    def threshold(self) -> int:
        """vth in the units of the state."""
        return self.vth << self.state_exp

    @property
    def rest(self) -> dict[str, IntArray]:
        return {"real": self.zeros(), "imag": self.zeros()}


@dataclass(frozen=True, eq=False, kw_only=True)
class PhaseVector(Neurons):
    """Resonators whose events carry their amplitude when the phase passes 0. Lava's PyRFZeroModelFixed:

        u' = u cosine / 2**15 - v sine / 2**15 + a_u;   v' = v cosine / 2**15 + u sine / 2**15 + a_v
        sends u' where u' > vth, v' >= 0 and v < 0

    Division rounds down, every word is 32 bits wide and wraps, the products too. Ports 0 and 1 feed u and v.
    """

    cosine: IntArray | int
    sine: IntArray | int
    vth: int = 1

    per_neuron = ("cosine", "sine")
    ports = ("a_u", "a_v")

    @property
    def ranges(self) -> Mapping[str, Range]:
        return {"cosine": (-(2**15), 2**15), "sine": (-(2**15), 2**15), "vth": WORD}

    @property
    def graded(self) -> bool:
        return True

    @property
    def rest(self) -> dict[str, IntArray]:
        return {"u": self.zeros(), "v": self.zeros()}


def resonator_decays(period: ArrayLike, alpha: ArrayLike, bits: int) -> tuple[IntArray, IntArray]:
    """cosine and sine of a `Resonator` as Lava's RF makes them: (1 - alpha) cos and sin of 2 pi / period, `bits` bits.

    period [ticks]; alpha: share of the amplitude lost per tick.
    """
    angle, kept = 2 * np.pi / np.asarray(period, np.float64), 1 - np.asarray(alpha, np.float64)
    return (kept * np.cos(angle) * 2**bits).astype(np.int32), (kept * np.sin(angle) * 2**bits).astype(np.int32)


def phase_vector_decays(frequency: ArrayLike, tau: ArrayLike, step: float = 1e-3) -> tuple[IntArray, IntArray]:
    """cosine and sine of a `PhaseVector` as Lava's RFZero makes them. frequency [Hz], tau and step [s]."""
    angle = step * np.asarray(frequency, np.float64) * np.pi * 2
    kept = np.exp(step * (-1 / np.asarray(tau, np.float64)))
    unit = 2**ROTATION_SHIFT
    return (kept * np.cos(angle) * unit).astype(np.int32), (kept * np.sin(angle) * unit).astype(np.int32)
