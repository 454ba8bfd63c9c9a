"""A bill: how often each cause happened, times its price. Every joule keeps the price it came from.

A missing price is an error, never zero, and a bill is as sure as its least sure price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from hardware_targets.chip import Quantity, Status, worst
from neuro.counts import Tally
from neuro.errors import MissingPrice, ParameterError
from neuro.report.sheet import engineering
from neuro.shown import Sheet, Shown

WORDS = ("weight_words", "activation_words", "state_words")
EVENTS = ("spikes", "updates", "packets", "hops")
PART_OF = {"effective_macs": "macs", "updates_active": "updates"}
"""Counts that are a part of another count: what prices the whole needs no price for the part."""

OPERATIONS = tuple(item.name for item in fields(Tally) if item.name not in (*WORDS, *EVENTS, *PART_OF))
"""What arithmetic does. Whatever a Tally comes to count is an operation unless it is named above."""


@dataclass(frozen=True)
class Constant:
    """One number of a table. Several prices may come from it, such as those of all words of one memory."""

    name: str
    quantity: Quantity


@dataclass(frozen=True)
class Bill(Shown):
    """What `samples` inferences cost by one table: events times prices, by cause.

    `events` says how often each cause happened, `provenance` what one event costs (in J) and whence that is known.
    `constants` names the number of the table behind a price where it is not the price itself. `parts` are named groups
    of causes. `seconds` is the latency of one inference where the table knows a tick. `separate` holds joules that no
    event causes (idle power, host), in no total; None says that nobody knows them. `work` holds seconds, by cause,
    where the table knows how long an event takes: what one core would need for all of them, and the barriers, which
    all cores wait for together.
    """

    table: str
    samples: int
    events: Mapping[str, int]
    provenance: Mapping[str, Quantity]
    seconds: float | None = None
    separate: Mapping[str, float | None] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    work: Mapping[str, Quantity] = field(default_factory=dict)
    constants: Mapping[str, Constant] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        constants = {cause: self.constants.get(cause, Constant(cause, own)) for cause, own in self.provenance.items()}
        object.__setattr__(self, "constants", constants)
        for name in ("events", "provenance", "separate", "work", "constants", "parts"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def joules(self) -> dict[str, float]:
        """Joules of all samples, by cause."""
        return {cause: self.events[cause] * price.in_base("J") for cause, price in self.provenance.items()}

    @property
    def total(self) -> float:
        """Joules of all causes and samples."""
        return sum(self.joules.values())

    @property
    def per_sample(self) -> float:
        """Joules of one inference."""
        return self.total / self.samples

    @property
    def range(self) -> tuple[float, float]:
        """Joules of one inference with every price at its low end, and with every price at its high end."""
        ends = [self.range_of(cause) for cause in self.provenance]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    def range_of(self, cause: str) -> tuple[float, float]:
        """Joules of one cause in one inference with its price at the low end, and at the high end."""
        low, high = self.provenance[cause].range_in_base("J")
        return self.events[cause] * low / self.samples, self.events[cause] * high / self.samples

    def part(self, name: str) -> float:
        """Joules of one inference in a named group of causes."""
        if name not in self.parts:
            raise ParameterError(f"table {self.table!r} has no part {name!r}; it has {', '.join(self.parts) or 'none'}")
        joules = self.joules
        return sum(joules[cause] for cause in self.parts[name] if cause in joules) / self.samples

    @property
    def status(self) -> Status:
        """How sure the least sure price is that was used."""
        return worst(self.provenance[cause].status for cause, joules in self.joules.items() if joules > 0)

    def time_of(self, cause: str) -> float | None:
        """Seconds of work of one cause in one inference; None where the table does not say."""
        if cause not in self.work:
            return None
        return self.events[cause] * self.work[cause].in_base("s") / self.samples

    def rows(self) -> list[tuple[str, ...]]:
        """Cause, events, joules and seconds of work per sample, price, status and source."""
        rows: list[tuple[str, ...]] = []
        joules = self.joules
        for cause in dict.fromkeys((*joules, *self.work)):
            priced, timed = self.provenance.get(cause), self.work.get(cause)
            known = [quantity for quantity in (priced, timed) if quantity is not None]
            price = " and ".join(_price(quantity) for quantity in known)
            sources = "; ".join(dict.fromkeys(quantity.source for quantity in known))
            spent = "unknown" if priced is None else between(joules[cause] / self.samples, self.range_of(cause))
            status = worst(quantity.status for quantity in known)
            rows.append((cause, self._often(cause), spent, self._shown(cause), price, status, sources))
        rows.append(("total", "", between(self.per_sample, self.range), "", "", self.status, self.table))
        for name, causes in self.parts.items():
            rows.append((f"of it {name}", "", engineering(self.part(name), "J"), "", "", "", ", ".join(causes)))
        for cause, amount in self.separate.items():
            if cause not in self.work:
                known_amount = "unknown" if amount is None else engineering(amount / self.samples, "J")
                rows.append((cause, "", known_amount, "", "", "", "not in the total"))
        return rows

    def _often(self, cause: str) -> str:
        return engineering(round(self.events[cause] / self.samples, 1)) if cause in self.events else ""

    def _shown(self, cause: str) -> str:
        seconds = self.time_of(cause)
        return "" if seconds is None else engineering(seconds, "s")

    def sheet(self) -> Sheet:
        headings = ("cause", "events", "energy", "core time", "price", "status", "source")
        return f"Per sample, prices of {self.table}", headings, self.rows(), self.assumptions


def _price(quantity: Quantity) -> str:
    """A price in J or a time in s, and its range where it has one."""
    unit = quantity.unit[-1]
    return between(quantity.in_base(unit), quantity.range_in_base(unit), unit)


def between(value: float, ends: tuple[float, float], unit: str = "J") -> str:
    """An energy (or another quantity in `unit`), and its range where it has one.

    >>> between(1e-9, (1e-9, 2e-9)), between(1e-9, (1e-9, 1e-9))
    ('1.00 nJ (1.00 nJ to 2.00 nJ)', '1.00 nJ')
    """
    said, *shown = (engineering(number, unit) for number in (value, *ends))
    return said if shown == [said, said] else f"{said} ({' to '.join(shown)})"


def need_prices(
    total: Tally, names: Iterable[str], priced: Iterable[str], table: str, included: Iterable[str] = ()
) -> None:
    """MissingPrice where one of `names` was counted but has no price and is in no other price."""
    known = {*priced, *included}
    for name in names:
        counted = getattr(total, name)
        if counted > 0 and name not in known and PART_OF.get(name) not in known:
            lack = f"table {table!r} has no price for {name}"
            raise MissingPrice(lack, f", and {counted:,} were counted; add one")


def need_events(total: Tally, included: Iterable[str], holders: Mapping[str, int], table: str) -> None:
    """MissingPrice where something is inside the price of events (`holders`: how often), and none of these happened."""
    inside = {name: getattr(total, name) for name in included}
    if any(inside.values()) and not any(holders.values()):
        name = max(inside, key=lambda name: inside[name])
        raise MissingPrice(
            f"table {table!r} prices {name} only inside {', '.join(holders)}",
            f"; {inside[name]:,} were counted, and none of these",
        )


def check_joules(prices: Mapping[str, Quantity], place: str) -> None:
    """ParameterError where a price is no energy, or is negative."""
    for name, quantity in prices.items():
        try:
            low, _ = quantity.range_in_base("J")
        except ParameterError as error:
            raise ParameterError(f"{place}.{name}: {error}") from error
        if low < 0:
            raise ParameterError(f"{place}.{name}: a price must be >= 0 J, got {quantity}")


def texts(value: object, place: str) -> tuple[str, ...]:
    """A TOML list of texts (or one text); ParameterError otherwise."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise ParameterError(f"{place} must be a list of texts, got {value!r:.60}")
    return tuple(listed)
