"""Populations are cut into slices, slices are put on cores, and every limit of every core is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hardware_targets.chip import Chip
from hardware_targets.core_needs import CoreNeeds, reached_sources
from hardware_targets.cut import Rates, cut
from hardware_targets.demand import Demand, Population, program_demand
from hardware_targets.loihi.program import Program
from hardware_targets.placement import NETWORK, REMEDIES, Core, Placement, Slice, Violation, core_limits
from hardware_targets.route import settle
from neuro.errors import DoesNotFit, ParameterError, ShapeError

__all__ = ["Core", "Placement", "Slice", "Violation", "allocate", "place", "require_loihi"]

_Filled = tuple[list[Slice], dict[str, int], dict[str, NDArray[np.bool_]]]
"""A core being filled: its slices, what they take, and which neurons send to it."""


def place(program: Program, chip: Chip, *, rates: Rates = None, effort: float = 1.0, seed: int = 0) -> Placement:
    """Puts an integer program on a chip of the Loihi family, with few hops of few packets.

    rates: spikes of every neuron and input, {part: (size,)}, as a run on calibration data measured them; left out, all
    count the same. effort: of the annealing that arranges the cores, about a second at 1 on a full chip; 0 leaves them
    in order. Equal seeds give equal placements. Raises DoesNotFit with every violation, ShapeError for rates that do
    not fit.
    """
    demand = program_demand(program)
    checked = _checked(rates, demand)
    placement, violations = allocate(demand, chip, checked)
    if violations:
        raise DoesNotFit("\n".join(map(str, violations)), violations)
    return settle(placement, checked, effort=effort, seed=seed)


def _checked(rates: Rates, demand: Demand) -> Rates:
    if rates is None:
        return None
    found = {}
    for name, size in demand.sizes.items():
        found[name] = np.asarray(rates.get(name, np.zeros(0)), np.float64)
        if found[name].shape != (size,):
            raise ShapeError(f"rates of {name!r} must be ({size},), got {found[name].shape}")
        if not (np.isfinite(found[name]) & (found[name] >= 0)).all():
            raise ParameterError(f"rates of {name!r} must be finite and not negative")
    return found


def require_loihi(chip: Chip) -> None:
    """ParameterError for a chip whose cores follow other rules."""
    if chip.family != "loihi":
        raise ParameterError(f"place and check know chips of the family 'loihi'; {chip.name!r} is of {chip.family!r}")


def allocate(
    demand: Demand, chip: Chip, rates: Rates = None, *, sequential: bool = False
) -> tuple[Placement, tuple[Violation, ...]]:
    """A placement with its cores in order, and what is wrong with it: nothing, or every limit that it breaks.

    `sequential` takes neurons and cores one after the other, whatever they say to each other: what others compare with.
    """
    require_loihi(chip)
    violations = [*_format_violations(demand, chip)]
    limits = core_limits(chip)
    allowed = {}
    for population in demand.populations:
        broken = _single_neuron_violations(demand, population, chip, limits)
        violations += broken
        too_much = {violation.resource for violation in broken}
        allowed[population.name] = {name: limit for name, limit in limits.items() if name not in too_much}
    slices, stuck = cut(demand, chip, allowed, rates, sequential)
    violations += stuck
    cores = _pack(demand, chip, slices, limits, sequential)
    available = chip.limit("cores") * chip.limit("chips")
    if len(cores) > available:
        violations.append(Violation(NETWORK, None, "cores", len(cores), available, REMEDIES["cores"]))
    placement = _placement(demand, chip, cores)
    return placement, tuple(_located(violation, placement) for violation in violations)


def _located(violation: Violation, placement: Placement) -> Violation:
    """With the first core that the layer would overload, where it is a core's limit that breaks."""
    for core in placement.cores:
        here = any(piece.population == violation.layer for piece in core.slices)
        if here and core.used.get(violation.resource) == violation.needed:
            return replace(violation, core=core.number)
    return violation


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


def _pack(
    demand: Demand, chip: Chip, slices: Mapping[str, list[Slice]], limits: Mapping[str, int], sequential: bool
) -> list[_Filled]:
    """Slices in order, each on the core that it shares most sources with among those where it fits, else on a new one.

    `sequential` gives every slice a core of its own, as nengo-loihi does.
    """
    sources = {piece: reached_sources(demand, piece) for pieces in slices.values() for piece in pieces}
    copies = {population.name: np.zeros(population.size, np.int64) for population in demand.populations}
    for found in sources.values():
        for name, mask in found.items():
            if name in copies:
                copies[name] += mask
    cores: list[_Filled] = []
    additive = [name for name in limits if name != "in_axons"]
    room = np.zeros((sum(map(len, slices.values())), len(additive)), np.int64)
    for population in demand.populations:
        needs = CoreNeeds(demand, population, chip, copies[population.name])
        for piece in slices[population.name]:
            new: _Filled = ([piece], needs.of(piece.neurons), sources[piece])
            wanted = np.array([new[1][name] for name in additive])
            roomy = np.flatnonzero((room[: 0 if sequential else len(cores)] >= wanted).all(1))
            merged = [(number, _joined(cores[number], new)) for number in roomy]
            fitting = [(number, both) for number, both in merged if both[1]["in_axons"] <= limits["in_axons"]]
            if fitting:
                number, both = min(fitting, key=lambda pair: pair[1][1]["in_axons"] - cores[pair[0]][1]["in_axons"])
                cores[number] = both
            else:
                number, both = len(cores), new
                cores.append(new)
            room[number] = [limits[name] - both[1][name] for name in additive]
    return cores


def _joined(core: _Filled, new: _Filled) -> _Filled:
    """Both on one core, their common sources counted once."""
    (pieces, taken, present), (added, used, arriving) = core, new
    both = {name: count + taken[name] for name, count in used.items()}
    union = {**present, **arriving}
    union.update({name: present[name] | arriving[name] for name in present.keys() & arriving.keys()})
    both["in_axons"] = sum(int(mask.sum()) for mask in union.values())
    return [*pieces, *added], both, union


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
