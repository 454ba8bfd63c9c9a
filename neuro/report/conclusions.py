"""What the rows say, in sentences derived from their numbers, the unwelcome ones included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from neuro.report.pareto import pareto
from neuro.report.row import UNCONFIRMED, Row
from neuro.report.sheet import HEADINGS, engineering

ENERGIES = {
    "energy_operations_J": "A (operations)",
    "energy_memory_J": "B (operations and memory)",
    "energy_chip_J": "C (chip constants)",
}
_COMPARABLE = ("energy_operations_J", "energy_memory_J")
_CLOSE = 1e-9


def conclusions(rows: Sequence[Row]) -> list[str]:
    """Sentences about `rows`. A row counts as spiking if its spikes were counted and as int8 if its name says so."""
    parts = (
        _accuracy,
        _least_energy,
        _equal_accuracy,
        _against_int8,
        _per_synapse,
        _fronts,
        _latency,
        _storage,
        _doubts,
    )
    return [sentence for part in parts for sentence in part(rows)]


def _accuracy(rows: Sequence[Row]) -> Iterator[str]:
    known = [(row, row.accuracy) for row in rows if row.accuracy is not None]
    if len(known) < 2:
        return
    most = max(accuracy for _, accuracy in known)
    best = [row for row, accuracy in known if accuracy >= most - _CLOSE]
    yield f"Most accurate: {_names(best)} with {100 * most:.2f} %."
    behind = [(row, 100 * (most - accuracy)) for row, accuracy in known if row.spiking and row not in best]
    if behind:
        gaps = _listed(f"{row.model!r} by {gap:.2f} points" for row, gap in behind)
        yield f"Spiking networks behind the best: {gaps}."


def _least_energy(rows: Sequence[Row]) -> Iterator[str]:
    winners = {}
    for column, title in ENERGIES.items():
        priced = _priced(rows, column)
        if not priced:
            continue
        if len(priced) == 1:
            row, energy = priced[0]
            price = engineering(energy, "J")
            yield f"Under {title} only {row.model!r} has a price, {price} per inference; it is compared with nothing."
            continue
        least, most = min(energy for _, energy in priced), max(energy for _, energy in priced)
        low, high = _at(priced, least), _at(priced, most)
        winners[column] = low
        factor = f", {most / least:.3g} times as much" if least > 0 else ""
        text = f"Least energy under {title}: {_names(low)} with {engineering(least, 'J')} per inference"
        yield f"{text}; most: {_names(high)} with {engineering(most, 'J')}{factor}." if most > least else f"{text}."
        absent = [row for row in rows if row not in [known for known, _ in priced]]
        if absent and column in _COMPARABLE:
            yield f"Without a price under {title}: {_names(absent)}."
    if all(column in winners for column in _COMPARABLE):
        a, b = (winners[column] for column in _COMPARABLE)
        if not set(_plain(a)) & set(_plain(b)):
            yield f"The winner depends on the energy model: {_names(a)} under A, {_names(b)} once memory is counted."


def _equal_accuracy(rows: Sequence[Row]) -> Iterator[str]:
    dense = reference(rows)
    if dense is None or dense.accuracy is None:
        return
    near = [row for row in rows if row.accuracy is not None and row.accuracy >= dense.accuracy - 0.01 - _CLOSE]
    for column in _COMPARABLE:
        priced = _priced(near, column)
        if len(priced) > 1:
            low = _at(priced, min(energy for _, energy in priced))
            title = ENERGIES[column]
            yield f"Within one point of {dense.model!r} or better, least energy under {title}: {_names(low)}."
    far = [row for row in rows if row.spiking and row.accuracy is not None and row not in near]
    if far:
        yield f"More than one point below {dense.model!r}: the spiking {_names(far)}."


def _against_int8(rows: Sequence[Row]) -> Iterator[str]:
    for column in _COMPARABLE:
        priced = _priced(rows, column)
        rivals = [
            (row, energy) for row, energy in priced if "int8" in row.model.lower() and not row.spiking and energy > 0
        ]
        spiking = [(row, energy) for row, energy in priced if row.spiking]
        if not rivals or not spiking:
            continue
        rival, least = min(rivals, key=lambda pair: pair[1])
        ratios = _listed(
            f"{row.model!r} {energy / least:.3g} times as much ({_verdict(energy / least)})" for row, energy in spiking
        )
        yield f"Energy {ENERGIES[column]} against {rival.model!r}: {ratios}."


def _per_synapse(rows: Sequence[Row]) -> Iterator[str]:
    dense = reference(rows)
    if dense is None or not dense.macs:
        return
    found = False
    for row in rows:
        if row.spiking and row.accumulates is not None:
            found, rate = True, row.accumulates / dense.macs
            top = f"; {engineering(row.macs)} MACs of its analogue layers come on top" if row.macs else ""
            counts = (
                f"{engineering(row.accumulates)} accumulates for the {engineering(dense.macs)} MACs of {dense.model!r}"
            )
            yield f"{row.model!r} handles {rate:.3g} spikes per synapse and inference ({counts}{top})."
    if found:
        yield (
            "Integrate-and-fire networks are reported to compete only below 0.15 to 1.38 spikes per synapse and "
            "inference (Dampfhoffer et al. 2023, abstract)."
        )


def _fronts(rows: Sequence[Row]) -> Iterator[str]:
    for column in _COMPARABLE:
        priced = [(row, energy) for row, energy in _priced(rows, column) if row.accuracy is not None]
        if len(priced) < 2:
            continue
        front = [priced[index][0] for index in pareto([(energy, row.accuracy or 0.0) for row, energy in priced])]
        text = f"On the Pareto front of accuracy and energy {ENERGIES[column]}: {_names(front)}"
        lost = any(row.spiking for row, _ in priced) and not any(row.spiking for row in front)
        yield f"{text}; no spiking network is on it." if lost else f"{text}."


def _latency(rows: Sequence[Row]) -> Iterator[str]:
    slow = [(row, row.latency_ticks) for row in rows if row.spiking and row.latency_ticks is not None]
    if slow and any(not row.spiking for row in rows):
        ticks = _listed(f"{row.model!r} after {ticks:g} ticks" for row, ticks in slow)
        yield f"Time to the answer: {ticks}; networks without neurons answer in one pass."


def _storage(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.parameters_stored and row.parameters_active and row.parameters_stored >= 1.5 * row.parameters_active:
            stored, active = engineering(row.parameters_stored), engineering(row.parameters_active)
            yield f"{row.model!r} stores {stored} parameters for the {active} that work on one sample."


def _doubts(rows: Sequence[Row]) -> Iterator[str]:
    doubtful: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for column, known in row.provenance.items():
            if known.how in UNCONFIRMED and getattr(row, column) is not None:
                doubtful.setdefault((column, str(known)), []).append(row)
    for (column, said), found in doubtful.items():
        title = " ".join(HEADINGS[column]) if column in HEADINGS else column
        whose = "every row" if len(found) == len(rows) > 1 else _names(found)
        yield f"Unconfirmed: {title} of {whose} ({said})."


def reference(rows: Sequence[Row]) -> Row | None:
    """The network that others are measured against: the first row without spikes."""
    return next((row for row in rows if not row.spiking and row.macs is not None), None)


def _priced(rows: Sequence[Row], column: str) -> list[tuple[Row, float]]:
    return [(row, getattr(row, column)) for row in rows if getattr(row, column) is not None]


def _at(priced: Sequence[tuple[Row, float]], energy: float) -> list[Row]:
    return [row for row, value in priced if abs(value - energy) <= _CLOSE * energy]


def _plain(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.model for row in rows))


def _names(rows: Sequence[Row]) -> str:
    return _listed(map(repr, _plain(rows)))


def _listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _verdict(ratio: float) -> str:
    return "a draw" if abs(ratio - 1) < _CLOSE else "it loses" if ratio > 1 else "it wins"
