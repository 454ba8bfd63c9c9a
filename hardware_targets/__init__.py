"""Chips: what fits, what their arithmetic does, and what it costs."""

from hardware_targets.bill import Bill
from hardware_targets.check import Fit, check
from hardware_targets.chip import Chip, Quantity, chips, load_chip
from hardware_targets.compile import ChipRun, Program, compile, run
from hardware_targets.devices import price_on_devices
from hardware_targets.place import Placement
from hardware_targets.price import price
from hardware_targets.sensitivity import flips, ranking

__all__ = [
    "Bill", "Chip", "ChipRun", "Fit", "Placement", "Program", "Quantity", "check", "chips", "compile", "flips",
    "load_chip", "price", "price_on_devices", "ranking", "run",
]  # fmt: skip
