"""Model C as a matrix: what the same counts cost on every device that has a price for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hardware_targets.bill import Bill
from hardware_targets.chip import Chip
from hardware_targets.price import load_table, price, tables
from hardware_targets.price_table import PriceTable
from hardware_targets.processor import Processor
from neuro.counts import Counts
from neuro.errors import MissingPrice, ParameterError


def devices() -> tuple[str, ...]:
    """Names of the devices that have prices: processors, tables of kind "device", chips whose energy is published."""
    return tuple(name for name in tables() if _is_device(name))


def _is_device(name: str) -> bool:
    table = load_table(name)
    return bool(table.energy) if isinstance(table, Chip) else isinstance(table, PriceTable | Processor)


def processors() -> tuple[str, ...]:
    """Names of the devices that run any network of a number format they have: their price is one of operations."""
    return tuple(name for name in tables() if isinstance(load_table(name), Processor))


def price_on_devices(
    counts: Counts, stored_words: int | None = None, names: Iterable[str] | None = None
) -> Mapping[str, Bill | str]:
    """What `counts` cost on each device (all of `devices()` by default), or why a device cannot be asked.

    The reason is one line: something was counted that the device has no price for, or its number format is another.
    Nothing is refitted to a device: a network in float32 is priced on a chip as if its events stayed the same.
    """
    matrix: dict[str, Bill | str] = {}
    for name in devices() if names is None else names:
        try:
            matrix[name] = price(counts, name, stored_words=stored_words)
        except MissingPrice as error:
            matrix[name] = error.lack
        except ParameterError as error:
            if counts.samples < 1 or name not in tables():
                raise
            matrix[name] = str(error)
    return matrix
