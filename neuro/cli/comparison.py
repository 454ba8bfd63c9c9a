"""Lines of a comparison as rows of its table: counts times the prices of three models, each with its source."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

from hardware_targets import Bill, price
from hardware_targets.price import crowded_out
from hardware_targets.sensitivity import ends_of, shares
from neuro.cli.cells import ENTRIES, Measured
from neuro.cli.protocol import Line, Match, Outcome
from neuro.counts import Counts
from neuro.errors import MissingPrice, ParameterError
from neuro.report import Provenance, Row

SCORED = Provenance("measured", "on the test samples, once")
COLUMNS = {"A": "energy_operations_J", "B": "energy_memory_J", "C": "energy_chip_J"}
"""The energy models, and the columns that hold them."""


@dataclass(frozen=True, eq=False)
class Priced:
    """A line as a row, with the counts behind it (all seeds) and its bills by model."""

    line: Line
    row: Row
    counts: Counts
    bills: Mapping[str, Bill] = field(default_factory=dict)


def priced(line: Line) -> Priced:
    """The row of a line: means over seeds, and the standard deviation of the accuracy where there are several."""
    tested = line.tested
    counts = reduce(add, (one.counts for one in tested))
    stored, active = (round(statistics.mean(getattr(one, name) for one in tested)) for name in ("stored", "active"))
    bills, unpriced = _bills(line, counts, stored)
    seeds = len(tested)
    over = "" if seeds == 1 else f", mean over {seeds} seeds"
    counted = Provenance("measured", f"counted while this network ran on the test samples in this program{over}")
    known = {"accuracy": SCORED, "macs": counted, "accumulates": counted, "spikes": counted}
    energies: dict[str, Any] = {"shares": {}}
    for letter, bill in bills.items():
        column = COLUMNS[letter]
        energies |= {column: bill.per_sample, f"{column}_range": bill.range}
        energies["shares"][column] = ends_of(shares(bill, f"{bill.table}: "))
        known[column] = _provenance(bill)
    spiking, clocked = tested[0].spiking, ENTRIES[line.row].clocked
    notes = (*line.notes, *tested[0].notes)
    if spiking and not clocked:
        notes += (f"Continuous time in {counts.steps} windows: no ticks.",)
    small = crowded_out(stored, counts.precision) if "B" in bills else ""
    if small:
        notes += (f"Stores at most a quarter more than {small} holds, and pays for larger memory under B.",)
    row = Row(
        model=line.title,
        accuracy=statistics.mean(one.accuracy for one in tested),
        accuracy_sd=statistics.stdev(one.accuracy for one in tested) if seeds > 1 else None,
        parameters_stored=stored,
        parameters_active=active,
        macs=counts.per_sample("macs"),
        accumulates=counts.per_sample("accumulates") if spiking else None,
        spikes=counts.per_sample("spikes") if spiking else None,
        latency_ticks=counts.steps if spiking and clocked else None,
        provenance=known,
        notes=notes,
        family=ENTRIES[line.row].family,
        seeds=seeds,
        samples=tested[0].counts.samples,
        unpriced=unpriced,
        **energies,
    )
    return Priced(line, row, counts, bills)


def _bills(line: Line, counts: Counts, stored: int) -> tuple[dict[str, Bill], dict[str, str]]:
    """The bills of a row by model, and why a column is empty."""
    entry = ENTRIES[line.row]
    tables = {"A": "45nm", "B": "45nm-memory", "C": entry.device(line.plan)}
    bills: dict[str, Bill] = {}
    unpriced: dict[str, str] = {}
    for letter, table in tables.items():
        if not table or (letter != "C" and entry.family == "photonic"):
            continue
        try:
            bills[letter] = price(counts, table, stored_words=stored)
        except MissingPrice as error:
            unpriced[COLUMNS[letter]] = error.lack
    return bills, unpriced


def _provenance(bill: Bill) -> Provenance:
    used = sorted({bill.provenance[cause].status for cause, joules in bill.joules.items() if joules > 0})
    how = "modelled" if bill.status in ("measured", "quoted", "modelled") else bill.status
    return Provenance(how, f"counts times the prices of table {bill.table} ({', '.join(used)})")


def rows_at(outcome: Outcome, match: Match) -> list[Priced]:
    """The rows of one matching, in the order that was asked for."""
    return [priced(line) for line in outcome.lines.get(match, ())]


def curves(outcome: Outcome) -> dict[str, tuple[list[int], list[float]]]:
    """Accuracy on validation samples after T steps, for every spiking row that was tried at several T."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row, points in outcome.tried.items():
        steps = {at.steps: one.accuracy for at, one in points if one.spiking}
        if len(steps) > 1 and ENTRIES[row].family == "spiking":
            found[ENTRIES[row].title] = (list(steps), list(steps.values()))
    return found


def energy_notes(found: Iterable[Priced]) -> list[str]:
    """Every price that was used, once."""
    notes: dict[str, None] = {}
    for one in found:
        for letter, bill in one.bills.items():
            for cause, joules in bill.joules.items():
                if joules > 0:
                    known = bill.provenance[cause]
                    name = bill.constants[cause].name
                    notes[f"{letter}, {bill.table}, {name}: {known} ({known.status}; {known.source})"] = None
    return list(notes)


def find(found: Sequence[Priced], row: str) -> Priced:
    """The row of a name; ParameterError where the comparison has none."""
    for one in found:
        if one.line.row == row:
            return one
    raise ParameterError(f"the comparison has no row {row!r}")


def mean_of(measured: Sequence[Measured], fact: str) -> float | None:
    """The mean of a fact over seeds; None where it is unknown."""
    values = [one.facts[fact] for one in measured if one.facts and fact in one.facts]
    return statistics.mean(values) if values else None
