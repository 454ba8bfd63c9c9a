"""A Graph as a network of snnTorch, to be trained there."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from converters.read.to_modules import NoForm, Wired, is_chain, parts_of
from neuro.errors import BackendMissing, ParameterError
from neuro.graph import Graph, Shape
from neuro.nodes import IF, LI, LIF, Alpha, Leaky, Neuron, Synaptic

LOSSES = ("late spikes", "v0")


def to_snntorch(graph: Graph, allow: Collection[str] = ()) -> nn.Module:
    """One step of `graph` as modules of snnTorch 1.0: an nn.Sequential where it is a chain, else a `Wired` module.

    The populations keep their states (`init_hidden=True`): call it once per step on (batch, *features), after
    `snntorch.utils.reset`. Same spikes as the graph. An `LI` may only be the last node; forward then returns (spikes,
    potential). Two things can be lost, where `allow` names them: "late spikes", for IF and LIF with reset "subtract",
    which snnTorch compares again after subtracting, so that neurons above twice the threshold fire otherwise; and "v0",
    initial potentials, which it has not. Raises UnsupportedNode listing every node without an exact form,
    ParameterError for unknown losses, BackendMissing without snntorch.
    """
    for loss in allow:
        if loss not in LOSSES:
            raise ParameterError(f"to_snntorch: allow takes {', '.join(map(repr, LOSSES))}, got {loss!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import snntorch as snn
    except ImportError as error:
        raise BackendMissing("snnTorch is not installed; pip install snntorch") from error

    def neuron(node: Neuron, shape: Shape) -> nn.Module:
        return _population(snn, node, node is graph.nodes[graph.output], allow)

    parts, sources = parts_of(graph, "snnTorch", neuron)
    return nn.Sequential(*parts) if is_chain(sources) else Wired(parts, sources, ())


def _population(snn: Any, node: Neuron, last: bool, allow: Collection[str]) -> nn.Module:
    hidden: dict[str, Any] = {"init_hidden": True}
    if isinstance(node, Leaky):
        return snn.Leaky(
            _own(node.beta), _own(node.theta), reset_mechanism=node.reset, reset_delay=node.delay, **hidden
        )
    if isinstance(node, Synaptic):
        return snn.Synaptic(
            _own(node.alpha), _own(node.beta), _own(node.theta), reset_mechanism=node.reset, reset_delay=node.delay,
            **hidden,
        )  # fmt: skip
    if isinstance(node, Alpha):
        return snn.Alpha(_own(node.alpha), _own(node.beta), _own(node.theta), reset_mechanism=node.reset, **hidden)
    if isinstance(node, LI):
        if not last:
            raise NoForm("only the spikes of a population reach the next layer, not its potential")
        return snn.Leaky(_own(node.beta), reset_mechanism="none", output=True, **hidden)
    if isinstance(node, IF | LIF):
        if bool((node.v0 != 0).any()) and "v0" not in allow:
            raise NoForm('starts at v0 != 0, snnTorch at 0; allow=("v0",) forgets v0')
        if node.reset == "subtract" and "late spikes" not in allow:
            raise NoForm('reset "subtract" differs above twice the threshold; allow=("late spikes",) accepts that')
        beta = _own(node.beta) if isinstance(node, LIF) else torch.ones(())
        return snn.Leaky(
            beta, below(node.theta), reset_mechanism=node.reset, reset_delay=node.reset == "zero", **hidden
        )
    raise NoForm("no neuron of snnTorch does this")


def below(theta: Tensor) -> Tensor:
    """The threshold that v > threshold passes exactly where v >= theta."""
    return torch.nextafter(_own(theta), torch.tensor(-torch.inf))


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().float().clone()
