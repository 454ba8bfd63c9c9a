"""The protocol of a comparison: one split, every choice on validation samples, test samples once, mean and deviation.

A cell is one row with one plan and one seed. Cells that are built lie in a folder, each a graph and what validation
samples say of it; a comparison that was stopped goes on where it was. Per row the plan is chosen among the cells of
the first seed, then built with the other seeds; only the chosen cells see the test samples.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from hardware_targets import price
from neuro import datasets
from neuro.atomic import replacing
from neuro.baselines.compressed import stored_words
from neuro.baselines.registry import DEVICES, RIVALS
from neuro.baselines.rival import Plan
from neuro.cli.arguments import accuracy_of
from neuro.cli.spiking_rows import Answer, Entry, entries
from neuro.counts import Counts, Tally, active_parameters
from neuro.datasets import Split
from neuro.errors import FileError, MissingPrice, NeuroError, ParameterError
from neuro.files import load, save
from neuro.flow import has_neurons
from neuro.graph import Graph
from neuro.progress import track

ENTRIES: Mapping[str, Entry] = entries(RIVALS, DEVICES)

Match = Literal["accuracy", "parameters"]
MATCHES: tuple[Match, ...] = get_args(Match)
Backend = Literal["loky", "dask", "ray"]

BASES = {entry.of for entry in ENTRIES.values()} - {""}
"""Rows whose networks others start from."""

COMMON = ("hidden", "epochs", "augment", "batch_size", "optimizer")
"""What of a plan their networks depend on."""

CLOSE = 0.01
"""One point: how far below the dense network a row may lie, on validation samples, at equal accuracy."""


@dataclass(frozen=True)
class Task:
    """A data set by name or path, where to look for it, and how many test samples count."""

    name: str
    root: str | None = None
    samples: int | None = None

    def split(self) -> Split:
        """The data; read once per process."""
        return _read(self.name, self.root)


@lru_cache(maxsize=2)
def _read(name: str, root: str | None) -> Split:
    return datasets.load(name, None if root is None else Path(root))


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
        text = json.dumps([task.name, self.row, self.seed, plan])
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

    def path(self, cell: Cell, part: str) -> Path:
        return self.folder / f"{cell.stem(self.task)}.{part}"

    def read(self, cell: Cell, part: str) -> Found | None:
        """What is known of a cell on the part "validation" or "test"; None where it is still to be measured."""
        path = self.path(cell, self._test_name() if part == "test" else f"{part}.json")
        if not path.exists():
            return None
        try:
            return Measured.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(f"{path}: holds no result ({error}); delete it, and it is measured again") from error

    def write(self, cell: Cell, part: str, found: Measured) -> None:
        path = self.path(cell, self._test_name() if part == "test" else f"{part}.json")
        with replacing(path) as partial:
            partial.write_text(found.to_json() + "\n", encoding="utf-8")

    def _test_name(self) -> str:
        return "test.json" if self.task.samples is None else f"test-{self.task.samples}.json"

    def graph(self, cell: Cell) -> Path:
        return self.path(cell, "h5")


def build(cell: Cell, book: Book) -> Found:
    """Train or convert one cell and keep it; what validation samples say of it."""
    known = book.read(cell, "validation")
    if known is not None and book.graph(cell).exists():
        return known
    torch.set_num_threads(cell.plan.threads or torch.get_num_threads())
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
    if isinstance(known, Measured):
        return known
    torch.set_num_threads(cell.plan.threads or torch.get_num_threads())
    entry, data, began = ENTRIES[cell.row], book.task.split(), time.perf_counter()
    built = book.read(cell, "validation")
    assert isinstance(built, Measured)
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
    return Measured(right, counts, stored, active, spiking, notes, dict(facts or {}), seconds, code_digest())


@dataclass(frozen=True)
class Line:
    """One row of the result: the plan that was chosen, its cells over seeds, and what test samples say of them."""

    row: str
    title: str
    plan: Plan
    validation: tuple[Measured, ...]
    tested: tuple[Measured, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a comparison found: lines for each matching, every point that was tried, and what was left out, and why.

    `book` holds the networks; `seed` is the one that was chosen by. `stale`: results of another version of this code.
    """

    lines: Mapping[Match, tuple[Line, ...]]
    tried: Mapping[str, tuple[tuple[Plan, Measured], ...]]
    left_out: Mapping[str, str]
    book: Book
    seed: int
    stale: int = 0

    def network(self, line: Line) -> Graph:
        """The network of a line, of the seed that was chosen by."""
        return load(self.book.graph(Cell(line.row, self.seed, line.plan)))


