"""Networks of Norse neurons: Euler steps in the order of operations of that library."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from converters.read.one_step import Cell, Peer, one_step
from neuro.errors import BackendMissing, ParameterError
from neuro.graph import Graph, Input, Node, Shape
from neuro.nodes import IAF, IF, Add, Affine, BoxLIF, CurrentLI, CurrentLIF, Recurrent


def from_norse(
    module: nn.Module, example: Tensor, *, output: int = 0, time: bool = False, name: str | None = None
) -> Graph:
    """The Graph of one time step of `module`, a network with Norse neurons (1.1): the same spikes from rest.

    `example` (batch, *features) is one step of input for a network of cells (LIFCell, LIFBoxCell, LICell, LIBoxCell,
    IAFCell, LIFRecurrentCell) in a SequentialState or a forward that takes and returns the states; with `time` it is
    (time, batch, *features), for a network of sequence modules (LIF, LI, IAF, LIFRecurrent, with Lift around what knows
    no time) or a forward that loops over its first dimension. The module is left as it was. Where forward returns
    several values, the `output` of that number counts. Recurrent currents are added in another order, so that their
    sums may round otherwise.

    The Euler step dt / tau is kept, dt itself is not: it becomes one step of the Graph. The graph is run beside the
    module for some steps. Raises UnsupportedNode for other neurons and for forwards that do more
    than repeat one step; ParameterError for thresholds and time constants without meaning; BackendMissing without
    norse.
    """
    return one_step(module, example, _peer(), output, time, name)


def _peer() -> Peer:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import norse.torch as norse
            from norse.torch.module.snn import SNN, SNNCell, SNNRecurrent, SNNRecurrentCell
    except ImportError as error:
        raise BackendMissing("Norse is not installed; pip install norse") from error
    made: dict[type, Callable[[Any, Shape], Node | Graph]] = {
        norse.LIFCell: _lif, norse.LIF: _lif, norse.LIFBoxCell: _box, norse.LICell: _li, norse.LI: _li,
        norse.LIBoxCell: _li_box, norse.IAFCell: _iaf, norse.IAF: _iaf, norse.LIFRecurrentCell: _lif_recurrent,
        norse.LIFRecurrent: _lif_recurrent,
    }  # fmt: skip
    cells = {kind: Cell(make, lambda part: None, lambda part, z, v: (z, v)) for kind, make in made.items()}

    def forward(part: nn.Module, whole: bool) -> Callable | None:
        if isinstance(part, norse.Lift):
            return lambda x: part.lifted_module(x)
        if isinstance(part, nn.Flatten) and whole and part.start_dim > 1:
            # Time comes first there, and is not among the dimensions of one step.
            end = part.end_dim - 1 if part.end_dim > 0 else part.end_dim
            return lambda x: x.flatten(part.start_dim - 1, end)
        return None

    def whole(module: nn.Module) -> bool:
        return any(isinstance(part, (SNN, SNNRecurrent)) for part in module.modules())

    neurons = (SNN, SNNCell, SNNRecurrent, SNNRecurrentCell)
    return Peer("Norse", cells, neurons, forward=forward, whole=whole)


def _own(value: object) -> Tensor:
    return torch.as_tensor(value).detach().to("cpu", torch.float32, copy=True)


def _rate(part: Any, inverse: Any) -> Tensor:
    """dt / tau as the library multiplies it."""
    return _own(part.dt * inverse)


def _lif(part: Any, shape: Shape) -> CurrentLIF:
    p = part.p
    return CurrentLIF(
        _rate(part, p.tau_syn_inv), _rate(part, p.tau_mem_inv), _own(p.v_th), _own(p.v_leak), _own(p.v_reset)
    )


def _lif_recurrent(part: Any, shape: Shape) -> Node:
    back = Affine(_own(part.recurrent_weights))
    nodes: dict[str, Node] = {
        "input": Input(shape), "before": Input((back.weight.shape[0],)), "in": Affine(_own(part.input_weights)),
        "back": back, "sum": Add(), "population": _lif(part, shape),
    }  # fmt: skip
    sources = {"in": ("input",), "back": ("before",), "sum": ("in", "back"), "population": ("sum",)}
    return Recurrent(Graph(nodes, sources, "recurrent"))


def _box(part: Any, shape: Shape) -> Node:
    from norse.torch.functional.reset import reset_subtract, reset_value

    p, known = part.p, {reset_value: "value", reset_subtract: "subtract"}
    if p.reset_method not in known:
        raise ParameterError(
            "Norse LIFBoxCell: reset_method must be reset_value or reset_subtract; others have no node"
        )
    return BoxLIF(_rate(part, p.tau_mem_inv), _own(p.v_th), _own(p.v_leak), _own(p.v_reset), known[p.reset_method])  # type: ignore[arg-type]


def _li(part: Any, shape: Shape) -> Node:
    p = part.p
    return CurrentLI(_rate(part, p.tau_syn_inv), _rate(part, p.tau_mem_inv), _own(p.v_leak))


def _li_box(part: Any, shape: Shape) -> Node:
    return CurrentLI(torch.ones(()), _rate(part, part.p.tau_mem_inv), _own(part.p.v_leak))


def _iaf(part: Any, shape: Shape) -> Node:
    theta, reset = _own(part.p.v_th), _own(part.p.v_reset)
    if bool((reset == 0).all()) and bool((theta > 0).all()):
        # v > theta is v >= the next float.
        return IF(torch.nextafter(theta, torch.tensor(torch.inf)), torch.zeros(()), "zero")
    return IAF(theta, reset)
