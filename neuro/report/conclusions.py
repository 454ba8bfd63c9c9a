"""What the rows say, in sentences derived from their numbers, the unwelcome ones included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter

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
from neuro.report.sheet import HEADINGS, engineering, significant
from neuro.report.verdicts import (
    CLOSE,
    cheapest,
    close_in,
    energy,
    fitted,
    gap,
    listed,
    names,
    near,
    over_seeds,
    priced,
    reference,
)


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
    logistic, static, random, classical control. A difference in accuracy within two standard errors is called noise:
    over seeds or, of one training, binomial in its test samples. A row needs less energy than another where it does so
    for all prices in their ranges (`neuro.report.prices`). `at_equal_parameters`: the rivals at the size of the dense
    network; left out, the rows that happen to have it. `speeds`: measurements of sparse rows.
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
    yield fitted(lambda few: f"Most accurate: {names(best, few)} with {100 * most:.2f} %{_noise(level, few)}.")
    behind = [(row, seen) for row, seen in gaps if row.spiking and seen.behind]
    if behind:
        far = [f"{row.model!r} by {seen}" for row, seen in sorted(behind, key=lambda pair: -pair[1].points)]
        yield fitted(lambda most: f"Spiking networks behind the best: {listed(far, most)}.")


def _noise(level: Sequence[Row], most: int) -> str:
    return f"; within noise of it: {names(level, most)}" if level else ""


def _seeds(rows: Sequence[Row]) -> Iterator[str]:
    """What a difference in accuracy is measured by."""
    known = [row for row in rows if row.accuracy is not None]
    several = [row for row in known if over_seeds(row)]
    single = [row for row in known if row not in several and row.samples is not None]
    neither = [row for row in known if row not in [*several, *single] and row.seeds == 1]
    if several:
        counts = listed(map(str, sorted({row.seeds or 0 for row in several})))
        share = "" if len(several) == len(rows) else f" ({len(several)} of {len(rows)} rows)"
        yield f"Means over {counts} seeds{share}; a difference counts where it exceeds two standard errors."
    if single:
        counts = listed(f"{count:,}" for count in sorted({row.samples or 0 for row in single}))
        rule = (
            f"a difference counts where it exceeds two binomial standard errors of {counts} test samples. All rows see "
            "the same samples, which this leaves out: a paired test would call fewer of them level. What another "
            "training would change is not in it"
        )
        yield fitted(lambda most: f"One training of {_whose(single, rows, most)}: {rule}.")
    if neither:
        doubt = "small differences in its accuracy cannot be told from noise"
        yield fitted(lambda most: f"One seed for {_whose(neither, rows, most)}: {doubt}.")


def _whose(found: Sequence[Row], rows: Sequence[Row], most: int) -> str:
    return "every row" if len(found) == len(rows) > 1 else names(found, most)


def _least_energy(rows: Sequence[Row]) -> Iterator[str]:
    """The cheapest rows of those that are about as accurate as the dense network, and which others are cheaper."""
    dense = reference(rows)
    near_dense = f" within one point of {dense.model!r}" if dense is not None and dense.accuracy is not None else ""
    winners = {}
    for column, title in ENERGIES.items():
        known = priced(rows, column)
        able = near(known, dense) if dense is not None and near_dense else known
        if column not in MODELS and len({row.provenance.get(column) for row in known}) > 1:
            yield f"Under {title} rows are priced for several devices, whose boundaries differ: they are not ranked."
        elif len(known) == 1:
            price = engineering(getattr(known[0], column), "J")
            only = f"only {known[0].model!r} has a price, {price} per inference"
            yield f"Under {title} {only}; it is compared with nothing."
        elif able:
            winners[column] = cheapest(able, column)[0]
            yield _winner(rows, known, able, column, f"Least energy under {title}{near_dense}")
        elif known:
            yield f"No row with a price under {title} is{near_dense}."
    if all(column in winners for column in MODELS):
        a, b = (winners[column] for column in MODELS)
        if not {row.model for row in a} & {row.model for row in b}:
            yield f"The winner depends on the energy model: {names(a)} under A, {names(b)} once memory is counted."


def _winner(rows: Sequence[Row], known: Sequence[Row], able: Sequence[Row], column: str, what: str) -> str:
    low, open_ = cheapest(able, column)
    least, dense = getattr(low[0], column), reference(rows)
    usual = None if dense is None or dense in low else getattr(dense, column)
    factor = f", {significant(least / usual)} times that of {dense.model!r}" if dense is not None and usual else ""
    below = [row for row in known if row not in able and energy(row, low[0], column) == "less"]
    below.sort(key=lambda row: -(row.accuracy or 0.0))

    def said(most: int) -> str:
        text = f"{what}: {names(low, most)} with {engineering(least, 'J')} per inference{factor}"
        if open_:
            text += f", undecided within the ranges of prices against {names(open_, most)}"
        if below:
            text += f"; cheaper but less accurate: {listed(map(_with_accuracy, below), most)}"
        return f"{text}."

    return fitted(said)


def _with_accuracy(row: Row) -> str:
    return f"{row.model!r}" if row.accuracy is None else f"{row.model!r} ({100 * row.accuracy:.2f} %)"


def _unpriced(rows: Sequence[Row]) -> Iterator[str]:
    reasons: dict[str, dict[str, list[Row]]] = {}
    for column, title in MODELS.items():
        for row in rows if priced(rows, column) else ():
            if getattr(row, column) is None:
                reasons.setdefault(title, {}).setdefault(row.why_unpriced(column) or "", []).append(row)
    said = {title: fitted(partial(_reasons, found)) for title, found in reasons.items()}
    for titles, text in _merged(said):
        yield f"Without a price under {titles}: {text}."


def _merged(said: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Texts by title, those of one text together."""
    for text in dict.fromkeys(said.values()):
        yield listed(title for title in said if said[title] == text), text


