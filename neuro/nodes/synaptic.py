"""Populations that decay once per step, fire above their threshold and may be reset one step late (snnTorch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from neuro.errors import ParameterError
from neuro.nodes.neurons import DECAY, POSITIVE, Domain, Spiking

LateReset = Literal["subtract", "zero", "none"]

CLOSEST = 1e-4
"""How near the decays of `Alpha` may come while they learn: its tau has a pole where they meet."""


class Decaying(Spiking):
    """A population that starts at 0 and fires where v > theta.

    r = [v > theta], v as the step before left it, resets in this step (`delay`). Without `delay` the potential is reset
    right after the spike: v <- v - (z - r) theta, or v <- v - (z - r) v. What is still above the threshold then is
    reset once more by the r of the next step, for which (z - r) makes up.
    """

    theta: Tensor
    reset: LateReset  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Leaky(Decaying):
    """z = [v > theta] of v <- beta v + i - r theta ("subtract"), beta (1 - r) v + i ("zero"), beta v + i ("none").

    r and `delay` as in `Decaying`. Against `LIF`, which fires at v >= theta and is reset at once: a delayed "zero" is
    the same, bit for bit, with the next larger float for theta; a delayed "subtract" takes off theta where `LIF` takes
    off beta theta; "subtract" without delay is the same unless v - theta > theta. Eshraghian et al. 2023, Training
    spiking neural networks using lessons from deep learning; read in snntorch 1.0, Leaky. beta: decay per step.
    """

    domains: ClassVar[Mapping[str, Domain]] = {"beta": DECAY, "theta": POSITIVE}

    beta: Tensor
    theta: Tensor
    reset: LateReset = "subtract"
    delay: bool = True


@dataclass(frozen=True, eq=False)
class Synaptic(Decaying):
    """s <- alpha s + i;  v <- beta v + s, then v - r theta ("subtract"), (1 - r) v ("zero") or v;  z = [v > theta].

    A current s that decays by alpha drives a membrane that decays by beta; the reset leaves s alone. r and `delay` as
    in `Decaying`. Read in snntorch 1.0, Synaptic.
    """

    domains: ClassVar[Mapping[str, Domain]] = {"alpha": DECAY, "beta": DECAY, "theta": POSITIVE}

    alpha: Tensor
    beta: Tensor
    theta: Tensor
    reset: LateReset = "subtract"
    delay: bool = True


@dataclass(frozen=True, eq=False)
class Alpha(Decaying):
    """e <- alpha e + i;  h <- beta h - i;  v = tau (e + h);  z = [v > theta];  tau = ln alpha / ln (beta / alpha) + 1.

    The response to an impulse is a difference of exponentials. With r as in `Decaying`, always delayed: "zero" takes e,
    h and v to 0; "subtract" takes theta off e, h to 0, and adds to v the h of the step before: so the library does it.
    beta < alpha <= 1. Read in snntorch 1.0, Alpha.
    """

    domains: ClassVar[Mapping[str, Domain]] = {"alpha": DECAY, "beta": DECAY, "theta": POSITIVE}

    alpha: Tensor
    beta: Tensor
    theta: Tensor
    reset: LateReset = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool((self.alpha.detach() <= self.beta.detach()).any()):
            raise ParameterError("Alpha: alpha must be greater than beta everywhere")

    def bounds(self, name: str) -> tuple[Tensor | float, Tensor | float]:
        low, high = super().bounds(name)
        if name == "alpha":
            return (self.beta.detach() + CLOSEST).clamp(max=1), high
        return (low, (self.alpha.detach() - CLOSEST).clamp(min=0)) if name == "beta" else (low, high)

    @property
    def tau(self) -> Tensor:
        """The factor between the two currents and the potential."""
        return torch.log(self.alpha) / (torch.log(self.beta) - torch.log(self.alpha)) + 1
