"""Published measurements of whole devices, to be set beside what counts times prices say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hardware_targets.bill import Bill, between
from hardware_targets.chip import Quantity, Status, quantities, read_toml
from neuro.report.sheet import engineering
from neuro.shown import Sheet, Shown

FOLDER = Path(__file__).parent / "measured"


@dataclass(frozen=True)
class Device:
    """Power of a device at rest and at work, in W, and inferences per second; `host`: W that its cores do not take."""

    name: str
    idle: float
    running: float
    rate: float
    host: float | None = None

    @property
    def dynamic(self) -> float:
        """W on top of the idle power."""
        return self.running - self.idle

    @property
    def joules(self) -> float:
        """Dynamic energy of one inference, in J."""
        return self.dynamic / self.rate


@dataclass(frozen=True)
class Measurements(Shown):
    """What was measured, and below it one bill of the model, of another network: the two are not of the same kind."""

    title: str
    devices: tuple[Device, ...]
    source: str
    status: Status
    notes: tuple[str, ...]
    bill: Bill | None = None

    def rows(self) -> list[tuple[str, ...]]:
        """Device, idle, running and dynamic power, inferences per second, dynamic energy of one, how it is known."""
        rows: list[tuple[str, ...]] = []
        for device in self.devices:
            watts = (engineering(value, "W") for value in (device.idle, device.running, device.dynamic))
            spent, how = engineering(device.joules, "J"), f"measured, {self.status}"
            rows.append((device.name, *watts, _per_second(device.rate), spent, how))
            if device.host is not None:
                cores = (device.dynamic - device.host) / device.rate
                left = (engineering(device.dynamic - device.host, "W"), "", engineering(cores, "J"))
                rows.append((f"{device.name}, host taken off", "", "", *left, f"measured, {self.status}"))
        if self.bill is not None:
            spent, seconds = engineering(self.bill.per_sample, "J"), self.bill.seconds
            per_second = _per_second(1 / seconds) if seconds else ""
            name, how = f"this network, {self.bill.table}", f"model, {self.bill.status}"
            rows.append((name, "", "", "", per_second, spent, how))
        return rows

    def sheet(self) -> Sheet:
        headings = ("device", "idle", "running", "dynamic", "inferences/s", "dynamic energy", "how known")
        return self.title, headings, self.rows(), (*self.notes, f"Source: {self.source}.")


def _per_second(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def keyword_spotting(bill: Bill | None = None) -> Measurements:
    """The measurements of Blouw 2019 on five devices, with `bill` as the last row."""
    content = read_toml(FOLDER / "keyword_spotting.toml")
    devices = tuple(Device(name, **values) for name, values in content["devices"].items())
    source = content["source"]
    return Measurements(content["title"], devices, source["text"], source["status"], tuple(content["notes"]), bill)


@dataclass(frozen=True)
class Published(Shown):
    """Published joules of one inference of a task on chips, each with its own boundary, beside bills of the model."""

    title: str
    entries: Mapping[str, Quantity]
    accuracies: Mapping[str, float]
    notes: tuple[str, ...]
    bills: Mapping[str, Bill] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, ...]]:
        """Chip, joules of one inference, accuracy, how it is known, source and boundary; below them the bills."""
        rows: list[tuple[str, ...]] = []
        right = {name: f"{100 * accuracy:.2f} %" for name, accuracy in self.accuracies.items()}
        for name, joules in self.entries.items():
            spent = engineering(joules.in_base("J"), "J")
            rows.append((name, spent, right.get(name, ""), joules.status, joules.source))
        for name, bill in self.bills.items():
            spent, source = between(bill.per_sample, bill.range), f"counts times prices of {bill.table}"
            rows.append((name, spent, right.get(name, ""), f"model, {bill.status}", source))
        return rows

    def sheet(self) -> Sheet:
        return self.title, ("chip", "energy", "accuracy", "how known", "source and boundary"), self.rows(), self.notes


def published_mnist(
    bills: Mapping[str, Bill] | None = None, accuracies: Mapping[str, float] | None = None
) -> Published:
    """Published energies of one MNIST image on neuromorphic chips, with `bills` below them, and accuracies.

    accuracies: of the networks of the bills, as fractions, by the same names.
    """
    content = read_toml(FOLDER / "mnist.toml")
    entries = quantities(content["joules"], "mnist.toml: joules")
    right = {**content["accuracy"], **(accuracies or {})}
    return Published(content["title"], entries, right, tuple(content["notes"]), dict(bills or {}))
