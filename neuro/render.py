"""A graph as a table: for terminals and for notebooks."""

from __future__ import annotations

import html
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, fields
from functools import singledispatch

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from neuro import nodes as families
from neuro.graph import Graph, Node, Shape
from neuro.nodes import (
    Affine,
    Clamp,
    Conv,
    ConvTranspose,
    Experts,
    GradedSpiking,
    Input,
    LeakyReLU,
    MeshAffine,
    Recurrent,
    ReLU,
    Reshape,
    Spiking,
)

WIDTH = 120
"""Columns of a terminal table, whatever the terminal: the same graph gives the same text."""

_COLUMNS = ("name", "node", "details", "inputs", "output", "parameters")
_ACTIVATIONS = {kind.__name__ for kind in (ReLU, Clamp, LeakyReLU)}
_SPIKING = {
    kind.__name__
    for kind in vars(families).values()
    if isinstance(kind, type) and issubclass(kind, Spiking | GradedSpiking)
}

_STYLE = """<style>
.neuro-graph{font-family:system-ui,sans-serif;font-size:13px}
.neuro-graph table{border-collapse:collapse}
.neuro-graph th,.neuro-graph td{padding:2px 10px;text-align:left;border-bottom:1px solid rgba(128,128,128,.3)}
.neuro-graph td:last-child,.neuro-graph th:last-child{text-align:right;font-variant-numeric:tabular-nums}
</style>"""


def graph_text(graph: Graph) -> str:
    """One row per node in the order of computation, totals, and what conversions did; 120 columns, no colours."""
    table = Table(title=Text(printable(graph.name)), caption=None, title_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column == "parameters" else "left", overflow="fold")
    for row in _rows(graph):
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(table)
    for line in (totals(graph), *history_lines(graph)):
        console.print(Text(line))
    return console.file.getvalue().rstrip("\n")  # type: ignore[attr-defined]


