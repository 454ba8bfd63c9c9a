"""What other programs read: every digit of every number, and no text that they would take for anything but text."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.errors import FileError, ParameterError
from neuro.report import Provenance, Row, to_csv, to_json, to_latex, write_rows
from neuro.report.export import FORMATS
from neuro.report.latex import escaped
from neuro.report.row import COLUMNS, ENERGIES

PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
AMOUNT = st.none() | st.floats(0, 1e15) | st.integers(0, 10**15)
FRACTION = st.none() | st.floats(0, 1)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    energy = draw(FRACTION)
    return Row(
        draw(PRINTABLE), draw(FRACTION), draw(FRACTION), macs=draw(AMOUNT), spikes=draw(AMOUNT), energy_memory_J=energy,
        energy_memory_J_range=None if energy is None else (energy / 3, energy * 7), family=draw(st.none() | PRINTABLE),
        notes=tuple(draw(st.lists(PRINTABLE, max_size=2))), seeds=draw(st.none() | st.integers(1, 9)),
        provenance={"macs": Provenance("quoted", draw(PRINTABLE))},
    )  # fmt: skip


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@given(st.lists(rows(), max_size=4))
def test_csv_gives_back_every_number_and_every_name(given_rows: list[Row]) -> None:
    lines = read(to_csv(given_rows))
    assert len(lines) == len(given_rows)
    for row, line in zip(given_rows, lines, strict=True):
        for column in COLUMNS:
            value, cell = getattr(row, column), line[column]
            assert (cell == "") == (value is None)
            assert value is None or type(value)(cell) == value
        if row.energy_memory_J_range is not None:
            assert (
                float(line["energy_memory_J_low"]),
                float(line["energy_memory_J_high"]),
            ) == row.energy_memory_J_range
        assert line["model"].removeprefix("'") == row.model or (line["model"] == row.model and row.model[0] != "'")
        assert line["seeds"] == ("" if row.seeds is None else str(row.seeds))


@given(st.lists(rows(), min_size=1, max_size=3))
def test_no_cell_of_the_csv_starts_a_formula(given_rows: list[Row]) -> None:
    for line in csv.reader(io.StringIO(to_csv(given_rows))):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")) for cell in line)


@pytest.mark.parametrize("evil", ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "＝1", "'=x"])
def test_formulas_become_text_in_every_column_of_text(evil: str) -> None:
    row = Row(evil, family=evil, notes=(evil,), unpriced={"energy_chip_J": "none"})
    (line,) = read(to_csv([row]))
    for column in ("model", "family", "notes"):
        assert line[column] == f"'{evil}"


def test_csv_says_how_everything_is_known() -> None:
    known = {"accuracy": Provenance("measured", 'on the "test" part'), "spikes": Provenance("measured", "none to tell")}
    row = Row("a, b", 0.5, provenance=known, family="quantum")
    (line,) = read(to_csv([row]))
    empty = "".join(f"; {column}: empty: simulated" for column in ENERGIES)
    assert line["provenance"] == f'accuracy: measured: on the "test" part{empty}'
    (unasked,) = read(to_csv([Row("dense", 0.5, energy_memory_J=1e-9, unpriced={"energy_operations_J": "no price."})]))
    assert unasked["provenance"] == (
        "energy_operations_J: empty: no price; energy_chip_J: empty: no table of prices was named"
    )


def test_notes_are_joined_as_parts_of_one_sentence() -> None:
    (line,) = read(to_csv([Row("a", notes=("784-300-10.", "Zero weights cost nothing."))]))
    assert line["notes"] == "784-300-10; Zero weights cost nothing"


def test_an_end_of_a_range_that_is_the_energy_has_its_digits() -> None:
    row = Row("a", energy_operations_J=1.0929750959999998e-06,
              energy_operations_J_range=(1.0929750959999999e-06, 2e-6))  # fmt: skip
    (line,) = read(to_csv([row]))
    assert line["energy_operations_J_low"] == line["energy_operations_J"] == "1.0929750959999998e-06"


@given(st.lists(rows(), max_size=3))
def test_json_is_the_rows_and_each_line_reads_back(given_rows: list[Row]) -> None:
    assert [Row.from_json(json.dumps(plain)) for plain in json.loads(to_json(given_rows))] == given_rows


SAFE = re.compile(r"\\(?:[a-zA-Z]+|[^a-zA-Z])")


@given(PRINTABLE)
def test_escaped_text_is_ascii_balanced_and_without_a_live_sign(text: str) -> None:
    shown = escaped(text)
    assert shown.isascii()
    bare = SAFE.sub("", shown)
    assert not set(bare) & set('$&#%_~<>|"\\'), shown
    assert "^" not in re.sub(r"\\ensuremath\{[^ ]*?\}\}?", "", shown).replace(r"\^", ""), shown
    depth = 0
    for brace in re.findall(r"[{}]", bare):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"--|''|``|[?!]`", shown), "two signs never join into another one"


def test_signs_of_the_language_one_by_one() -> None:
    assert escaped("50 % of A&B_1 #2 $x^2$ {~} \\end") == (
        r"50 \% of A\&B\_1 \#2 \$x\textasciicircum{}2\$ \{\textasciitilde{}\} \textbackslash{}end"
    )
    assert escaped("Göltz é ñ î") == r"G{\"{o}}ltz {\'{e}} {\~{n}} {\^{\i}}"
    assert escaped("µ ± 中 10⁹") == r"\ensuremath{\mu} \ensuremath{\pm} \texttt{U+4E2D} 10\textsuperscript{9}"


NASTY = [
    Row("[bold] *x* & \\input{/etc/passwd} 100 %", 0.98, 0.001, 10, 10, 1e6, energy_operations_J=4e-9,
        energy_operations_J_range=(1e-9, 8e-9), provenance={"macs": Provenance("recalled", "a_b #1 ~ 中 ⊗ é")},
        notes=("$x^2$ {", "Göltz – 2 × 3"), family="50 % & more"),
    Row("*starred", family="quantum"),
    Row("[second]", 0.9, latency_ticks=3, family="quantum"),
]  # fmt: skip


def test_latex_has_one_cell_for_every_column_and_a_note_for_every_mark() -> None:
    text = to_latex(NASTY)
    assert text.isascii()
    assert "\\usepackage{booktabs}" in text.splitlines()[0]
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(lines) == 1 + len(NASTY)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {8}, "spikes and accumulates are of no row"
    marks = set(",".join(re.findall(r"\\textsuperscript\{([\d,]+)\}", body)).split(","))
    notes = re.findall(r"\\noindent\\textsuperscript\{(\d+)\}", text)
    assert notes == [str(number) for number in range(1, len(notes) + 1)]
    assert marks == set(notes)
    for begun in ("{tabular}",):
        assert text.count(f"\\begin{begun}") == text.count(f"\\end{begun}")
    assert not re.search(r"\\(input|include|write|immediate|catcode)\b", text)
    assert not re.search(r"\\\\\s*[\[*]", text), "a line break would take the next sign for its argument"


def test_latex_compiles(tmp_path: Path) -> None:
    engine = shutil.which("pdflatex")
    if engine is None:
        pytest.skip("no pdflatex on this machine; install one to see the table set")
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\\end{document}\n"
    (tmp_path / "table.tex").write_text(document % to_latex(NASTY), encoding="ascii")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000


@pytest.mark.parametrize("suffix", [*FORMATS, ".CSV"])
def test_rows_are_written_by_suffix(tmp_path: Path, suffix: str) -> None:
    target = write_rows(tmp_path / f"rows{suffix}", NASTY)
    text = target.read_text(encoding="utf-8")
    starts = {".csv": "model,", ".json": "[", ".jsonl": "{", ".tex": "%", ".html": "<!doctype"}
    assert text.startswith(starts[suffix.lower()])
    assert list(tmp_path.iterdir()) == [target]
    if suffix == ".jsonl":
        assert [Row.from_json(line) for line in text.splitlines()] == NASTY


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "rows.csv.gz"])
def test_other_suffixes_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ParameterError, match=r"\.csv, \.json, \.jsonl, \.tex, \.html") as caught:
        write_rows(tmp_path / name, NASTY)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"rows\.csv"):
        write_rows(tmp_path / "absent" / "rows.csv", NASTY)
