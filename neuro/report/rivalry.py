"""Sentences on rows beside their controls: spiking, sparse, mixtures of experts, quantum. Each may turn out badly."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from neuro.errors import ParameterError
from neuro.report.row import Row
from neuro.report.sheet import engineering, significant
from neuro.report.verdicts import close_in, energy, fitted, gap, listed, names, priced, reference, steps

MODELS = {"energy_operations_J": "A (operations)", "energy_memory_J": "B (operations and memory)"}
"""The energy models under which every digital row can be compared."""

ENERGIES = {**MODELS, "energy_chip_J": "C (constants of a device)"}

_BITS = (re.compile(r"activations of (\d+)"), re.compile(r"(\d+)[ -]bits?\b"))


@dataclass(frozen=True)
class Speed:
    """A measurement of how fast a sparse row runs: `density` of its weights, seconds of it and of the dense network.

    `how` says with what: engine, batch, threads. Raises ParameterError for a density outside (0, 1] and times <= 0.
    """

    model: str
    density: float
    seconds: float
    dense_seconds: float
    how: str

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1 or not all(0 < value < math.inf for value in (self.seconds, self.dense_seconds)):
            raise ParameterError(
                f"speed of {self.model!r}: needs a density in (0, 1] and times > 0 s, "
                f"got {self.density}, {self.seconds}, {self.dense_seconds}"
            )


def bits(row: Row) -> int | None:
    """Bits of the hidden activations of a quantised row, as a note ("activations of 4") or its name ("4 bits") says."""
    noted, named = _BITS
    found = next(filter(None, map(noted.search, row.notes)), None) or named.search(row.model)
    return None if found is None else int(found[1])


def controls(rows: Sequence[Row]) -> list[Row]:
    """What spiking networks have to beat: int8, quantised, small dense, logistic regression; known by their names."""
    named = ("int8", "quantised", "small dense", "logistic")
    return [row for word in named for row in rows if word in row.model.lower() and not row.spiking]


def spiking_beside_controls(rows: Sequence[Row]) -> Iterator[str]:
    """Under each energy model, which spiking rows need less than a control, and which of them are as accurate."""
    known = controls(rows)
    for column, title in ENERGIES.items():
        yield from _score(rows, [control for control in known if getattr(control, column)], column, title)
    for control in known:
        need = bits(control) if _quantised(control) else None
        what = "" if need is None else f" of as many bits as their steps need ({need})"
        for column, title in ENERGIES.items():
            yield from _beside(
                _rivals(rows, control, column, alike=True), control, column, f"{control.model!r}{what} under {title}"
            )
    matched = {bits(row) for row in known if _quantised(row)} - {None}
    without = [
        row for row in rows if row.spiking and _bits_needed(row) is not None and _bits_needed(row) not in matched
    ]
    if matched and without:
        wanted = [f"{row.model!r} ({_bits_needed(row)})" for row in without]
        yield fitted(lambda most: f"No quantised control has the bits of {listed(wanted, most)}.")


def _score(rows: Sequence[Row], known: Sequence[Row], column: str, title: str) -> Iterator[str]:
    """One sentence: than which controls a spiking row is better, which ranges leave open, and which have no rival."""
    found: dict[str, list[Row]] = {"beaten": [], "open": [], "not": [], "alone": []}
    for control in known:
        orders = [(row, energy(row, control, column)) for row in _rivals(rows, control, column) if _holds(row, control)]
        if any(order == "less" for _, order in orders):
            found["beaten"].append(control)
        elif any(order == "undecided" for _, order in orders):
            found["open"].append(control)
        else:
            found["not" if _rivals(rows, control, column) else "alone"].append(control)

    def said(most: int) -> str:
        beaten, open_, lost, alone = (names(group, most) if group else "" for group in found.values())
        first = f"a spiking network needs less at no less accuracy than {beaten}"
        if not beaten:
            first = f"no spiking network needs less at no less accuracy than {lost}" if lost else ""
        parts = [
            first,
            f"{'' if first else 'it is '}undecided within the ranges of prices against {open_}" if open_ else "",
            f"none does against {lost}" if beaten and lost else "",
            f"without a spiking network to compare with: {alone}" if alone else "",
        ]
        return f"Under {title} {'; '.join(filter(None, parts))}."

    if found["beaten"] or found["open"] or found["not"]:
        yield fitted(said)


def _rivals(rows: Sequence[Row], control: Row, column: str, *, alike: bool = False) -> list[Row]:
    """The spiking rows to be compared with a control: convolutional with convolutional ones, by the same table of
    prices; `alike`: and at the bits of a quantised one."""
    kin = _convolutional(control)
    found = priced([row for row in rows if row.spiking and _convolutional(row) == kin], column)
    if alike and _quantised(control) and bits(control) is not None:
        found = [row for row in found if _bits_needed(row) == bits(control)]
    if column in MODELS:
        return found
    device = control.provenance.get(column)
    return [row for row in found if device is not None and row.provenance.get(column) == device]


def _convolutional(row: Row) -> bool:
    return "convolutional" in row.model.lower()


def _quantised(row: Row) -> bool:
    return "quantised" in row.model.lower()


def _holds(row: Row, control: Row) -> bool:
    """Whether a row is no less accurate than a control."""
    seen = gap(row, control)
    return seen is not None and not seen.behind


def _bits_needed(row: Row) -> int | None:
    """ceil(log2(T + 1)): as many values as a count of T steps has."""
    known = steps(row)
    return None if known is None else known.bit_length()


def _beside(rivals: Sequence[Row], control: Row, column: str, what: str) -> Iterator[str]:
    price = getattr(control, column)
    if not rivals or not price:
        return
    groups: dict[str, list[str]] = {
        "wins": [],
        "cheaper but less accurate": [],
        "a draw": [],
        "undecided within the ranges of prices": [],
        "loses": [],
    }
    orders = {"less": "wins", "equal": "a draw", "undecided": "undecided within the ranges of prices", "more": "loses"}
    for row in sorted(rivals, key=lambda row: getattr(row, column)):
        verdict = orders[energy(row, control, column) or "undecided"]
        if verdict == "wins" and not _holds(row, control):
            verdict = "cheaper but less accurate"
        groups[verdict].append(f"{row.model!r} {significant(getattr(row, column) / price)}")
    yield from _grouped(groups, f"Spiking against {what}, in multiples of its energy", "none wins")


def sparse_beside_controls(rows: Sequence[Row], speeds: Sequence[Speed] = ()) -> Iterator[str]:
    """Whether choosing the mask pays, and what density does to time where that was measured."""
    masks = [row for row in rows if row.family == "sparse" and "static" in row.model.lower()]
    small = [row for row in rows if "small dense" in row.model.lower()]
    chosen = [row for row in rows if row.family == "sparse" and row not in masks and not row.spiking]
    for control in (*masks, *small):
        yield from by_macs(chosen, control, f"Sparse networks beside {control.model!r}")
    for control in small:
        yield from by_macs(masks, control, f"Random masks beside {control.model!r}")
    for how in dict.fromkeys(speed.how for speed in speeds):
        yield _speeds([speed for speed in speeds if speed.how == how], how)


def _speeds(speeds: Sequence[Speed], how: str) -> str:
    groups: dict[str, list[str]] = {"as fast as zeros suggest": [], "faster, but by less": [], "no faster": []}
    for speed in sorted(speeds, key=lambda speed: speed.seconds / speed.dense_seconds):
        times, promised = speed.dense_seconds / speed.seconds, 1 / speed.density
        verdict = (
            "no faster" if times <= 1 else "faster, but by less" if times < promised else "as fast as zeros suggest"
        )
        kept = f"{significant(100 * speed.density)} % of the weights suggest {significant(promised)}"
        groups[verdict].append(f"{speed.model!r} {significant(times)} times ({kept})")
    known = {verdict: found for verdict, found in groups.items() if found}
    last = "" if list(known) == ["as fast as zeros suggest"] else "; density is not speed"

    def said(most: int) -> str:
        parts = (f"{verdict}: {listed(found, most)}" for verdict, found in known.items())
        return f"Speed beside dense computing, measured ({how}): {'; '.join(parts)}{last}."

    return fitted(said)


def experts_beside_controls(rows: Sequence[Row]) -> Iterator[str]:
    """Whether routing learns something, and whether experts pay at equal active MACs."""
    mixtures = [row for row in rows if row.family == "experts"]
    random = [row for row in mixtures if "random" in row.model.lower()]
    learnt = [row for row in mixtures if row not in random]
    for control in random:
        yield from by_macs(learnt, control, f"Experts beside {control.model!r}")
    first = reference(rows)
    alike = [row for row in rows if row is first or "small dense" in row.model.lower()]
    dense = [row for row in alike if any(close_in(one.macs, row.macs) for one in learnt)] or alike[:1]
    for control in dense:
        yield from by_macs(learnt, control, f"Experts beside {control.model!r}")


def others_beside_controls(rows: Sequence[Row]) -> Iterator[str]:
    """Quantum circuits beside the classical network on the same inputs; hypervectors beside logistic regression."""
    quantum = [row for row in rows if row.family == "quantum"]
    for control in (row for row in rows if "classical control" in row.model.lower()):
        circuits = [row for row in quantum if row is not control]
        yield from standing(circuits, control, f"Quantum circuits beside {control.model!r}")
    for control in (row for row in rows if "logistic" in row.model.lower()):
        vectors = [row for row in rows if row.family == "hyperdimensional"]
        yield from standing(vectors, control, f"Hyperdimensional classifiers beside {control.model!r}")


def standing(rivals: Sequence[Row], control: Row, what: str) -> Iterator[str]:
    """One sentence: which rivals are more accurate than a control, which are less, and where noise decides."""
    found = [(row, seen) for row in rivals if (seen := gap(row, control)) is not None]
    groups = {
        "more accurate": [f"{row.model!r} by {seen}" for row, seen in found if seen.ahead],
        "less accurate": [f"{row.model!r} by {seen}" for row, seen in found if seen.behind],
        "within noise": [f"{row.model!r} ({seen.points:+.2f} points)" for row, seen in found if seen.level],
    }
    yield from _grouped(groups, f"{what} ({100 * (control.accuracy or 0):.2f} %)", "none is more accurate")


def by_macs(rivals: Sequence[Row], control: Row, what: str) -> Iterator[str]:
    """One sentence: which rivals are better than a control in accuracy at no more MACs, or not to be told from it."""
    groups: dict[str, list[str]] = {
        "better": [],
        "within noise, with fewer MACs": [],
        "within noise": [],
        "within noise, with more MACs": [],
        "worse": [],
        "a trade, more of both or less of both": [],
    }
    for row in rivals:
        seen = gap(row, control)
        if seen is None or row.macs is None or not control.macs:
            continue
        alike = close_in(row.macs, control.macs)
        fewer, more = row.macs < control.macs and not alike, row.macs > control.macs and not alike
        if seen.level:
            verdict = "within noise" + (", with fewer MACs" if fewer else ", with more MACs" if more else "")
        elif seen.ahead and not more:
            verdict = "better"
        elif not seen.ahead and not fewer:
            verdict = "worse"
        else:
            verdict = "a trade, more of both or less of both"
        times = "" if alike else f", {significant(row.macs / control.macs)} times the MACs"
        groups[verdict].append(f"{row.model!r} ({seen.points:+.2f} points{times})")
    size = f"{100 * (control.accuracy or 0):.2f} %, {engineering(control.macs or 0)} MACs"
    none = "" if groups["within noise, with fewer MACs"] else "none is better"
    yield from _grouped(groups, f"{what} ({size})", none)


def _grouped(groups: dict[str, list[str]], what: str, none: str) -> Iterator[str]:
    known = {verdict: found for verdict, found in groups.items() if found}
    first = none and not next(iter(groups.values()))

    def said(most: int) -> str:
        parts = (f"{verdict}: {listed(found, most)}" for verdict, found in known.items())
        return f"{what}: {'; '.join([none, *parts] if first else parts)}."

    if known:
        yield fitted(said)


def per_synapse(rows: Sequence[Row]) -> Iterator[str]:
    """Spikes per synapse and inference, beside the bound that the literature gives."""
    dense = {kin: reference([row for row in rows if _convolutional(row) == kin]) for kin in (False, True)}
    known = [row for row in rows if row.spiking and row.accumulates is not None]
    found = [
        (row, row.accumulates / plain.macs)
        for row in known
        if (plain := dense[_convolutional(row)]) is not None and plain.macs and row.accumulates is not None
    ]
    if not found:
        return
    rates = [f"{row.model!r} {significant(rate)}" for row, rate in sorted(found, key=itemgetter(1))]
    what = f"accumulates for each MAC of {names(row for row in dense.values() if row is not None)}"
    yield fitted(lambda most: f"Spikes per synapse and inference ({what}): {listed(rates, most)}.")
    analogue = [f"{row.model!r} {engineering(row.macs)}" for row, _ in found if row.macs]
    if analogue:
        yield fitted(lambda most: f"MACs of analogue layers come on top: {listed(analogue, most)}.")
    yield (
        "Integrate-and-fire networks are reported to compete only below 0.15 to 1.38 spikes per synapse and "
        "inference (Dampfhoffer et al. 2023, abstract)."
    )
