"""Where one operation of the traced program stands: its name, its source line, and the nodes made for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath

import torch
from torch import Tensor, fx

from neuro.errors import NeuroError
from neuro.graph import Change, Graph, Node, Shape
from neuro.nodes import Input
from neuro.trace.hints import MODULES

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*(?:\n(?P<code>[^\n]*))?')
_MACHINERY = re.compile(
    r"(^|[\\/])(torch[\\/](nn|fx|export|_\w+|utils|autograd|functional\.py)|neuro[\\/]trace[\\/])|^<"
)


def is_machinery(file: str) -> bool:
    """Whether a source file belongs to torch or to the tracer, and not to the traced network."""
    return _MACHINERY.search(file) is not None


class Refusal(Exception):
    """An operation has no node. The message is the reason, or the rewrite that would help."""


class BatchRefusal(Refusal):
    """What an operation does depends on the batch size; with a fixed batch it may have a node."""


@dataclass(frozen=True)
class Value:
    """A signal: the node it leaves and its feature shape."""

    name: str
    shape: Shape


@dataclass
class Sketch:
    """The Graph in the making."""

    nodes: dict[str, Node] = field(default_factory=dict)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    """The last number given to each name that is taken more than once."""

    def add(self, name: str, node: Node, *inputs: Value) -> Value:
        """Put `node` behind `inputs`; a name already taken gets a number."""
        stem = name.replace("/", ".") or node.kind.lower()
        name, number = stem, self.numbers.get(stem, 1)
        while name in self.nodes:
            number += 1
            name = f"{stem}_{number}"
        self.numbers[stem] = number
        try:
            shape = node.output_shape(*(value.shape for value in inputs))
        except NeuroError as error:
            error.add_note(f"at {name!r}")
            raise
        self.nodes[name] = node
        self.sources[name] = tuple(value.name for value in inputs)
        return Value(name, shape)

    def graph(self, output: Value, name: str, history: tuple[Change, ...]) -> Graph:
        """The nodes that the output depends on; inputs stay, read or not."""
        needed, waiting = set(), [output.name]
        while waiting:
            found = waiting.pop()
            if found not in needed:
                needed.add(found)
                waiting.extend(self.sources[found])
        kept = {key: node for key, node in self.nodes.items() if key in needed}
        unread = [key for key, node in self.nodes.items() if isinstance(node, Input) and key not in needed]
        if unread:
            raise Refusal(f"the output does not depend on the input(s) {', '.join(map(repr, unread))}; leave them out")
        return Graph(kept, {key: self.sources[key] for key in kept}, name, history)


@dataclass(frozen=True)
class Site:
    """One operation of the exported program, as a rule sees it."""

    sketch: Sketch
    node: fx.Node
    batch: int | torch.SymInt

    @property
    def operation(self) -> str:
        """Name of the operation without namespace, overload and in-place underscore."""
        target = self.node.target
        if isinstance(target, torch._ops.OpOverload):
            name = target._schema.name.split("::")[1]
            return name.rstrip("_") if target._schema.is_mutable else name
        return getattr(target, "__name__", str(target))

    @property
    def modules(self) -> list[tuple[str, str]]:
        """(path, class name) of the modules around the operation, outermost first."""
        stack = self.node.meta.get("nn_module_stack") or {}
        pairs = [
            (path, kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}")
            for path, kind in stack.values()
        ]
        return [(re.sub(r"@\d+", "", path), kind) for path, kind in pairs if not path.startswith("_empty")]

    @property
    def name(self) -> str:
        """The module's path for an operation that is a layer of torch; else path and operation."""
        path, kind = self.modules[-1] if self.modules else ("", "")
        layer = path and kind.startswith("torch.nn.modules.") and not kind.startswith("torch.nn.modules.container.")
        if layer:
            return path
        return ".".join(part for part in (path, self.operation.strip("_")) if part)

    @property
    def place(self) -> str:
        """`file.py:line` and the code there, as far as the export kept them."""
        frames = list(_FRAME.finditer(self.node.meta.get("stack_trace") or self.node.stack_trace or ""))
        own = [frame for frame in frames if not is_machinery(frame["file"])]
        if not own:
            return ""
        code = (own[-1]["code"] or "").strip()
        where = f" at {PurePath(own[-1]['file'].replace(chr(92), '/')).name}:{own[-1]['line']}"
        return f"{where} `{code}`" if code else where

    @property
    def whole(self) -> tuple[str, str] | None:
        """(path, class) of the outermost module around this that is refused as a whole, such as an LSTM."""
        pairs = [(path, kind.rpartition(".")[2]) for path, kind in self.modules]
        return next(((path, kind) for path, kind in pairs if kind in MODULES), None)

    def is_batch(self, size: object) -> bool:
        """Whether a size of the traced program is the batch size."""
        if isinstance(size, torch.SymInt) and isinstance(self.batch, torch.SymInt):
            return bool(size.node.expr == self.batch.node.expr)
        return isinstance(size, int) and isinstance(self.batch, int) and size == self.batch

    def features_of(self, tensor: Tensor) -> Shape:
        """Sizes after the batch; refuses what does not keep the batch first."""
        sizes = tuple(tensor.shape)
        if not sizes or not self.is_batch(sizes[0]):
            raise BatchRefusal("the batch must stay the first dimension, alone")
        if any(isinstance(size, torch.SymInt) for size in sizes[1:]):
            raise BatchRefusal("feature sizes must not depend on the batch size")
        return sizes[1:]

    @property
    def shape(self) -> Shape:
        """Feature shape of the operation's result."""
        return self.features_of(self.node.meta["val"])

    def add(self, node: Node, *inputs: Value, part: str = "") -> Value:
        """Make `node` the operation's own, or a `part` of it."""
        return self.sketch.add(f"{self.name}.{part}" if part else self.name, node, *inputs)