@dataclass(frozen=True)
class Pool:
    """Where cells are worked on: `jobs` processes of joblib's own, or of Dask or Ray."""

    jobs: int = 1
    backend: Backend = "loky"
    address: str | None = None

    def map(self, work: Callable[..., Any], cells: Sequence[Cell], book: Book, title: str) -> list[Any]:
        """`work(cell, book)` for every cell, in their order, with a bar."""
        if self.jobs == 1 and self.backend == "loky":
            return [work(cell, book) for cell in track(cells, len(cells), title, True)]
        from joblib import Parallel, delayed, parallel_config

        places = {cell: number for number, cell in enumerate(cells)}
        with self._ready(), parallel_config(self.backend, n_jobs=self.jobs):
            calls = (delayed(_numbered)(work, places[cell], cell, book) for cell in cells)
            # joblib hands results of Ray over at the end only
            order = "list" if self.backend == "ray" else "generator_unordered"
            streamed: Iterable[Any] = Parallel(return_as=order)(calls)
            found = dict(track(streamed, len(cells), title, True))
        return [found[number] for number in range(len(cells))]

    def _ready(self) -> Any:
        from contextlib import nullcontext

        if self.backend == "dask":
            try:
                from distributed import Client
            except ImportError as error:
                raise ParameterError("--backend dask needs it installed: pip install 'dask[distributed]'") from error
            return Client(self.address) if self.address else Client(n_workers=self.jobs, threads_per_worker=1)
        if self.backend == "ray":
            try:
                import ray
                from ray.util.joblib import register_ray
            except ImportError as error:
                raise ParameterError("--backend ray needs it installed: pip install ray") from error
            cores = None if self.address else self.jobs
            ray.init(address=self.address, num_cpus=cores, log_to_driver=False, ignore_reinit_error=True)
            register_ray()
        return nullcontext()


def _numbered(work: Callable[..., Any], number: int, cell: Cell, book: Book) -> tuple[int, Any]:
    return number, work(cell, book)


