"""The HTML page: self-contained, escaped, whole; and drawn without a complaint in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from neuro.errors import FileError, ShapeError
from neuro.report import Provenance, Row, Section, page, plots, write_page
from neuro.shown import Sheet, Shown

EVIL = "</script><script>alert('x')</script><img src=http://evil.test/x.png onerror=alert(1)>"
ROWS = [
    Row("dense", 0.98, macs=1000, energy_operations_J=4e-9, energy_memory_J=8e-9, notes=("floating point",)),
    Row("dense int8", 0.979, macs=1000, energy_operations_J=2e-10, energy_memory_J=2e-9),
    Row(EVIL, 0.97, 0.001, 10, 10, 0, 500, 40, 1e-9, 2e-9, 3e-9, 18,
        {"energy_chip_J": Provenance("recalled", "chip constants from memory")}, (EVIL,)),
]  # fmt: skip


def sections() -> list[Section]:
    looks = plots.styles(row.model for row in ROWS)
    rng = np.random.default_rng(0)
    points = [(row.model, row.energy_operations_J or 0.0, row.accuracy or 0.0) for row in ROWS]
    many = rng.integers(0, 50, 30_000)
    figures = {
        "time": plots.accuracy_against_time({EVIL: ([1, 4, 16], [0.2, 0.8, 0.97])}, dense={"dense": 0.98}, looks=looks),
        "energy": plots.accuracy_against_energy(points, model="A (operations)", looks=looks),
        "raster": plots.spike_raster(
            rng.integers(0, 16, 99), rng.integers(0, 30, 99), steps=16, population=30, layer=EVIL
        ),
        "image": plots.spike_raster(many, many, steps=50, population=50, layer="fc1"),
        "silence": plots.spike_raster([], [], steps=16, population=1, layer="fc2"),
        "activity": plots.activity_per_layer({EVIL: {"fc1": 0.1, EVIL: 0.0}}, looks=looks),
        "cores": plots.core_loads([0, 1], [0, 1], [0.5, 0.9], ["fc1", EVIL], mesh=(3, 2)),
        "quantisation": plots.quantisation_error({EVIL: {"fc1": 0.4}}, looks=looks),
    }
    return [
        Section(f"{name} {EVIL}", f"What you see: {name}.\n\n{EVIL}", drawn, (EVIL,)) for name, drawn in figures.items()
    ]


@pytest.fixture(scope="module")
def html() -> str:
    return page(
        ROWS, title=EVIL, sections=sections(), assumptions=["SRAM only", EVIL], energy_notes=["A is 45 nm", EVIL]
    )


class Elements(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.found[-1][0] if self.found else "", data))


def test_page_loads_nothing(html: str) -> None:
    elements = Elements(html)
    loading = {"src", "srcset", "href", "data", "poster", "action", "formaction", "background", "xlink:href", "ping"}
    for tag, attributes in elements.found:
        for name, value in attributes.items():
            if name in loading:
                assert (value or "").startswith(("data:", "#")), (tag, name, value)
        assert tag not in {"iframe", "object", "embed", "base", "img"}
    styles = [text for tag, text in elements.texts if tag == "style"]
    assert styles
    assert all("url(" not in text and "@import" not in text for text in styles)
    (policy,) = [a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*|connect-src|'unsafe-eval'", policy)


def test_names_cannot_leave_their_place(html: str) -> None:
    elements = Elements(html)
    assert "<img" not in html.replace(get_plotlyjs(), "")
    plots_drawn = len(sections())
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert len(scripts) == plots_drawn + 2
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert any(tag == "title" and text == EVIL for tag, text in elements.texts)


def test_everything_given_is_on_the_page(html: str) -> None:
    said = "".join(text for tag, text in Elements(html).texts if tag not in ("script", "style"))
    for text in (
        "SRAM only",
        "A is 45 nm",
        "floating point",
        "recalled: chip constants from memory",
        "What you see: raster.",
    ):
        assert text in said
    assert said.count("chip constants from memory") >= 3, "in the footnotes, the assumptions and the conclusions"
    assert "97.00 ± 0.10" in said
    assert "4.00 nJ" in said


def test_plotly_is_inlined_once_and_cannot_end_its_script(html: str) -> None:
    assert html.count(get_plotlyjs()[:3000]) == 1
    assert "</script" not in get_plotlyjs().lower()
    assert "<!--" not in get_plotlyjs()
    assert get_plotlyjs() not in page(ROWS, title="no plots")


def test_equal_arguments_give_equal_pages(html: str) -> None:
    again = page(
        ROWS, title=EVIL, sections=sections(), assumptions=["SRAM only", EVIL], energy_notes=["A is 45 nm", EVIL]
    )
    assert again == html


SPARSE = Row("sparse", 0.96, energy_operations_J=5e-9, energy_operations_J_range=(1e-9, 9e-9), family="sparse",
             notes=("its note",))  # fmt: skip
SHEET = ("What a device says", ("device", "joules"), (("cpu", "1 mJ"), (EVIL, "2 mJ")), ("quoted", EVIL))


class Devices(Shown):
    def sheet(self) -> Sheet:
        return SHEET


@pytest.mark.parametrize("table", [SHEET, Devices()])
def test_sections_hold_further_tables(table: Sheet | Shown) -> None:
    section = Section("At equal stored parameters", "Rows of one size.", rows=[SPARSE, ROWS[1]], table=table)
    html = page(ROWS, title="t", sections=[section, section])
    elements = Elements(html)
    assert sum(tag == "table" for tag, _ in elements.found) == 5
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = {attributes["href"] for tag, attributes in elements.found if tag == "a"}
    assert links <= {f"#{name}" for name in ids}
    assert "<img" not in html
    texts = [text for _, text in elements.texts]
    for said in ("What a device says", "joules", "2 mJ", "quoted", "its note", "5.00 nJ", "1.00–9.00 nJ", EVIL):
        assert texts.count(said) >= 2, said
    assert texts.count(" sparse") == 2


def test_a_table_with_a_short_row_is_refused() -> None:
    section = Section("devices", "", table=("t", ("a", "b"), (("1", "2"), ("3",)), ()))
    with pytest.raises(ShapeError, match=r"'devices'.*2 cells"):
        page(ROWS, title="t", sections=[section])


def test_columns_of_words_stand_left_those_of_numbers_right_and_empty_ones_nowhere() -> None:
    table = (
        "t",
        ("chip", "energy", "flips at", "how known", "nothing", "source"),
        (
            ("a", "9.40 µJ (1.00 µJ to 2.00 mJ)", "x 5.49", "quoted", "", "28 nm; Esser 2015"),
            ("b", "–", "none", "model", "", "counts times prices of loihi2, a rather long text"),
            ("c", "268 nJ", "", "model", "", "14 nm; Renner 2024"),
        ),
        (),
    )
    section = Section("chips", "", table=table)
    assert section.numbers == [False, True, True, False, False]
    html = page(ROWS, title="t", sections=[section])
    assert ">nothing<" not in html
    assert '<th scope="col" class="words">source</th>' in html
    assert '<th scope="col">energy</th>' in html
    assert '<td class="words">quoted</td>' in html
    assert '<td class="words long">counts times' in html
    assert "<td>9.40 µJ (1.00 µJ to 2.00 mJ)</td>" in html


def test_backticks_become_code_and_nothing_else_does() -> None:
    section = Section("s", "Say `neuro chips` or `<b>`, <i>now</i>.", details=("by `neuro cost`",))
    html = page(ROWS, title="t", sections=[section], assumptions=["`a` and b"])
    assert "Say <code>neuro chips</code> or <code>&lt;b&gt;</code>, &lt;i&gt;now&lt;/i&gt;." in html
    assert "by <code>neuro cost</code>" in html
    assert "<code>a</code> and b" in html


def test_the_rule_of_less_stands_below_the_table() -> None:
    said = " ".join(html_text(page(ROWS, title="t")).split())
    assert (
        "one needs less where it does so for all prices within their ranges, a shared price being the same in" in said
    )


def test_given_sentences_take_the_place_of_those_from_the_rows() -> None:
    assert "Most accurate: 'dense'" in html_text(page(ROWS, title="t"))
    told = html_text(page(ROWS, title="t", sentences=["A sentence of its own."]))
    assert "A sentence of its own." in told
    assert "Most accurate" not in told


def html_text(source: str) -> str:
    return "".join(text for tag, text in Elements(source).texts if tag not in ("script", "style"))


def test_page_of_nothing() -> None:
    assert "None was stated" in page([], title="empty")


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_page(tmp_path / "report.html", ROWS, title="first")
    before = target.read_bytes()
    with pytest.raises(FileError, match=r"report\.html"):
        write_page(tmp_path / "absent" / "report.html", ROWS, title="second")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match="No space left"):
        write_page(target, ROWS, title="second")
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def browse(path: Path, profile: Path) -> tuple[str, list[str]]:
    """The document after its scripts ran in headless Chromium, and all that its console said."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine; install one to see the page drawn")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
        f"--user-data-dir={profile}", "--window-size=1280,4000", "--virtual-time-budget=8000",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def drawn(document: str) -> list[int]:
    """The numbers of the plots that hold a picture."""
    boxes = re.split(r'<div class="plot[^>]*id="plot-', document)[1:]
    return [int(box.split('"')[0]) for box in boxes if '<svg class="main-svg"' in box]


def test_every_plot_is_drawn_without_a_word_on_the_console(html: str, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text(html, encoding="utf-8")
    document, complaints = browse(target, tmp_path / "profile")
    assert complaints == []
    assert drawn(document) == list(range(1, len(sections()) + 1))
    elements = Elements(document.replace(get_plotlyjs(), ""))
    assert not [attributes for tag, attributes in elements.found if "evil.test" in str(attributes.get("src"))]


def test_the_browser_would_have_said_so(tmp_path: Path) -> None:
    """The console check can fail: an error, and a request that the page's policy forbids, both show."""
    broken = (
        page(ROWS, title="t", sections=sections()[:2])
        .replace("Plotly.newPlot(plot,", "0 && (plot,")
        .replace("</main>", "<img src='http://127.0.0.1:9/x.png'><script>missing.thing()</script></main>")
    )
    target = tmp_path / "broken.html"
    target.write_text(broken, encoding="utf-8")
    document, complaints = browse(target, tmp_path / "profile")
    assert any("missing is not defined" in line for line in complaints)
    assert any("Content Security Policy" in line for line in complaints)
    assert drawn(document) == []
