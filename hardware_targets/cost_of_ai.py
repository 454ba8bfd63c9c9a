"""The arithmetic of the cost of AI: petaFLOPS-days, operations per second and watt, joules per inference.

An efficiency of G GFLOPS/W is G x 1e9 operations per joule. So a rate (PFLOPS) costs power, and an amount of operations
(petaFLOPS-days: 1e15 x 86,400) costs energy. A multiply-accumulate is two operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hardware_targets.bill import Bill
from hardware_targets.break_even import dense_counts
from hardware_targets.devices import price_on_devices, processors
from neuro.errors import ParameterError
from neuro.report.sheet import engineering, span
from neuro.shown import Sheet, Shown

DAY = 86_400
KILOWATT_HOUR = 3.6e6
SURVEY = 65.0
"""GFLOPS/W of the survey's example, about that of the Green500's leader of November 2022."""


def watts(petaflops: float, gflops_per_watt: float, utilisation: float = 1.0) -> float:
    """Power in W of a machine while it delivers `petaflops` (1e15 operations per second).

    utilisation: the share of its peak, to which the efficiency belongs, that is delivered at full power; in (0, 1].

    >>> round(watts(1, 65))
    15385
    """
    _check(petaflops=petaflops)
    return petaflops * 1e15 / _per_joule(gflops_per_watt, utilisation)


def joules(petaflops_days: float, gflops_per_watt: float, utilisation: float = 1.0) -> float:
    """Energy in J of an amount of computing in petaFLOPS-days.

    >>> round(joules(1, 65) / KILOWATT_HOUR)
    369
    """
    _check(petaflops_days=petaflops_days)
    return petaflops_days * 1e15 * DAY / _per_joule(gflops_per_watt, utilisation)


def joules_per_inference(macs: float, gflops_per_watt: float, utilisation: float = 1.0) -> float:
    """Energy in J of one inference: 2 macs / (GFLOPS/W x 1e9 x utilisation).

    >>> f"{joules_per_inference(266_200, 48.75):.3g}"
    '1.09e-05'
    """
    _check(macs=macs)
    return 2 * macs / _per_joule(gflops_per_watt, utilisation)


def _per_joule(gflops_per_watt: float, utilisation: float) -> float:
    _check(gflops_per_watt=gflops_per_watt, utilisation=utilisation)
    if gflops_per_watt == 0 or not 0 < utilisation <= 1:
        raise ParameterError(
            f"gflops_per_watt must be > 0 and utilisation in (0, 1], got {gflops_per_watt} and {utilisation}"
        )
    return gflops_per_watt * 1e9 * utilisation


def _check(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ParameterError(f"{name} must be a finite number >= 0, got {value}")


def correction() -> str:
    """What the survey article says of 1 PFLOPS at 65 GFLOPS/W, and what it is."""
    return (
        f"The survey 'AI (In)Efficiency' (2024) makes 65 MW of 1 PFLOPS at {SURVEY:g} GFLOPS/W; it is 1e15 / 65e9 = "
        f"{engineering(watts(1, SURVEY), 'W')}. One petaFLOPS-day is an energy, "
        f"{joules(1, SURVEY) / KILOWATT_HOUR:.0f} kWh there."
    )


@dataclass(frozen=True)
class Computing(Shown):
    """Power of a rate, or energy of an amount, of computing; utilisation in (0, 1]."""

    gflops_per_watt: float = SURVEY
    utilisation: float = 1.0
    petaflops: float | None = None
    petaflops_days: float | None = None

    @property
    def watts(self) -> float | None:
        """Power of `petaflops`, where a rate is given."""
        return None if self.petaflops is None else watts(self.petaflops, self.gflops_per_watt, self.utilisation)

    @property
    def joules(self) -> float | None:
        """Energy of `petaflops_days`, where an amount is given."""
        amount = self.petaflops_days
        return None if amount is None else joules(amount, self.gflops_per_watt, self.utilisation)

    def rows(self) -> list[tuple[str, ...]]:
        """What is computed, and what it costs."""
        rows: list[tuple[str, ...]] = []
        if self.watts is not None:
            rows.append((f"{self.petaflops:g} PFLOPS", "power", engineering(self.watts, "W")))
        if self.joules is not None:
            energy = f"{engineering(self.joules, 'J')} = {self.joules / KILOWATT_HOUR:.4g} kWh"
            rows.append(
                (f"{self.petaflops_days:g} petaFLOPS-day{'' if self.petaflops_days == 1 else 's'}", "energy", energy)
            )
        return rows

    def sheet(self) -> Sheet:
        title = f"Computing at {self.gflops_per_watt:g} GFLOPS/W, utilisation {self.utilisation:g}"
        return title, ("computing", "what", "costs"), self.rows(), (correction(),)


@dataclass(frozen=True)
class Inference(Shown):
    """Joules of one inference of `macs` multiply-accumulates on every processor that has the number format.

    With `gflops_per_watt` (and `utilisation`) also on a machine of that efficiency.
    """

    macs: int
    precision: str = "float32"
    gflops_per_watt: float | None = None
    utilisation: float = 1.0

    @property
    def bills(self) -> Mapping[str, Bill | str]:
        """Bills by processor, or why one has none; ParameterError where none has the number format."""
        found = price_on_devices(dense_counts(self.macs, self.precision), names=processors())
        if all(isinstance(bill, str) for bill in found.values()):
            raise ParameterError(f"no processor has the number format {self.precision!r}; try float32, int8 or int32")
        return found

    @property
    def given(self) -> float | None:
        """Joules on the machine that was given, where one was."""
        rate = self.gflops_per_watt
        return None if rate is None else joules_per_inference(self.macs, rate, self.utilisation)

    def rows(self) -> list[tuple[str, ...]]:
        """Processor, joules, their range, joules of a multiply-accumulate, status, source; the cheapest first."""
        rows: list[tuple[float, tuple[str, ...]]] = []
        if self.given is not None:
            how = f"{self.gflops_per_watt:g} GFLOPS/W, utilisation {self.utilisation:g}"
            rows.append((self.given, ("as given", *self._energies(self.given), "given", how)))
        for name, bill in self.bills.items():
            if isinstance(bill, Bill):
                price, (low, high) = bill.provenance["macs"], bill.range
                ends = "" if low == high else span(low, high, "J")
                energies = self._energies(bill.per_sample, ends)
                rows.append((bill.per_sample, (name, *energies, price.status, price.source)))
        return [row for _, row in sorted(rows)]

    def _energies(self, joules: float, ends: str = "") -> tuple[str, ...]:
        return engineering(joules, "J"), ends, engineering(joules / self.macs, "J")

    def sheet(self) -> Sheet:
        refused = [f"No price on {name}: {reason}." for name, reason in self.bills.items() if isinstance(reason, str)]
        notes = (
            "The peak at rated power is a lower bound; the high end is a utilisation of a few in a hundred or less, as "
            "small networks at batch 1 see it.",
            *refused,
            correction(),
        )
        title = f"One inference of {self.macs:,} multiply-accumulates in {self.precision}"
        return title, ("processor", "energy", "range", "of one", "status", "source"), self.rows(), notes