def _reasons(found: Mapping[str, Sequence[Row]], most: int) -> str:
    return "; ".join(
        f"{names(rows, most)} ({reason})" if reason else names(rows, most) for reason, rows in found.items()
    )


def _equal_accuracy(rows: Sequence[Row]) -> Iterator[str]:
    dense = reference(rows)
    if dense is None or dense.accuracy is None:
        return
    able = near(rows, dense)
    far = [row for row in rows if row.spiking and row.accuracy is not None and row not in able]
    if far:
        yield f"Spiking networks more than one point below {dense.model!r}: {names(far)}."


def _families(rows: Sequence[Row]) -> Iterator[str]:
    """The best row of each family: the cheapest that is about as accurate as the dense network, else the closest."""
    dense = reference(rows)
    families = list(dict.fromkeys(row.family for row in rows if row.family))
    if dense is None or dense.accuracy is None or len(families) < 2:
        return
    able, below = near(rows, dense), {}
    for column, title in MODELS.items():
        best, far = [], []
        for family in families:
            known = [row for row in priced(rows, column) if row.family == family and row.accuracy is not None]
            good = [row for row in known if row in able]
            if good:
                low = cheapest(good, column)[0]
                best.append(f"{family} {names(low)} {engineering(getattr(low[0], column), 'J')}")
            elif known:
                closest = max(known, key=lambda row: row.accuracy or 0.0)
                far.append(f"{family} {closest.model!r} ({gap(dense, closest)} below)")
        if best:
            yield f"Best of each family under {title}, within one point of {dense.model!r}: {'; '.join(best)}."
        if best and far:
            below[title] = "; ".join(far)
    for titles, text in _merged(below):
        yield f"Families with a price under {titles} but none so accurate, by their best: {text}."


def _equal_parameters(rows: Sequence[Row], dense: Row | None) -> Iterator[str]:
    if dense is None or not dense.parameters_stored:
        return
    alike = [row for row in rows if close_in(row.parameters_stored, dense.parameters_stored)]
    if len({row.model for row in alike} | {dense.model}) < 2:
        return
    size = f"Storing as much as {dense.model!r} ({engineering(dense.parameters_stored)} parameters, within a tenth)"
    known = [row for row in alike if row.accuracy is not None]
    if len(known) > 1:
        best = max(known, key=lambda row: row.accuracy or 0.0)
        level = [row for row in known if row is not best and (seen := gap(row, best)) is not None and seen.level]
        spiking = [row for row in known if row.spiking]
        first = max(spiking, key=lambda row: row.accuracy or 0.0) if spiking else best
        below = first is not best and first not in level
        behind = f"; the best spiking network, {first.model!r}, is {gap(best, first)} below" if below else ""
        yield fitted(lambda most: f"{size}: most accurate {_with_accuracy(best)}{_noise(level, most)}{behind}.")
    for column, title in MODELS.items():
        found = priced(near(alike, dense) if dense.accuracy is not None else alike, column)
        if len(found) > 1:
            yield _winner(alike, priced(alike, column), found, column, f"{size}, least energy under {title}")


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
        lost = any(row.spiking for row in known) and not any(row.spiking for row in front)
        text = f"On the Pareto front of accuracy and energy {title}: {names(front)}"
        yield f"{text}; no spiking network is on it." if lost else f"{text}."


def _latency(rows: Sequence[Row]) -> Iterator[str]:
    slow = [(row, row.latency_ticks) for row in rows if row.spiking and row.latency_ticks is not None]
    if slow and any(not row.spiking for row in rows):
        ticks = [f"{row.model!r} after {ticks:g} ticks" for row, ticks in sorted(slow, key=itemgetter(1))]
        passes = "networks without neurons answer in one pass"
        yield fitted(lambda most: f"Time to the answer: {listed(ticks, most)}; {passes}.")


def _storage(rows: Sequence[Row]) -> Iterator[str]:
    found = [
        f"{row.model!r} {engineering(row.parameters_stored)} for {engineering(row.parameters_active)}"
        for row in rows
        if row.parameters_stored and row.parameters_active and row.parameters_stored >= 1.5 * row.parameters_active
    ]
    if found:
        yield fitted(lambda most: f"More parameters stored than work on one sample: {listed(found, most)}.")


def _doubts(rows: Sequence[Row]) -> Iterator[str]:
    doubtful: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for column, known in row.provenance.items():
            if known.how in UNCONFIRMED and getattr(row, column) is not None:
                doubtful.setdefault((column, str(known)), []).append(row)
    for (column, said), found in doubtful.items():
        title = " ".join(HEADINGS[column]) if column in HEADINGS else column
        yield fitted(partial(_doubt, title, said, found, rows))


def _doubt(title: str, said: str, found: Sequence[Row], rows: Sequence[Row], most: int) -> str:
    return f"Unconfirmed: {title} of {_whose(found, rows, most)} ({said})."
