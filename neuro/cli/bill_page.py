"""What a comparison says about prices: rows on devices, what would turn a ranking, where spiking breaks even."""

from __future__ import annotations

from collections.abc import Sequence

from hardware_targets import Bill
from hardware_targets.bill import between
from hardware_targets.break_even import break_even
from hardware_targets.devices import devices, price_on_devices
from hardware_targets.measurements import published_mnist
from hardware_targets.sensitivity import flips, ranking
from neuro.cli.cells import ENTRIES
from neuro.cli.comparison import Priced
from neuro.errors import ParameterError
from neuro.report import Section
from neuro.report.sheet import NOTHING, engineering, significant
from neuro.report.verdicts import listed
from neuro.shown import Sheet

MODELS = {"A": "operations, 45 nm", "B": "operations and memory, 45 nm"}


def bill_sections(task: str, main: Sequence[Priced]) -> list[Section]:
    """Devices, light alone and with its electronics, what is published, sensitivity and break-even."""
    return [*_devices(main), *_light(main), *_published(task, main), *_sensitivity(main), *_break_even(main)]


def _devices(main: Sequence[Priced]) -> list[Section]:
    bills = {one.row.model: price_on_devices(one.counts, one.row.parameters_stored, devices()) for one in main}
    names = [name for name in devices() if any(isinstance(found[name], Bill) for found in bills.values())]
    if not names:
        return []
    lines = [(model, *(_cell(found[name]) for name in names)) for model, found in bills.items()]
    reasons: dict[str, list[str]] = {}
    for model, found in bills.items():
        for why in found.values():
            if isinstance(why, str):
                # counts differ by row; the reason does not
                reasons.setdefault(why, []).append(repr(model))
    notes = [
        "A peak divided by the rated power is a lower bound; the range ends at the utilisation of single samples.",
        "Chips price events, so a network with dense layers has no price there until its compiled program was run.",
    ]
    sheet: Sheet = ("Energy per inference", ("model", *names), lines, notes)
    text = (
        "Model C: what the counted work would cost on processors and chips, by their published constants. It is "
        "never added to or compared with A and B, and columns differ in process, boundary and sureness: `neuro chips` "
        "and the tables in hardware_targets/energy give the source of each constant. Devices without a price for any "
        "row have no column."
    )
    details = tuple(f"{reason}: {listed(dict.fromkeys(models))}" for reason, models in reasons.items())
    return [
        Section("Every row on every device", text, table=sheet, details=details, details_title="Why a cell is empty")
    ]


def _cell(found: Bill | str) -> str:
    if isinstance(found, str):
        return NOTHING
    return between(found.per_sample, found.range)


def _light(main: Sequence[Priced]) -> list[Section]:
    lit = [(one.row.model, one.bills["C"]) for one in main if "C" in one.bills and "optical" in one.bills["C"].parts]
    if not lit:
        return []
    lines = []
    for model, bill in lit:
        alone = bill.part("optical")
        times = significant(bill.per_sample / alone) if alone else NOTHING
        lines.append((model, engineering(alone, "J"), _cell(bill), times))
    notes = tuple(dict.fromkeys(sentence for _, bill in lit for sentence in bill.assumptions))
    sheet: Sheet = (
        "Energy per inference", ("model", "light alone", "full system", "times as much"), lines, notes
    )  # fmt: skip
    text = (
        "Papers on optics often count the light alone. The full system pays for converters, modulators, detectors, "
        "held phases and the digital rest; all of it is a model, with the constants and ranges of the table 'photonic'."
    )
    return [Section("Optical networks, light alone and full system", text, table=sheet)]


def _published(task: str, main: Sequence[Priced]) -> list[Section]:
    if task not in ("mnist", "mnist-5k"):
        return []
    placed = [one for one in main if "C" in one.bills and one.row.family == "spiking"]
    bills = {one.row.model: one.bills["C"] for one in placed}
    right = {one.row.model: one.row.accuracy for one in placed if one.row.accuracy is not None}
    text = "Joules of one MNIST image that papers measured on chips, each within its own boundary, and our models of C."
    return [Section("Published beside modelled", text, table=published_mnist(bills, right))]


def rivals(main: Sequence[Priced]) -> tuple[Priced, Priced] | None:
    """The best spiking row, and the integer row of least energy (or the dense one) that it must beat; None without.

    Best: least energy of model A among the spiking rows that are within one point of the rival, or the most accurate.
    """
    spiking = [one for one in main if one.row.spiking and one.row.family == "spiking" and "A" in one.bills]
    integer = [one for one in main if one.line.row in ("int8", "int8-gated") and "A" in one.bills]
    dense = integer or [one for one in main if one.line.row == "dense"]
    if not spiking or not dense:
        return None
    rival = min(dense, key=lambda one: one.bills["A"].per_sample)
    near = [one for one in spiking if (one.row.accuracy or 0) >= (rival.row.accuracy or 0) - 0.01]
    if near:
        return min(near, key=lambda one: one.bills["A"].per_sample), rival
    return max(spiking, key=lambda one: one.row.accuracy or 0), rival


def _sensitivity(main: Sequence[Priced]) -> list[Section]:
    pair = rivals(main)
    parts = []
    for letter, what in MODELS.items():
        bills = {one.row.model: one.bills[letter] for one in main if letter in one.bills}
        if len(bills) > 1:
            text = (
                f"Rows in the order of their energy under model {letter}, and whether that order survives the ranges "
                "of prices, each price the same in both rows."
            )
            parts.append(Section(f"Ranking under model {letter}", text, table=ranking(bills)))
        if pair is not None and all(letter in one.bills for one in pair):
            spiking, rival = pair
            text = (
                f"By which factor one constant alone would have to change for {spiking.row.model!r} and "
                f"{rival.row.model!r} to change places under model {letter} ({what})."
            )
            names = (spiking.row.model, rival.row.model)
            table = flips(spiking.bills[letter], rival.bills[letter], names)
            parts.append(Section(f"What would turn the ranking, model {letter}", text, table=table))
    return parts


def _break_even(main: Sequence[Priced]) -> list[Section]:
    pair = rivals(main)
    if pair is None:
        return []
    spiking, rival = pair
    # an engine that skips zeros does fewer multiplications than there are synapses
    plain = next((one for one in main if one.line.row == ENTRIES[rival.line.row].of), rival)
    try:
        table = break_even(
            rival.counts, spiking.counts, dense_words=rival.row.parameters_stored or 0,
            spiking_words=spiking.row.parameters_stored or 0, synapses=plain.counts.per_sample("macs"),
        )  # fmt: skip
    except ParameterError:  # no spike was counted
        return []
    text = (
        f"Spikes per synapse and inference below which {spiking.row.model!r} costs less than {rival.row.model!r}, by "
        "each energy model. `neuro cost --help` computes it for other numbers."
    )
    return [Section("Break-even", text, table=table)]
