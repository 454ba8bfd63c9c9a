"""Read NIR, the Neuromorphic Intermediate Representation: files of versions 0.0.1 to 1.x, and `nir.NIRGraph` objects.

What time and reset mean is settled in `nir_units`. Subgraphs are opened and their nodes named "graph.node"; several
edges into one node become an `Add`; a spiking population whose spikes come back through stateless nodes becomes one
`Recurrent` node, with the spikes of the step before (zeros, and so the bias alone, in the first one).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from converters.read.nir_fields import FIELDS, Fields
from converters.read.nir_file import RawGraph, RawNode, raw_of, read_raw, refusal
from converters.read.nir_flow import Flow, Loop, flow_of
from converters.read.nir_rules import RULES, TIMED, Chain
from converters.read.nir_units import Integrator, NirReset, Units
from neuro.errors import FileError, NeuroError, ParameterError, UnsupportedNode
from neuro.graph import Change, Graph, Input, Node, Shape
from neuro.nodes import Add, Recurrent, Reshape

LARGEST = 1 << 28
"""Elements of one sample anywhere in the network."""
MOST_NODES = 20_000


def from_nir(
    path: str | Path | object,
    *,
    dt: float | None = None,
    reset: NirReset = "zero",
    integrator: Integrator = "euler",
) -> Graph:
    """The Graph of a NIR file, or of a `nir.NIRGraph`.

    dt: length of a step [s]; there is no default, and files with time constants or delays are refused without it.
    reset: "zero", to v_reset as NIR 1.0 says, or "subtract" (the threshold). integrator: "euler" as Norse and snnTorch
    do, or "exact". All three are kept in the history. Raises FileError, naming file, node and field, for a file that is
    damaged, hostile or contradicts itself; UnsupportedNode, naming all nodes of unknown types; ParameterError for
    arguments out of their domain.
    """
    units = Units(dt, reset, integrator)
    if isinstance(path, str | Path):
        shown, name, raw = str(path), Path(path).stem or "network", read_raw(path)
    else:
        shown, name, raw = "NIR graph", "network", raw_of(path)
    return graph_of(raw, units, shown, name)


def graph_of(raw: RawGraph, units: Units, path: str = "NIR graph", name: str = "network") -> Graph:
    """The Graph of what a file says; `path` is what errors call it."""
    flow = flow_of(path, raw)
    if len(flow.nodes) > MOST_NODES:
        raise refusal(path, "", "nodes", f"{len(flow.nodes)} nodes; at most {MOST_NODES} are read")
    _check_kinds(path, flow)
    ends = _ends(path, flow)
    if len(ends) != 1:
        raise refusal(path, "", "edges", f"{len(ends)} outputs ({', '.join(ends[:5])}); one Output is read")
    work = _Work(path, flow, units, f"; the file says {raw.about['dt']}" if "dt" in raw.about else "")
    for unit in flow.order:
        if isinstance(unit, Loop):
            work.loop(unit)
        else:
            work.node(unit)
    step = "no dt" if units.dt is None else f"dt = {units.dt:g} s"
    why = f"{step}, integrator {units.integrator!r}, reset {units.reset!r}"
    history = (Change(name, "NIR", "Graph", why), *(Change(*note, why) for note in work.notes))
    try:
        return Graph(work.nodes, work.sources, name, history)
    except NeuroError as error:
        raise FileError(f"{path}: {error}") from error


def _check_kinds(path: str, flow: Flow) -> None:
    unknown = [f"{raw.kind!r:.40} {name!r:.80}" for name, raw in flow.nodes.items() if raw.kind not in FIELDS]
    if unknown:
        shown = ", ".join(unknown[:20]) + (f" and {len(unknown) - 20} more" if len(unknown) > 20 else "")
        raise UnsupportedNode(f"{path}: nodes of types that NIR 1.0 does not know: {shown}; replace them before export")


def _ends(path: str, flow: Flow) -> list[str]:
    """The names of the outputs; every other node must be read by somebody and, but for Inputs, read something."""
    read = {source for given in flow.sources.values() for source in given}
    outputs = [name for name, raw in flow.nodes.items() if raw.kind == "Output"]
    entered = any(raw.kind == "Input" for raw in flow.nodes.values())
    roots = [name for name, raw in flow.nodes.items() if not flow.sources[name] and raw.kind != "Input"]
    if roots and (entered or len(roots) > 1):
        raise refusal(path, roots[0], "edges", "nothing flows into it; connect it or take it out")
    loose = [name for name, raw in flow.nodes.items() if name not in read and raw.kind != "Output"]
    if outputs and loose:
        raise refusal(path, loose[0], "edges", "it leads nowhere; connect it or take it out")
    if not flow.nodes or not (outputs or loose):
        raise refusal(path, "", "nodes", "nothing comes out of it; this is no network")
    return outputs or loose


class _Work:
    """A Graph under construction from the nodes of a file, in the order of their work."""

    def __init__(self, path: str, flow: Flow, units: Units, hint: str) -> None:
        self.path, self.flow, self.units, self.hint = path, flow, units, hint
        self.nodes: dict[str, Node] = {}
        self.sources: dict[str, tuple[str, ...]] = {}
        self.shapes: dict[str, Shape] = {}
        self.alias: dict[str, str] = {}
        self.notes: list[tuple[str, str, str]] = []

    def fields(self, name: str, shape: Shape) -> Fields:
        return Fields(self.path, name, self.flow.nodes[name], shape, self.units, self.hint)

    def put(self, near: str, name: str, node: Node, given: Sequence[str]) -> str:
        """Add our node, made of the file's node `near`."""
        try:
            shape = node.output_shape(*(self.shapes[source] for source in given))
        except NeuroError as error:
            raise refusal(self.path, near, "", str(error)) from error
        if name in self.nodes:
            raise refusal(self.path, near, "", f"{name!r} is the name of another node too; rename one")
        if math.prod(shape) > LARGEST:
            raise refusal(self.path, near, "", f"{shape} are more than {LARGEST} values per sample; refused")
        self.nodes[name], self.sources[name], self.shapes[name] = node, tuple(given), shape
        return name

    def called(self, name: str) -> str:
        """The name of our node: that of the file's, or the one it was written from where HDF5 could not hold it."""
        told = self.fields(name, ()).form.get("name")
        return told if isinstance(told, str) else name

    def node(self, name: str) -> None:
        """Our nodes for one node of the file."""
        raw, given = self.flow.nodes[name], [self.alias[source] for source in self.flow.sources[name]]
        if raw.kind == "Input" or not given:
            self._enter(name)
        if raw.kind != "Input":
            given = given or [self.alias[name]]
            self.alias[name] = self.chain(name, self.called(name), given)

    def _enter(self, name: str) -> None:
        raw = self.flow.nodes[name]
        at = self.fields(name, ())
        at.check()
        if raw.kind == "Input":
            value = at.number("shape") if "shape" in raw.fields else None
            if value is not None and value.size > 8:
                raise at.refuse("shape", f"has {value.size} dimensions; at most 8 are read")
            shape = None if value is None else at.whole("shape", value.size, 1) if value.size else ()
            label = self.called(name)
        else:
            shape, label = _taken(at), "input"
        if shape is None:
            raise at.refuse("shape", "the shape of the input is nowhere told; put an Input with a shape before it")
        self._guarded(at, lambda: self.put(name, label, Input(shape), ()))
        self.alias[name] = label

    def chain(self, name: str, label: str, given: list[str]) -> str:
        """Our nodes for one node of the file that reads `given`; the name of the last."""
        raw = self.flow.nodes[name]
        at = self.fields(name, self.shapes[given[0]])
        at.check()
        if len(given) > 1 and raw.kind == "Scale" and (at.number("scale") == 1).all():
            return self.put(name, label, Add(), given)
        entry = given[0] if len(given) == 1 else self.put(name, f"{label}.sum", Add(), given)
        if raw.kind == "Output":
            self._check_output(at, self.shapes[entry])
            return entry
        at = self.fields(name, self.shapes[entry])
        for suffix, node in self._rule(at):
            entry = self.put(name, label + suffix, node, (entry,))
        if raw.kind in TIMED:
            self.notes.append((label, f"NIR {raw.kind}", self.nodes[entry].kind))
        return entry

    def _rule(self, at: Fields) -> Chain:
        chain: Chain = []
        self._guarded(at, lambda: chain.extend(RULES[at.raw.kind](at)))
        if at.raw.kind == "Flatten":
            wide = {self.flow.nodes[r].fields["weight"].shape[-1:] for r in self.flow.readers(at.name)  # type: ignore[union-attr]
                    if isinstance(self.flow.nodes[r].fields.get("weight"), np.ndarray)
                    and self.flow.nodes[r].kind in ("Affine", "Linear")}  # fmt: skip
            counted_batch = at.raw.fields["start_dim"] == 1 and wide == {(math.prod(at.shape),)}
            if counted_batch and chain[0][1].output_shape(at.shape)[-1:] not in wide:
                self.notes.append((at.name, "NIR Flatten from dimension 1 of a batch", "Reshape of all features"))
                return [("", Reshape((math.prod(at.shape),)))]
        return chain

    def _guarded(self, at: Fields, make: Callable[[], object]) -> None:
        """Errors of our nodes with file and node before them."""
        try:
            make()
        except FileError:
            raise
        except ParameterError as error:
            raise error if str(error).startswith(f"{self.path}: ") else at.refuse("", str(error)) from error
        except NeuroError as error:
            raise at.refuse("", str(error)) from error

    def _check_output(self, at: Fields, shape: Shape) -> None:
        if "shape" in at.raw.fields:
            told = at.number("shape")
            if told.size and int(np.prod(told)) != math.prod(shape):
                raise at.refuse("shape", f"says {told.astype(int).tolist()}, but features of shape {shape} arrive")

    def loop(self, loop: Loop) -> None:
        """One `Recurrent` node for a population and what brings its spikes back."""
        name, label = loop.population, self.called(loop.population)
        outside = [s for s in self.flow.sources[loop.entry] if s not in loop.members]
        given = [self.alias[source] for source in outside]
        entry_name = f"{self.called(loop.entry)}.sum"
        entry = given[0] if len(given) == 1 else self.put(loop.entry, f"{entry_name}.in", Add(), given)
        told = self.fields(name, ()).form.get("recurrent")
        whole, inner, enters, returns = label, f"{label}.body", "x", "y"
        if isinstance(told, list) and len(told) == 4 and all(isinstance(item, str) for item in told):
            whole, inner, enters, returns = told
        body = _Work(self.path, self.flow, self.units, self.hint)
        body.put(loop.entry, enters, Input(self.shapes[entry]), ())
        body.put(name, returns, Input(self._comes_back(loop, self.shapes[entry])), ())
        for member in loop.members:
            heard = [returns if s == name else body.alias[s] for s in self.flow.sources[member] if s not in outside]
            heard = [enters, *heard] if member == loop.entry else heard
            body.alias[member] = body.chain(member, body.called(member), heard)
        at = self.fields(name, self.shapes[entry])

        def tie() -> None:
            graph = Graph(body.nodes, body.sources, inner)
            self.alias[name] = self.put(name, whole, Recurrent(graph), (entry,))

        self._guarded(at, tie)
        self.notes += [*body.notes, (whole, "loop in NIR", "Recurrent")]

    def _comes_back(self, loop: Loop, entering: Shape) -> Shape:
        """The shape of the population's spikes: that of its parameters, or of what enters it."""
        if loop.entry == loop.population:
            return entering
        told = self.flow.nodes[loop.population].fields.values()
        try:
            shape = tuple(np.broadcast_shapes(*(value.shape for value in told if isinstance(value, np.ndarray))))
        except ValueError:
            shape = ()
        if math.prod(shape) > 1:
            return shape
        raise refusal(self.path, loop.population, "v_threshold", "one number, but how many neurons? give one for each")


def _taken(at: Fields) -> Shape | None:
    """The feature shape that a node without input takes, where its parameters say it."""
    raw: RawNode = at.raw
    weight = raw.fields.get("weight")
    if isinstance(weight, np.ndarray) and weight.ndim >= 2:
        if raw.kind in ("Affine", "Linear"):
            return (weight.shape[-1],)
        if raw.kind in ("Conv1d", "Conv2d") and "input_shape" in raw.fields:
            (groups,) = at.whole("groups", 1, 1)
            return (weight.shape[1] * groups, *at.whole("input_shape", weight.ndim - 2, 1))
    for item in ("v_threshold", "tau", "tau_mem", "r", "scale", "threshold", "delay"):
        value = raw.fields.get(item)
        if isinstance(value, np.ndarray) and value.ndim:
            return value.shape
    return None
