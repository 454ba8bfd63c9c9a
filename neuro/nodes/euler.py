"""Populations integrated by Euler steps towards a leak potential, in the order of operations of Norse.

Rates are dt / tau, the share of the way that one step goes. Everything else is in the units of the membrane potential.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from neuro.nodes.neurons import POSITIVE, Domain, Neuron, Spiking

ValueReset = Literal["value", "subtract"]


RATE = POSITIVE._replace(rule="= dt / tau must be > 0")


class Euler(Spiking):
    """A population that starts at v_leak and fires where v > theta; theta may lie below 0.

    Reset "value" takes v to v_reset, "subtract" takes theta off.
    """

    resets: ClassVar[tuple[str, ...]] = ("value", "subtract")
    domains: ClassVar[Mapping[str, Domain]] = {}

    theta: Tensor
    v_leak: Tensor
    v_reset: Tensor
    reset: ValueReset  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class CurrentLIF(Euler):
    """s <- s + i;  v <- v + rate_mem ((v_leak - v) + s);  s <- s - rate_syn s;  z = [v > theta];  then the reset.

    A current s that jumps with the input and decays. `lif_feed_forward_step` of norse 1.1.
    """

    domains: ClassVar[Mapping[str, Domain]] = {"rate_syn": RATE, "rate_mem": RATE}

    rate_syn: Tensor
    rate_mem: Tensor
    theta: Tensor
    v_leak: Tensor
    v_reset: Tensor
    reset: ValueReset = "value"


@dataclass(frozen=True, eq=False)
class BoxLIF(Euler):
    """v <- v + rate_mem ((i + v_leak) - v);  z = [v > theta];  then the reset.

    The input drives the membrane for this step only. `lif_box_feed_forward_step` of norse 1.1.
    """

    domains: ClassVar[Mapping[str, Domain]] = {"rate_mem": RATE}

    rate_mem: Tensor
    theta: Tensor
    v_leak: Tensor
    v_reset: Tensor
    reset: ValueReset = "value"


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

    domains: ClassVar[Mapping[str, Domain]] = {"rate_syn": RATE, "rate_mem": RATE}

    rate_syn: Tensor
    rate_mem: Tensor
    v_leak: Tensor
