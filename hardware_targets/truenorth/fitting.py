"""Does a network fit a chip of small cores? Answered before training, with what the mapper would do to make it fit."""

from __future__ import annotations

from dataclasses import dataclass

from hardware_targets.check import Fit, Resource
from hardware_targets.chip import Chip
from hardware_targets.demand import as_populations
from hardware_targets.placement import NETWORK
from hardware_targets.truenorth.mapping import Mapped, map_graph
from hardware_targets.truenorth.program import shape_of
from neuro.graph import Graph
from neuro.nodes import Spiking
from neuro.shown import Sheet


@dataclass(frozen=True, eq=False)
class CoreFit(Fit):
    """The answer of `check` for a chip of small cores.

    `notes` says what was split, and how: neurons with several targets, inputs of both signs, too many weight values.
    """

    placement: Mapped  # type: ignore[assignment]

    @property
    def notes(self) -> tuple[str, ...]:
        return self.placement.notes

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.notes])

    def sheet(self) -> Sheet:
        title, headings, rows, below = super().sheet()
        return title, headings, rows, (*below, *self.notes)


def check_cores(graph: Graph, chip: Chip) -> CoreFit:
    """Whether `graph` fits. Weights that are not few-valued count as trinary ones to be trained: two axons per input.

    In an ordinary network every activation becomes a population. Raises UnsupportedNode, listing all, for nodes that no
    core computes.
    """
    spiking = any(isinstance(node, Spiking) for node in graph.nodes.values())
    mapped = map_graph(graph if spiking else as_populations(graph, "zero"), chip, shape_of(chip), assume=True)
    uses = mapped.cores
    resources = [Resource("cores", len(uses), chip.limit("cores") * chip.limit("chips"), NETWORK)]
    for name, limit in (("axons", mapped.shape.axons), ("neurons", mapped.shape.neurons)):
        number = max(range(len(uses)), key=lambda number, name=name: getattr(uses[number], name))  # type: ignore[misc]
        where = f"core {number}: {uses[number].population}"
        resources.append(Resource(name, getattr(uses[number], name), limit, where))
    axons, neurons = sum(use.axons for use in uses), sum(use.neurons for use in uses)
    full = "axons" if axons * mapped.shape.neurons >= neurons * mapped.shape.axons else "neurons"
    tightest = mapped.violations[0].resource if mapped.violations else full
    return CoreFit(graph.name, chip, mapped.violations, tuple(resources), tightest, mapped)
