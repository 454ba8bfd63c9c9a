"""What a person sees of a graph: everything in it, nothing that steers a terminal or a browser."""

from __future__ import annotations

from html.parser import HTMLParser

import torch

from neuro.graph import Change, Graph, Input
from neuro.nodes import IF, Add, Affine, Conv, Experts, Pad, ReLU, Reshape
from neuro.render import WIDTH, details, graph_html, graph_text, history_lines

EVIL = "<script>alert(1)</script>[red]\x1b[31m\n\ud800"


def network(history: tuple[Change, ...] = (), evil: str = "fc") -> Graph:
    nodes = {
        "x": Input((3, 8, 8)),
        "conv": Conv(torch.ones(4, 3, 3, 5), None, (2, 1), (1, 2)),
        "relu": ReLU(),
        "sum": Add(),
        "flat": Reshape((128,)),
        evil: Affine(torch.ones(10, 128), torch.zeros(10)),
        "spikes": IF(torch.tensor(0.83), torch.zeros(10)),
    }
    sources = {"conv": ("x",), "relu": ("conv",), "sum": ("conv", "relu"), "flat": ("sum",), evil: ("flat",)}
    return Graph(nodes, {**sources, "spikes": (evil,)}, "lenet", history)


def test_the_table_holds_every_node_and_the_totals() -> None:
    graph = network()
    text = graph_text(graph)
    lines = text.splitlines()
    for name, node in graph.nodes.items():
        (line,) = [line for line in lines if f" {name} " in line.split("┃")[0] and f"│ {node.kind} " in line]
        assert f"{node.parameters:,}" in line or not node.parameters
    assert "kernel 3×5, stride 2×1, padding 1×2, no bias" in text
    assert "conv, relu" in text
    assert "4×4×8" in text
    assert "128 -> 10" in text
    assert "theta 0.83" in text
    assert f"7 nodes, {4 * 3 * 3 * 5 + 1290 + 11:,} parameters, 3×8×8 -> 10" in text
    assert max(map(len, lines)) <= WIDTH
    assert graph_text(network()) == text == str(graph)


def test_inputs_are_named_only_where_they_are_not_the_line_above() -> None:
    lines = graph_text(network()).splitlines()
    assert not any("Affine" in line and "flat" in line for line in lines)
    assert sum("│ Add " in line and "conv, relu" in line for line in lines) == 1


def test_history_counts_what_was_replaced_and_what_was_left() -> None:
    changes = (
        *(Change(f"relu{n}", "ReLU", "IF", "rate code") for n in range(14)),
        Change("bn", "BatchNorm", "folded", "into conv"),
    )
    lines = list(history_lines(network(changes)))
    assert lines == [
        "14 of 15 activations replaced",
        "14 × ReLU -> IF (rate code)",
        "1 × BatchNorm -> folded (into conv)",
    ]
    assert all(line in graph_text(network(changes)) for line in lines)
    assert not list(history_lines(network()))


def test_names_cannot_steer_a_terminal_or_a_browser() -> None:
    graph = network((Change(EVIL, EVIL, EVIL, EVIL),), EVIL)
    text = graph_text(Graph(graph.nodes, graph.sources, EVIL, graph.history))
    assert "\x1b" not in text
    assert "[red]" in text.replace("│\n│", "")
    text.encode("utf-8")

    class Tags(HTMLParser):
        seen: set[str] = set()  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen.add(tag)
            assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

    page = graph_html(Graph(graph.nodes, graph.sources, EVIL, graph.history))
    Tags().feed(page)
    assert Tags.seen == {"div", "style", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert "&lt;script&gt;" in page
    page.encode("utf-8")


def test_html_shows_what_the_text_shows() -> None:
    graph = network((Change("relu", "ReLU", "IF", "rate code"),))
    page = graph_html(graph)
    assert graph._repr_html_() == page
    assert page.count("<tr>") == len(graph.nodes) + 1
    for cell in ("kernel 3×5", "4×4×8", "1,290", "1 of 2 activations replaced"):
        assert cell in page


def test_details_of_unusual_nodes() -> None:
    expert = Graph({"i": Input((4,)), "a": Affine(torch.ones(3, 4))}, {"a": ("i",)})
    router = Graph({"i": Input((4,)), "a": Affine(torch.ones(2, 4))}, {"a": ("i",)})
    assert details(Experts(router, (expert, expert))) == "top 1 of 2, each 12 parameters"
    assert details(Pad(((1, -1), (0, 2)))) == "amounts ((1, -1), (0, 2))"
    depthwise = Conv(torch.ones(8, 1, 3, 3, dtype=torch.int8), groups=8)
    assert details(depthwise) == "kernel 3×3, groups 8 (depthwise), no bias, int8"
