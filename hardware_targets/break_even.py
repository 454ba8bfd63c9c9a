"""How many spikes per synapse and inference a spiking network may spend before a dense rival is cheaper.

Its energy has a part that does not depend on spikes (updates of neurons, analogue layers) and one in proportion to
them. With E_fixed, E_moving at r spikes per synapse and inference, and E_dense of the rival, both cost the same at

    r* = r (E_dense - E_fixed) / E_moving
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from hardware_targets.bill import Bill
from hardware_targets.chip import Quantity
from hardware_targets.devices import price_on_devices, processors
from hardware_targets.price import price
from hardware_targets.sensitivity import corners, together
from neuro.counts import Counts, Tally
from neuro.errors import ParameterError
from neuro.report.sheet import engineering, significant
from neuro.shown import Sheet, Shown

PUBLISHED = {
    "integrate-and-fire against efficient dense accelerators": Quantity(
        (0.15, 1.38),
        "spikes per synapse and inference",
        "Dampfhoffer et al. 2023, IEEE TETCI 7(3), abstract: 'between 0.15 and 1.38', depending on the dense rival",
        "quoted",
    ),
    "against a quantised network, T = 5": Quantity(
        0.285,
        "spikes per synapse and inference",
        "Yan et al., arXiv 2409.08290v4, abstract: T = 5 needs a spike rate below 5.7 %; 5 x 0.057",
        "quoted",
    ),
}
"""Break-even points in print. Their boundaries and rivals differ from the ones here: set beside, never merged."""

Known = Literal["measured", "given"]
"""Whether counts come from a run, or from somebody who says so."""

TEXTBOOK = (("float32", "float32"), ("int8", "int8"), ("int8", "loihi"), ("int8", "float32"))


def textbook(dense: str = "float32", spiking: str = "float32", table: str = "45nm") -> float:
    """Price of a multiply-accumulate over that of an accumulate: the T x rate at which counting only these two breaks
    even.

    >>> round(textbook(), 2), round(textbook("int8", "int8"), 2)
    (5.11, 7.67)
    """
    macs = price(Counts(1, 1, {"": Tally(macs=1)}, dense), table).total
    return macs / price(Counts(1, 1, {"": Tally(accumulates=1)}, spiking), table).total


def in_proportion_to_spikes(tally: Tally) -> Tally:
    """The part of what a node did that would double with twice the spikes.

    Accumulates, the weights they read and the potentials they read and write; spikes and their words, packets, hops;
    multiply-accumulates of graded spikes. Updates of neurons stay, whether something arrived or not.
    """
    graded = tally.macs if tally.state_words and not tally.activation_words else 0
    events = tally.accumulates + graded
    return Tally(
        macs=graded,
        effective_macs=graded,
        accumulates=tally.accumulates,
        spikes=tally.spikes,
        weight_words=min(tally.weight_words, events),
        activation_words=min(tally.activation_words, 2 * tally.spikes),
        state_words=min(tally.state_words, 2 * events),
        packets=tally.packets,
        hops=tally.hops,
    )


def split(counts: Counts) -> tuple[Counts, Counts]:
    """What does not depend on spikes, and what is in proportion to them; together they are `counts`."""
    moving = {name: in_proportion_to_spikes(tally) for name, tally in counts.nodes.items()}
    fixed = {
        name: Tally(*(getattr(tally, item.name) - getattr(moving[name], item.name) for item in fields(Tally)))
        for name, tally in counts.nodes.items()
    }
    return (
        Counts(counts.samples, counts.steps, fixed, counts.precision),
        Counts(counts.samples, counts.steps, moving, counts.precision),
    )


@dataclass(frozen=True)
class Point:
    """Break-even by one model: joules of one inference of the dense rival, and of the spiking network's two parts.

    `rate`: the spikes per synapse and inference behind `moving`; `break_even` in the same unit, None where even a
    silent network costs more; `range`: its lowest and highest value while every constant stays in its range (0 where a
    silent one costs more there).
    """

    model: str
    rate: float
    dense: float
    fixed: float
    moving: float
    break_even: float | None
    range: tuple[float, float]

    @property
    def wins(self) -> bool | None:
        """Whether the spiking network is cheaper; None where that depends on constants within their ranges."""
        low, high = self.range
        return None if low < self.rate < high else self.fixed + self.moving < self.dense

    @property
    def verdict(self) -> str:
        """Who is cheaper, and by which factor."""
        if self.wins is None:
            return "undecided within the stated ranges"
        spiking = self.fixed + self.moving
        if self.wins:
            return f"spiking wins, {significant(self.dense / spiking)} times"
        silent = ", even a silent network would" if self.break_even is None else ""
        return f"spiking loses{silent}" + (f", {significant(spiking / self.dense)} times" if self.dense > 0 else "")


@dataclass(frozen=True)
class BreakEven(Shown):
    """Break-even points by model A (operations), B (with memory) and C (devices), beside what the network spends.

    `rate`: accumulates of the spiking network over `synapses`, in numbers that are `known` so. `refused` says why a
    model has no point.
    """

    rate: float
    synapses: float
    points: tuple[Point, ...]
    refused: Mapping[str, str]
    known: Known = "measured"

    def rows(self) -> list[tuple[str, ...]]:
        """Model, joules of the rival, of the fixed and the moving part, break-even, its range, verdict."""
        rows = []
        for point in self.points:
            energies = (engineering(value, "J") for value in (point.dense, point.fixed, point.moving))
            found = "none" if point.break_even is None else significant(point.break_even)
            low, high = point.range
            ends = "" if high - low <= 1e-9 * high else f"{significant(low)} to {significant(high)}"
            rows.append((point.model, *energies, found, ends, point.verdict))
        return rows

    def sheet(self) -> Sheet:
        headings = ("model", "dense rival", "without spikes", "with spikes", "break-even", "range", f"as {self.known}")
        closed = ", ".join(
            f"{dense} against {spiking} accumulates {significant(textbook(dense, spiking))}"
            for dense, spiking in TEXTBOOK
        )
        notes = [
            f"As {self.known}: {significant(self.rate)} spikes per synapse and inference "
            f"({engineering(self.synapses)} synapses). "
            "Break-even is in the same unit; its range: constants anywhere in their stated ranges, the same for both.",
            f"Textbook, multiply-accumulates over accumulates at 45 nm and nothing else: {closed}.",
        ]
        for name, band in PUBLISHED.items():
            place = _place(self.rate, band)
            notes.append(
                f"Published, {name}: {band} ({band.status}; {band.source}). The {self.known} one lies {place}."
            )
        notes += [f"Not known for {name}: {why}." for name, why in self.refused.items()]
        return "Spikes per synapse and inference at which both cost the same", headings, self.rows(), notes


def _place(rate: float, band: Quantity) -> str:
    low, high = min(band.items), max(band.items)
    return "below" if rate < low else "above" if rate > high else "inside"


def without(whole: Bill, part: Bill) -> Bill:
    """The rest of a bill: what happened less what happened in `part`, at the same prices."""
    return replace(whole, events={cause: often - part.events[cause] for cause, often in whole.events.items()})


def point(model: str, dense: Bill, fixed: Bill, moving: Bill, rate: float) -> Point:
    """The break-even of one model from three bills; `rate`: the spikes per synapse and inference behind `moving`."""
    ends = corners(together((dense, fixed, moving)))
    at = [_solve(rival, silent, spikes, rate) for rival, silent, spikes in ends]
    found = _solve(dense.per_sample, fixed.per_sample, moving.per_sample, rate)
    return Point(
        model, rate, dense.per_sample, fixed.per_sample, moving.per_sample, found if found > 0 else None,
        (max(min(at), 0.0), max(*at, 0.0)),
    )  # fmt: skip


def _solve(dense: float, fixed: float, moving: float, rate: float) -> float:
    return rate * (dense - fixed) / moving


def break_even(
    dense: Counts,
    spiking: Counts,
    *,
    dense_words: int,
    spiking_words: int,
    synapses: float | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    known: Known = "measured",
) -> BreakEven:
    """Break-even spikes per synapse and inference of a spiking network against a dense rival.

    dense, spiking: what both did; dense_words, spiking_words: how many numbers they store.
    synapses: connections of the spiking network as a dense one would compute them; the rival's multiply-accumulates
    per inference by default. pairs: devices of model C, (rival's, spiking network's); by default every processor for
    both, and every other device against the rival on the processor that serves it best. known: how the counts are.
    Raises ParameterError where no spike was counted or there are no synapses.
    """
    synapses = dense.per_sample("macs") if synapses is None else synapses
    if not synapses > 0:
        raise ParameterError(f"break-even: needs synapses > 0, got {synapses}; the rival counts no macs")
    _, moving = split(spiking)
    # graded spikes alone are multiplications; beside spikes of one bit they are what comes in, and no spike of a neuron
    events = moving.per_sample("accumulates") or moving.per_sample("macs")
    if not events > 0:
        raise ParameterError("break-even: the spiking network counts no accumulate, so a spike has no price")
    rate = events / synapses
    found: list[Point] = []
    refused: dict[str, str] = {}
    for model, table in (("A operations, 45nm", "45nm"), ("B with memory, 45nm", "45nm-memory")):
        rival = price(dense, table, stored_words=dense_words)
        whole, spikes = (price(part, table, stored_words=spiking_words) for part in (spiking, moving))
        found.append(point(model, rival, without(whole, spikes), spikes, rate))
    rivals = price_on_devices(dense, dense_words)
    parts = [price_on_devices(part, spiking_words) for part in (spiking, moving)]
    for there, here in default_pairs(rivals) if pairs is None else pairs:
        model = f"C {here}" if here == there else f"C {here} against {there}"
        for name in (there, here):
            if name not in rivals:
                raise ParameterError(f"break-even: there is no device {name!r}; known: {', '.join(rivals)}")
        match rivals[there], parts[0][here], parts[1][here]:
            case Bill() as theirs, Bill() as whole, Bill() as spikes:
                found.append(point(model, theirs, without(whole, spikes), spikes, rate))
            case reasons:
                refused[model] = next(reason for reason in reasons if isinstance(reason, str))
    return BreakEven(rate, synapses, tuple(found), refused, known)


def default_pairs(rivals: Mapping[str, Bill | str]) -> list[tuple[str, str]]:
    """Every processor that prices the rival with itself; every other device with the processor that serves it best."""
    served = {name: bill for name, bill in rivals.items() if name in processors() and isinstance(bill, Bill)}
    if not served:
        return []
    best = min(served, key=lambda name: served[name].per_sample)
    return [*((name, name) for name in served), *((best, name) for name in rivals if name not in processors())]


def dense_counts(macs: int, precision: str = "float32") -> Counts:
    """One inference of fully connected layers known by their multiply-accumulates: each weight is read once.

    Biases and activations, a few in a hundred of that, are left out.
    """
    return Counts(1, 1, {"dense": Tally(macs=macs, effective_macs=macs, weight_words=macs)}, precision)


def spiking_counts(
    accumulates: int, updates: int, steps: int, precision: str = "float32", *, analogue_macs: int = 0, spikes: int = 0
) -> Counts:
    """One inference of integrate-and-fire neurons known by few numbers, with the words that `neuro.counts` counts.

    analogue_macs: of layers that see no spikes, such as the first one under constant input. Every update adds,
    compares, reads and writes one potential.
    """
    layers = Tally(accumulates=accumulates, weight_words=accumulates, state_words=2 * accumulates)
    neurons = Tally(
        updates=updates, updates_active=updates, additions=updates, comparisons=updates, state_words=2 * updates,
        spikes=spikes, activation_words=2 * spikes,
    )  # fmt: skip
    first = Tally(macs=analogue_macs, effective_macs=analogue_macs, weight_words=analogue_macs)
    return Counts(1, steps, {"analogue": first, "synapses": layers, "neurons": neurons}, precision)
