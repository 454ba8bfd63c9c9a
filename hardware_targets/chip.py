"""A chip is a value: limits, arithmetic and energy per event, each number with its unit, source and how sure it is."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from neuro.errors import FileError, ParameterError
from neuro.shown import Sheet, Shown

Status = Literal["measured", "quoted", "modelled", "recalled", "assumed"]
STATUSES: tuple[Status, ...] = get_args(Status)
"""From the surest to the least: taken on silicon; read in the source; simulated by the source; from memory; chosen."""

Value = bool | int | float | str | tuple[int | float | str, ...]

SCALES = {
    "": 1.0, "P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3,
    "m": 1e-3, "µ": 1e-6, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "a": 1e-18, "z": 1e-21,
}  # fmt: skip
SECTIONS = ("limits", "arithmetic", "energy")
FOLDER = Path(__file__).parent / "chips"
LARGEST_FILE = 1_000_000


@dataclass(frozen=True)
class Quantity:
    """A value with its unit ("" for a plain count), where it comes from and how sure it is (one of STATUSES).

    range: the lowest and the highest value in the same unit, where sources or conditions differ; None where none is
    stated, which does not mean that the value is exact.
    """

    value: Value
    unit: str
    source: str
    status: Status
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ParameterError(f"status must be one of {', '.join(STATUSES)}, got {self.status!r}")
        if not self.source.strip():
            raise ParameterError("source must say where the value comes from; it is empty")
        for item in self.items:
            if isinstance(item, float) and not math.isfinite(item):
                raise ParameterError(f"value must be finite, got {item}")
        if self.range is not None:
            self._check_range(*self.range)

    def _check_range(self, low: float, high: float) -> None:
        if isinstance(self.value, bool | str | tuple):
            raise ParameterError(f"range needs a single number as value, got {self.value!r}")
        if not (math.isfinite(low) and math.isfinite(high) and low <= self.value <= high):
            raise ParameterError(f"range must hold the value {self.value}: low <= value <= high, got {low} and {high}")

    @property
    def items(self) -> tuple[Any, ...]:
        """The values of a list; a single value is a list of one."""
        return self.value if isinstance(self.value, tuple) else (self.value,)

    def in_base(self, base: str) -> float:
        """The value in the SI unit `base`: `Quantity(23.6, "pJ", ...).in_base("J")` is 23.6e-12.

        ParameterError where the unit is another one.
        """
        return self._scale(base) * float(self.value)  # type: ignore[arg-type]

    def range_in_base(self, base: str) -> tuple[float, float]:
        """The lowest and the highest value in the SI unit `base`; both are the value where no range is stated."""
        low, high = self.range or (float(self.value),) * 2  # type: ignore[arg-type]
        return self._scale(base) * low, self._scale(base) * high

    def _scale(self, base: str) -> float:
        prefix = self.unit.removesuffix(base)
        if not self.unit.endswith(base) or prefix not in SCALES or isinstance(self.value, bool | str | tuple):
            raise ParameterError(f"{self.value} {self.unit!r} is not in {base}; write it in {base}, m{base}, ...")
        return SCALES[prefix]

    def __str__(self) -> str:
        between = "" if self.range is None else f" ({self.range[0]:g} to {self.range[1]:g})"
        shown = (f"{item:.6g}" if isinstance(item, float) else str(item) for item in self.items)
        return f"{', '.join(shown)} {self.unit}".strip() + between


def worst(statuses: Iterable[Status]) -> Status:
    """The least sure of several; "measured" for none.

    >>> worst(["quoted", "assumed", "modelled"])
    'assumed'
    """
    return max(statuses, key=STATUSES.index, default="measured")


@dataclass(frozen=True)
class Chip(Shown):
    """What a mapper, a quantiser and a pricer need to know of a chip; nothing but values.

    `family` says whose rules apply ("loihi", "truenorth", ...). `limits` are resources, `arithmetic` widths and modes,
    `energy` joules per event and seconds per tick. A quantity that is not there is unknown, never zero.
    """

    name: str
    title: str
    family: str
    limits: Mapping[str, Quantity] = field(default_factory=dict)
    arithmetic: Mapping[str, Quantity] = field(default_factory=dict)
    energy: Mapping[str, Quantity] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for section in SECTIONS:
            object.__setattr__(self, section, MappingProxyType(dict(getattr(self, section))))

    def limit(self, name: str) -> int:
        """A resource as an integer; ParameterError where the chip does not say."""
        return self._whole("limits", name)

    def width(self, name: str) -> int:
        """A width in bits (or another whole number) of the arithmetic; ParameterError where the chip does not say."""
        return self._whole("arithmetic", name)

    def choices(self, name: str) -> tuple[Any, ...]:
        """A list of the arithmetic, e.g. `choices("reset_modes")`; a single value is a list of one."""
        return self._get("arithmetic", name).items

    def _get(self, section: str, name: str) -> Quantity:
        known: Mapping[str, Quantity] = getattr(self, section)
        if name not in known:
            raise ParameterError(
                f"chip {self.name!r}: {section}.{name} is not given; it has {', '.join(known) or 'none'}"
            )
        return known[name]

    def _whole(self, section: str, name: str) -> int:
        value = self._get(section, name).value
        if isinstance(value, bool | str | tuple) or value != int(value) or value < 0:
            raise ParameterError(f"chip {self.name!r}: {section}.{name} must be a whole number >= 0, got {value!r}")
        return int(value)

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Section, name, value with unit, status and source of every quantity."""
        return [
            (section, name, str(quantity), quantity.status, quantity.source)
            for section in SECTIONS
            for name, quantity in getattr(self, section).items()
        ]

    @property
    def sureness(self) -> str:
        """How many of the chip's numbers are known in which way, in one line."""
        statuses = [status for *_, status, _ in self.rows()]
        found = ", ".join(f"{statuses.count(status)} {status}" for status in STATUSES if status in statuses)
        return f"{len(statuses)} numbers: {found or 'none'}. What is not listed is unknown, never zero."

    def sheet(self) -> Sheet:
        notes = (*self.notes, self.sureness)
        return self.title, ("", "quantity", "value", "status", "source"), self.rows(), notes


