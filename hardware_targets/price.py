"""Energy is counts times prices. Three kinds of table, never merged: operations, operations and memory, a chip.

A missing price is an error, never zero. Every joule keeps the price it came from, and a bill is as sure as its least
sure price.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hardware_targets.chip import Chip, Quantity, Status, chips, load_chip, quantities, read_toml, worst
from neuro.counts import Counts, Tally
from neuro.errors import MissingPrice, ParameterError
from neuro.report.sheet import engineering
from neuro.shown import Sheet, Shown

FOLDER = Path(__file__).parent / "energy"
OPERATIONS = ("macs", "accumulates", "additions", "multiplications", "comparisons", "exponentials")
WORDS = ("weight_words", "activation_words", "state_words")
ACCESS_BITS = 64


@dataclass(frozen=True)
class Bill(Shown):
    """What `samples` inferences cost by one table.

    `joules` and `provenance` share their keys, the causes; `events` says how often each happened. `seconds` is the
    latency of one inference where the table knows a tick. `separate` holds joules that no event causes (idle power,
    host), in no total; None says that nobody knows them. `work` holds seconds, by cause, where the table knows how long
    an event takes: what one core would need for all of them, and the barriers, which all cores wait for together.
    """

    table: str
    samples: int
    joules: Mapping[str, float]
    provenance: Mapping[str, Quantity]
    seconds: float | None = None
    separate: Mapping[str, float | None] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    events: Mapping[str, int] = field(default_factory=dict)
    work: Mapping[str, Quantity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("joules", "provenance", "separate", "events", "work"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def total(self) -> float:
        """Joules of all causes and samples."""
        return sum(self.joules.values())

    @property
    def per_sample(self) -> float:
        """Joules of one inference."""
        return self.total / self.samples

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
        for cause in dict.fromkeys((*self.joules, *self.work)):
            priced, timed = self.provenance.get(cause), self.work.get(cause)
            known = [quantity for quantity in (priced, timed) if quantity is not None]
            price = " and ".join(map(str, known))
            sources = "; ".join(dict.fromkeys(quantity.source for quantity in known))
            spent = "unknown" if priced is None else engineering(self.joules[cause] / self.samples, "J")
            status = worst(quantity.status for quantity in known)
            rows.append((cause, self._often(cause), spent, self._shown(cause), price, status, sources))
        rows.append(("total", "", engineering(self.per_sample, "J"), "", "", self.status, self.table))
        for cause, joules in self.separate.items():
            if cause not in self.work:
                amount = "unknown" if joules is None else engineering(joules / self.samples, "J")
                rows.append((cause, "", amount, "", "", "", "not in the total"))
        return rows

    def _often(self, cause: str) -> str:
        return engineering(round(self.events[cause] / self.samples, 1)) if cause in self.events else ""

    def _shown(self, cause: str) -> str:
        seconds = self.time_of(cause)
        return "" if seconds is None else engineering(seconds, "s")

    def sheet(self) -> Sheet:
        headings = ("cause", "events", "energy", "core time", "price", "status", "source")
        return f"Per sample, prices of {self.table}", headings, self.rows(), self.assumptions


def tables() -> tuple[str, ...]:
    """Names that `price` knows: the energy tables and the chips."""
    return (*sorted(path.stem for path in FOLDER.glob("*.toml")), *chips())


def price(
    counts: Counts, table: str | Path | Chip, *, stored_words: int | None = None, least_tick: float = 0.0
) -> Bill:
    """What `counts` cost by `table`: the name of an energy table ("45nm", "45nm-memory") or a chip, a Chip, or a path.

    stored_words: how many weights and other numbers the network keeps; the memory table needs it to choose the memory.
    least_tick: seconds that a tick takes at least on the cores in use, see `pace`; a chip's own tick may be longer.
    Raises MissingPrice where something was counted that the table does not price, ParameterError for an unknown table
    or precision.
    """
    if counts.samples < 1:
        raise ParameterError(f"price: counts hold {counts.samples} samples; run at least one")
    if isinstance(table, Chip):
        return _chip_bill(counts, table, least_tick)
    path = Path(table)
    if path.suffix != ".toml":
        if str(table) in chips():
            return _chip_bill(counts, load_chip(table), least_tick)
        path = FOLDER / f"{table}.toml"
        if str(table) not in tables():
            raise ParameterError(f"there is no energy table {str(table)!r}; known: {', '.join(tables())}, or a .toml")
    content = read_toml(path)
    if "family" in content:
        return _chip_bill(counts, load_chip(path), least_tick)
    match content.get("kind"):
        case "operations":
            return _operations_bill(counts, path.stem, content)
        case "memory":
            return _memory_bill(counts, path, content, stored_words)
    raise ParameterError(f"{path.name}: kind must be 'operations' or 'memory', got {content.get('kind')!r}")


def _of_precision(content: Mapping[str, Any], section: str, precision: str, table: str) -> Mapping[str, Any]:
    """The part of a table for a number format; "loihi2" finds "loihi" where it has no part of its own."""
    parts = content.get(section, {})
    found = [name for name in parts if precision.startswith(name)]
    if not found:
        raise ParameterError(f"{table}: no {section} for precision {precision!r}; it has {', '.join(parts) or 'none'}")
    return parts[max(found, key=len)]


def _charge(
    total: Tally, names: tuple[str, ...], prices: Mapping[str, Quantity], table: str
) -> Iterator[tuple[str, float]]:
    for name in names:
        counted = getattr(total, name)
        if name in prices:
            yield name, counted * prices[name].in_base("J")
        elif counted > 0:
            raise MissingPrice(f"table {table!r} has no price for {name}, and {counted:,} were counted; add one")


def _operations(counts: Counts, table: str, content: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Quantity]]:
    place = f"{table}.toml: prices.{counts.precision}"
    prices = quantities(_of_precision(content, "prices", counts.precision, table), place)
    joules = dict(_charge(counts.total, OPERATIONS, prices, table))
    return joules, {name: prices[name] for name in joules}


def _operations_bill(counts: Counts, table: str, content: Mapping[str, Any]) -> Bill:
    joules, used = _operations(counts, table, content)
    notes = (*content.get("scope", ()), *content.get("assumptions", ()))
    return Bill(table, counts.samples, joules, used, assumptions=notes, events=_counted(counts, joules))


def _memory_bill(counts: Counts, path: Path, content: Mapping[str, Any], stored_words: int | None) -> Bill:
    table = path.stem
    if isinstance(stored_words, bool) or not isinstance(stored_words, int) or stored_words < 0:
        raise ParameterError(f"table {table!r} needs stored_words, the numbers the network keeps; got {stored_words!r}")
    under = read_toml(path.with_name(f"{content.get('operations')}.toml"))
    joules, provenance = _operations(counts, table, under)
    bits = _of_precision(content, "words", counts.precision, table)
    stored_bytes = stored_words * bits["weight_words"] / 8
    level = next(level for level in content["levels"] if stored_bytes <= level.get("bytes", float("inf")))
    access = quantities({"access": level["access"]}, f"{table}.toml: levels {level['name']!r}")["access"]
    for name in WORDS:
        words = getattr(counts.total, name)
        if name not in bits:
            if words > 0:
                raise MissingPrice(f"table {table!r} has no word size for {name}, and {words:,} were counted; add one")
            continue
        joules[name] = words * bits[name] / ACCESS_BITS * access.in_base("J")
        source = f"{bits[name]} of {ACCESS_BITS} bits of an access to {level['name']}; {access.source}"
        price_of_word = access.in_base("pJ") * bits[name] / ACCESS_BITS
        provenance[name] = Quantity(round(price_of_word, 6), "pJ", source, access.status)
    size = f"{stored_words:,} stored words of {bits['weight_words']} bits ({stored_bytes:,.0f} bytes)"
    chosen = f"{size} live in {level['name']}."
    notes = (*under.get("assumptions", ()), *content.get("assumptions", ()), chosen)
    return Bill(table, counts.samples, joules, provenance, assumptions=notes, events=_counted(counts, joules))


def _counted(counts: Counts, names: Iterable[str]) -> dict[str, int]:
    return {name: getattr(counts.total, name) for name in names}


def _chip_bill(counts: Counts, chip: Chip, least_tick: float) -> Bill:
    """Events times the chip's constants. Arithmetic and memory of an update or a synaptic event are in its price."""
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
    joules: dict[str, float] = {}
    included = chip.energy.get("included")
    if included is not None:
        notes.append(f"The price of a synaptic event holds {included}: {included.source}.")
    for name, counted in events.items():
        if included is not None and name in included.items:
            continue
        if name in chip.energy:
            joules[name] = counted * chip.energy[name].in_base("J")
        elif counted > 0:
            raise MissingPrice(f"chip {chip.name!r} has no energy.{name}, and {counted:,} were counted; add it")
    for name in ("macs", "exponentials"):
        counted = getattr(total, name)
        if counted > 0:
            raise MissingPrice(
                f"chip {chip.name!r} has no price for {name}, and {counted:,} were counted: it does none; "
                "price the run of the compiled program, whose input are spikes"
            )
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
    if "hop" in joules and "chips" in chip.limits and chip.limit("chips") > 1:
        notes.append("A hop from chip to chip is priced as a hop on a chip: no public table tells them apart.")
    used = {name: chip.energy[name] for name in joules}
    separate = {"static": static, "barrier": None, "host": None}
    return Bill(chip.name, counts.samples, joules, used, seconds, separate, tuple(notes), events, work)
