"""The protocol of a comparison: one split, every choice on validation samples, test samples once, mean and deviation.

A cell is one row with one plan and one seed. Cells that are built lie in a folder, each a graph and what validation
samples say of it; a comparison that was stopped goes on where it was. Per row the plan is chosen among the cells of
the first seed, then built with the other seeds; only the chosen cells see the test samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from hardware_targets import price
from neuro.baselines.rival import Plan
from neuro.cli.cells import ENTRIES, Book, Cell, Found, Measured, Part, Refused, Task, build, code_digest, examine
from neuro.cli.pool import Pool
from neuro.cli.spiking_rows import Entry
from neuro.counts import Counts
from neuro.datasets import Split
from neuro.errors import MissingPrice, ParameterError
from neuro.files import load
from neuro.graph import Graph

Match = Literal["accuracy", "parameters"]
MATCHES: tuple[Match, ...] = get_args(Match)

CLOSE = 0.01
"""One point: how far below the dense network a row may lie, on validation samples, at equal accuracy."""


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

    `sizeless`: rows that have no form of equal storage. `book` holds the networks; `seed` is the one that was chosen
    by; `ladders`: whether sizes were chosen at all. `stale`: results of another version of this code.
    """

    lines: Mapping[Match, tuple[Line, ...]]
    tried: Mapping[str, tuple[tuple[Plan, Measured], ...]]
    left_out: Mapping[str, str]
    sizeless: tuple[str, ...]
    book: Book
    seed: int
    ladders: bool = True
    stale: int = 0

    def network(self, line: Line) -> Graph:
        """The network of a line, of the seed that was chosen by."""
        return load(self.book.graph(Cell(line.row, self.seed, line.plan)))


def compare(
    task: Task,
    rows: Sequence[str],
    *,
    seeds: Sequence[int] = (0,),
    matches: Sequence[Match] = MATCHES,
    plan: Plan = Plan(),  # noqa: B008 - frozen
    ladders: bool = True,
    folder: Path,
    fresh: bool = False,
    pool: Pool = Pool(),  # noqa: B008 - frozen
    say: Callable[[str], None] = print,
) -> Outcome:
    """Build the rows, choose on validation, look at the test samples once.

    ladders: whether equal accuracy is looked for along each rival's ladder; without, its middle stands. fresh: train
    again what `folder` holds of these rows. Rows that refuse the task are listed with their reason. Raises
    ParameterError for unknown rows, and where none of them has a form that could be compared, before any work.
    """
    unknown = [row for row in rows if row not in ENTRIES]
    if unknown or not rows:
        raise ParameterError(f"there is no row {', '.join(unknown) or '(none given)'}; known: {', '.join(ENTRIES)}")
    if not seeds or not matches:
        raise ParameterError("compare: needs a seed and a matching")
    data, first = task.split(), seeds[0]
    sizes = {(row, match): _sizes(ENTRIES[row], match, data, plan, ladders) for row in rows for match in matches}
    sizeless = tuple(row for row in rows if "parameters" in matches and not sizes[row, "parameters"])
    if not any(sizes.values()):
        raise ParameterError(f"none of the rows {', '.join(rows)} can be given another size; use --match accuracy")
    foundations = [[Cell(base, seed, plan) for base in level for seed in seeds] for level in _foundations(rows)]
    wanted = list(dict.fromkeys(Cell(row, first, at) for (row, _), plans in sizes.items() for at in plans))

    folder.mkdir(parents=True, exist_ok=True)
    book = Book(folder, task)
    work = _Work(book, pool, say)
    if fresh:
        for cell in (*chain(*foundations), *(replace(cell, seed=seed) for cell in wanted for seed in seeds)):
            book.forget(cell)
    for cells in foundations:
        work.build(cells, "base networks")
    several = ladders and "accuracy" in matches
    found = work.build(wanted, f"{'sizes to choose among' if several else 'one size each'}, {_several(rows, 'row')}")

    reference = build(Cell("dense", first, plan), book)
    if isinstance(reference, Refused):
        raise ParameterError(f"the dense network refuses {task.name}: {reference.why}")
    picked: dict[Match, dict[str, tuple[Plan, str]]] = {match: {} for match in matches}
    left_out: dict[str, str] = {}
    tried: dict[str, tuple[tuple[Plan, Measured], ...]] = {}
    for (row, match), plans in sizes.items():
        built = [(at, found[Cell(row, first, at)]) for at in plans]
        good = [(at, one) for at, one in built if isinstance(one, Measured)]
        if good:
            at, note = choose(good, reference.accuracy - CLOSE)
            picked[match][row] = at, note if match == "accuracy" and ladders else ""
        elif built:
            left_out[row] = next(one.why for _, one in built if isinstance(one, Refused))
        if match == "accuracy":
            tried[row] = tuple(good)

    cells = [Cell(row, seed, at) for lines in picked.values() for row, (at, _) in lines.items() for seed in seeds]
    chosen = work.build(list(dict.fromkeys(cells)), f"chosen sizes, {_several(seeds, 'seed')}")
    left_out |= {cell.row: f"seed {cell.seed}: {one.why}" for cell, one in chosen.items() if isinstance(one, Refused)}
    measured = {cell: one for cell, one in chosen.items() if isinstance(one, Measured)}
    tested = work.examine(list(measured))

    def line(row: str, at: Plan, note: str) -> Line:
        own = [cell for seed in seeds if (cell := Cell(row, seed, at)) in measured]
        title = " ".join(filter(None, (ENTRIES[row].title, label(row, at, data, plan))))
        seen, said = tuple(measured[cell] for cell in own), tuple(tested[cell] for cell in own)
        return Line(row, title, at, seen, said, (note,) if note else ())

    lines = {
        match: tuple(one for row, (at, note) in rows.items() if (one := line(row, at, note)).tested)
        for match, rows in picked.items()
    }
    stale = sum(one.code != code_digest() for one in {**found, **chosen}.values() if isinstance(one, Measured))
    return Outcome(lines, tried, left_out, sizeless, book, first, ladders, stale)


