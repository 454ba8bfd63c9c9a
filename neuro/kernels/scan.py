"""Membranes that are never reset are linear in their input: all their steps at once, by an associative scan.

(a, v) o (b, w) = (a b, b v + w) composes two steps v <- beta v + i. Doubling the span of the composed steps gives all
prefixes in log2 T rounds of elementwise work (Hillis and Steele 1986, Data parallel algorithms [recalled]; for spiking
neurons Fang et al. 2023, Parallel spiking neurons [recalled]). It sums in another order than step after step does, so
potentials agree up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.dynamics import State, rest
from neuro.nodes import IF, LI, LIF, Neuron
from neuro.surrogate import Surrogate, spike


def supports(node: Neuron) -> bool:
    """Whether a population is linear up to its threshold: LI, and IF and LIF without reset."""
    return type(node) is LI or (type(node) in (IF, LIF) and node.reset == "none")  # type: ignore[attr-defined]


def run(node: Neuron, current: Tensor, surrogate: Surrogate, state: State | None = None) -> tuple[Tensor, State]:
    """The contract of `neuro.kernels.through_time.run`, for the populations that `supports` names."""
    steps, batch, *features = current.shape
    if state is None:
        state = rest(node, batch, tuple(features), current.dtype, current.device)
    beta = torch.ones_like(current[0, 0]) if isinstance(node, IF) else node.beta  # type: ignore[attr-defined]
    v = potentials(beta, current, state.v)
    after = State(v[-1], state.t + steps)
    return v if isinstance(node, LI) else spike(v - node.theta, surrogate), after  # type: ignore[attr-defined]


def potentials(beta: Tensor, current: Tensor, v: Tensor) -> Tensor:
    """v_t = beta v_(t-1) + i_t for all t: (time, batch, *features) from currents of that shape and the v before."""
    series = torch.cat(((beta * v + current[0])[None], current[1:]))
    span, decay = 1, beta
    while span < len(series):
        series = torch.cat((series[:span], series[span:] + decay * series[:-span]))
        span, decay = 2 * span, decay * decay
    return series
