"""Integrate-and-fire populations that see the beginning of each sample twice: a warm-up, then the run it corrects."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from neuro.errors import ParameterError
from neuro.nodes.neurons import MaxCount, Reset, Spiking


def check_warmup(kind: str, warmup: int) -> None:
    """Refuse what is no number of steps."""
    if isinstance(warmup, bool) or not isinstance(warmup, int) or not 1 <= warmup <= 1_000_000:
        raise ParameterError(f"{kind}: warmup must be an integer from 1 to 1000000 steps, got {warmup!r}")


class Corrected(Spiking):
    """An IF population with soft reset that corrects its run by what it saw in the first `warmup` steps."""

    warmup: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_warmup(self.kind, self.warmup)
        if self.reset != "subtract":
            raise ParameterError(f"{self.kind}: what is left after a run tells of it under reset 'subtract' only")


@dataclass(frozen=True, eq=False)
class OffsetIF(Corrected):
    """An IF population that rehearses each sample and moves its initial potential by what went wrong (COS).

    Steps 0 .. warmup - 1: keep the currents, integrate as `IF` does, send nothing. Let v be the potential then, and
    u the potentials before reset. The run starts from

        v0 - max(theta, min of u where it fired - 0.999 theta)      if v < 0 and it fired: one spike too many
        v0 + max(theta, 1.001 theta - max of u where it did not)    if v >= theta and it missed a step: one too few
        v0                                                          otherwise

    From step `warmup` on: as `IF`, on the kept currents from the first one on, so that the output of step t answers the
    current of step t - warmup. theta, v0 and i in the units of the pre-activation. Hao et al. 2023, Bridging the gap
    between ANNs and SNNs by calibrating offset spikes (arXiv 2302.10685 [recalled]); conditions and margins as in the
    authors' code, except that a neuron that fired at every step is left alone (there: raised, which changes nothing
    within the warm-up).
    """

    theta: Tensor
    v0: Tensor
    warmup: int
    reset: Reset = "subtract"


@dataclass(frozen=True, eq=False)
class ResidualIF(Corrected):
    """An IF population that stays silent where the warm-up left (almost) nothing in its membrane (SRP).

    Steps 0 .. warmup - 1: as `IF`, spikes included. Then v <- v0, and the neurons whose potential was at most
    0.001 theta go on without sending their spikes: a residue below 0 says that spikes came before what forbids them.
    theta, v0 and i in the units of the pre-activation. Hao et al. 2023, Reducing ANN-SNN conversion error through
    residual membrane potential (arXiv 2302.02091 [recalled]); the condition as in the authors' code.
    """

    theta: Tensor
    v0: Tensor
    warmup: int
    reset: Reset = "subtract"


@dataclass(frozen=True, eq=False)
class MaxCountAgain(MaxCount):
    """`MaxCount` whose counts S_j begin anew at 0 after `warmup` steps, as the populations around it do."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil: bool = False
    warmup: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_warmup(self.kind, self.warmup)
