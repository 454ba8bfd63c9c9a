"""Write NIR: what the format can say, and nothing less without leave. What is written is read back and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields
from functools import singledispatch
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from converters.read.from_nir import graph_of
from converters.read.nir_file import RawGraph, RawNode, Value, write_raw
from converters.read.nir_units import Integrator, Units, below
from neuro.errors import LossyExport, NeuroError, ParameterError
from neuro.graph import Graph, Input, Node, Shape
from neuro.nodes import (
    IAF,
    IF,
    LI,
    LIF,
    Add,
    Affine,
    AvgPool,
    BoxLIF,
    Conv,
    CurrentLI,
    Delay,
    Readout,
    Recurrent,
    Reshape,
    Scale,
    Spiking,
    Weighted,
)

LOSSES = {
    "reset": "soft reset: NIR can only say v <- v_reset; read it with reset='subtract'",
    "v0": "the initial potential: NIR populations start at rest",
    "readout": "the mean over time: NIR has the sum (I); the largest output stays the largest",
    "precision": "integers: readers of NIR compute in float32",
}
"""What `allow_loss` may name, and what is lost then."""

REMEDIES = {
    "MaxPool": "NIR has no max-pool; use average pools",
    "MaxCount": "NIR has no max-pool; use average pools",
    "BatchNorm": "NIR has no batch norm; fold it first (converters.convert does)",
    "ReLU": "NIR has no activation without time; convert the network to spikes first",
    "CountThenFire": "NIR knows no counts in windows; use RateCode",
    "Concat": "NIR has no concatenation",
}


def to_nir(
    graph: Graph,
    path: str | Path,
    *,
    dt: float,
    integrator: Integrator = "euler",
    allow_loss: Collection[str] = (),
) -> None:
    """Write `graph` as a NIR 1.0 file, whole or not at all.

    dt: length of a step [s]; decays become time constants of it. `from_nir(path, dt=dt, integrator=integrator)` gives
    the nodes back as they are, with reset="subtract" where all populations reset so. allow_loss: names of `LOSSES` that
    the user agrees to. Raises LossyExport, naming every node and what would be lost, and ParameterError for arguments
    out of their domain.
    """
    if unknown := set(allow_loss) - set(LOSSES):
        raise ParameterError(f"allow_loss takes {', '.join(LOSSES)}; got {', '.join(sorted(map(str, unknown)))}")
    soft = [n for n in graph.nodes.values() if isinstance(n, Spiking) and n.reset == "subtract"]
    units = Units(dt, "subtract" if soft else "zero", integrator)
    if dt is None:
        raise ParameterError("to_nir: say how long a step is, e.g. dt=1e-4 [s]")
    raw = raw_nir(graph, units, allow_loss)
    write_raw(path, raw)


def raw_nir(graph: Graph, units: Units, allow_loss: Collection[str] = ()) -> RawGraph:
    """What the file will say; raises LossyExport."""
    writer = _Writer(graph, units)
    raw = writer.whole()
    lost = [f"{kind} {name!r}: {what}" for name, kind, loss, what in writer.losses if loss not in allow_loss]
    if not lost:
        lost = list(_differences(graph, raw, units, writer.changed))
    if lost:
        names = sorted({loss for *_, loss, _ in writer.losses if loss} - set(allow_loss))
        leave = f"; allow with allow_loss={tuple(names)}" if names else ""
        shown = lost[:20] + ([f"and {len(lost) - 20} more"] if len(lost) > 20 else [])
        raise LossyExport("\n".join([f"{graph.name!r} loses something as NIR{leave}:", *shown]))
    return raw


def _differences(graph: Graph, raw: RawGraph, units: Units, allowed: set[str]) -> Iterator[str]:
    """What reading the file would change, found by reading it."""
    try:
        again = graph_of(raw, units, "this graph as NIR", graph.name)
    except NeuroError as error:
        yield str(error)
        return
    for name, node in graph.nodes.items():
        if name in allowed:
            continue
        if name not in again.nodes or again.sources[name] != graph.sources[name]:
            yield f"{node.kind} {name!r}: would read other nodes"
        elif what := _difference(node, again.nodes[name]):
            yield f"{node.kind} {name!r}: {what}"


def _difference(one: Node, other: Node) -> str | None:
    if type(one) is not type(other):
        return f"would come back as {other.kind}"
    for item in fields(one):
        left, right = getattr(one, item.name), getattr(other, item.name)
        if isinstance(left, Tensor) and isinstance(right, Tensor):
            same = left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
        elif isinstance(left, Graph) and isinstance(right, Graph):
            names = dict(left.sources) == dict(right.sources) and left.name == right.name
            same = names and not any(_difference(n, right.nodes[name]) for name, n in left.nodes.items())
        else:
            same = left == right
        if not same:
            return f"{item.name} would change"
    return None


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a node is written: its input and output shape, the units, and where to note what is lost."""

    inside: Shape
    outside: Shape
    units: Units
    lose: Callable[[str, str], None]