def chips() -> tuple[str, ...]:
    """Names of the chips that ship with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_chip(name: str | Path) -> Chip:
    """A chip by name (`chips()` lists them) or from a user's own .toml.

    Raises ParameterError for an unknown name or a value outside its domain, FileError for a file that cannot be read;
    both name the key.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in chips():
            raise ParameterError(f"there is no chip {str(name)!r}; known: {', '.join(chips())}, or a path to a .toml")
        path = FOLDER / f"{name}.toml"
    content = read_toml(path)
    title, family = content.get("title", path.stem), content.get("family")
    for key, text in (("title", title), ("family", family)):
        if not isinstance(text, str):
            raise ParameterError(f"{path.name}: {key} must be a text, got {text!r}")
    notes = content.get("notes", [])
    if isinstance(notes, str):
        notes = [notes]
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ParameterError(f"{path.name}: notes must be a list of texts")
    unknown = set(content) - {"name", "title", "family", "notes", *SECTIONS}
    if unknown:
        raise ParameterError(
            f"{path.name}: unknown key {sorted(unknown)[0]!r}; known: {', '.join(SECTIONS)}, title, family"
        )
    sections = {section: quantities(content.get(section, {}), f"{path.name}: {section}") for section in SECTIONS}
    return Chip(path.stem, str(title), str(family), notes=tuple(notes), **sections)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a small TOML file; FileError with the place where it cannot be read."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise FileError(f"{path}: larger than {LARGEST_FILE} bytes; this is no table of values")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise FileError(f"{path}: is no valid TOML ({reason}); repair that place") from error


def quantities(table: object, place: str) -> dict[str, Quantity]:
    """A TOML table of `name = {value, unit, source, status}` as quantities; ParameterError names the key."""
    if not isinstance(table, dict):
        raise ParameterError(f"{place} must be a table of quantities, got {table!r:.60}")
    return {name: _quantity(entry, f"{place}.{name}") for name, entry in table.items()}


def _quantity(entry: object, place: str) -> Quantity:
    keys = {"value", "unit", "source", "status"}
    if not isinstance(entry, dict) or set(entry) - {"range"} != keys:
        given = sorted(entry) if isinstance(entry, dict) else f"{entry!r:.60}"
        raise ParameterError(
            f"{place} must have exactly the keys {', '.join(sorted(keys))}, and range if one is known, got {given}"
        )
    for key in ("unit", "source", "status"):
        if not isinstance(entry[key], str):
            raise ParameterError(f"{place}.{key} must be a text, got {entry[key]!r:.60}")
    value = entry["value"]
    if isinstance(value, list):
        value = tuple(value)
    items = value if isinstance(value, tuple) else (value,)
    if not items or not all(isinstance(item, bool | int | float | str) for item in items):
        raise ParameterError(f"{place}.value must be a number, a text or a list of them, got {entry['value']!r:.60}")
    try:
        return Quantity(value, entry["unit"], entry["source"], entry["status"], _range(entry.get("range")))
    except ParameterError as error:
        raise ParameterError(f"{place}: {error}") from error


def _range(ends: object) -> tuple[float, float] | None:
    if ends is None:
        return None
    if not isinstance(ends, list) or len(ends) != 2 or not all(type(end) in (int, float) for end in ends):
        raise ParameterError(f"range must be [low, high], two numbers, got {ends!r:.60}")
    return float(ends[0]), float(ends[1])
