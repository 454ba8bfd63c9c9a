"""A Graph as a network of Norse, to be trained there."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from converters.read.to_modules import NoForm, Wired, is_chain, parts_of
from converters.read.to_snntorch import below
from neuro.errors import BackendMissing, ParameterError
from neuro.graph import Graph, Shape
from neuro.nodes import IAF, IF, BoxLIF, CurrentLI, CurrentLIF, Neuron


def to_norse(graph: Graph, dt: float = 1.0) -> nn.Module:
    """One step of `graph` as cells of Norse 1.1: a SequentialState where it is a chain, else a `Wired` module.

    `forward(x, state=None)` on (batch, *features) gives what comes out and the states. Time constants become
    tau = dt / rate for steps of `dt` [s]: with a power of two, such as 1, nothing is rounded and the spikes are those
    of the graph. IF with reset "zero" and v0 = 0, IAF, BoxLIF, CurrentLIF and CurrentLI have a form; LIF and LI have
    not, for a cell of Norse weighs its input with dt / tau. Raises UnsupportedNode listing every node without a form,
    ParameterError for a bad dt, BackendMissing without norse.
    """
    if not (isinstance(dt, (int, float)) and math.isfinite(dt) and dt > 0):
        raise ParameterError(f"to_norse: dt must be > 0 s, got {dt!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import norse.torch as norse
    except ImportError as error:
        raise BackendMissing("Norse is not installed; pip install norse") from error

    def neuron(node: Neuron, shape: Shape) -> nn.Module:
        return _cell(norse, node, float(dt))

    parts, sources = parts_of(graph, "Norse", neuron)
    if is_chain(sources):
        return norse.SequentialState(*parts)
    cells = [number for number, part in enumerate(parts) if isinstance(part, norse.module.snn.SNNCell)]
    return Wired(parts, sources, cells)


def _cell(norse: Any, node: Neuron, dt: float) -> nn.Module:
    if isinstance(node, CurrentLIF) and node.reset == "value":
        return norse.LIFCell(
            norse.LIFParameters(
                _own(node.rate_syn) / dt,
                _own(node.rate_mem) / dt,
                _own(node.v_leak),
                _own(node.theta),
                _own(node.v_reset),
            ),
            dt=dt,
        )
    if isinstance(node, BoxLIF):
        from norse.torch.functional.reset import reset_subtract, reset_value

        return norse.LIFBoxCell(
            norse.LIFBoxParameters(
                _own(node.rate_mem) / dt, _own(node.v_leak), _own(node.theta), _own(node.v_reset),
                reset_method=reset_value if node.reset == "value" else reset_subtract,
            ),
            dt=dt,
        )  # fmt: skip
    if isinstance(node, CurrentLI):
        mem, leak = _own(node.rate_mem) / dt, _own(node.v_leak)
        if bool((node.rate_syn == 1).all()):
            return norse.LIBoxCell(norse.LIBoxParameters(mem, leak), dt=dt)
        return norse.LICell(norse.LIParameters(_own(node.rate_syn) / dt, mem, leak), dt=dt)
    if isinstance(node, IAF) and node.reset == "value":
        return norse.IAFCell(norse.IAFParameters(_own(node.theta), _own(node.v_reset)), dt=dt)
    if isinstance(node, IF):
        if node.reset != "zero" or bool((node.v0 != 0).any()):
            raise NoForm('an IAFCell starts at its v_reset and returns to it; use reset "zero" and v0 = 0')
        return norse.IAFCell(norse.IAFParameters(below(node.theta), torch.zeros(())), dt=dt)
    raise NoForm("no neuron of Norse does this")


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().float().clone()
