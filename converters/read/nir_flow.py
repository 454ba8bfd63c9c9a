"""From nested NIR graphs to one flat order of work: subgraphs opened, loops found and tied to one population."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from converters.read.nir_file import Edge, RawGraph, RawNode, refusal

PASS = "Pass"
"""The Input or Output of a graph inside a graph: what enters leaves."""
SPIKING = ("IF", "LIF", "CubaLIF")
SILENT = (PASS, "Affine", "Linear", "Scale", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d", "Flatten",
          "I", "LI", "CubaLI")  # fmt: skip
"""What may bring spikes back to their population."""


@dataclass(frozen=True, eq=False)
class Loop:
    """A population whose spikes come back: `members` in order of work, the population last; `entry` takes the input."""

    members: tuple[str, ...]
    entry: str

    @property
    def population(self) -> str:
        return self.members[-1]


@dataclass(frozen=True, eq=False)
class Flow:
    """All nodes by their full names, the sources of each in the order of the edges, and the order of work."""

    nodes: Mapping[str, RawNode]
    sources: Mapping[str, tuple[str, ...]]
    order: tuple[str | Loop, ...]

    def readers(self, name: str) -> list[str]:
        return [target for target, given in self.sources.items() if name in given]


def flow_of(path: object, graph: RawGraph) -> Flow:
    """Raises FileError for edges that lead nowhere, come twice or cannot be put in an order."""
    nodes: dict[str, RawNode] = {}
    edges: list[Edge] = []
    _open(path, graph, "", nodes, edges)
    rank = {name: index for index, name in enumerate(dict.fromkeys([*(e for edge in edges for e in edge), *nodes]))}
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    readers: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        sources[target].append(source)
        readers[source].append(target)
    groups = _strongly_connected(nodes, readers)
    units: dict[str, str | Loop] = {}
    for group in groups:
        inside = set(group)
        looped = len(group) > 1 or group[0] in sources[group[0]]
        unit = _tie(path, nodes, sources, readers, inside, rank) if looped else group[0]
        units |= dict.fromkeys(group, unit)
    order = _ordered(list(nodes), units, sources, readers, rank)
    return Flow(nodes, {name: tuple(given) for name, given in sources.items()}, tuple(order))


def _open(path: object, graph: RawGraph, prefix: str, nodes: dict[str, RawNode], edges: list[Edge]) -> None:
    """Add the nodes and edges of a graph, and of the graphs in it, under their full names."""
    enter: dict[str, str] = {}
    leave: dict[str, str] = {}
    for name, node in graph.nodes.items():
        full = prefix + name
        if isinstance(node, RawGraph):
            _open(path, node, f"{full}.", nodes, edges)
            for kind, ends in (("Input", enter), ("Output", leave)):
                found = [f"{full}.{key}" for key, item in node.nodes.items() if item.kind == kind]
                if len(found) != 1:
                    raise refusal(path, full, "nodes", f"a graph in a graph needs one {kind}, this has {len(found)}")
                ends[name] = found[0]
            continue
        if full in nodes:
            raise refusal(path, full, "", "is the name of two nodes once subgraphs are opened; rename one")
        inner = prefix and node.kind in ("Input", "Output")
        nodes[full] = RawNode(PASS, {}, None) if inner else node
        enter[name] = leave[name] = full
    seen: set[Edge] = set()
    for source, target in graph.edges:
        for end in (source, target):
            if end not in enter:
                raise refusal(path, prefix[:-1], "edges", f"{source!r} -> {target!r}: {end!r} is no node")
        if (source, target) in seen:
            raise refusal(path, prefix[:-1], "edges", f"{source!r} -> {target!r} comes twice; use a Scale of 2")
        seen.add((source, target))
        for end, kind, does in ((source, "Output", "leaves an Output"), (target, "Input", "enters an Input")):
            if graph.nodes[end].kind == kind:
                raise refusal(path, prefix[:-1], "edges", f"{source!r} -> {target!r} {does}")
        edges.append((leave[source], enter[target]))


def _strongly_connected(nodes: Mapping[str, RawNode], readers: Mapping[str, list[str]]) -> list[list[str]]:
    """Tarjan 1972, without recursion: sets of nodes that all reach each other."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in nodes:
        if root in index:
            continue
        work = [(root, iter(readers[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, coming = work[-1]
            for reader in coming:
                if reader not in index:
                    index[reader] = low[reader] = len(index)
                    stack.append(reader)
                    on_stack.add(reader)
                    work.append((reader, iter(readers[reader])))
                    break
                if reader in on_stack:
                    low[name] = min(low[name], index[reader])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    group: list[str] = []
                    while not group or group[-1] != name:
                        group.append(stack.pop())
                        on_stack.discard(group[-1])
                    found.append(group)
    return found


def _tie(
    path: object,
    nodes: Mapping[str, RawNode],
    sources: Mapping[str, list[str]],
    readers: Mapping[str, list[str]],
    inside: set[str],
    rank: Mapping[str, int],
) -> Loop:
    """The loop of one spiking population through stateless nodes; FileError for any other."""
    shown = ", ".join(sorted(inside, key=rank.__getitem__)[:5])
    populations = [name for name in inside if nodes[name].kind in SPIKING]
    odd = [name for name in inside if nodes[name].kind not in SILENT + SPIKING]
    if len(populations) != 1 or odd:
        raise refusal(
            path, min(inside, key=rank.__getitem__), "edges",
            f"a loop through {shown}; only one spiking population that hears itself through Affine, Linear, Scale, "
            "Conv, pooling or leaky nodes is read",
        )  # fmt: skip
    (population,) = populations
    entries = [name for name in inside if any(source not in inside for source in sources[name])]
    leaks = [name for name in inside - {population} if any(reader not in inside for reader in readers[name])]
    if len(entries) != 1 or leaks:
        what = f"{leaks[0]!r} is read outside" if leaks else f"{len(entries)} of its nodes take input from outside"
        raise refusal(path, population, "edges", f"a loop through {shown}: {what}; one input and one output are read")
    backwards = {name: [s for s in sources[name] if s in inside and s != population] for name in inside}
    forwards = {name: [r for r in readers[name] if r in inside] if name != population else [] for name in inside}
    order = _ordered(list(inside), {name: name for name in inside}, backwards, forwards, rank)
    if len(order) < len(inside):
        raise refusal(path, population, "edges", f"a loop through {shown} goes round without passing a population")
    return Loop((*(str(name) for name in order if name != population), population), entries[0])


def _ordered(
    names: list[str],
    units: Mapping[str, str | Loop],
    sources: Mapping[str, list[str]],
    readers: Mapping[str, list[str]],
    rank: Mapping[str, int],
) -> list[str | Loop]:
    """Units, each after all it reads; where several are ready, the one that the edges name first (Kahn 1962)."""
    first: dict[str | Loop, int] = {}
    waits: dict[str | Loop, int] = {}
    for name in names:
        unit = units[name]
        first[unit] = min(first.get(unit, rank[name]), rank[name])
        waits[unit] = waits.get(unit, 0) + sum(units[source] is not unit for source in sources[name])
    at = {index: unit for unit, index in first.items()}
    members: dict[str | Loop, list[str]] = {}
    for name in names:
        members.setdefault(units[name], []).append(name)
    ready = [first[unit] for unit, count in waits.items() if not count]
    heapq.heapify(ready)
    order: list[str | Loop] = []
    while ready:
        unit = at[heapq.heappop(ready)]
        order.append(unit)
        for reader in (reader for name in members[unit] for reader in readers[name]):
            if units[reader] is not unit:
                waits[units[reader]] -= 1
                if not waits[units[reader]]:
                    heapq.heappush(ready, first[units[reader]])
    return order