def _sizes(entry: Entry, match: Match, data: Split, plan: Plan, ladders: bool) -> tuple[Plan, ...]:
    """The plans of a row among which a matching chooses; none where it has no form of that size."""
    if match == "parameters":
        equal = entry.equal(data, plan)
        return () if equal is None else (equal,)
    climbed = tuple(dict.fromkeys(entry.ladder(data, plan)))
    return climbed if ladders else climbed[len(climbed) // 2 :][:1]


@dataclass(frozen=True)
class _Work:
    """Cells through a pool, with a word on what an earlier run left; `made`: cells of this one."""

    book: Book
    pool: Pool
    say: Callable[[str], None]
    made: set[tuple[Cell, Part]] = field(default_factory=set)

    def build(self, cells: Sequence[Cell], title: str) -> dict[Cell, Found]:
        return self._each(build, cells, "validation", title)

    def examine(self, cells: Sequence[Cell]) -> dict[Cell, Measured]:
        return self._each(examine, cells, "test", "test samples")

    def _each(
        self, work: Callable[[Cell, Book], Any], cells: Sequence[Cell], part: Part, title: str
    ) -> dict[Cell, Any]:
        known = {cell: one for cell in cells if (one := self.book.read(cell, part)) is not None}
        missing = [cell for cell in cells if cell not in known]
        kept = sum((cell, part) not in self.made for cell in known)
        news = [_several(missing, "network")] * bool(missing) + [f"{kept} known already"] * bool(kept)
        if news:
            self.say(f"{title}: {', '.join(news)}")
        self.made.update((cell, part) for cell in missing)
        made = dict(zip(missing, self.pool.map(work, missing, self.book, title), strict=True))
        return {cell: known[cell] if cell in known else made[cell] for cell in cells}


def _several(items: Sequence[object], what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


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
        below = f"{lacking:.1f} points below"
        if len(points) == 1:
            return at, f"Its only size is {below} the dense network, on validation samples."
        none = "None of its sizes comes within one point of the dense network"
        return at, f"{none}; the best is {below}, on validation samples."
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