class _Writer:
    def __init__(self, graph: Graph, units: Units) -> None:
        self.graph, self.units = graph, units
        self.nodes: dict[str, RawNode | RawGraph] = {}
        self.edges: list[tuple[str, str]] = []
        self.losses: list[tuple[str, str, str, str]] = []
        self.changed: set[str] = set()
        """Names of nodes that will not come back as they were."""
        self.written: dict[str, str] = {}
        """Our names, as HDF5 can hold them."""

    def whole(self) -> RawGraph:
        end = "output"
        while end in self.graph.nodes:
            end += "_"
        for name in self.graph.nodes:
            self.node(self.graph, name)
        self.nodes[end] = RawNode("Output", {"shape": _sizes(self.graph.shapes[self.graph.output])})
        self.edges.append((self.written[self.graph.output], end))
        about = {"dt": repr(float(self.units.dt or 0)), "integrator": self.units.integrator, "reset": self.units.reset}
        return RawGraph(self.nodes, tuple(self.edges), about)

    def safe(self, name: str, form: dict[str, object]) -> str:
        safe = quote(name, safe=" ()[]{}+,:;=@!$&'*<>|^~#?\"", errors="surrogatepass") or "%"
        safe = safe if safe != "." else "%2E"
        if safe != name:
            form["name"] = name
        return safe

    def node(self, graph: Graph, name: str) -> None:
        node, given = graph.nodes[name], graph.sources[name]
        if isinstance(node, Recurrent):
            self.recurrent(graph, name, node)
            return
        if self._spread(graph, name) or self._merged(graph, name):
            return

        def lose(loss: str, what: str) -> None:
            self.losses.append((name, node.kind, loss, what))
            if loss != "reset":
                self.changed.add(name)

        inside = graph.shapes[given[0]] if given else ()
        form: dict[str, object] = {}
        safe = self.written[name] = self.safe(name, form)
        at = _Place(inside, graph.shapes[name], self.units, lose)
        kind, values = written(node, at)
        if isinstance(node, Add) and len(set(given)) < len(given):
            lose("", "adds one value to itself; NIR refuses an edge that comes twice")
        if safe in self.nodes:
            lose("", f"its name {name!r} is taken within a loop; rename it")
        form |= _form_of(node, graph.shapes[name])
        if given and self._merged(graph, given[0]):
            synapse = graph.nodes[given[0]]
            assert isinstance(synapse, LI)
            current = _decaying(synapse.beta, at)
            kind = f"Cuba{kind}"
            values |= {"tau_mem": values.pop("tau"), "tau_syn": current["tau"], "w_in": current["r"]}
            form["synapse"] = _form_of(synapse, graph.shapes[name]).get("beta")
        told = json.dumps(form) if form else None
        self.nodes[safe] = RawNode(kind, {key: value for key, value in values.items() if value is not None}, told)
        for source in given:
            self._read(graph, source, safe)

    def _read(self, graph: Graph, source: str, target: str) -> None:
        """An edge, or those of a sum that is written as its edges."""
        if source in self.written:
            self.edges.append((self.written[source], target))
        else:
            for part in graph.sources[source]:
                self._read(graph, part, target)

    def _spread(self, graph: Graph, name: str) -> bool:
        """Whether an Add is the one that reading makes of several edges into the node after it."""
        readers, given = graph.targets[name], graph.sources[name]
        if not isinstance(graph.nodes[name], Add) or len(readers) != 1 or len(set(given)) < len(given):
            return False
        reader = graph.targets[readers[0]][0] if self._merged(graph, readers[0]) else readers[0]
        return name == f"{reader}.sum"

    def _merged(self, graph: Graph, name: str) -> bool:
        """Whether a membrane is the synaptic current of the population after it, as reading a CubaLIF makes it."""
        readers = graph.targets[name]
        return (
            isinstance(graph.nodes[name], LI)
            and len(readers) == 1
            and name == f"{readers[0]}.synapse"
            and isinstance(graph.nodes[readers[0]], LIF | LI)
            and bool((graph.nodes[name].beta < 1).all())  # type: ignore[attr-defined]
            and bool((graph.nodes[readers[0]].beta < 1).all())  # type: ignore[attr-defined]
        )

    def recurrent(self, graph: Graph, name: str, node: Recurrent) -> None:
        """The nodes of the body, with edges from its population where y enters and from outside where x does."""
        body = node.body
        enters, returns = body.inputs
        readers = [target for target in body.nodes if enters in body.sources[target]]
        if len(readers) != 1:
            self.losses.append((name, "Recurrent", "", "what enters is read at several places of the loop"))
            return
        (outside,) = graph.sources[name]
        for inner in body.nodes:
            if inner not in (enters, returns):
                if inner in self.written and inner != name:
                    self.losses.append((name, "Recurrent", "", f"{inner!r} is the name of a node outside too"))
                self.written.pop(inner, None)
        start, known = len(self.edges), len(self.losses)
        self.written |= {enters: "\0x", returns: "\0y"}
        for inner in body.nodes:
            if inner not in (enters, returns):
                self.node(body, inner)
        population = self.written[body.output]
        del self.written[enters], self.written[returns]
        raw = self.nodes[population]
        assert isinstance(raw, RawNode)
        form = json.loads(raw.form or "{}") | {"recurrent": [name, body.name, enters, returns]}
        self.nodes[population] = RawNode(raw.kind, raw.fields, json.dumps(form))
        loop, self.edges = self.edges[start:], self.edges[:start]
        for source, target in loop:
            if source == "\0x":
                self._read(graph, outside, target)
            else:
                self.edges.append((population if source == "\0y" else source, target))
        self.written[name] = population
        if any(loss != "reset" for *_, loss, _ in self.losses[known:]):
            self.changed.add(name)


