"""neuro compare: its protocol (choices on validation, test samples once, seeds), how it resumes, what it leaves out."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import statistics
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro import datasets
from neuro.baselines.compressed import places
from neuro.baselines.rival import Plan
from neuro.cli import cells, protocol
from neuro.cli.cells import ENTRIES, Book, Cell, Measured, Task
from neuro.cli.comparison import find, rows_at
from neuro.cli.pool import Pool
from neuro.cli.protocol import Line, Outcome, choose, compare
from neuro.counts import Counts, Tally
from neuro.errors import FileError, ParameterError
from neuro.nodes import Affine
from neuro.training import ShiftFlip

command = sys.modules["neuro.cli.compare"]
PLAN = Plan(hidden=(64, 32), epochs=4, steps=8, density=0.1, experts=2, augment=ShiftFlip())
ROWS = ("dense", "int8", "int8-gated", "small", "static", "rate", "chip")


def few_digits(path: Path, *, other_test: bool = False) -> Path:
    """500 digits to learn from and 60 to test, as .npz; `other_test`: nonsense in place of the test samples."""
    digits = datasets.load("mnist-5k")
    test_x, test_y = digits.test_x[:60, 0].mul(255).byte().numpy(), digits.test_y[:60].numpy()
    np.savez(
        path,
        x_train=digits.train_x[:500, 0].mul(255).byte().numpy(),
        y_train=digits.train_y[:500].numpy(),
        x_test=test_x[::-1].copy() if other_test else test_x,
        y_test=test_y,
    )
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def task(home: Path) -> Task:
    return Task(str(few_digits(home / "few.npz")))


@pytest.fixture(scope="module")
def outcome(home: Path, task: Task) -> Outcome:
    return compare(task, ROWS, seeds=(0, 1), plan=PLAN, folder=home / "cells", say=lambda text: None)


def test_both_matchings_hold_what_they_promise(outcome: Outcome) -> None:
    equal, stored = rows_at(outcome, "accuracy"), rows_at(outcome, "parameters")
    assert [one.line.row for one in equal] == list(ROWS)
    assert [one.line.row for one in stored] == ["dense", "int8", "int8-gated", "static", "rate", "chip"]
    dense = find(equal, "dense")
    floor = dense.line.validation[0].accuracy - protocol.CLOSE
    for one in equal:
        points = outcome.tried[one.line.row]
        reaches = [found for _, found in points if found.accuracy >= floor]
        first = one.line.validation[0]
        if reaches:
            assert first.accuracy >= floor
            assert protocol.energy_of(first.counts) == min(protocol.energy_of(found.counts) for found in reaches)
        else:
            assert first.accuracy == max(found.accuracy for _, found in points)
            assert any("points below" in note for note in one.row.notes)
    for one in stored:
        assert one.row.parameters_stored is not None
        assert dense.row.parameters_stored is not None
        assert one.row.parameters_stored <= 1.7 * dense.row.parameters_stored  # places of sparse weights on top


def test_rows_are_means_over_seeds(outcome: Outcome) -> None:
    for one in rows_at(outcome, "accuracy"):
        right = [found.accuracy for found in one.line.tested]
        assert len(right) == one.row.seeds == 2
        assert one.row.accuracy == pytest.approx(statistics.mean(right))
        assert one.row.accuracy_sd == pytest.approx(statistics.stdev(right))
        samples = sum(found.counts.samples for found in one.line.tested)
        total = sum(found.counts.total.macs for found in one.line.tested)
        assert one.row.macs == pytest.approx(total / samples)


def test_skipping_zeros_saves_multiplications_only(outcome: Outcome) -> None:
    table = rows_at(outcome, "accuracy")
    plain, skipping = find(table, "int8").row, find(table, "int8-gated").row
    assert skipping.accuracy == plain.accuracy
    assert 0 < skipping.macs < 0.6 * plain.macs
    assert skipping.energy_operations_J < plain.energy_operations_J
    words = ("weight_words", "activation_words")
    counts = (find(table, "int8").counts.total, find(table, "int8-gated").counts.total)
    assert all(getattr(counts[0], name) == getattr(counts[1], name) for name in words)


def test_a_chip_has_a_price_of_its_own(outcome: Outcome) -> None:
    table = rows_at(outcome, "accuracy")
    assert find(table, "chip").row.energy_chip_J > 0
    assert find(table, "dense").row.energy_chip_J is None
    assert "core" in " ".join(find(table, "chip").row.notes)


def test_test_samples_choose_nothing(home: Path, outcome: Outcome) -> None:
    other = Task(str(few_digits(home / "other.npz", other_test=True)))
    again = compare(other, ("dense", "small", "rate"), plan=PLAN, folder=home / "other", say=lambda text: None)
    plans = {line.row: line.plan for line in outcome.lines["accuracy"]}
    assert all(plans[line.row] == line.plan for line in again.lines["accuracy"])
    worse = {line.row: line.tested[0].accuracy for line in again.lines["accuracy"]}
    assert all(accuracy < 0.4 for accuracy in worse.values())


def test_rivals_in_integers_differ_by_their_format_alone(task: Task, tmp_path: Path) -> None:
    rows = ("dense", "static", *(f"{name}-int8" for name in ("small", "logistic", "pruned", "sparse-momentum")))
    found = compare(
        task, rows, plan=PLAN, folder=tmp_path, ladders=False, matches=("accuracy",), say=lambda text: None,
    )  # fmt: skip
    table = rows_at(found, "accuracy")
    assert [one.line.row for one in table] == list(rows)
    assert {one.counts.precision for one in table[2:]} == {"int8"}
    pruned, static = find(table, "pruned-int8"), find(table, "static")
    assert pruned.row.macs == pytest.approx(static.row.macs, rel=0.1)
    assert pruned.row.energy_operations_J < 0.25 * static.row.energy_operations_J
    # a weight without its place is of no use: places are read with the weights
    for one in (pruned, static):
        graph = found.network(one.line)
        weights = sum(int((node.weight != 0).sum()) for node in graph.nodes.values() if isinstance(node, Affine))
        assert one.counts.per_sample("weight_words") == weights + places(graph)
        assert places(graph) > weights // 4


def test_what_is_known_is_not_trained_again(
    home: Path, task: Task, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("trained again")

    still = {name: replace(entry, build=refuse, run=refuse) for name, entry in ENTRIES.items()}
    monkeypatch.setattr(cells, "ENTRIES", still)
    again = compare(task, ROWS, seeds=(0, 1), plan=PLAN, folder=home / "cells", say=lambda text: None)
    assert [one.row.to_json() for one in rows_at(again, "accuracy")] == [
        one.row.to_json() for one in rows_at(outcome, "accuracy")
    ]


def test_fresh_trains_its_own_cells_again_and_touches_nothing_else(
    home: Path, task: Task, outcome: Outcome, tmp_path: Path
) -> None:
    folder = shutil.copytree(home / "cells", tmp_path / "cells")
    (folder / "my notes").mkdir()
    (folder / "thesis.tex").touch()
    own = {path.name for path in folder.iterdir() if path.name.startswith("dense-0-")}
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    compare(task, ("dense",), plan=PLAN, folder=folder, fresh=True, say=lambda text: None)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == own
    assert before.keys() == after.keys()


def test_other_samples_under_the_same_name_are_another_task(tmp_path: Path) -> None:
    texts: list[str] = []
    for other in (False, True):
        task = Task(str(few_digits(tmp_path / "few.npz", other_test=other)))
        cells._read.cache_clear()
        compare(
            task, ("dense",), plan=replace(PLAN, epochs=2), folder=tmp_path / "cells", ladders=False,
            matches=("accuracy",), say=texts.append,
        )  # fmt: skip
    cells._read.cache_clear()
    assert texts.count("base networks: 1 network") == 2


def test_rows_without_another_size_are_named(outcome: Outcome, task: Task, tmp_path: Path) -> None:
    assert outcome.sizeless == ("small",)
    with pytest.raises(ParameterError, match="small, logistic"):
        compare(task, ("small", "logistic"), matches=("parameters",), folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_damaged_result_is_named(home: Path, task: Task, outcome: Outcome) -> None:
    book = Book(home / "cells", task)
    path = book.results(Cell("dense", 0, PLAN), "validation")
    whole = path.read_text()
    path.write_text(whole[:-40])
    with pytest.raises(FileError, match=path.name):
        compare(task, ("dense",), plan=PLAN, folder=home / "cells", say=lambda text: None)
    path.write_text(whole)


def test_processes_find_the_same(home: Path, task: Task, outcome: Outcome) -> None:
    alone = compare(
        task, ("dense", "small"), plan=PLAN, folder=home / "apart", pool=Pool(2), ladders=False, matches=("accuracy",),
        say=lambda text: None,
    )  # fmt: skip
    first = {line.row: line.validation[0].accuracy for line in outcome.lines["accuracy"]}
    assert alone.lines["accuracy"][0].validation[0].accuracy == first["dense"]
    assert [line.row for line in alone.lines["accuracy"]] == ["dense", "small"]


@pytest.mark.parametrize(
    ("given", "said"), [({"backend": "dask"}, "distributed"), ({"address": "tcp://x:1"}, "--backend")]
)
def test_a_pool_that_cannot_work_is_refused_at_once(given: dict, said: str) -> None:
    if find_spec("distributed") is not None and "backend" in given:
        pytest.skip("Dask is installed")
    with pytest.raises(ParameterError, match=said):
        Pool(2, **given)


def test_rows_that_do_not_fit_the_task_are_named(tmp_path: Path) -> None:
    found = compare(
        Task("yin-yang"), ("dense", "cnn", "cnn-int8"), plan=replace(PLAN, epochs=2), folder=tmp_path, ladders=False,
        matches=("accuracy",), say=lambda text: None,
    )  # fmt: skip
    assert [line.row for line in found.lines["accuracy"]] == ["dense"]
    assert "images" in found.left_out["cnn"]
    assert "'cnn'" in found.left_out["cnn-int8"]


def test_unknown_rows_are_refused_before_any_work(tmp_path: Path, task: Task) -> None:
    with pytest.raises(ParameterError, match="there is no row magic"):
        compare(task, ("dense", "magic"), folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()


points = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 50)), min_size=1, max_size=6)


@given(points, st.integers(0, 20))
def test_the_cheapest_that_is_good_enough(pairs: list[tuple[int, int]], wanted: int) -> None:
    made = [
        (
            Plan(steps=number + 1),
            Measured(right / 20, Counts(1, 1, {"n": Tally(macs=macs)}), 1, 1, False),
        )
        for number, (right, macs) in enumerate(pairs)
    ]
    at, note = choose(made, wanted / 20)
    right, macs = pairs[at.steps - 1]
    good = [cost for accuracy, cost in pairs if accuracy >= wanted]
    if good:
        assert not note
        assert right >= wanted
        assert macs == min(good)
    else:
        assert note
        assert right == max(accuracy for accuracy, _ in pairs)


def test_every_row_has_a_family_and_a_title() -> None:
    assert len({entry.title for entry in ENTRIES.values()}) == len(ENTRIES)
    for name, entry in ENTRIES.items():
        assert entry.family in (
            "dense", "sparse", "experts", "hyperdimensional", "photonic", "quantum", "spiking",
        ), name  # fmt: skip
        assert not entry.of or entry.of in ENTRIES


def test_a_bad_place_or_task_is_refused_and_leaves_nothing(neuro_command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = neuro_command("compare", "--rows", "dense", "--out", "file/below")
    assert code == 2
    assert "file is a file; name a folder" in err
    code, _, err = neuro_command("compare", "--rows", "dense", "--task", "no-such-data", "--out", "bill")
    assert code == 2
    assert "no-such-data" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tables_of_another_run_go(tmp_path: Path) -> None:
    for stem in ("rows", "rows-parameters", "rows-mine"):
        (tmp_path / f"{stem}.csv").touch()
    command._write({"accuracy": []}, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["rows-mine.csv", "rows.csv"]


def test_the_command_writes_tables_and_a_page(neuro_command, tmp_path: Path) -> None:
    few_digits(tmp_path / "few.npz")
    found = []
    for folder in ("first", "second"):
        code, out, err = neuro_command(
            "compare", "--task", "few.npz", "--epochs", 2, "--hidden", "16", "--shift", 0, "--rows", "dense,int8,rate",
            "--quick", "--match", "accuracy", "--seed", 3, "--out", folder,
        )  # fmt: skip
        assert code == 0, err
        assert "One size each" in out
        files = {path.name: path for path in (tmp_path / folder).iterdir() if path.is_file()}
        assert set(files) == {"report.html", "rows.csv", "rows.json", "rows.jsonl", "rows.tex"}
        found.append({name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()})
    assert found[0] == found[1], "one seed gives the same bytes"
    rows = [json.loads(line) for line in (tmp_path / "first/rows.jsonl").read_text().splitlines()]
    assert [row["model"] for row in rows] == ["dense fp32", "dense int8", "spiking, rate code T=16"]
    with (tmp_path / "first/rows.csv").open(newline="") as file:
        assert [line["model"] for line in csv.DictReader(file)] == [row["model"] for row in rows]


def test_lines_know_their_networks(outcome: Outcome) -> None:
    line: Line = outcome.lines["accuracy"][0]
    assert outcome.network(line).name == "dense fp32"
