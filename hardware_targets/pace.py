"""How long a tick takes at least: the busiest core works off its events, then all cores meet at the barrier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware_targets.chip import Status, worst
from hardware_targets.demand import program_demand
from hardware_targets.loihi.program import Program
from hardware_targets.placement import Placement
from neuro.errors import MissingPrice

OF_A_CORE = ("synaptic_event_time", "update_inactive_time", "packet_time")
NEEDED = (*OF_A_CORE, "barrier_time")
"""Constants of a chip's file without which nobody knows how long a tick takes."""


@dataclass(frozen=True, eq=False)
class Pace:
    """Seconds of one tick. `cores` (cores in use,): what each core is busy for; `barrier`: what follows on all."""

    cores: NDArray[np.float64]
    barrier: float
    status: Status

    @property
    def tick(self) -> float:
        """A lower bound: the mean load of the busiest core, and the barrier. Links are taken to be fast enough."""
        return float(self.cores.max(initial=0.0)) + self.barrier

    @property
    def balance(self) -> float:
        """Mean over busiest core, from 0 to 1."""
        return float(self.cores.mean() / self.cores.max()) if self.cores.any() else 1.0


def pace(program: Program, placement: Placement, rates: Mapping[str, NDArray[np.float64]]) -> Pace:
    """The time of a tick on a placement, from the constants of the chip's file and `rates`, spikes per neuron and tick.

    A core reads the synapses of every spike that arrives and updates all its neurons, each at the price of a neuron
    that received nothing.
    Raises MissingPrice where the chip's file lacks a time.
    """
    chip = placement.chip
    missing = [name for name in NEEDED if name not in chip.energy]
    if missing:
        raise MissingPrice(f"chip {chip.name!r} has no energy.{missing[0]}; add it to know how long a tick takes")
    synapse, update, packet = (chip.energy[name].in_base("s") for name in OF_A_CORE)
    demand = program_demand(program)
    busy = np.zeros(len(placement.cores))
    for number, core in enumerate(placement.cores):
        for piece in core.slices:
            events = sum(
                float(link.reach.synapses(piece.neurons) @ rates[link.source]) for link in demand.into(piece.population)
            )
            busy[number] += events * synapse + len(piece.neurons) * update
        arriving = sum(float(rates[name] @ reach[:, number]) for name, reach in placement.reach.items())
        busy[number] += arriving * packet
    return Pace(busy, chip.energy["barrier_time"].in_base("s"), worst(chip.energy[name].status for name in NEEDED))
