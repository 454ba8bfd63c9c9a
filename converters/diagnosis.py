"""What a diagnosis says: a loss per layer, findings with remedies, a table and a picture."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from neuro.render import WIDTH, printable

if TYPE_CHECKING:
    import plotly.graph_objects as go

CAUSES = ("clipping", "saturation", "weights", "threshold", "quantisation", "unevenness", "other")

HEADINGS = {
    "clipping": "clipped",
    "saturation": "saturated",
    "quantisation": "quantised",
    "unevenness": "uneven",
}

LAST = ("inherited", "total", "at limit", "cost")
SHOWN = 5e-4
"""Losses below it are written as less than 0.1 %."""

NOTHING = "no layer loses enough to be named"


@dataclass(frozen=True)
class LayerLoss:
    """What one population loses. Distances are norms over the norm of the original activation.

    causes: distance by cause, of what this layer adds. local: of all causes together. inherited: what came wrong from
    the layers before it. total: from the original value to what was sent. at_limit: share of its active neurons that
    are driven to their limit. costs: relative change of the logits of the original network when it suffers from that
    cause alone, in that layer alone. cost, flips: the same for all causes of the layer, and the share of samples that
    change their class.
    """

    layer: str
    kind: str
    causes: Mapping[str, float]
    local: float
    inherited: float
    total: float
    at_limit: float
    costs: Mapping[str, float]
    cost: float
    flips: float

    @property
    def shares(self) -> dict[str, float]:
        """The causes as shares of their summed squares."""
        squares = {cause: value**2 for cause, value in self.causes.items()}
        whole = sum(squares.values())
        return {cause: value / whole if whole else 0.0 for cause, value in squares.items()}


@dataclass(frozen=True)
class Finding:
    """The main cause of what a layer costs, and its remedy; `also`: its other causes that cost enough to be named.

    cost: relative change of the logits of the original network by this cause alone.
    """

    layer: str
    cause: str
    cost: float
    remedy: str
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        also = f"; also {', '.join(self.also)}" if self.also else ""
        return printable(
            f"{self.layer}: {self.cause}, moves the logits by {100 * self.cost:.1f} %{also}: {self.remedy}"
        )


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found. `rows` go with the depth of the layers, `findings` with their cost, the costliest first.

    logit_error: norm of the difference of all logits over their norm (both without their mean over the classes).
    same_class: share of samples with the same largest logit.
    """

    name: str
    samples: int
    steps: int | None
    rows: tuple[LayerLoss, ...]
    findings: tuple[Finding, ...]
    logit_error: float
    same_class: float

    @property
    def worst(self) -> Finding | None:
        """The costliest finding; None where nothing costs enough to be named."""
        return self.findings[0] if self.findings else None

    @property
    def summary(self) -> str:
        """One line: how far the spiking network is from the original one."""
        return (
            f"{self.samples:,} samples: logits off by {100 * self.logit_error:.1f} %, "
            f"{100 * self.same_class:.1f} % of the classes are the same"
        )

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False)
        console.print(self.table())
        for line in (self.summary, *self.lines()):
            console.print(Text(line))
        return console.file.getvalue().rstrip("\n")  # type: ignore[attr-defined]

    def lines(self, most: int = 6) -> list[str]:
        """The findings as numbered lines, at most so many of them."""
        told = [f"{place}. {finding}" for place, finding in enumerate(self.findings[:most], 1)]
        more = len(self.findings) - most
        return [*told, f"{more} more that cost less"] if more > 0 else told or [NOTHING]

    def table(self) -> Table:
        """One line per layer; per cents of the original activation, and of the logits."""
        shown = self._shown
        table = Table(title=Text(f"{printable(self.name)}: losses in % of each activation"), title_justify="left")
        table.add_column("layer", overflow="fold")
        for column in (*map(_heading, shown), *LAST):
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(Text(printable(row.layer)), *self._cells(row, shown))
        return table

    @property
    def _shown(self) -> list[str]:
        return [cause for cause in CAUSES if any(row.causes.get(cause, 0) >= SHOWN for row in self.rows)]

    def _cells(self, row: LayerLoss, shown: list[str]) -> list[str]:
        values = [row.causes.get(cause, 0.0) for cause in shown]
        return [_percent(value) for value in (*values, row.inherited, row.total, row.at_limit, row.cost)]

    def _repr_html_(self) -> str:
        def line(tag: str, cells: list[str]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        head = line("th", ["layer", *map(_heading, self._shown), *LAST])
        body = "".join(line("td", [printable(row.layer), *self._cells(row, self._shown)]) for row in self.rows)
        found = "".join(f"<li>{html.escape(str(finding))}</li>" for finding in self.findings)
        return (
            f"<div><strong>{html.escape(printable(self.name))}</strong> (losses in % of each activation, "
            f"cost in % of the logits)"
            f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
            f"<div>{html.escape(self.summary)}</div>{f'<ol>{found}</ol>' if found else f'<div>{NOTHING}</div>'}</div>"
        )

    def picture(self) -> go.Figure:
        """Every layer as a bar as long as its own loss, cut by cause."""
        from neuro.report.losses import losses_per_layer
        from neuro.report.style import styles

        bars = {row.layer: {cause: row.local * share for cause, share in row.shares.items()} for row in self.rows}
        return losses_per_layer(bars, costs={row.layer: row.cost for row in self.rows}, looks=styles(CAUSES))


def _heading(cause: str) -> str:
    return HEADINGS.get(cause, cause)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if value >= SHOWN else ("." if value == 0 else "<0.1")
