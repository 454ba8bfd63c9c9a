"""Edits of graphs: rebuild a graph node by node under a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from neuro.graph import Change, Graph, Node
from neuro.nodes import Input, Scale


class Builder:
    """A graph under construction. `alias` maps names of the old graph to what stands for them in the new one."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: dict[str, Node] = {}
        self.sources: dict[str, tuple[str, ...]] = {}
        self.alias: dict[str, str] = {}
        self.changes: list[Change] = []

    def add(self, name: str, node: Node, sources: Iterable[str]) -> str:
        """Add a node under a name not taken yet (a number is put behind it otherwise); returns the name."""
        fresh, number = name, 2
        while fresh in self.nodes:
            fresh, number = f"{name}_{number}", number + 1
        self.nodes[fresh] = node
        self.sources[fresh] = tuple(sources)
        return fresh

    def given(self, name: str) -> tuple[str, ...]:
        """What the inputs of an old node are called now."""
        return tuple(self.alias[source] for source in self.graph.sources[name])

    def keep(self, name: str, node: Node | None = None) -> str:
        """Carry an old node over, or put another in its place under its name."""
        self.alias[name] = self.add(name, node or self.graph.nodes[name], self.given(name))
        return self.alias[name]

    def drop(self, name: str) -> str:
        """Leave an old one-input node out: its input stands for it."""
        (self.alias[name],) = self.given(name)
        return self.alias[name]

    def note(self, node: str, was: str, became: str, why: str) -> None:
        self.changes.append(Change(node, was, became, why))

    def build(self) -> Graph:
        return self.graph.edit(*self.changes, nodes=self.nodes, sources=self.sources)


def append(graph: Graph, name: str, node: Node) -> Graph:
    """The graph with `node` behind its output, under a name not taken yet."""
    builder = Builder(graph)
    for old in graph.nodes:
        builder.keep(old)
    builder.add(name, node, (graph.output,))
    return builder.build()


def scaled_inputs(graph: Graph, factor: float) -> Graph:
    """The graph that takes x where the given one takes `factor` x: a Scale behind every input."""
    builder = Builder(graph)
    for name, node in graph.nodes.items():
        builder.keep(name)
        if isinstance(node, Input):
            builder.alias[name] = builder.add(f"{name}.scale", Scale(torch.tensor(float(factor))), (name,))
            builder.note(name, "x", f"{factor:g} x", "it learnt inputs of that scale")
    return builder.build()


def rebuild(graph: Graph, rule: Callable[[Builder, str], object]) -> Graph:
    """A new graph: `rule(builder, name)` is called for every node in order and keeps, replaces or drops it."""
    builder = Builder(graph)
    for name in graph.nodes:
        try:
            rule(builder, name)
        except Exception as error:
            error.add_note(f"at node {name!r} of {graph.name!r}")
            raise
    return builder.build()
