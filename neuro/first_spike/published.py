"""Energies per image that others have published for spiking networks, to set a modelled figure beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neuro.errors import ParameterError
from neuro.shown import Sheet, Shown

Status = Literal["quoted", "recalled"]


@dataclass(frozen=True)
class Published:
    """joules: per image. boundary: what the figure holds. status "recalled": not read in the source again."""

    system: str
    task: str
    accuracy: float | None
    joules: float
    boundary: str
    source: str
    status: Status


PUBLISHED = (
    Published(
        "BrainScaleS-2", "MNIST, 16x16 pixels", 0.969, 8.4e-6,
        "175 mW at 20,800 images/s, measured", "Goeltz et al. 2021, Nature Machine Intelligence 3",
        "recalled",
    ),
    Published(
        "BrainScaleS-2", "MNIST", None, 27e-6, "not stated; not the figure that the authors published",
        "a survey article, without a page", "recalled",
    ),
    Published(
        "TrueNorth", "MNIST, most accurate", 0.9942, 108e-6, "measured; what it holds was not checked",
        "Esser et al. 2015 (NIPS), paper; its web abstract says 121 µJ", "quoted",
    ),
    Published(
        "TrueNorth", "MNIST, most frugal", 0.927, 0.268e-6, "measured; what it holds was not checked",
        "Esser et al. 2015 (NIPS), paper; its web abstract says 0.408 µJ", "quoted",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Modelled:
    """A figure of ours: counts of a simulation times prices, per image."""

    system: str
    task: str
    accuracy: float
    joules: float
    boundary: str
    source: str


@dataclass(frozen=True)
class EnergyTable(Shown):
    """Modelled figures above the published ones, each with its boundary, its source and how sure it is."""

    modelled: tuple[Modelled, ...]

    def __post_init__(self) -> None:
        for row in self.modelled:
            if not (row.joules > 0 and 0 <= row.accuracy <= 1):
                raise ParameterError(
                    f"EnergyTable: {row.system!r} needs joules > 0 and an accuracy in [0, 1], got {row}"
                )

    def sheet(self) -> Sheet:
        rows = [_row(row, "modelled") for row in self.modelled]
        rows += [_row(row, row.status if row.status == "quoted" else "recalled, unconfirmed") for row in PUBLISHED]
        notes = (
            "Modelled figures price simulated events; measured ones hold a whole chip. Their ratio is no comparison of "
            "chips.",
        )
        headings = ("system", "task", "accuracy", "µJ per image", "what it holds", "source", "status")
        return "Energy per image", headings, rows, notes


def _row(row: Modelled | Published, status: str) -> tuple[str, ...]:
    figure = f"{row.joules * 1e6:.3g}"
    return row.system, row.task, _percent(row.accuracy), figure, row.boundary, row.source, status


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"
