"""Energy is counts times prices. Three kinds of model, never merged: operations; operations and memory; a device.

A missing price is an error, never zero. Every joule keeps the price it came from, and a bill is as sure as its least
sure price.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hardware_targets.bill import OPERATIONS, WORDS, Bill, Constant, check_joules, need_prices
from hardware_targets.chip import Chip, Quantity, chips, load_chip, quantities, read_toml
from hardware_targets.chip_bill import chip_bill
from hardware_targets.price_table import PriceTable, price_table
from hardware_targets.processor import Processor, processor
from neuro.counts import Counts
from neuro.errors import MissingPrice, ParameterError

FOLDER = Path(__file__).parent / "energy"
KINDS = ("operations", "memory", "processor", "device")
ACCESS_BITS = 64


def tables() -> tuple[str, ...]:
    """Names that `price` knows: the energy tables and the chips."""
    return (*sorted(path.stem for path in FOLDER.glob("*.toml")), *chips())


def price(
    counts: Counts,
    table: str | Path | Chip | PriceTable | Processor,
    *,
    stored_words: int | None = None,
    least_tick: float = 0.0,
) -> Bill:
    """What `counts` cost by `table`: the name of an energy table ("45nm", "45nm-memory", "a100") or a chip, or a path.

    A Chip, a PriceTable or a Processor may be given as it is.
    stored_words: how many weights and other numbers the network keeps; the memory table needs it to choose the memory,
    a processor to say what spikes cost at most.
    least_tick: seconds that a tick takes at least on the cores in use, see `pace`; a chip's own tick may be longer.
    Raises MissingPrice where something was counted that the table does not price, ParameterError for an unknown table
    or precision.
    """
    if counts.samples < 1:
        raise ParameterError(f"price: counts hold {counts.samples} samples; run at least one")
    match load_table(table):
        case Chip() as chip:
            return chip_bill(counts, chip, least_tick)
        case PriceTable() as listed:
            return listed.bill(counts)
        case Processor() as known:
            return known.bill(counts, stored_words)
        case path, content:
            if content["kind"] == "operations":
                return _operations_bill(counts, path.stem, content)
            return _memory_bill(counts, path, content, stored_words)


Table = Chip | PriceTable | Processor | tuple[Path, Mapping[str, Any]]
"""A table as it was read; those of kind "operations" and "memory" as their content."""


def load_table(table: str | Path | Chip | PriceTable | Processor) -> Table:
    """A table by its name, from a user's own .toml, or as it is; ParameterError for an unknown one."""
    if isinstance(table, Chip | PriceTable | Processor):
        return table
    path = Path(table)
    return _read(path) if path.suffix == ".toml" else _shipped(str(table))


@cache
def _shipped(name: str) -> Table:
    if name in chips():
        return load_chip(name)
    if name not in tables():
        raise ParameterError(f"there is no energy table {name!r}; known: {', '.join(tables())}, or a .toml")
    return _read(FOLDER / f"{name}.toml")


def _read(path: Path) -> Table:
    content = read_toml(path)
    if "family" in content:
        return load_chip(path)
    match content.get("kind"):
        case "device":
            return price_table(path, content)
        case "processor":
            return processor(path, content)
        case "operations" | "memory":
            return path, content
    raise ParameterError(f"{path.name}: kind must be one of {', '.join(KINDS)}, got {content.get('kind')!r}")


def _of_precision(content: Mapping[str, Any], section: str, precision: str, table: str) -> str:
    """The part of a table for a number format; "loihi2" finds "loihi" where it has no part of its own."""
    parts = content.get(section, {})
    found = [name for name in parts if precision.startswith(name)]
    if not found:
        raise ParameterError(f"{table}: no {section} for precision {precision!r}; it has {', '.join(parts) or 'none'}")
    return max(found, key=len)