def compare(
    task: Task,
    rows: Sequence[str],
    *,
    seeds: Sequence[int] = (0,),
    matches: Sequence[Match] = MATCHES,
    plan: Plan = Plan(),  # noqa: B008 - frozen
    ladders: bool = True,
    folder: Path,
    pool: Pool = Pool(),
    say: Callable[[str], None] = print,
) -> Outcome:
    """Build the rows, choose on validation, look at the test samples once.

    ladders: whether equal accuracy is looked for along each rival's ladder; without, its middle stands. Rows that
    refuse the task are listed with their reason. Raises ParameterError for unknown rows, before any work.
    """
    unknown = [row for row in rows if row not in ENTRIES]
    if unknown or not rows:
        raise ParameterError(f"there is no row {', '.join(unknown) or '(none given)'}; known: {', '.join(ENTRIES)}")
    if not seeds or not matches:
        raise ParameterError("compare: needs a seed and a matching")
    folder.mkdir(parents=True, exist_ok=True)
    book, data, first = Book(folder, task), task.split(), seeds[0]
    for bases in _foundations(rows):
        pool.map(build, [Cell(base, seed, plan) for base in bases for seed in seeds], book, "base networks")

    points: dict[str, tuple[Plan, ...]] = {}
    for row in rows:
        entry = ENTRIES[row]
        climbed = entry.ladder(data, plan)
        usual = climbed if ladders else climbed[len(climbed) // 2 :][:1]
        points[row] = tuple(dict.fromkeys(usual)) if "accuracy" in matches else ()
    equal = {row: ENTRIES[row].equal(data, plan) if "parameters" in matches else None for row in rows}
    wanted = [Cell(row, first, at) for row in rows for at in points[row]]
    wanted += [Cell(row, first, at) for row in rows if (at := equal[row]) is not None]
    wanted = list(dict.fromkeys(wanted))
    say(f"{len(wanted)} networks of {len(rows)} rows with seed {first}")
    found: dict[Cell, Found] = dict(zip(wanted, pool.map(build, wanted, book, "train and convert"), strict=True))

    reference = build(Cell("dense", first, plan), book)
    if isinstance(reference, Refused):
        raise ParameterError(f"the dense network refuses {task.name}: {reference.why}")
    chosen: dict[Match, list[tuple[str, Plan, tuple[str, ...]]]] = {match: [] for match in matches}
    left_out: dict[str, str] = {}
    tried: dict[str, tuple[tuple[Plan, Measured], ...]] = {}
    for row in rows:
        cells = [Cell(row, first, at) for at in points[row]]
        good = [(cell.plan, one) for cell in cells if isinstance(one := found[cell], Measured)]
        refusals = [one.why for cell in cells if isinstance(one := found[cell], Refused)]
        tried[row] = tuple(good)
        if good:
            at, note = choose(good, reference.accuracy - CLOSE)
            chosen["accuracy"].append((row, at, (note,) if note and ladders else ()))
        elif refusals:
            left_out[row] = refusals[0]
        at_equal = equal[row]
        if at_equal is not None:
            one = found[Cell(row, first, at_equal)]
            if isinstance(one, Measured):
                chosen["parameters"].append((row, at_equal, ()))
            else:
                left_out[row] = one.why
    cells = [Cell(row, seed, at) for lines in chosen.values() for row, at, _ in lines for seed in seeds]
    cells = list(dict.fromkeys(cells))
    if len(seeds) > 1:
        say(f"{len(cells)} networks with {len(seeds)} seeds")
    built = dict(zip(cells, pool.map(build, cells, book, "other seeds"), strict=True))
    for cell, one in built.items():
        if isinstance(one, Refused):
            left_out[cell.row] = f"seed {cell.seed}: {one.why}"
    cells = [cell for cell in cells if isinstance(built[cell], Measured)]
    tested = dict(zip(cells, pool.map(examine, cells, book, "test samples"), strict=True))
    lines: dict[Match, tuple[Line, ...]] = {}
    for match, picked in chosen.items():
        kept = []
        for row, at, notes in picked:
            own = [Cell(row, seed, at) for seed in seeds if Cell(row, seed, at) in tested]
            if own:
                seen = tuple(one for cell in own if isinstance(one := built[cell], Measured))
                title = " ".join(filter(None, (ENTRIES[row].title, label(row, at, data, plan))))
                kept.append(Line(row, title, at, seen, tuple(tested[cell] for cell in own), notes))
        lines[match] = tuple(kept)
    stale = sum(one.code != code_digest() for one in [*found.values(), *built.values()] if isinstance(one, Measured))
    return Outcome(lines, tried, left_out, book, first, stale)


def _foundations(rows: Sequence[str]) -> list[list[str]]:
    """The rows that others start from, and the dense one, those first that start from nothing."""
    found = {"dense": 0}
    for row in rows:
        chain = []
        while row := ENTRIES[row].of:
            chain.append(row)
        found |= {base: level for level, base in enumerate(reversed(chain))}
    return [[base for base in found if found[base] == level] for level in sorted(set(found.values()))]


def choose(points: Sequence[tuple[Plan, Measured]], floor: float) -> tuple[Plan, str]:
    """The plan of least energy (model A; the first of the ladder where there is no price) that reaches `floor`.

    Where none does, the most accurate, and a note that says so.
    """
    good = [(at, one) for at, one in points if one.accuracy >= floor]
    if not good:
        at, one = max(points, key=lambda pair: pair[1].accuracy)
        lacking = 100 * (floor + CLOSE - one.accuracy)
        note = "No point of its ladder comes within one point of the dense network; the best lies"
        return at, f"{note} {lacking:.1f} below, on validation samples."
    costs = [energy_of(one.counts) for _, one in good]
    if any(cost is None for cost in costs):
        return good[0][0], ""
    return min(zip(costs, good, strict=True), key=lambda pair: pair[0] or 0.0)[1][0], ""


def energy_of(counts: Counts) -> float | None:
    """Joules of one inference by model A; None where something was counted that it does not price."""
    try:
        return price(counts, "45nm").per_sample
    except MissingPrice:
        return None


_KNOBS: Mapping[str, Callable[[Any], str]] = {
    "density": lambda value: f"{100 * value:g} %",
    "steps": lambda value: f"T={value}",
    "dimensions": lambda value: f"D={value}",
    "phase_bits": lambda value: f"{value} bits",
    "photons": lambda value: f"{value:g} photons",
    "hidden": lambda value: "-".join(map(str, value)),
}


def label(row: str, at: Plan, data: Split, plan: Plan) -> str:
    """What tells a plan from the others of its row: the fields that its ladder changes, and those that differ here."""
    points = (plan, at, *ENTRIES[row].ladder(data, plan))
    differing = (name for name in _KNOBS if len({getattr(point, name) for point in points}) > 1)
    return " ".join(_KNOBS[name](getattr(at, name)) for name in differing)
