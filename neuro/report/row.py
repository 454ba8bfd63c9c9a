"""One row of a comparison: what a network is, what one inference takes, what that costs, how each number is known."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, Literal, NoReturn, get_args

from neuro.errors import DataError, ParameterError
from neuro.report.prices import ROUNDING, Shares

How = Literal["measured", "modelled", "quoted", "assumed", "recalled"]

UNCONFIRMED: tuple[How, ...] = ("assumed", "recalled")
"""Ways of knowing that say so wherever the number is shown."""


def clean(text: object, what: str) -> str:
    """`text` on one line; raises ParameterError where it is no text, empty, or holds control characters."""
    if not isinstance(text, str):
        raise ParameterError(f"{what} must be text, got {type(text).__name__}")
    line = " ".join(text.split())
    if not line or not line.isprintable():
        raise ParameterError(f"{what} must be non-empty, printable text, got {text!r}")
    return line


@dataclass(frozen=True, order=True)
class Provenance:
    """How a number is known and where it comes from."""

    how: How
    source: str

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise ParameterError(f"provenance must be one of {', '.join(get_args(How))}, got {self.how!r}")
        object.__setattr__(self, "source", clean(self.source, f"the source of a {self.how} number"))

    def __str__(self) -> str:
        return f"{self.how}: {self.source}"


@dataclass(frozen=True)
class Row:
    """One network in a comparison. None stands for "does not apply" or "not known", never for zero.

    `accuracy` and `accuracy_sd` (standard deviation over seeds) are fractions from 0 to 1. `parameters_stored` counts
    every stored number, `parameters_active` those that work on one sample. `macs`, `accumulates`, `spikes` and the
    energies in joules are means over samples, per inference; `latency_ticks` are the steps until the answer.
    The three energies are three models (operations; operations and memory; constants of a device) and are never added.
    `provenance` maps names of these columns to how and whence the number is known; `notes` are remarks on the row.
    `family` groups rows ("dense", "sparse", "experts", "hyperdimensional", "photonic", "quantum", "spiking"); `seeds`
    says how many trainings the means are over, `samples` how many test samples the accuracy is of. `energy_..._J_range`
    is (low, high) in joules where sources differ in a price, and holds the energy. `shares[column][constant]` are the
    joules of an energy by constant, each (low, high), in all their range; rows that share a constant name it alike, and
    are compared with one price of it (`neuro.report.prices`). They are not written to files, and equal rows may differ
    in them. `unpriced` says by column why an energy is not known.
    Raises ParameterError for NaN, infinite or negative numbers and for text no terminal should see.
    """

    model: str
    accuracy: float | None = None
    accuracy_sd: float | None = None
    parameters_stored: int | None = None
    parameters_active: int | None = None
    macs: float | None = None
    accumulates: float | None = None
    spikes: float | None = None
    energy_operations_J: float | None = None
    energy_memory_J: float | None = None
    energy_chip_J: float | None = None
    latency_ticks: float | None = None
    provenance: Mapping[str, Provenance] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()
    family: str | None = None
    seeds: int | None = None
    energy_operations_J_range: tuple[float, float] | None = None
    energy_memory_J_range: tuple[float, float] | None = None
    energy_chip_J_range: tuple[float, float] | None = None
    unpriced: Mapping[str, str] = field(default_factory=dict, hash=False)
    samples: int | None = None
    shares: Mapping[str, Shares] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "model", clean(self.model, "the model of a row"))
        for column in COLUMNS:
            put(self, column, _number(getattr(self, column), column, self.model))
        for column, known in self.provenance.items():
            if column not in COLUMNS:
                raise ParameterError(
                    f"row {self.model!r}: provenance names {column!r}; columns are {', '.join(COLUMNS)}"
                )
            if not isinstance(known, Provenance):
                raise ParameterError(f"row {self.model!r}: provenance of {column} must be a Provenance, got {known!r}")
        put(self, "provenance", {column: self.provenance[column] for column in COLUMNS if column in self.provenance})
        if isinstance(self.notes, str):
            raise ParameterError(f"row {self.model!r}: notes must be a tuple of texts, got one text")
        put(self, "notes", tuple(clean(note, f"a note of row {self.model!r}") for note in self.notes))
        if self.family is not None:
            put(self, "family", clean(self.family, f"the family of row {self.model!r}"))
        for counted in ("seeds", "samples"):
            put(self, counted, _whole(getattr(self, counted), counted, self.model))
        for column in ENERGIES:
            put(self, f"{column}_range", _range(self, column))
        put(self, "unpriced", _reasons(self))
        put(self, "shares", {column: _shares(self, column) for column in self.shares})

    @property
    def spiking(self) -> bool:
        """Whether spikes were counted at all, be they zero."""
        return self.spikes is not None

    def range_of(self, column: str) -> tuple[float, float] | None:
        """(low, high) in joules of an energy column; an energy without a range is its own."""
        value = getattr(self, column)
        return getattr(self, f"{column}_range") or (None if value is None else (value, value))

    def why_unpriced(self, column: str) -> str | None:
        """Why an energy column is empty, as far as its family or the row says; None for a price or no reason."""
        if getattr(self, column) is not None:
            return None
        simulated = self.family == "quantum" and all(getattr(self, energy) is None for energy in ENERGIES)
        optical = self.family == "photonic" and column != "energy_chip_J"
        supposed = "simulated" if simulated else "optics have no price at 45 nm" if optical else None
        return supposed or self.unpriced.get(column)

    def as_dict(self) -> dict[str, Any]:
        """Plain values under the JSON keys, in their fixed order."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in _written(self)}
        known = {column: {"how": item.how, "source": item.source} for column, item in self.provenance.items()}
        ranges = {name: None if plain[name] is None else list(plain[name]) for name in _RANGES}
        reasons = dict(self.unpriced)
        return plain | ranges | {"provenance": known, "notes": list(self.notes), "unpriced": reasons}

    def to_json(self) -> str:
        """One line of ASCII JSON; equal rows give equal bytes."""
        return json.dumps(self.as_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Row:
        """The row that `to_json` wrote, also before rows had a family, seeds, samples, ranges and reasons.

        Raises DataError where it is no row, ParameterError where a value is bad.
        """
        try:
            plain = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise DataError(f"row: not valid JSON ({error}); write rows with Row.to_json") from error
        if not isinstance(plain, dict):
            raise DataError(f"row: must be a JSON object, got {type(plain).__name__}; write rows with Row.to_json")
        names = set(_written(cls))
        missing, unknown = sorted(names - plain.keys() - _LATER), sorted(plain.keys() - names)
        if missing or unknown:
            said = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(
                unknown
            )
            raise DataError(f"row: {' and '.join(said)}; write rows with Row.to_json")
        try:
            known = {column: Provenance(item["how"], item["source"]) for column, item in plain["provenance"].items()}
            notes = plain["notes"]
            if not isinstance(notes, list):
                raise TypeError("notes is no list")
            reasons = plain.get("unpriced", {})
            if not isinstance(reasons, dict):
                raise TypeError("unpriced is no object")
        except (AttributeError, TypeError, KeyError) as error:
            raise DataError(
                f"row: provenance, notes or unpriced is malformed ({error}); write rows with Row.to_json"
            ) from error
        return cls(**{**plain, "provenance": known, "notes": tuple(notes), "unpriced": reasons})


COLUMNS = tuple(item.name for item in fields(Row))[1:12]
"""The columns that hold numbers, from accuracy to latency."""

ENERGIES = ("energy_operations_J", "energy_memory_J", "energy_chip_J")
"""The columns that hold energies: three models, never added or compared with each other."""

_RANGES = tuple(f"{column}_range" for column in ENERGIES)
_LATER = {"family", "seeds", "samples", *_RANGES, "unpriced"}


def _written(row: Row | type[Row]) -> list[str]:
    """The keys of a row in JSON."""
    return [item.name for item in fields(row) if item.name != "shares"]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number JSON knows")


def _whole(value: object, what: str, model: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ParameterError(f"row {model!r}: {what} must be a whole number from 1 on or None, got {value!r}")
    return int(value)


def _range(row: Row, column: str) -> tuple[float, float] | None:
    given, energy, where = getattr(row, f"{column}_range"), getattr(row, column), f"row {row.model!r}: {column}_range"
    if given is None:
        return None
    if energy is None:
        raise ParameterError(f"{where} is given without the energy; give both or none")
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2 or None in given:
        raise ParameterError(f"{where} must be (low, high) or None, got {given!r}")
    low, high = (float(_number(end, column, row.model) or 0.0) for end in given)
    if not low * (1 - ROUNDING) <= energy <= high * (1 + ROUNDING):
        raise ParameterError(f"{where} must hold the energy {energy!r}, got {given!r}")
    # sums of other order differ in their last digits
    low, high = (energy if math.isclose(end, energy, rel_tol=ROUNDING) else end for end in (low, high))
    return low, high


def _shares(row: Row, column: str) -> Shares:
    where = f"row {row.model!r}: shares of {column}"
    whole = row.range_of(column) if column in ENERGIES else None
    if whole is None:
        raise ParameterError(f"{where} are given without an energy; energies are {', '.join(ENERGIES)}")
    given = {name: (float(low), float(high)) for name, (low, high) in row.shares[column].items()}
    if not all(0 <= low <= high < math.inf for low, high in given.values()):
        raise ParameterError(f"{where} must be (low, high) in joules by constant, got {given!r}")
    total = sum(low for low, _ in given.values()), sum(high for _, high in given.values())
    if not all(math.isclose(one, other, rel_tol=ROUNDING) for one, other in zip(total, whole, strict=True)):
        raise ParameterError(f"{where} must add up to {whole!r}, got {total!r}")
    return given


def _reasons(row: Row) -> dict[str, str]:
    for column in row.unpriced:
        if column not in ENERGIES:
            raise ParameterError(f"row {row.model!r}: unpriced names {column!r}; energies are {', '.join(ENERGIES)}")
        if getattr(row, column) is not None:
            raise ParameterError(f"row {row.model!r}: {column} has a price and a reason for none; give one of them")
    what = f"a reason of row {row.model!r}"
    return {column: clean(row.unpriced[column], what) for column in ENERGIES if column in row.unpriced}


def _number(value: object, column: str, model: str) -> int | float | None:
    """A plain Python number in one canonical form, so that equal rows have equal bytes."""
    if value is None:
        return None
    where = f"row {model!r}: {column}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ParameterError(f"{where} must be a number or None, got {value!r}")
    plain = int(value) if isinstance(value, Integral) else float(value)
    if not math.isfinite(plain) or plain < 0:
        raise ParameterError(f"{where} must be finite and at least 0, got {value!r}")
    fraction = column.startswith(("accuracy", "energy"))
    if column.startswith("accuracy") and plain > 1:
        raise ParameterError(f"{where} is a fraction from 0 to 1, got {value!r}")
    if column.startswith("parameters") and plain != int(plain):
        raise ParameterError(f"{where} must be a whole number, got {value!r}")
    if fraction:
        return float(plain) + 0.0
    return int(plain) if plain == int(plain) else plain