def graph_html(graph: Graph) -> str:
    """The same table as a self-contained piece of HTML; every name is escaped."""

    def cells(tag: str, row: tuple[str, ...]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    body = "\n".join(cells("td", row) for row in _rows(graph))
    notes = "".join(f"<div>{html.escape(line)}</div>" for line in (totals(graph), *history_lines(graph)))
    return (
        f'<div class="neuro-graph">{_STYLE}<strong>{html.escape(printable(graph.name))}</strong>\n'
        f"<table><thead>{cells('th', _COLUMNS)}</thead>\n<tbody>{body}</tbody></table>{notes}</div>"
    )


def totals(graph: Graph) -> str:
    """`12 nodes, 61,706 parameters, 1×28×28 -> 10`."""
    sinks = [name for name in graph.nodes if not graph.targets[name]]
    enters = ", ".join(size_text(graph.shapes[name]) for name in graph.inputs)
    leaves = ", ".join(size_text(graph.shapes[name]) for name in sinks)
    return f"{len(graph.nodes)} nodes, {graph.parameters:,} parameters, {enters} -> {leaves}"


def history_lines(graph: Graph) -> Iterator[str]:
    """What conversions did: how many activations now spike, then how often each kind of change was made.

    An activation counts as replaced when a change turned it into a spiking node, and as left when it is still there.
    """
    if not graph.history:
        return
    replaced = {
        change.node
        for change in graph.history
        if _first_word(change.was) in _ACTIVATIONS and _first_word(change.became) in _SPIKING
    }
    left = sum(node.kind in _ACTIVATIONS for node in graph.nodes.values())
    if replaced or left:
        yield f"{len(replaced)} of {len(replaced) + left} activations replaced"
    for (was, became, why), count in Counter((item.was, item.became, item.why) for item in graph.history).items():
        yield printable(f"{count} × {was} -> {became} ({why})")


def _first_word(text: str) -> str:
    return text.replace("(", " ").split(" ")[0]


def printable(text: str) -> str:
    """`text` with control characters and lone surrogates written as escapes: a name must not steer a terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def size_text(shape: Shape) -> str:
    """(3, 32, 32) as 3×32×32."""
    return "×".join(map(str, shape)) or "scalar"


def _rows(graph: Graph) -> Iterator[tuple[str, ...]]:
    previous: tuple[str, ...] = ()
    for name, node in graph.nodes.items():
        given = graph.sources[name]
        yield (
            printable(name),
            node.kind,
            printable(details(node)),
            "" if given == previous else printable(", ".join(given)),
            size_text(graph.shapes[name]),
            f"{node.parameters:,}" if node.parameters else "",
        )
        previous = (name,)


@singledispatch
def details(node: Node) -> str:
    """The fields of a node that differ from their defaults, as `stride 2×2, theta 0.83`; tensors by their range."""
    return _listed(node)


@details.register
def _(node: Conv) -> str:
    kernel = f"kernel {size_text(tuple(node.weight.shape[2:]))}"
    depthwise = " (depthwise)" if node.weight.shape[1] == 1 else ""
    groups = "" if node.groups == 1 else f", groups {node.groups}{depthwise}"
    spatial = node.weight.ndim - 2
    usual = {"stride": (1,) * spatial, "padding": (0,) * spatial, "dilation": (1,) * spatial}
    parts = [
        f"{name} {size_text(getattr(node, name))}" for name, value in usual.items() if getattr(node, name) != value
    ]
    return ", ".join((kernel, *parts)) + groups + _without_bias(node) + _element_type(node.weight)


@details.register
def _(node: ConvTranspose) -> str:
    kernel = f"kernel {size_text(tuple(node.weight.shape[2:]))}, stride {size_text(node.stride)}"
    groups = "" if node.groups == 1 else f", groups {node.groups}"
    return kernel + groups + _without_bias(node) + _element_type(node.weight)


@details.register
def _(node: Affine) -> str:
    rows, columns = node.weight.shape
    return f"{columns} -> {rows}" + _without_bias(node) + _element_type(node.weight)


@details.register
def _(node: Experts) -> str:
    return f"top {node.k} of {len(node.experts)}, each {node.experts[0].parameters:,} parameters"


@details.register
def _(node: MeshAffine) -> str:
    bits = "" if node.phase_bits is None else f", phases of {node.phase_bits} bits"
    noise = "" if not node.phase_noise else f", {node.phase_noise:g} rad off"
    light = "" if node.photons is None else f", {node.photons:g} photons per multiplication"
    return f"{node.inputs} -> {node.outputs} in {node.tiles} tiles of {node.tile}×{node.tile}{bits}{noise}{light}"


@details.register
def _(node: Recurrent) -> str:
    between = [n.kind for n in node.body.nodes.values() if not isinstance(n, Input)]
    return f"{', '.join(between)}; spikes come back one step later"


@details.register(Input)
@details.register(Reshape)
def _(node: Input | Reshape) -> str:
    return ""  # the output column says it all


def _without_bias(node: Conv | ConvTranspose | Affine) -> str:
    return ", no bias" if node.bias is None else ""


def _element_type(weight: Tensor) -> str:
    name = str(weight.dtype).removeprefix("torch.")
    return "" if name == "float32" else f", {name}"


def _listed(node: Node) -> str:
    parts = []
    for item in fields(node):
        value = getattr(node, item.name)
        default = item.default if item.default is not MISSING else None
        if isinstance(value, Tensor) or value != default:
            parts.append(f"{item.name} {_value_text(value)}")
    return ", ".join(parts)


def _value_text(value: object) -> str:
    if isinstance(value, Tensor):
        if not value.numel():
            return "empty"
        low, high = float(value.min()), float(value.max())
        return f"{low:.4g}" if low == high else f"{low:.4g}..{high:.4g}"
    if isinstance(value, tuple) and value and all(type(size) is int and size >= 0 for size in value):
        return size_text(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