def _sizes(shape: Shape) -> np.ndarray:
    return np.array(shape, dtype=np.int64)


def _form_of(node: Node, shape: Shape) -> dict[str, object]:
    """What the file would not show: element types other than float32, parameters for all, biases that are not there."""
    form: dict[str, object] = {}
    for name, tensor in node.tensors():
        if tensor.dtype != torch.float32 or (tensor.shape != shape and not isinstance(node, Weighted)):
            form[name] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
    if isinstance(node, Conv) and node.bias is None:
        form["bias"] = None
    if isinstance(node, IAF):
        form["kind"] = "IAF"
    return form


def _full(tensor: Tensor, shape: Shape) -> np.ndarray:
    """A parameter for every feature, as NIR wants it, in float64."""
    return np.broadcast_to(tensor.detach().cpu().double().numpy(), shape)


def _plain(tensor: Tensor, at: _Place) -> np.ndarray:
    """Weights as they are; bfloat16 as float32, which holds it."""
    if not tensor.is_floating_point():
        at.lose("precision", LOSSES["precision"])
    return (tensor.detach().cpu().float() if tensor.dtype == torch.bfloat16 else tensor.detach().cpu()).numpy()


def _started(node: IF | LIF, at: _Place) -> None:
    if bool((node.v0 != 0).any()):
        at.lose("v0", LOSSES["v0"])


def _soft(node: Spiking, at: _Place) -> None:
    if node.reset == "none":
        at.lose("", "spikes without reset: NIR populations are always reset")
    elif node.reset == "subtract":
        at.lose("reset", LOSSES["reset"])
    elif at.units.reset == "subtract":
        at.lose("", "its reset is to a value while others subtract; one file is read with one reset")


Written = tuple[str, dict[str, Value | None]]


@singledispatch
def written(node: Node, at: _Place) -> Written:
    """Type and fields of the NIR node."""
    at.lose("", REMEDIES.get(node.kind, f"NIR has no {node.kind}"))
    return "Scale", {"scale": np.ones(at.outside)}


@written.register
def _(node: Input, at: _Place) -> Written:
    return "Input", {"shape": _sizes(node.shape)}


@written.register
def _(node: Affine, at: _Place) -> Written:
    if len(at.inside) != 1:
        at.lose("", f"acts on the last of {len(at.inside)} dimensions; NIR's on vectors; flatten before it")
    if node.bias is None:
        return "Linear", {"weight": _plain(node.weight, at)}
    return "Affine", {"weight": _plain(node.weight, at), "bias": _plain(node.bias, at)}


@written.register
def _(node: Conv, at: _Place) -> Written:
    count = len(node.stride)
    if count > 2:
        at.lose("", "NIR convolves in one or two dimensions")
    bias = np.zeros(node.weight.shape[0], np.float32) if node.bias is None else _plain(node.bias, at)
    numbers = {"stride": node.stride, "padding": node.padding, "dilation": node.dilation, "input_shape": at.inside[1:]}
    told = {name: np.int64(sizes[0]) if count == 1 else _sizes(sizes) for name, sizes in numbers.items()}
    values: dict[str, Value | None] = {name: np.asarray(value) for name, value in told.items()}
    return f"Conv{count}d", values | {
        "weight": _plain(node.weight, at), "bias": bias, "groups": np.asarray(node.groups)
    }  # fmt: skip


