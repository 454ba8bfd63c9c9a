"""Programmable processors: joules per operation from operations per second and watt, and the share of them in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hardware_targets.bill import OPERATIONS, Bill, Constant, need_prices, texts
from hardware_targets.chip import Quantity, quantities, worst
from neuro.counts import Counts
from neuro.errors import ParameterError
from neuro.shown import Sheet, Shown

FLOPS = {
    "macs": 2, "accumulates": 2, "additions": 2, "multiplications": 2, "comparisons": 2, "exponentials": 20,
}  # fmt: skip
"""Peak operations that one operation keeps a unit from doing: each takes a slot of a multiply-add unit, which the peak
counts as two; an exponential takes ten (a polynomial), as in the table of 45 nm."""

KEYS = {"title", "kind", "flops_per_watt", "utilisation", "assumptions"}


@dataclass(frozen=True)
class Processor(Shown):
    """Joules per operation = operations / (operations per second and watt x utilisation).

    `flops_per_watt` by number format (FLOPS/W; integer formats count integer operations), `utilisation` in (0, 1].
    Memory, control and idle silicon are in the power; a peak over the rated power is a lower bound of the energy.
    """

    name: str
    title: str
    flops_per_watt: Mapping[str, Quantity]
    utilisation: Quantity
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "flops_per_watt", MappingProxyType(dict(self.flops_per_watt)))
        for precision, quantity in self.flops_per_watt.items():
            if quantity.range_in_base("FLOPS/W")[0] <= 0:
                raise ParameterError(f"{self.name}: flops_per_watt.{precision} must be > 0, got {quantity}")
        low, high = self.utilisation.range_in_base("")
        if not 0 < low <= high <= 1:
            raise ParameterError(f"{self.name}: utilisation must lie in (0, 1], got {self.utilisation}")

    def joules_per_flop(self, precision: str) -> Quantity:
        """Price of one operation of the peak in a number format, with the ends of both ranges; ParameterError if none.

        "loihi2" finds "loihi" where it has no entry of its own.
        """
        found = [name for name in self.flops_per_watt if precision.startswith(name)]
        if not found:
            raise ParameterError(
                f"{self.name}: no flops_per_watt for precision {precision!r}; it has "
                f"{', '.join(self.flops_per_watt) or 'none'}"
            )
        rate, share = self.flops_per_watt[max(found, key=len)], self.utilisation
        slow, fast = rate.range_in_base("FLOPS/W")
        idle, busy = share.range_in_base("")
        price = 1e12 / (rate.in_base("FLOPS/W") * share.in_base(""))
        source = f"1 / ({rate} x utilisation {share}); {rate.source}"
        ends = None if rate.range is share.range is None else (1e12 / (fast * busy), 1e12 / (slow * idle))
        return Quantity(price, "pJ", source, worst([rate.status, share.status]), ends)

    def bill(self, counts: Counts, stored_words: int | None = None) -> Bill:
        """What `counts` cost.

        A spike that meets a weight is an accumulate of 2 operations, event by event, as cheap as a dense one: the low
        end. The high end computes every synapse at every step, as dense frameworks do: `stored_words` of them, which
        is exact for fully connected layers and too few for convolutions.
        """
        total, per_flop = counts.total, self.joules_per_flop(counts.precision)
        need_prices(total, OPERATIONS, FLOPS, self.name)
        prices = {name: _times(per_flop, FLOPS[name]) for name in OPERATIONS if name in FLOPS}
        constants = {name: Constant(f"{counts.precision} operation", per_flop) for name in prices}
        notes = (*self.assumptions, f"Utilisation {self.utilisation}: {self.utilisation.source}.")
        if total.accumulates and stored_words is not None:
            dense = stored_words * counts.steps * counts.samples
            prices["accumulates"] = _high(prices["accumulates"], max(1.0, dense / total.accumulates))
            notes += (
                "Spikes: the low end takes 2 operations for each event; the high end computes every stored weight at "
                f"every one of {counts.steps} steps, as dense frameworks do.",
            )
        elif total.accumulates:
            notes += ("Spikes take 2 operations for each event: a lower bound; dense frameworks compute all synapses.",)
        events = {name: getattr(total, name) for name in prices}
        return Bill(self.name, counts.samples, events, prices, assumptions=notes, constants=constants)

    def sheet(self) -> Sheet:
        rows = [(name, str(rate), rate.status, rate.source) for name, rate in self.flops_per_watt.items()]
        rows.append(("utilisation", str(self.utilisation), self.utilisation.status, self.utilisation.source))
        return self.title, ("number format", "value", "status", "source"), rows, self.assumptions


def _times(price: Quantity, factor: int) -> Quantity:
    low, high = price.range_in_base("pJ")
    ends = None if price.range is None else (factor * low, factor * high)
    source = f"{factor} operations of {price.source}"
    return replace(price, value=factor * price.in_base("pJ"), source=source, range=ends)


def _high(price: Quantity, factor: float) -> Quantity:
    low, high = price.range_in_base("pJ")
    return replace(price, range=(low, factor * high))


def processor(path: Path, content: Mapping[str, Any]) -> Processor:
    """The processor of a .toml of kind "processor"."""
    unknown = sorted(set(content) - KEYS)
    if unknown:
        raise ParameterError(f"{path.name}: unknown key {unknown[0]!r}; known: {', '.join(sorted(KEYS))}")
    if "utilisation" not in content:
        raise ParameterError(f"{path.name}: utilisation is missing, the share of the peak that is used, in (0, 1]")
    return Processor(
        path.stem,
        str(content.get("title", path.stem)),
        quantities(content.get("flops_per_watt", {}), f"{path.name}: flops_per_watt"),
        quantities({"utilisation": content["utilisation"]}, path.name)["utilisation"],
        texts(content.get("assumptions", []), f"{path.name}: assumptions"),
    )
