"""A device as a list of prices: joules of each thing that is counted, and what is inside another price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hardware_targets.bill import Bill, check_joules, need_events, need_prices, texts
from hardware_targets.chip import Quantity, quantities
from neuro.counts import Counts, Tally
from neuro.errors import ParameterError
from neuro.shown import Sheet, Shown

COUNTED = tuple(item.name for item in fields(Tally))
KEYS = {"title", "kind", "prices", "included", "parts", "assumptions", "tick"}


@dataclass(frozen=True)
class PriceTable(Shown):
    """Prices of a device, by what a Tally counts ("accumulates", "macs", ...).

    A count with several causes has keys "count: cause", e.g. "macs: laser" and "macs: detector", each charged for every
    count. `included` names counts whose cost is inside another price. `parts` are named groups of keys of `prices`.
    `tick`: duration of a step, where it is known; the latency of an inference is its steps times that.
    Raises ParameterError for a name that no Tally has, a price that is no energy, a part that is no price.
    """

    name: str
    title: str
    prices: Mapping[str, Quantity]
    included: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    tick: Quantity | None = None

    def __post_init__(self) -> None:
        for section in ("prices", "parts"):
            object.__setattr__(self, section, MappingProxyType(dict(getattr(self, section))))
        for name in (*map(_count, self.prices), *self.included):
            if name not in COUNTED:
                raise ParameterError(f"{self.name}: nothing is counted as {name!r}; known: {', '.join(COUNTED)}")
        twice = {_count(key) for key in self.prices} & set(self.included)
        if twice:
            raise ParameterError(f"{self.name}: {sorted(twice)[0]} has a price and is included in another one")
        for part, causes in self.parts.items():
            unknown = [cause for cause in causes if cause not in self.prices]
            if unknown:
                raise ParameterError(
                    f"{self.name}: part {part!r} names {unknown[0]!r}; prices are {', '.join(self.prices) or 'none'}"
                )
        check_joules(self.prices, f"{self.name}: prices")
        if self.tick is not None:
            self.tick.in_base("s")

    def bill(self, counts: Counts) -> Bill:
        """What `counts` cost.

        MissingPrice where something was counted that is neither priced nor included, or is included in prices of what
        did not happen.
        """
        total = counts.total
        need_prices(total, COUNTED, map(_count, self.prices), self.name, self.included)
        events = {cause: getattr(total, _count(cause)) for cause in self.prices}
        need_events(total, self.included, events, self.name)
        seconds = None if self.tick is None else counts.steps * self.tick.in_base("s")
        notes = self.assumptions
        if self.included:
            notes += (f"Inside other prices: {', '.join(self.included)}.",)
        return Bill(
            self.name, counts.samples, events, self.prices, seconds, assumptions=notes, parts=self.parts,
        )  # fmt: skip

    def sheet(self) -> Sheet:
        rows: list[tuple[str, ...]] = [
            (name, str(price), price.status, price.source) for name, price in self.prices.items()
        ]
        rows += [(name, "inside another price", "", "") for name in self.included]
        return self.title, ("counted", "price", "status", "source"), rows, self.assumptions


def _count(cause: str) -> str:
    return cause.partition(":")[0]


def price_table(path: Path, content: Mapping[str, Any]) -> PriceTable:
    """The table of a .toml of kind "device"; `[prices.macs]` may hold several quantities, one for each cause."""
    place = path.name
    unknown = sorted(set(content) - KEYS)
    if unknown:
        raise ParameterError(f"{place}: unknown key {unknown[0]!r}; known: {', '.join(sorted(KEYS))}")
    listed, parts = content.get("prices", {}), content.get("parts", {})
    if not isinstance(listed, dict) or not isinstance(parts, dict):
        raise ParameterError(f"{place}: prices and parts must be tables")
    prices: dict[str, Quantity] = {}
    for name, entry in listed.items():
        if isinstance(entry, dict) and "value" not in entry:
            causes = quantities(entry, f"{place}: prices.{name}")
            prices |= {f"{name}: {cause}": quantity for cause, quantity in causes.items()}
        else:
            prices |= quantities({name: entry}, f"{place}: prices")
    tick = quantities({"tick": content["tick"]}, place)["tick"] if "tick" in content else None
    return PriceTable(
        path.stem,
        str(content.get("title", path.stem)),
        prices,
        texts(content.get("included", []), f"{place}: included"),
        {name: texts(causes, f"{place}: parts.{name}") for name, causes in parts.items()},
        texts(content.get("assumptions", []), f"{place}: assumptions"),
        tick,
    )
