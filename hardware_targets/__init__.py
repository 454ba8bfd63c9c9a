"""Chips: what fits, what their arithmetic does, and what it costs."""

from hardware_targets.check import Fit, check
from hardware_targets.chip import Chip, Quantity, chips, load_chip
from hardware_targets.compile import ChipRun, Program, compile, run
from hardware_targets.place import Placement
from hardware_targets.price import Bill, price

__all__ = [
    "Bill", "Chip", "ChipRun", "Fit", "Placement", "Program", "Quantity", "check", "chips", "compile", "load_chip",
    "price", "run",
]  # fmt: skip
