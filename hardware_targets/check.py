"""Does a network fit a chip, and what is tightest? Answered from shapes, before training or after compiling."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from hardware_targets.chip import Chip
from hardware_targets.count_windows import counts_in_windows, entries, lower_windows
from hardware_targets.demand import Demand, graph_demand, program_demand
from hardware_targets.first_spikes import lower_first_spikes, speaks_by_first_spikes
from hardware_targets.loihi.program import Program
from hardware_targets.place import allocate, require_loihi
from hardware_targets.placement import NETWORK, Placement, Violation, core_limits
from hardware_targets.schedule import Schedule, schedule
from hardware_targets.spike_times import SpikeTimes, lower_spike_times, tells_time
from neuro.errors import ParameterError
from neuro.graph import Graph
from neuro.shown import Sheet, Shown, many


@dataclass(frozen=True)
class Resource:
    """The heaviest use of one resource: `used` of `available`, at `where`."""

    name: str
    used: int
    available: int
    where: str

    @property
    def share(self) -> float:
        """used / available; above 1 it does not fit."""
        return self.used / self.available if self.available else float("inf") if self.used else 0.0


@dataclass(frozen=True, eq=False)
class Fit(Shown):
    """The answer of `check`. `ok` means no violation.

    `tightest`: the resource that is exceeded most, or else the one that ends most slices and so decides how many cores
    are needed, or else, where no population had to be cut, the one with the largest share in use.
    """

    network: str
    chip: Chip
    violations: tuple[Violation, ...]
    resources: tuple[Resource, ...]
    tightest: str
    placement: Placement

    @property
    def ok(self) -> bool:
        return not self.violations

    @property
    def cores(self) -> int:
        """Cores that the network needs."""
        return len(self.placement.cores)

    @property
    def title(self) -> str:
        verdict = "fits" if self.ok else f"does not fit ({many(len(self.violations), 'violation')})"
        return f"{self.network} on {self.chip.title}: {verdict}; tightest: {self.tightest}"

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Resource, used, available, share and where, of every resource."""
        return [(r.name, f"{r.used:,}", f"{r.available:,}", f"{r.share:.0%}", r.where) for r in self.resources]

    def __str__(self) -> str:
        return "\n".join([self.title, *map(str, self.violations)])

    def sheet(self) -> Sheet:
        headings = ("resource", "used", "available", "share", "where")
        return self.title, headings, self.rows(), tuple(map(str, self.violations))


def check(network: Graph | Program | Demand, chip: Chip, *, weight_bits: int | None = None) -> Fit:
    """Whether `network` fits `chip`: a Graph, spiking or ordinary, from its shapes; or a compiled Program.

    weight_bits: what the compiler will use; by default the most the chip has. Weights that are zero now are taken to
    stay so and take no synapse (kernels are kept whole). A quantised network may have more zeros, hence need less.
    Raises UnsupportedNode, listing all, for nodes that have no form on a chip.
    """
    if chip.family == "truenorth":
        return _of_small_cores(network, chip, weight_bits)
    require_loihi(chip)
    widest = max(chip.choices("weight_bits"))
    if weight_bits is not None and (isinstance(weight_bits, bool) or not 1 <= weight_bits <= 32):
        raise ParameterError(f"weight_bits must lie in 1..32, got {weight_bits!r}")
    match network:
        case Demand():
            demand = network
        case Program():
            demand = program_demand(network)
        case Graph():
            demand = _of_graph(network, chip, weight_bits or widest)
        case _:
            raise ParameterError(f"check takes a Graph or an integer program, got {type(network).__name__}")
    placement, violations = allocate(demand, chip)
    resources = _resources(placement)
    return Fit(demand.name, chip, violations, resources, _tightest(placement, violations, resources), placement)


def _of_small_cores(network: object, chip: Chip, weight_bits: int | None) -> Fit:
    from hardware_targets.truenorth.fitting import check_cores  # its Fit is a kind of this one
    from hardware_targets.truenorth.program import CoreProgram

    if weight_bits is not None:
        raise ParameterError(f"chip {chip.name!r} has few weights of any width: leave weight_bits out")
    if not isinstance(network, Graph | CoreProgram):
        raise ParameterError(f"check takes a Graph or a compiled program, got {type(network).__name__}")
    return check_cores(network if isinstance(network, Graph) else network.graph, chip)


def _of_graph(graph: Graph, chip: Chip, weight_bits: int) -> Demand:
    """What a network asks for, from its shapes; where it fires by a schedule, from the integers that this takes."""
    plan: Schedule | SpikeTimes
    if counts_in_windows(graph):
        plan = schedule(lower_windows(graph), entries(graph), chip)
    elif speaks_by_first_spikes(graph):
        found = lower_first_spikes(graph, 1 / 255, 0, 255, weight_bits)
        plan = schedule(found.populations, found.entries, chip)
    elif tells_time(graph):
        plan = lower_spike_times(graph, chip, weight_bits, None)
    else:
        return graph_demand(graph, weight_bits, str(chip.choices("reset_modes")[0]))
    return replace(program_demand(plan.integers), name=graph.name)


def _resources(placement: Placement) -> tuple[Resource, ...]:
    chip = placement.chip
    found = [Resource("cores", len(placement.cores), chip.limit("cores") * chip.limit("chips"), NETWORK)]
    for name, limit in core_limits(chip).items():
        core = max(placement.cores, key=lambda core, name=name: core.used[name])  # type: ignore[misc]
        layers = ", ".join(dict.fromkeys(piece.population for piece in core.slices))
        found.append(Resource(name, core.used[name], limit, f"core {core.number}: {layers}"))
    return tuple(found)


def _tightest(placement: Placement, violations: tuple[Violation, ...], resources: tuple[Resource, ...]) -> str:
    if violations:
        return max(violations, key=_excess).resource
    ended = Counter(piece.bound_by for core in placement.cores for piece in core.slices if piece.bound_by)
    if ended:
        return ended.most_common(1)[0][0]
    return max(resources, key=lambda resource: resource.share).name


def _excess(violation: Violation) -> float:
    needed, available = violation.needed, violation.available
    if isinstance(needed, str) or isinstance(available, str) or not available:
        return float("inf")
    return needed / available
