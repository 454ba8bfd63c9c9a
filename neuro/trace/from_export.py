"""An exported program, operation by operation, becomes a Graph."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from neuro.errors import NeuroError, UnsupportedNode
from neuro.graph import Change, Graph
from neuro.nodes import Input
from neuro.trace import activations, leaves, moves, pooling, rules
from neuro.trace.functional import Aliases, functional, writes
from neuro.trace.hints import MODULES, hint
from neuro.trace.site import BatchRefusal, Refusal, Site, Sketch, Value

RULES = {**rules.RULES, **activations.RULES, **pooling.RULES, **moves.RULES}


class NeedsFixedBatch(UnsupportedNode):
    """Every refusal is about the batch size; with a fixed one there may be none."""


class _Refused:
    """The result of a refused operation; the walk goes on behind it, to find every other refusal."""


def to_graph(program: ExportedProgram, name: str, history: tuple[Change, ...] = ()) -> Graph:
    """Translate `program`; raises one UnsupportedNode that lists every operation without a node."""
    return _Walk(functional(program), name).graph(history)


def batch_of(program: ExportedProgram) -> int | torch.SymInt:
    """The batch size of the program: a symbol where it is free."""
    entering = set(program.graph_signature.user_inputs)
    first = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name in entering)
    return first.meta["val"].shape[0]


def _leaf(site: Site, x: Value, key: int) -> Value:
    x = rules.signal(x)
    made = leaves.node_of(key, x.shape)
    path = site.modules[-1][0] if site.modules and site.modules[-1][0] else leaves.name_of(key)
    if not isinstance(made, Graph):
        return site.sketch.add(path, made, x)
    inner: dict[str, Value] = {}
    for name, node in made.nodes.items():
        sources = [inner[source] for source in made.sources[name]]
        inner[name] = x if isinstance(node, Input) else site.sketch.add(f"{path}.{name}", node, *sources)
    return inner[made.output]


class _Walk:
    """One pass over the operations of a program, in their order."""

    def __init__(self, program: ExportedProgram, name: str) -> None:
        self.program = program
        self.name = name
        self.batch = batch_of(program)
        self.sketch = Sketch()
        self.values: dict[fx.Node, Any] = {}
        self.refusals: dict[object, tuple[Site, list[str], str]] = {}
        self.only_batch = isinstance(self.batch, torch.SymInt)
        self.aliases = Aliases.of(program.graph)
        specs = program.graph_signature.input_specs
        self.outer = dict(zip(program.graph.nodes, specs, strict=False))

    def graph(self, history: tuple[Change, ...]) -> Graph:
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._enter(node)
            elif node.op == "get_attr":
                self.values[node] = self._attribute(str(node.target))
            elif node.op == "call_function":
                self.values[node] = self._call(node)
                if writes(node) and isinstance(node.args[0], fx.Node):
                    for other in self.aliases.same_elements(node):
                        self.values[other] = self.values[node]
        result = self._result()
        if self.refusals:
            lines = [self._line(*refusal) for refusal in self.refusals.values()]
            error = NeedsFixedBatch if self.only_batch else UnsupportedNode
            raise error(f"{self.name!r}: {len(lines)} operation(s) have no node\n" + "\n".join(lines))
        if not isinstance(result, Value):
            raise UnsupportedNode(f"{self.name!r}: the output is a constant; let the network use its input")
        if self.container:
            taken = Change(self.name, f"one tensor in a {self.container}", "tensor", "a Graph has one output")
            history = (*history, taken)
        try:
            return self.sketch.graph(result, self.name, history)
        except Refusal as refusal:
            raise UnsupportedNode(f"{self.name!r}: {refusal}") from None

    @property
    def container(self) -> str:
        """In what `forward` returns its result, "" for a plain tensor."""
        form = self.program.call_spec.out_spec
        return "" if form is None or form.is_leaf() or form.type is None else str(form.type.__name__)

    def _enter(self, node: fx.Node) -> Any:
        spec = self.outer[node]
        if spec.kind is InputKind.USER_INPUT:
            value = node.meta.get("val")
            if not isinstance(value, Tensor):
                return value
            return self.sketch.add(str(node.target), Input(tuple(int(size) for size in value.shape[1:])))
        return self._attribute(str(spec.target))

    def _attribute(self, target: str) -> Any:
        for store in (self.program.state_dict, self.program.constants):
            if target in store:
                return store[target]
        return operator.attrgetter(target)(self.program.graph_module)

    def _call(self, node: fx.Node) -> Any:
        site = Site(self.sketch, node, self.batch)
        arguments = fx.node.map_arg((node.args, node.kwargs), lambda source: self.values[source])
        entries = _flat(arguments)
        if any(isinstance(entry, _Refused) for entry in entries):
            return _Refused() if self._known(site) else self._refuse(site, Refusal(hint(site.operation)))
        try:
            return self._translate(site, *arguments, entries)
        except Refusal as refusal:
            return self._refuse(site, refusal)
        except NeuroError as error:
            error.add_note(f"while tracing {site.name!r}{site.place}")
            raise

    def _translate(self, site: Site, args: tuple, kwargs: dict, entries: list[object]) -> Any:
        node: fx.Node = site.node
        target: Any = node.target
        result = node.meta.get("val")
        if target is operator.getitem and isinstance(args[0], (tuple, list)):
            if args[0][args[1]] is None and node.users:
                raise Refusal("only the values have a node, not their indices or statistics")
            return args[0][args[1]]
        if isinstance(result, (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)):
            return self._number(site, args, kwargs, entries)
        if "assert" in site.operation or target is torch._C._set_grad_enabled or "constrain_range" in site.operation:
            return None
        if writes(node) and self._stored(node):
            raise Refusal("changes the module's own parameter or buffer; a Graph has no state of that kind")
        if target is torch.ops.neuro.leaf.default:
            return _leaf(site, *args)
        if not any(isinstance(entry, Value) for entry in entries):
            return self._constant(site, args, kwargs)
        translate = self._rule(site)
        if translate is None:
            raise Refusal(hint(site.operation))
        if isinstance(result, Tensor) and not result.dtype.is_floating_point:
            raise Refusal(f"{str(result.dtype).removeprefix('torch.')} signals have no node; {hint(site.operation)}")
        given, named = _positional(target, args, kwargs)
        return translate(site, *given, **named)

    def _number(self, site: Site, args: tuple, kwargs: dict, entries: list[object]) -> Any:
        """A size, or an entry of a constant; what depends on the data or the batch stays a symbol."""
        if any(isinstance(entry, Value) for entry in entries) or not any(
            isinstance(entry, Tensor) for entry in entries
        ):
            return site.node.meta["val"]
        return self._constant(site, args, kwargs)

    def _rule(self, site: Site) -> Callable[..., Any] | None:
        target = site.node.target
        if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
            return None
        return RULES.get(f"{site.operation}.{target._overloadname}", RULES.get(site.operation))

    def _known(self, site: Site) -> bool:
        """Whether an operation behind a refused one would not be refused for itself."""
        plain = site.node.target is operator.getitem or not isinstance(site.node.meta.get("val"), (Tensor, tuple, list))
        return plain or self._rule(site) is not None or site.node.target is torch.ops.neuro.leaf.default

    def _stored(self, node: fx.Node) -> bool:
        spec = self.outer.get(self.aliases.root[node])
        return spec is not None and spec.kind is not InputKind.USER_INPUT

    def _constant(self, site: Site, args: tuple, kwargs: dict) -> Any:
        """Run an operation on constants; the batch size, which broadcasts, is written as 1."""
        target: Any = site.node.target
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            raise Refusal(hint("rand"))

        def plain(value: object) -> object:
            if isinstance(value, torch.SymInt):
                if not site.is_batch(value):
                    raise Refusal("a constant of this network depends on the data or on the batch size")
                return 1
            if isinstance(value, (list, tuple)):
                return type(value)(plain(item) for item in value)
            return value

        try:
            return target(*(plain(value) for value in args), **{key: plain(value) for key, value in kwargs.items()})
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise Refusal(f"cannot be run on constants ({str(error).splitlines()[0]})") from error

    def _refuse(self, site: Site, refusal: Refusal) -> _Refused:
        self.only_batch &= isinstance(refusal, BatchRefusal)
        whole = site.whole
        reason = MODULES[whole[1]] if whole else str(refusal)
        key = whole or (site.operation, tuple(site.modules[-1:]), site.place, reason)
        _, operations, _ = self.refusals.setdefault(key, (site, [], reason))
        if site.operation not in operations:
            operations.append(site.operation)
        return _Refused()

    @staticmethod
    def _line(site: Site, operations: list[str], reason: str) -> str:
        names = [f"aten.{name}" if hasattr(torch.ops.aten, name) else name for name in operations]
        named = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        path, kind = site.whole or (site.modules[-1] if site.modules else ("", ""))
        owner = f"{path or 'forward'!r} ({kind.rpartition('.')[2]}): " if kind else ""
        return f"  {owner}{named}{site.place}: {reason}"

    def _result(self) -> Any:
        (output,) = (node for node in self.program.graph.nodes if node.op == "output")
        specs = self.program.graph_signature.output_specs
        results = [
            node
            for node, spec in zip(output.args[0], specs, strict=True)
            if spec.kind is OutputKind.USER_OUTPUT and node is not None
        ]
        changed = [spec.target for spec in specs if spec.kind is OutputKind.BUFFER_MUTATION]
        if changed:
            raise UnsupportedNode(
                f"{self.name!r}: forward changes its own buffer(s) {', '.join(changed)}; a Graph has no such state"
            )
        if len(results) != 1:
            kind = f"outputs in a {self.container}" if self.container else "outputs"
            raise UnsupportedNode(f"{self.name!r}: forward returns {len(results)} {kind}; return one tensor")
        return self.values[results[0]] if isinstance(results[0], fx.Node) else results[0]


def _positional(target: torch._ops.OpOverload, args: tuple, kwargs: dict) -> tuple[list, dict]:
    """Arguments in the order of the schema; by name only those that the schema wants by name."""
    given, named = list(args), dict(kwargs)
    for formal in target._schema.arguments[len(args) :]:
        if not formal.kwarg_only and named:
            given.append(named.pop(formal.name, formal.default_value))
    return given, named


def _flat(arguments: object) -> list[object]:
    if isinstance(arguments, (tuple, list)):
        return [entry for item in arguments for entry in _flat(item)]
    if isinstance(arguments, dict):
        return _flat(list(arguments.values()))
    return [arguments]
