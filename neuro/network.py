"""The torch.nn.Module of a Graph: the same nodes, with weights that learn, all steps of time at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from neuro.dynamics import State
from neuro.errors import ParameterError, ShapeError, UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Node
from neuro.nodes import (
    Accumulate,
    BatchNorm,
    Corrected,
    CountThenFire,
    Delay,
    Dropout,
    GradedSpiking,
    MaxCountAgain,
    Neuron,
    Recurrent,
    Scale,
    Weighted,
)
from neuro.projection import within
from neuro.surrogate import ArcTan, Surrogate
from neuro.unrolled import KERNELS, Kernel, Trajectory, Unrolled

STATISTICS = ("mean", "var")
"""Fields of BatchNorm that are measured, not learnt."""

UNTRAINABLE = (GradedSpiking, CountThenFire, Accumulate, Corrected, MaxCountAgain)
"""Populations that no gradient passes, or that see their input twice."""

Path = tuple[str, ...]
"""The name of a node; within a loop, that of the loop before it."""

Frozen = TypeVar("Frozen", bound=Node | Graph)


class Network(nn.Module):
    """A module with the function of `graph`.

    Without neurons `network(x)` takes (batch, *features) and gives (batch, *outputs). With neurons it takes
    (time, batch, *features), or (batch, *features) held as a constant current over `steps`, and gives
    (time, batch, *outputs), what leaves the last node at every step: the spikes of `simulate(network.graph, x)`, bit
    for bit where both run on kernel "reference"; others add in another order. Layers compute all steps at once; within
    a `Recurrent` steps follow each other.

    Parameters are all floating-point tensors of the nodes that compute; the statistics of batch norms are buffers and
    integers stay as they are. Of populations those tensors learn that require a gradient in the graph, as
    `neuro.modules` says, or that `learn` names: fields, as "beta", or single ones, as "hidden/beta". They stay in their
    domain (decays in [0, 1], thresholds above 0), see `neuro.projection`.

    surrogate: the slope of a spike in the backward pass; surrogates: others for the populations of those names. Resets
    let no gradient through. kernel: as in `neuro.kernels.through_time`, or "scan" for `neuro.kernels.scan` where it
    applies. checkpoint: k > 0 keeps, during the forward pass, only the states after every k steps and computes the rest
    again in the backward pass: memory for k steps instead of all, the same gradients but for the order of sums.

    In training mode, batch norms use and follow the statistics of the batch (momentum 0.1) and dropout drops, as in
    torch; over time, statistics are those of all steps, and dropout drops the same values at every step. Under
    `torch.autocast` weighted nodes and scales compute in its precision, membranes in 32 bits. A tensor is called as its
    node, with "/" for ".", then "/" and the field: "layer1/0/conv1/weight". Raises UnsupportedNode for populations
    that cannot be trained so, ParameterError and ShapeError for arguments out of their domain.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        surrogate: Surrogate | None = None,
        surrogates: Mapping[str, Surrogate] | None = None,
        kernel: Kernel = "auto",
        checkpoint: int = 0,
        learn: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        odd = [f"{node.kind} {name!r}" for name, node in graph.nodes.items() if isinstance(node, UNTRAINABLE)]
        if odd:
            raise UnsupportedNode(
                f"{graph.name!r} holds populations that do not train through time ({', '.join(odd[:3])}); train before "
                "the conversion, e.g. with converters.QCFS, or use those of neuro.modules"
            )
        if isinstance(checkpoint, bool) or not isinstance(checkpoint, int) or checkpoint < 0:
            raise ParameterError(f"Network: checkpoint must be a number of steps >= 0, got {checkpoint!r}")
        if kernel not in KERNELS:
            raise ParameterError(f"Network: kernel must be one of {', '.join(map(repr, KERNELS))}, got {kernel!r}")
        self.kernel, self.checkpoint = kernel, checkpoint
        self._frozen = graph
        self._surrogates = _chosen(graph, surrogate or ArcTan(), surrogates or {})
        self._places: dict[Path, list[tuple[str, str]]] = {}
        self._normalises = False
        learnable: set[str] = set()
        for path, node, item, tensor in _floating(graph, ()):
            key, own = self._key(path, item), tensor.detach().clone()
            self._places.setdefault(path, []).append((item, key))
            learns = not (isinstance(node, BatchNorm) and item in STATISTICS)
            self._normalises |= isinstance(node, BatchNorm)
            if isinstance(node, Neuron):
                learns = tensor.requires_grad if learn is None else bool({item, key} & set(learn))
                learnable |= {item, key}
            if learns:
                self.register_parameter(key, nn.Parameter(own))
            else:
                self.register_buffer(key, own)
        if learn is not None and (unknown := set(learn) - learnable):
            known = sorted(item for item in learnable if "/" not in item)
            raise ParameterError(f"Network: learn names {sorted(unknown)}; populations of {graph.name!r} have {known}")

    def _key(self, path: Path, item: str) -> str:
        """A name that torch allows: no dots, and no attribute of the module, which "/" rules out."""
        stem = "/".join(path).replace(".", "/")
        key, number = f"{stem}/{item}", 2
        while key in self._parameters or key in self._buffers:
            key, number = f"{stem}_{number}/{item}", number + 1
        return key

    @property
    def graph(self) -> Graph:
        """The graph with the weights of this moment, on their own; ParameterError where they left their domain."""
        with torch.no_grad():
            return self._own(self._frozen, ())

    def _own(self, graph: Graph, path: Path) -> Graph:
        nodes: dict[str, Node] = {}
        for name, node in graph.nodes.items():
            here = (*path, name)
            found = self._tensors(here, node)
            own = {item: t.detach().clone(memory_format=torch.contiguous_format) for item, t in found.items()}
            nodes[name] = replace(node, **own)
            if isinstance(node, Recurrent):
                nodes[name] = replace(node, body=self._own(node.body, here))
        return graph.edit(nodes=nodes)

    def live(self) -> Graph:
        """The graph whose tensors are the parameters themselves: gradients flow through it into this module.

        In training mode and under autocast its nodes are those of that mode. Not checked: checks read all weights back.
        """
        return self._live_graph(self._frozen, ())

    def _live_graph(self, graph: Graph, path: Path) -> Graph:
        nodes = {name: self._live(node, (*path, name)) for name, node in graph.nodes.items()}
        return _unchecked(graph, {"nodes": MappingProxyType(nodes)})

    def _live(self, node: Node, path: Path) -> Node:
        """The node with the tensors that learn in place of its own."""
        if self.training and isinstance(node, Dropout):
            return _Dropping(node.p)
        if isinstance(node, Recurrent):
            return _unchecked(node, {"body": self._live_graph(node.body, path)})
        tensors = self._tensors(path, node)
        if not tensors:
            return node
        device = next(iter(tensors.values())).device.type
        if isinstance(node, Weighted | Scale) and torch.is_autocast_enabled(device):
            # Weighted nodes take their input to the type of the weights.
            tensors = {item: tensor.to(torch.get_autocast_dtype(device)) for item, tensor in tensors.items()}
        kind = _Normalising if self.training and isinstance(node, BatchNorm) else type(node)
        return _unchecked(node, tensors, kind)

    def _tensors(self, path: Path, node: Node) -> dict[str, Tensor]:
        """The floating-point tensors of a node as they are now, those of a population within their domain."""
        places = self._places.get(path, ())
        tensors: dict[str, Tensor] = {item: getattr(self, key) for item, key in places}
        if isinstance(node, Neuron):
            now = _unchecked(node, tensors)
            for item, key in places:
                if key in self._parameters and item in node.domains:
                    tensors[item] = within(tensors[item], *now.bounds(item))
        return tensors

    def forward(
        self, x: Tensor, steps: int | None = None, *, states: Mapping[str, State] | None = None, record: bool = False
    ) -> Tensor | Trajectory:
        """The outputs of every step; with `record` a `Trajectory`, which has the spikes and states too.

        `states`, those of an earlier call, let the populations go on where they were.
        """
        if not self._surrogates:
            if steps is not None or states or record:
                raise ParameterError(f"{self._frozen.name!r} has no neurons: it takes (batch, *features) alone")
            return evaluate(self.live(), x)
        trajectory = self._over_time(x, steps, states or {}, record)
        return trajectory if record else trajectory.outputs

    @torch.compiler.disable
    def _over_time(self, x: Tensor, steps: int | None, states: Mapping[str, State], record: bool) -> Trajectory:
        series, steps = self._series(x, steps)
        if states and set(states) != set(self._surrogates):
            raise ParameterError(f"Network: states must be those of {sorted(self._surrogates)}, got {sorted(states)}")
        graph = self.live()
        kept = {
            name: F.dropout(torch.ones(series.shape[1], *graph.shapes[name], device=x.device), node.p)
            for name, node in graph.nodes.items()
            if isinstance(node, _Dropping)
        }
        unrolled = Unrolled(graph, self._surrogates, self.kernel, kept, record)
        if self.checkpoint and torch.is_grad_enabled():
            if self.training and self._normalises:
                raise ParameterError(
                    f"{graph.name!r}: checkpoint cuts time, and batch norms in training need all steps at once; "
                    "use checkpoint=0, or put the network in eval mode"
                )
            return _in_parts(unrolled, series, steps, states, self.checkpoint)
        return unrolled.run(series, steps, states)

    def _series(self, x: Tensor, steps: int | None) -> tuple[Tensor, int]:
        """x with time first, one step where it is constant, and how many steps there are."""
        graph = self._frozen
        if len(graph.inputs) != 1:
            raise ParameterError(f"{graph.name!r} has {len(graph.inputs)} inputs; over time, Network takes one")
        shape = graph.shapes[graph.inputs[0]]
        x = x if x.is_floating_point() else x.float()
        if tuple(x.shape[2:]) == shape and x.ndim == len(shape) + 2 and len(x):
            if steps not in (None, len(x)):
                raise ParameterError(f"{graph.name!r}: x has {len(x)} steps, not {steps}; leave steps out")
            held = x.stride(0) == 0  # expanded over time, as `neuro.encode.Constant` does
            return x[:1] if held else x, len(x)
        if tuple(x.shape[1:]) != shape or x.ndim != len(shape) + 1:
            sizes = ", ".join(map(str, shape))
            raise ShapeError(f"{graph.name!r} takes (time, batch, {sizes}) or (batch, {sizes}), got {tuple(x.shape)}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ParameterError(f"{graph.name!r}: say how many steps >= 1 to hold x for, e.g. steps=25; got {steps!r}")
        return x[None], steps

    def extra_repr(self) -> str:
        return "\n".join(f"{name}: {_described(node)}" for name, node in self._frozen.nodes.items())


def _chosen(graph: Graph, surrogate: Surrogate, others: Mapping[str, Surrogate]) -> dict[str, Surrogate]:
    """The surrogate of every population."""
    populations = [name for name, node in graph.nodes.items() if isinstance(node, Neuron)]
    if unknown := set(others) - set(populations):
        raise ParameterError(
            f"Network: surrogates names {sorted(unknown)}; of populations {graph.name!r} has {populations[:10]}"
        )
    return dict.fromkeys(populations, surrogate) | dict(others)


def _floating(graph: Graph, path: Path) -> Iterator[tuple[Path, Node, str, Tensor]]:
    """The floating-point tensors of a graph and of the loops in it."""
    _ = graph.output, graph.targets  # known before the first copy, so that every copy has them
    for name, node in graph.nodes.items():
        here = (*path, name)
        for item, tensor in node.tensors():
            if tensor.is_floating_point() and not isinstance(node, Delay):
                yield here, node, item, tensor
        if isinstance(node, Recurrent):
            yield from _floating(node.body, here)


def _unchecked(value: Frozen, new: Mapping[str, object], kind: type | None = None) -> Frozen:
    """`replace` without the checks of a birth, and as another kind if one is given."""
    other: Frozen = object.__new__(kind or type(value))
    other.__dict__.update({**value.__dict__, **new})
    return other


def _in_parts(unrolled: Unrolled, series: Tensor, steps: int, states: Mapping[str, State], length: int) -> Trajectory:
    """The same run in parts of `length` steps, each of which the backward pass computes again."""
    parts: list[Trajectory] = []
    for begin in range(0, steps, length):
        part = series[begin : begin + length] if len(series) > 1 else series
        parts.append(recomputed(unrolled.run, part, min(length, steps - begin), states, use_reentrant=False))
        states = parts[-1].states
    spikes = {name: torch.cat([part.spikes[name] for part in parts]) for name in parts[0].spikes}
    return Trajectory(torch.cat([part.outputs for part in parts]), spikes, dict(states))


class _Normalising(BatchNorm):
    """Batch norm with the statistics of the batch; its own follow them."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.batch_norm(inputs[0], self.mean, self.var, self.weight, self.bias, training=True, eps=self.eps)


class _Dropping(Dropout):
    def forward(self, *inputs: Tensor) -> Tensor:
        return F.dropout(inputs[0], self.p, training=True)


def _described(node: Node) -> str:
    values = {item.name: getattr(node, item.name) for item in fields(node)}
    shown = {name: tuple(v.shape) if isinstance(v, Tensor) else v for name, v in values.items()}
    return f"{node.kind}({', '.join(f'{name}={value}' for name, value in shown.items())})"