@written.register
def _(node: AvgPool, at: _Place) -> Written:
    if len(node.kernel) != 2 or (not node.count_padding and any(node.padding)):
        at.lose("", "NIR's average pools have two dimensions and count the zeros of the padding")
    sizes = {"kernel_size": _sizes(node.kernel), "stride": _sizes(node.stride), "padding": _sizes(node.padding)}
    return "AvgPool2d", sizes  # type: ignore[return-value]


@written.register
def _(node: Reshape, at: _Place) -> Written:
    for start in range(len(at.inside)):
        for end in range(start, len(at.inside)):
            if node.shape == (*at.inside[:start], math.prod(at.inside[start : end + 1]), *at.inside[end + 1 :]):
                return "Flatten", {
                    "start_dim": np.asarray(start), "end_dim": np.asarray(end), "input_type": _sizes(at.inside)
                }  # fmt: skip
    at.lose("", f"{at.inside} -> {node.shape} is no flattening; NIR has no other reshape")
    return "Scale", {"scale": np.ones(at.outside)}


@written.register
def _(node: Scale, at: _Place) -> Written:
    if node.offset is not None:
        at.lose("", "NIR's Scale adds nothing; use Affine")
    return "Scale", {"scale": _full(node.factor, at.outside)}


@written.register
def _(node: Add, at: _Place) -> Written:
    return "Scale", {"scale": np.ones(at.outside)}


@written.register
def _(node: Delay, at: _Place) -> Written:
    return "Delay", {"delay": _full(node.steps, at.outside) * (at.units.dt or 1)}


@written.register
def _(node: Readout, at: _Place) -> Written:
    at.lose("readout", LOSSES["readout"])
    return "I", {"r": np.ones(at.outside)}


@written.register
def _(node: IF, at: _Place) -> Written:
    _started(node, at)
    _soft(node, at)
    one = np.ones(at.outside)
    edge: Value = below(_full(node.theta, at.outside))
    return "IF", {"r": one, "v_threshold": edge, "v_reset": 0 * one}


@written.register
def _(node: IAF, at: _Place) -> Written:
    _soft(node, at)
    theta, v_reset = _full(node.theta, at.outside), _full(node.v_reset, at.outside)
    return "IF", {"r": np.ones(at.outside), "v_threshold": theta, "v_reset": v_reset}


def _decaying(beta: Tensor, at: _Place) -> dict[str, Value | None]:
    """tau, r = 1 / a and v_leak = 0, so that v <- beta v + i."""
    rate = 1 - _full(beta, at.outside)
    tau = at.units.tau(rate)
    if not bool((np.isfinite(tau) & (tau > 0)).all()):
        at.lose("", f"beta {float(beta.min()):g}..{float(beta.max()):g} is the decay of no time constant")
        tau = np.ones(at.outside)
    return {"tau": tau, "r": 1 / np.where(rate > 0, rate, 1), "v_leak": np.zeros(at.outside)}


@written.register
def _(node: LI, at: _Place) -> Written:
    if bool((node.beta == 1).all()):
        return "I", {"r": np.ones(at.outside)}
    return "LI", _decaying(node.beta, at)


@written.register
def _(node: LIF, at: _Place) -> Written:
    _started(node, at)
    _soft(node, at)
    edge = {"v_threshold": below(_full(node.theta, at.outside)), "v_reset": np.zeros(at.outside)}
    return "LIF", _decaying(node.beta, at) | edge


@written.register
def _(node: BoxLIF, at: _Place) -> Written:
    _soft(node, at)
    names = {"v_leak": node.v_leak, "v_threshold": node.theta, "v_reset": node.v_reset}
    values: dict[str, Value | None] = {name: _full(tensor, at.outside) for name, tensor in names.items()}
    return "LIF", {"tau": at.units.tau(_full(node.rate_mem, at.outside)), "r": np.ones(at.outside)} | values


@written.register
def _(node: CurrentLI, at: _Place) -> Written:
    if bool((node.rate_syn != 1).any()):
        at.lose("", "a current that is reduced after it drove the membrane; NIR's CubaLI reduces it before")
    tau = at.units.tau(_full(node.rate_mem, at.outside))
    return "LI", {"tau": tau, "r": np.ones(at.outside), "v_leak": _full(node.v_leak, at.outside)}
