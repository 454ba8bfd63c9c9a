"""A cell of a comparison: one row with one plan and one seed, built, measured and kept as files of its own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import numba
import torch

from neuro import datasets
from neuro.atomic import replacing
from neuro.baselines.compressed import places, stored_words
from neuro.baselines.registry import DEVICES, RIVALS
from neuro.baselines.rival import Plan
from neuro.cli.arguments import accuracy_of
from neuro.cli.spiking_rows import Answer, Entry, entries
from neuro.counts import Counts, Tally, active_parameters
from neuro.datasets import Split
from neuro.errors import FileError, NeuroError, ParameterError
from neuro.files import load, save
from neuro.flow import has_neurons
from neuro.graph import Graph
from neuro.training.resume import fingerprint

ENTRIES: Mapping[str, Entry] = entries(RIVALS, DEVICES)

BASES = {entry.of for entry in ENTRIES.values()} - {""}
"""Rows whose networks others start from."""

COMMON = ("hidden", "epochs", "augment", "batch_size", "optimizer")
"""What of a plan their networks depend on."""

Part = Literal["validation", "test"]


@dataclass(frozen=True)
class Task:
    """A data set by name or path, where to look for it, and how many test samples count."""

    name: str
    root: str | None = None
    samples: int | None = None

    def split(self) -> Split:
        """The data; read once per process."""
        return _read(self.name, self.root)[0]

    @property
    def digest(self) -> str:
        """Of the samples themselves: a file whose content changed is another task."""
        return _read(self.name, self.root)[1]


@lru_cache(maxsize=2)
def _read(name: str, root: str | None) -> tuple[Split, str]:
    split = datasets.load(name, None if root is None else Path(root))
    return split, fingerprint(*(tensor for part in split.parts.values() for tensor in part))


@dataclass(frozen=True)
class Cell:
    """One row with one plan and one seed."""

    row: str
    seed: int
    plan: Plan

    def stem(self, task: Task) -> str:
        """The name of its files: what the network depends on, and nothing else."""
        plan = asdict(replace(self.plan, threads=1, progress=False))
        if self.row in BASES:
            plan = {name: plan[name] for name in COMMON}
        text = json.dumps([task.digest, self.row, self.seed, plan])
        return f"{self.row.replace(':', '-')}-{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Measured:
    """What a network did on one part of the data: `accuracy`, `counts`; `stored` and `active` numbers; remarks."""

    accuracy: float
    counts: Counts
    stored: int
    active: int
    spiking: bool
    notes: tuple[str, ...] = ()
    facts: Mapping[str, float] | None = None
    seconds: float = 0.0
    code: str = ""

    def to_json(self) -> str:
        plain = asdict(replace(self, counts=None))  # type: ignore[arg-type]
        counts = {"samples": self.counts.samples, "steps": self.counts.steps, "precision": self.counts.precision}
        nodes = {name: {what: n for what, n in asdict(one).items() if n} for name, one in self.counts.nodes.items()}
        return json.dumps(plain | {"counts": counts | {"nodes": nodes}})

    @classmethod
    def from_json(cls, text: str) -> Measured:
        plain = json.loads(text)
        counts = plain.pop("counts")
        nodes = {name: Tally(**tally) for name, tally in counts.pop("nodes").items()}
        plain["notes"] = tuple(plain["notes"])
        return cls(counts=Counts(nodes=nodes, **counts), **plain)


@dataclass(frozen=True)
class Refused:
    """Why a row could not be built."""

    why: str


Found = Measured | Refused


@cache
def code_digest() -> str:
    """The bytes of the three packages, so that a result tells which code made it."""
    digest = hashlib.sha256()
    home = Path(__file__).parents[2]
    for package in ("neuro", "converters", "hardware_targets"):
        for path in sorted((home / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Book:
    """The folder of cells."""

    folder: Path
    task: Task

    def graph(self, cell: Cell) -> Path:
        """Where its network is kept."""
        return self._path(cell, "h5")

    def results(self, cell: Cell, part: Part) -> Path:
        """Where is kept what the samples of one part said."""
        some = "" if part == "validation" or self.task.samples is None else f"-{self.task.samples}"
        return self._path(cell, f"{part}{some}.json")

    def _path(self, cell: Cell, ending: str) -> Path:
        return self.folder / f"{cell.stem(self.task)}.{ending}"

    def read(self, cell: Cell, part: Part) -> Measured | None:
        """What is known of a cell; None where it is still to be measured. FileError for a damaged file."""
        path = self.results(cell, part)
        if not (path.exists() and self.graph(cell).exists()):
            return None
        try:
            return Measured.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(f"{path}: holds no result ({error}); delete it, and it is measured again") from error

    def write(self, cell: Cell, part: Part, found: Measured) -> None:
        with replacing(self.results(cell, part)) as partial:
            partial.write_text(found.to_json() + "\n", encoding="utf-8")

    def forget(self, cell: Cell) -> None:
        """Delete the network of a cell and all that was measured on it, and nothing else."""
        for path in self.folder.glob(f"{cell.stem(self.task)}.*"):
            path.unlink()


def build(cell: Cell, book: Book) -> Found:
    """Train or convert one cell and keep it; what validation samples say of it."""
    known = book.read(cell, "validation")
    if known is not None:
        return known
    _use_threads(cell.plan.threads)
    entry, data, began = ENTRIES[cell.row], book.task.split(), time.perf_counter()
    try:
        base = _base(cell, entry, book)
        trained = entry.build(data, cell.seed, cell.plan, base)
        answer = entry.run(trained.graph, cell.plan, data, data.validation_x)
    except NeuroError as error:
        return Refused(str(error).splitlines()[0])
    save(trained.graph, book.graph(cell))
    right = accuracy_of(answer.outputs, data.validation_y)
    notes = (*trained.notes, *answer.notes)
    found = _measured(trained.graph, answer, right, notes, trained.facts, time.perf_counter() - began)
    book.write(cell, "validation", found)
    return found


def _use_threads(count: int | None) -> None:
    """The threads of torch and of our kernels: sums depend on how many share them, so that --jobs must not decide."""
    if count is not None:
        torch.set_num_threads(count)
        numba.set_num_threads(min(count, numba.get_num_threads()))


def _base(cell: Cell, entry: Entry, book: Book) -> Graph | None:
    if not entry.of:
        return None
    path = book.graph(Cell(entry.of, cell.seed, cell.plan))
    if not path.exists():
        raise ParameterError(f"it starts from the row {entry.of!r}, which could not be built")
    return load(path)


def examine(cell: Cell, book: Book) -> Measured:
    """What the test samples say of a cell that was built."""
    known = book.read(cell, "test")
    if known is not None:
        return known
    _use_threads(cell.plan.threads)
    entry, data, began = ENTRIES[cell.row], book.task.split(), time.perf_counter()
    built = book.read(cell, "validation")
    assert built is not None
    graph = load(book.graph(cell))
    x, y = data.test_x[: book.task.samples], data.test_y[: book.task.samples]
    answer = entry.run(graph, cell.plan, data, x)
    right = accuracy_of(answer.outputs, y)
    found = _measured(graph, answer, right, built.notes, built.facts, time.perf_counter() - began)
    book.write(cell, "test", found)
    return found


def _measured(graph: Any, answer: Answer, right: float, notes: tuple[str, ...], facts: Any, seconds: float) -> Measured:
    stored = stored_words(graph) if answer.stored is None else answer.stored
    # numbers of one bit are stored together, and count one by one among those that work
    active = min(active_parameters(graph), stored)
    counts = answer.counts
    spiking = has_neurons(graph) or bool(counts.total.spikes)
    if not spiking and (more := places(graph)):
        read = Tally(weight_words=more * counts.samples)
        counts = replace(counts, nodes={**counts.nodes, "places of weights": read})
    return Measured(right, counts, stored, active, spiking, notes, dict(facts or {}), seconds, code_digest())
