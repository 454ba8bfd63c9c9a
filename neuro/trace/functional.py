"""In-place operations in an exported program: which names they change, and when views make that a matter of memory."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

import torch
from torch import fx
from torch.export import ExportedProgram

# These may return their input itself, which their schemas do not say.
_MAY_BE_INPUT = {"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::to", "aten::contiguous"}
_SAME_ELEMENTS = _MAY_BE_INPUT | {"aten::detach", "aten::alias"}


def writes(node: fx.Node) -> bool:
    """Whether the operation changes its first argument."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _aliases(node: fx.Node) -> bool:
    """Whether the result may share memory with the first argument."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.args or not isinstance(node.args[0], fx.Node):
        return False
    schema = node.target._schema
    return any(result.alias_info is not None for result in schema.returns) or schema.name in _MAY_BE_INPUT


@dataclass
class Aliases:
    """For every operation its memory (`root`) and its arrangement of that memory (`layout`)."""

    root: dict[fx.Node, fx.Node] = field(default_factory=dict)
    layout: dict[fx.Node, fx.Node] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: fx.Graph) -> Aliases:
        found = cls()
        for node in graph.nodes:
            found.root[node] = found.layout[node] = node
            source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
            if source is not None and (_aliases(node) or node.target is operator.getitem):
                found.root[node] = found.root[source]
                same = writes(node) or (
                    isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name in _SAME_ELEMENTS
                )
                found.layout[node] = found.layout[source] if same else node
        return found

    def same_elements(self, node: fx.Node) -> list[fx.Node]:
        """Every name for exactly the elements of `node`."""
        return [other for other, layout in self.layout.items() if layout is self.layout[node]]


def functional(program: ExportedProgram) -> ExportedProgram:
    """The program as it is, or, where one view is changed and another one read later, without in-place operations.

    Export keeps dropout and batch norm whole only in the program as it is, so that one is preferred.
    """
    aliases = Aliases.of(program.graph)
    order = {node: place for place, node in enumerate(program.graph.nodes)}
    for node in program.graph.nodes:
        if not writes(node) or not isinstance(node.args[0], fx.Node):
            continue
        target = node.args[0]
        for other in program.graph.nodes:
            entangled = (
                aliases.root[other] is aliases.root[target] and aliases.layout[other] is not aliases.layout[target]
            )
            if entangled and order[other] < order[node] and any(order[user] > order[node] for user in other.users):
                return program.run_decompositions({})
    return program
