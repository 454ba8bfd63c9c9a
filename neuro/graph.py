"""A network is a value: frozen nodes, named edges, shapes and dtypes checked once, at birth."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from neuro.errors import NeuroError, ParameterError, ShapeError

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node(ABC):
    """One operation of a network. Its fields are its parameters; its docstring is its equation, units and source.

    Tensors among the fields must be finite and real. Shapes never contain the batch or the time dimension.
    """

    arity: ClassVar[int | None] = 1
    """How many inputs the node takes; None means two or more."""

    def __post_init__(self) -> None:
        for name, tensor in self.tensors():
            if tensor.is_complex():
                raise ParameterError(f"{self.kind}: {name} is complex; only real parameters are supported")
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach()).all()):
                bad = int((~torch.isfinite(tensor.detach())).sum())
                raise ParameterError(f"{self.kind}: {name} holds {bad} NaN or infinite values; repair the weights")

    @property
    def kind(self) -> str:
        return type(self).__name__

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensor fields of the node, in the order of their definition."""
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                yield item.name, value

    @property
    def parameters(self) -> int:
        """How many numbers the node stores."""
        return sum(tensor.numel() for _, tensor in self.tensors())

    @abstractmethod
    def output_shape(self, *shapes: Shape) -> Shape:
        """Feature shape of the output for the feature shapes of the inputs; raises ShapeError."""

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        """Element type of the output for the element types of the inputs; raises ShapeError."""
        return dtypes[0]


class Stateless(Node):
    """A node whose output depends on its input of the same instant only."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """`(batch, *shape)` in, `(batch, *output_shape)` out."""


def broadcast_onto(shape: Shape, node: Node) -> Shape:
    """`shape`, where every tensor of `node` broadcasts against features of it; ShapeError otherwise."""
    for name, tensor in node.tensors():
        try:
            fits = torch.broadcast_shapes(shape, tensor.shape) == torch.Size(shape)
        except RuntimeError:
            fits = False
        if not fits:
            raise ShapeError(
                f"{node.kind}: {name} of shape {tuple(tensor.shape)} does not broadcast to features {shape}"
            )
    return shape


@dataclass(frozen=True, eq=False)
class Input(Node):
    """Where a sample enters: `shape` without batch or time."""

    shape: Shape
    arity: ClassVar[int | None] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(size < 1 for size in self.shape):
            raise ParameterError(f"Input: every size of the shape must be at least 1, got {self.shape}")

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.shape

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        return torch.float32


@dataclass(frozen=True)
class Change:
    """What a conversion did to one node: `was` became `became`, because `why`."""

    node: str
    was: str
    became: str
    why: str

    def __str__(self) -> str:
        return f"{self.node}: {self.was} -> {self.became} ({self.why})"


@dataclass(frozen=True, eq=False)
class Graph:
    """A directed acyclic network of named nodes.

    `nodes` maps names to nodes and `sources` maps each name to the ordered names of its inputs. The nodes are kept in
    a topological order that respects the order given. `shapes` and `dtypes` hold, for every name, what leaves the node.
    `history` says what conversions did to reach this graph. Raises ParameterError for dangling or cyclic edges and
    ShapeError where two neighbours do not fit.
    """

    nodes: Mapping[str, Node]
    sources: Mapping[str, tuple[str, ...]]
    name: str = "network"
    history: tuple[Change, ...] = ()
    shapes: Mapping[str, Shape] = field(init=False, repr=False)
    dtypes: Mapping[str, torch.dtype] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        order = _topological(self.nodes, self.sources, self.name)
        nodes = {name: self.nodes[name] for name in order}
        sources = {name: tuple(self.sources.get(name, ())) for name in order}
        shapes: dict[str, Shape] = {}
        dtypes: dict[str, torch.dtype] = {}
        for name, node in nodes.items():
            given = sources[name]
            expected = node.arity
            if (len(given) < 2) if expected is None else (len(given) != expected):
                wanted = "two or more inputs" if expected is None else f"{expected} input(s)"
                raise ShapeError(f"{node.kind} {name!r}: takes {wanted}, got {len(given)}")
            try:
                shapes[name] = node.output_shape(*(shapes[source] for source in given))
                dtypes[name] = node.output_dtype(*(dtypes[source] for source in given))
            except NeuroError as error:
                error.add_note(f"at node {name!r} of {self.name!r}")
                raise
        for key, value in (("nodes", nodes), ("sources", sources), ("shapes", shapes), ("dtypes", dtypes)):
            object.__setattr__(self, key, MappingProxyType(value))

    @cached_property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """For every name, the names that read its output."""
        found: dict[str, list[str]] = {name: [] for name in self.nodes}
        for name, given in self.sources.items():
            for source in given:
                found[source].append(name)
        return MappingProxyType({name: tuple(names) for name, names in found.items()})

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name, node in self.nodes.items() if isinstance(node, Input))

    @cached_property
    def output(self) -> str:
        """The one node whose output nobody reads."""
        sinks = [name for name in self.nodes if not self.targets[name]]
        if len(sinks) != 1:
            raise ParameterError(
                f"{self.name!r} has {len(sinks)} outputs ({', '.join(sinks)}); exactly one is supported"
            )
        return sinks[0]

    @property
    def parameters(self) -> int:
        """How many numbers all nodes store."""
        return sum(node.parameters for node in self.nodes.values())

    def __reduce__(self) -> tuple[object, ...]:
        """Other processes get the same value: the read-only mappings cannot be pickled as they are."""
        return Graph, (dict(self.nodes), dict(self.sources), self.name, self.history)

    def edit(self, *changes: Change, **new: object) -> Graph:
        """This graph with other `nodes`, `sources` or `name`, and `changes` added to its history."""
        return replace(self, history=(*self.history, *changes), **new)  # type: ignore[arg-type]

    def _repr_html_(self) -> str:
        from neuro.render import graph_html

        return graph_html(self)

    def __str__(self) -> str:
        from neuro.render import graph_text

        return graph_text(self)


def _topological(nodes: Mapping[str, Node], sources: Mapping[str, tuple[str, ...]], name: str) -> list[str]:
    for target, given in sources.items():
        for source in (target, *given):
            if source not in nodes:
                raise ParameterError(f"{name!r}: edge into {target!r} names {source!r}, which is no node")
    if not nodes:
        raise ParameterError(f"{name!r} has no nodes")
    readers: dict[str, list[str]] = {node: [] for node in nodes}
    missing = dict.fromkeys(nodes, 0)
    for target, given in sources.items():
        for source in given:
            readers[source].append(target)
            missing[target] += 1
    rank = {node: index for index, node in enumerate(nodes)}
    order: list[str] = []
    ready = [rank[node] for node, count in missing.items() if count == 0]
    names = list(nodes)
    heapq.heapify(ready)
    while ready:
        node = names[heapq.heappop(ready)]
        order.append(node)
        for target in readers[node]:
            missing[target] -= 1
            if missing[target] == 0:
                heapq.heappush(ready, rank[target])
    if len(order) < len(nodes):
        stuck = [node for node in nodes if missing[node] > 0]
        raise ParameterError(
            f"{name!r} has a cycle through {', '.join(map(repr, stuck[:5]))}; loops are not supported yet"
        )
    return order