def _operations(
    counts: Counts, table: str, content: Mapping[str, Any]
) -> tuple[dict[str, Quantity], dict[str, Constant]]:
    precision = _of_precision(content, "prices", counts.precision, table)
    place = f"{table}.toml: prices.{precision}"
    prices = quantities(content["prices"][precision], place)
    check_joules(prices, place)
    need_prices(counts.total, OPERATIONS, prices, table)
    used = {name: prices[name] for name in OPERATIONS if name in prices}
    return used, {name: Constant(f"{precision} {name}", price) for name, price in used.items()}


def _operations_bill(counts: Counts, table: str, content: Mapping[str, Any]) -> Bill:
    prices, constants = _operations(counts, table, content)
    notes = (*content.get("scope", ()), *content.get("assumptions", ()))
    return Bill(table, counts.samples, _counted(counts, prices), prices, assumptions=notes, constants=constants)


def _memory_bill(counts: Counts, path: Path, content: Mapping[str, Any], stored_words: int | None) -> Bill:
    table = path.stem
    if isinstance(stored_words, bool) or not isinstance(stored_words, int) or stored_words < 0:
        raise ParameterError(f"table {table!r} needs stored_words, the numbers the network keeps; got {stored_words!r}")
    under = read_toml(path.with_name(f"{content.get('operations')}.toml"))
    prices, constants = _operations(counts, table, under)
    bits = content["words"][_of_precision(content, "words", counts.precision, table)]
    stored_bytes = stored_words * bits["weight_words"] / 8
    level = next(level for level in content["levels"] if stored_bytes <= _holds(level))
    access = quantities({"access": level["access"]}, f"{table}.toml: levels {level['name']!r}")["access"]
    check_joules({"access": access}, f"{table}.toml: levels {level['name']!r}")
    for name in WORDS:
        words = getattr(counts.total, name)
        if name not in bits:
            if words > 0:
                lack = f"table {table!r} has no word size for {name}"
                raise MissingPrice(lack, f", and {words:,} were counted; add one")
            continue
        prices[name] = _share_of_access(access, bits[name], str(level["name"]))
        constants[name] = Constant(f"{level['name']}, access of {ACCESS_BITS} bits", access)
    size = f"{stored_words:,} stored words of {bits['weight_words']} bits ({stored_bytes:,.0f} bytes)"
    chosen = f"{size} live in {level['name']}."
    notes = (*under.get("assumptions", ()), *content.get("assumptions", ()), chosen)
    return Bill(table, counts.samples, _counted(counts, prices), prices, assumptions=notes, constants=constants)


def _holds(level: Mapping[str, Any]) -> float:
    """Bytes of a memory; the last one holds everything."""
    return float(level.get("bytes", math.inf))


def crowded_out(stored_words: int, precision: str, table: str = "45nm-memory", excess: float = 0.25) -> str:
    """The memory that a network misses by at most a share `excess` of its size, and so pays for a larger one; else "".

    A step in the price of memory that has more to do with the sizes of a table than with the network.
    """
    found = load_table(table)
    if not isinstance(found, tuple) or found[1]["kind"] != "memory":
        raise ParameterError(f"table {table!r} has no memories to choose from")
    _, content = found
    stored_bytes = (
        stored_words * content["words"][_of_precision(content, "words", precision, table)]["weight_words"] / 8
    )
    return next(
        (
            str(level["name"])
            for level in content["levels"]
            if _holds(level) < stored_bytes <= (1 + excess) * _holds(level)
        ),
        "",
    )


def _share_of_access(access: Quantity, bits: int, level: str) -> Quantity:
    share = bits / ACCESS_BITS
    ends = None if access.range is None else (share * access.range[0], share * access.range[1])
    source = f"{bits} of {ACCESS_BITS} bits of an access to {level}; {access.source}"
    return Quantity(share * float(access.value), access.unit, source, access.status, ends)  # type: ignore[arg-type]


def _counted(counts: Counts, names: Mapping[str, Quantity]) -> dict[str, int]:
    total = counts.total
    return {name: getattr(total, name) for name in names}
