"""Populations integrated by Euler steps towards a leak potential, in the order of operations of Norse.

Rates are dt / tau, the share of the way that one step goes. Everything else is in the units of the membrane potential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from neuro.errors import ParameterError
from neuro.nodes.neurons import Neuron, Spiking

ValueReset = Literal["value", "subtract"]


def _check_rates(kind: str, **rates: Tensor) -> None:
    for name, rate in rates.items():
        if bool((rate.detach() <= 0).any()):
            raise ParameterError(f"{kind}: {name} = dt / tau must be > 0, got {float(rate.detach().min())}")


class Euler(Spiking):
    """A population that starts at v_leak and fires where v > theta; theta may lie below 0.

    Reset "value" takes v to v_reset, "subtract" takes theta off.
    """

    resets: ClassVar[tuple[str, ...]] = ("value", "subtract")

    theta: Tensor
    v_leak: Tensor
    v_reset: Tensor
    reset: ValueReset  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.check_reset()
        Neuron.__post_init__(self)


@dataclass(frozen=True, eq=False)
class CurrentLIF(Euler):
    """s <- s + i;  v <- v + rate_mem ((v_leak - v) + s);  s <- s - rate_syn s;  z = [v > theta];  then the reset.

    A current s that jumps with the input and decays. `lif_feed_forward_step` of norse 1.1.
    """

    rate_syn: Tensor
    rate_mem: Tensor
    theta: Tensor
    v_leak: Tensor
    v_reset: Tensor
    reset: ValueReset = "value"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rates(self.kind, rate_syn=self.rate_syn, rate_mem=self.rate_mem)


@dataclass(frozen=True, eq=False)
class BoxLIF(Euler):
    """v <- v + rate_mem ((i + v_leak) - v);  z = [v > theta];  then the reset.

    The input drives the membrane for this step only. `lif_box_feed_forward_step` of norse 1.1.
    """

    rate_mem: Tensor
    theta: Tensor
    v_leak: Tensor
    v_reset: Tensor
    reset: ValueReset = "value"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rates(self.kind, rate_mem=self.rate_mem)


@dataclass(frozen=True, eq=False)
class IAF(Euler):
    """v <- v + i;  z = [v > theta];  then v_reset where it fired. Starts at v_reset.

    With v_reset = 0 it is `IF` with reset "zero" and the next larger float for theta. `iaf_feed_forward_step` of
    norse 1.1.
    """

    theta: Tensor
    v_reset: Tensor
    reset: ValueReset = "value"


@dataclass(frozen=True, eq=False)
class CurrentLI(Neuron):
    """s <- s + i;  v <- v + rate_mem ((v_leak - v) + s);  s <- s - rate_syn s;  the output is v: it never fires.

    With rate_syn = 1 the input drives the membrane for its own step only. `li_feed_forward_step` and
    `li_box_feed_forward_step` of norse 1.1.
    """

    rate_syn: Tensor
    rate_mem: Tensor
    v_leak: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rates(self.kind, rate_syn=self.rate_syn, rate_mem=self.rate_mem)
