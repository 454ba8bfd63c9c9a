"""What the rows say, in sentences derived from their numbers, the unwelcome ones included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from neuro.report.pareto import pareto
from neuro.report.rivalry import (
    ENERGIES,
    MODELS,
    Speed,
    experts_beside_controls,
    others_beside_controls,
    per_synapse,
    sparse_beside_controls,
    spiking_beside_controls,
)
from neuro.report.row import UNCONFIRMED, Row
from neuro.report.sheet import HEADINGS, engineering
from neuro.report.verdicts import CLOSE, cheapest, close_in, gap, listed, names, priced, reference, standard_error


def conclusions(
    rows: Sequence[Row], *, at_equal_parameters: Sequence[Row] = (), speeds: Sequence[Speed] = ()
) -> list[str]:
    """The sentences of `themes`, one after another."""
    parts = themes(rows, at_equal_parameters=at_equal_parameters, speeds=speeds)
    return [sentence for sentences in parts.values() for sentence in sentences]


def themes(
    rows: Sequence[Row], *, at_equal_parameters: Sequence[Row] = (), speeds: Sequence[Speed] = ()
) -> dict[str, list[str]]:
    """Sentences about `rows` by theme; a theme with nothing to say is left out.

    A row counts as spiking if its spikes were counted. Controls are known by their names: int8, quantised, small dense,
    logistic, static, random. A difference in accuracy within two standard errors over seeds is called noise, and
    energies whose ranges overlap are undecided. `at_equal_parameters`: the rivals at the size of the dense network;
    left out, the rows that happen to have it. `speeds`: measurements of sparse rows.
    """
    equal, strays = at_equal_parameters or rows, _strays(at_equal_parameters, reference(rows))
    parts = {
        "Accuracy": (*_accuracy(rows), *_seeds(rows)),
        "Energy": (*_least_energy(rows), *_fronts(rows), *_unpriced(rows)),
        "At equal accuracy": (*_equal_accuracy(rows), *_families(rows)),
        "At equal stored parameters": (*_equal_parameters(equal, reference(rows)), *strays, *_storage(rows)),
        "Spiking networks": (*spiking_beside_controls(rows), *per_synapse(rows), *_latency(rows)),
        "Sparse networks": tuple(sparse_beside_controls(rows, speeds)),
        "Experts": tuple(experts_beside_controls(rows)),
        "Other rivals": tuple(others_beside_controls(rows)),
        "Unconfirmed": tuple(_doubts(rows)),
    }
    return {theme: list(sentences) for theme, sentences in parts.items() if sentences}


def _accuracy(rows: Sequence[Row]) -> Iterator[str]:
    known = [(row, row.accuracy) for row in rows if row.accuracy is not None]
    if len(known) < 2:
        return
    most = max(accuracy for _, accuracy in known)
    best = [row for row, accuracy in known if accuracy >= most - CLOSE]
    gaps = [(row, seen) for row, _ in known if row not in best and (seen := gap(row, best[0])) is not None]
    level = [row for row, seen in gaps if seen.level]
    noise = f"; within noise of it: {names(level)}" if level else ""
    yield f"Most accurate: {names(best)} with {100 * most:.2f} %{noise}."
    behind = [(row, seen) for row, seen in gaps if row.spiking and seen.behind]
    if behind:
        yield f"Spiking networks behind the best: {listed(f'{row.model!r} by {seen}' for row, seen in behind)}."


def _seeds(rows: Sequence[Row]) -> Iterator[str]:
    known = [row for row in rows if row.accuracy is not None and row.seeds is not None]
    told = [row for row in known if standard_error(row) is not None]
    if told:
        counts = listed(map(str, sorted({row.seeds or 0 for row in told})))
        whose = "" if len(told) == len(rows) else f" ({len(told)} of {len(rows)} rows)"
        yield f"Means over {counts} seeds{whose}; a difference counts where it exceeds two standard errors."
    alone = [row for row in known if row.seeds == 1]
    if alone:
        whose = "every row" if len(alone) == len(rows) > 1 else names(alone, 6)
        yield f"One seed for {whose}: small differences in its accuracy cannot be told from noise."


def _least_energy(rows: Sequence[Row]) -> Iterator[str]:
    winners = {}
    for column, title in ENERGIES.items():
        known = priced(rows, column)
        if not known:
            continue
        if len(known) == 1:
            price = engineering(getattr(known[0], column), "J")
            only = f"only {known[0].model!r} has a price, {price} per inference"
            yield f"Under {title} {only}; it is compared with nothing."
            continue
        low, open_ = cheapest(known, column)
        winners[column] = low
        least, most = getattr(low[0], column), max(getattr(row, column) for row in known)
        text = f"Least energy under {title}: {names(low)} with {engineering(least, 'J')} per inference"
        if open_:
            text += f", undecided against {names(open_, 6)}, whose ranges overlap"
        if most > least:
            high = [row for row in known if getattr(row, column) >= most * (1 - CLOSE)]
            factor = f", {most / least:.3g} times as much" if least > 0 else ""
            text += f"; most: {names(high)} with {engineering(most, 'J')}{factor}"
        if len({row.provenance.get(column) for row in known}) > 1 and column not in MODELS:
            text += "; several devices, whose boundaries differ"
        yield f"{text}."
    if all(column in winners for column in MODELS):
        a, b = (winners[column] for column in MODELS)
        if not {row.model for row in a} & {row.model for row in b}:
            yield f"The winner depends on the energy model: {names(a)} under A, {names(b)} once memory is counted."
    if any(ends is not None and ends[0] < ends[1] for row in rows for ends in map(row.range_of, ENERGIES)):
        yield (
            "Ranges are compared as if they were independent; rows that share a price rise and fall together, so that "
            "more is called undecided than is."
        )


def _unpriced(rows: Sequence[Row]) -> Iterator[str]:
    for column, title in MODELS.items():
        if not priced(rows, column):
            continue
        reasons: dict[str, list[Row]] = {}
        for row in rows:
            if getattr(row, column) is None:
                reasons.setdefault(row.why_unpriced(column) or "", []).append(row)
        if reasons:
            said = (f"{names(found)} ({reason})" if reason else names(found) for reason, found in reasons.items())
            yield f"Without a price under {title}: {'; '.join(said)}."


def _near(rows: Sequence[Row], dense: Row) -> list[Row]:
    """Rows at most one point less accurate than the dense network."""
    least = (dense.accuracy or 0.0) - 0.01 - CLOSE
    return [row for row in rows if row.accuracy is not None and row.accuracy >= least]


def _equal_accuracy(rows: Sequence[Row]) -> Iterator[str]:
    dense = reference(rows)
    if dense is None or dense.accuracy is None:
        return
    near = _near(rows, dense)
    for column, title in MODELS.items():
        known = priced(near, column)
        if len(known) > 1:
            low, open_ = cheapest(known, column)
            doubt = f"; undecided against {names(open_, 6)}, whose ranges overlap" if open_ else ""
            yield f"Within one point of {dense.model!r} or better, least energy under {title}: {names(low)}{doubt}."
    far = [row for row in rows if row.spiking and row.accuracy is not None and row not in near]
    if far:
        yield f"More than one point below {dense.model!r}: the spiking {names(far)}."


def _families(rows: Sequence[Row]) -> Iterator[str]:
    """The best row of each family: the cheapest that is about as accurate as the dense network, else the closest."""
    dense = reference(rows)
    families = list(dict.fromkeys(row.family for row in rows if row.family))
    if dense is None or dense.accuracy is None or len(families) < 2:
        return
    near = _near(rows, dense)
    for column, title in MODELS.items():
        best, far = [], []
        for family in families:
            known = [row for row in priced(rows, column) if row.family == family and row.accuracy is not None]
            able = [row for row in known if row in near]
            if able:
                low = cheapest(able, column)[0]
                best.append(f"{family} {names(low)} {engineering(getattr(low[0], column), 'J')}")
            elif known:
                closest = max(known, key=lambda row: row.accuracy or 0.0)
                far.append(f"{family} ({closest.model!r} is {gap(dense, closest)} below)")
        if best:
            none = f"; none so accurate among {listed(far)}" if far else ""
            yield f"Best of each family under {title}, within one point of {dense.model!r}: {'; '.join(best)}{none}."


def _equal_parameters(rows: Sequence[Row], dense: Row | None) -> Iterator[str]:
    if dense is None or not dense.parameters_stored:
        return
    alike = [row for row in rows if close_in(row.parameters_stored, dense.parameters_stored)]
    if len({row.model for row in alike} | {dense.model}) < 2:
        return
    parts = []
    known = [row for row in alike if row.accuracy is not None]
    if len(known) > 1:
        best = max(known, key=lambda row: row.accuracy or 0.0)
        level = [row for row in known if row is not best and (seen := gap(row, best)) is not None and seen.level]
        noise = f", within noise of it {names(level, 6)}" if level else ""
        parts.append(f"most accurate {best.model!r} ({100 * (best.accuracy or 0):.2f} %){noise}")
        spiking = [row for row in known if row.spiking]
        if spiking and not best.spiking:
            first = max(spiking, key=lambda row: row.accuracy or 0.0)
            parts.append(f"the best spiking network, {first.model!r}, is {gap(best, first)} below")
    for column, title in MODELS.items():
        found = priced(alike, column)
        if len(found) > 1:
            low, open_ = cheapest(found, column)
            parts.append(f"least energy under {title} {names(low)}")
            if open_:
                parts.append(f"undecided against {names(open_, 6)}")
    if parts:
        size = engineering(dense.parameters_stored)
        yield f"Storing as much as {dense.model!r} ({size} parameters, within a tenth): {'; '.join(parts)}."


def _strays(rows: Sequence[Row], dense: Row | None) -> Iterator[str]:
    far = [row for row in rows if dense and not close_in(row.parameters_stored, dense.parameters_stored)]
    if far:
        yield f"Not built to that size within a tenth: {names(far)}."


def _fronts(rows: Sequence[Row]) -> Iterator[str]:
    for column, title in MODELS.items():
        known = [row for row in priced(rows, column) if row.accuracy is not None]
        if len(known) < 2:
            continue
        front = [known[index] for index in pareto([(getattr(row, column), row.accuracy or 0.0) for row in known])]
        text = f"On the Pareto front of accuracy and energy {title}: {names(front)}"
        lost = any(row.spiking for row in known) and not any(row.spiking for row in front)
        yield f"{text}; no spiking network is on it." if lost else f"{text}."


def _latency(rows: Sequence[Row]) -> Iterator[str]:
    slow = [(row, row.latency_ticks) for row in rows if row.spiking and row.latency_ticks is not None]
    if slow and any(not row.spiking for row in rows):
        ticks = listed(f"{row.model!r} after {ticks:g} ticks" for row, ticks in slow)
        yield f"Time to the answer: {ticks}; networks without neurons answer in one pass."


def _storage(rows: Sequence[Row]) -> Iterator[str]:
    found = [
        f"{row.model!r} stores {engineering(row.parameters_stored)} for the {engineering(row.parameters_active)}"
        for row in rows
        if row.parameters_stored and row.parameters_active and row.parameters_stored >= 1.5 * row.parameters_active
    ]
    if found:
        yield f"More parameters than work on one sample: {listed(found)}."


def _doubts(rows: Sequence[Row]) -> Iterator[str]:
    doubtful: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for column, known in row.provenance.items():
            if known.how in UNCONFIRMED and getattr(row, column) is not None:
                doubtful.setdefault((column, str(known)), []).append(row)
    for (column, said), found in doubtful.items():
        title = " ".join(HEADINGS[column]) if column in HEADINGS else column
        whose = "every row" if len(found) == len(rows) > 1 else names(found, 6)
        yield f"Unconfirmed: {title} of {whose} ({said})."
