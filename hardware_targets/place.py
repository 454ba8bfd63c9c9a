"""Populations are cut into slices, slices are put on cores, and every limit of every core is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from hardware_targets.chip import Chip
from hardware_targets.core_needs import CoreNeeds, reached_sources
from hardware_targets.cut import cut
from hardware_targets.demand import Demand, Population, program_demand
from hardware_targets.loihi.program import Program
from hardware_targets.placement import NETWORK, REMEDIES, Core, Placement, Slice, Violation, core_limits
from neuro.errors import DoesNotFit, ParameterError

__all__ = ["Core", "Placement", "Slice", "Violation", "allocate", "place", "require_loihi"]

_Filled = tuple[list[Slice], dict[str, int], dict[str, NDArray[np.bool_]]]
"""A core being filled: its slices, what they take, and which neurons send to it."""


def place(program: Program, chip: Chip) -> Placement:
    """Puts an integer program on a chip of the Loihi family. Raises DoesNotFit with every violation."""
    placement, violations = allocate(program_demand(program), chip)
    if violations:
        raise DoesNotFit("\n".join(map(str, violations)), violations)
    return placement


def require_loihi(chip: Chip) -> None:
    """ParameterError for a chip whose cores follow other rules."""
    if chip.family != "loihi":
        raise ParameterError(f"place and check know chips of the family 'loihi'; {chip.name!r} is of {chip.family!r}")


def allocate(demand: Demand, chip: Chip) -> tuple[Placement, tuple[Violation, ...]]:
    """A placement, and what is wrong with it: nothing, or every limit that it breaks."""
    require_loihi(chip)
    violations = [*_format_violations(demand, chip)]
    limits = core_limits(chip)
    allowed = {}
    for population in demand.populations:
        broken = _single_neuron_violations(demand, population, chip, limits)
        violations += broken
        too_much = {violation.resource for violation in broken}
        allowed[population.name] = {name: limit for name, limit in limits.items() if name not in too_much}
    slices, stuck = cut(demand, chip, allowed)
    violations += stuck
    cores = _pack(demand, chip, slices, limits)
    available = chip.limit("cores") * chip.limit("chips")
    if len(cores) > available:
        violations.append(Violation(NETWORK, None, "cores", len(cores), available, REMEDIES["cores"]))
    return _placement(demand, chip, cores), tuple(violations)


def _format_violations(demand: Demand, chip: Chip) -> Iterator[Violation]:
    """Numbers and modes that no core of the chip can hold, wherever it is put."""
    modes = chip.choices("reset_modes")
    for population in demand.populations:
        # neurons that never fire need no reset: their threshold is out of reach
        if population.reset != "none" and population.reset not in modes:
            yield Violation(population.name, None, "reset", population.reset, ", ".join(modes), REMEDIES["reset"])
    widest, (low, high) = max(chip.choices("weight_bits")), chip.choices("weight_exp")
    for link in demand.links:
        bounds = [("weight_bits", link.weight_bits, widest), ("delay", link.delay, chip.width("delay_max"))]
        bounds.append(("graded_spike_bits", link.message_bits, chip.width("graded_spike_bits")))
        for resource, needed, available in bounds:
            if needed > available:
                yield Violation(link.target, None, resource, needed, available, REMEDIES[resource])
        if not low <= link.weight_exp <= high:
            yield Violation(link.target, None, "weight_exp", link.weight_exp, f"{low}..{high}", REMEDIES["weight_exp"])


def _single_neuron_violations(
    demand: Demand, population: Population, chip: Chip, limits: Mapping[str, int]
) -> list[Violation]:
    """What the neuron with most sources breaks even when it has a core for itself."""
    links = demand.into(population.name)
    fan_in = sum((link.reach.fan_in() for link in links), np.zeros(population.size, np.int64))
    neuron = int(fan_in.argmax())
    needs = CoreNeeds(demand, population, chip)
    used = needs.of(np.array([neuron]))
    bounds = {**limits, "fan_in": chip.limit("fan_in")} if "fan_in" in chip.limits else dict(limits)
    used["fan_in"] = int(fan_in[neuron])
    return [
        Violation(population.name, None, name, used[name], limit, REMEDIES[name])
        for name, limit in bounds.items()
        if used[name] > limit
    ]


def _pack(demand: Demand, chip: Chip, slices: Mapping[str, list[Slice]], limits: Mapping[str, int]) -> list[_Filled]:
    """Slices in order, each on the last core if it still fits there, else on a new one."""
    sources = {piece: reached_sources(demand, piece) for pieces in slices.values() for piece in pieces}
    copies = {population.name: np.zeros(population.size, np.int64) for population in demand.populations}
    for found in sources.values():
        for name, mask in found.items():
            if name in copies:
                copies[name] += mask
    cores: list[_Filled] = []
    for population in demand.populations:
        needs = CoreNeeds(demand, population, chip, copies[population.name])
        for piece in slices[population.name]:
            used, arriving = needs.of(piece.neurons), sources[piece]
            if cores:
                pieces, taken, present = cores[-1]
                both = {name: count + taken[name] for name, count in used.items()}
                union = {**present, **arriving}
                union.update({name: present[name] | arriving[name] for name in present.keys() & arriving.keys()})
                both["in_axons"] = sum(int(mask.sum()) for mask in union.values())
                if all(both[name] <= limit for name, limit in limits.items()):
                    cores[-1] = ([*pieces, piece], both, union)
                    continue
            cores.append(([piece], used, arriving))
    return cores


def _placement(demand: Demand, chip: Chip, cores: list[_Filled]) -> Placement:
    reach = {name: np.zeros((size, len(cores)), bool) for name, size in demand.sizes.items()}
    for number, (_, _, sources) in enumerate(cores):
        for name, mask in sources.items():
            reach[name][:, number] = mask
    packed = []
    for number, (pieces, used, _) in enumerate(cores):
        # slices that share a core share the axons to it: fewer than were reserved
        sent = sum(int(reach[piece.population][piece.neurons].sum()) for piece in pieces)
        packed.append(Core(number, tuple(pieces), {**used, "out_axons": sent}))
    return Placement(chip, tuple(packed), reach)
