"""What counts cost on a chip: its events times its constants."""

from __future__ import annotations

from hardware_targets.bill import OPERATIONS, Bill, need_events
from hardware_targets.chip import Chip
from neuro.counts import Counts
from neuro.errors import MissingPrice

IN_EVENTS = ("accumulates", "additions", "multiplications", "comparisons")
"""Operations that a synaptic event or an update of a neuron consists of: they are in its price."""


def chip_bill(counts: Counts, chip: Chip, least_tick: float = 0.0) -> Bill:
    """Events times the chip's constants. Arithmetic and memory of an update or a synaptic event are in its price.

    Raises MissingPrice for an event without a constant, for operations that no event of the chip is made of, and for
    arithmetic without any event that it could be part of.
    """
    total = counts.total
    notes = list(chip.notes)
    packets = total.packets
    if not packets and total.spikes:
        packets = total.spikes
        notes.append("No placement was given: every spike counts as one packet that leaves no tile.")
    if total.updates and total.updates == total.updates_active:
        notes.append("Every neuron update counts as active: the run did not tell which neurons received nothing.")
    events = {
        "synaptic_event": total.accumulates,
        "update_active": total.updates_active,
        "update_inactive": total.updates - total.updates_active,
        "packet": packets,
        "hop": total.hops,
    }
    included = chip.energy.get("included")
    if included is not None:
        notes.append(f"The price of a synaptic event holds {included}: {included.source}.")
    names = [name for name in events if included is None or name not in included.items]
    for name in names:
        if name not in chip.energy and events[name] > 0:
            lack = f"chip {chip.name!r} has no energy.{name}"
            raise MissingPrice(lack, f", and {events[name]:,} were counted; add it")
    prices = {name: chip.energy[name] for name in names if name in chip.energy}
    for name in OPERATIONS:
        counted = getattr(total, name)
        if counted > 0 and name not in IN_EVENTS:
            raise MissingPrice(
                f"chip {chip.name!r} has no price for {name}",
                f", and {counted:,} were counted: it does none; price the run of the compiled program, whose input are "
                "spikes",
            )
    need_events(total, IN_EVENTS, {"accumulates": total.accumulates, "updates": total.updates}, chip.name)
    tick = chip.energy["tick"].in_base("s") if "tick" in chip.energy else None
    if tick is not None and least_tick > tick:
        tick = least_tick
        notes.append(f"The busiest core needs more than {chip.energy['tick']} per tick and sets the latency.")
    seconds = None if tick is None else counts.steps * tick
    static = None
    if seconds is not None and "static_power" in chip.energy:
        static = chip.energy["static_power"].in_base("W") * seconds * counts.samples
    events["barrier"] = counts.steps * counts.samples
    work = {name: chip.energy[f"{name}_time"] for name in events if f"{name}_time" in chip.energy}
    if work:
        notes.append(
            "Core time is work: what one core would need for all events of a cause, one after the other. Cores share "
            "it; all wait for the barrier after each tick, whose time is that of a chip with all tiles in use."
        )
    notes.append(
        "The energy of the barrier after a tick is in no public table; idle power and host are not in the total."
    )
    if "hop" in prices and "chips" in chip.limits and chip.limit("chips") > 1:
        notes.append("A hop from chip to chip is priced as a hop on a chip: no public table tells them apart.")
    separate = {"static": static, "barrier": None, "host": None}
    return Bill(chip.name, counts.samples, events, prices, seconds, separate, tuple(notes), work)
