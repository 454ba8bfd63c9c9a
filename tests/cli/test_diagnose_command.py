"""neuro diagnose: from argument to table, JSON and page."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

import neuro
from converters import RateCode, convert
from neuro import cli, datasets, trace

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    (tmp_path / "net.py").write_text(NET)

    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(
            sys,
            "argv",
            ["neuro", "diagnose", "net.py:build", "--data", "mnist-5k", "--samples", "40", *map(str, words)],
        )
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        return (code, *capfd.readouterr())

    return command


class Tags(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_table_findings_and_an_offline_page(run, tmp_path: Path) -> None:
    code, out, err = run("--steps", 2, "--out", "losses.html")
    assert code == 0, err
    assert "losses in % of each activation" in out
    assert re.search(r"^1\. .*quantisation", out, re.MULTILINE)
    page = (tmp_path / "losses.html").read_text(encoding="utf-8")
    assert page.count('"type":"bar"') >= 2
    tags = Tags(page).found
    loading = {"src", "srcset", "href", "data", "action", "poster"}
    for tag, attributes in tags:
        assert tag not in {"iframe", "object", "embed", "base"}
        assert all((value or "").startswith(("data:", "#")) for name, value in attributes.items() if name in loading)
    assert "default-src 'none'" in page
    assert sum(tag == "figure" for tag, _ in tags) == 1


@pytest.mark.parametrize("recipe", ["exact", "first-spike"])
def test_json(run, recipe: str) -> None:
    code, out, err = run("--recipe", recipe, "--levels", 3, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["samples"] == 40
    assert {"layer", "causes", "cost", "inherited", "total"} <= set(found["rows"][0])
    assert bool(found["findings"]) == (recipe == "exact")
    assert found["worst"] == (found["findings"][0]["layer"] if found["findings"] else None)


def test_a_network_converted_before(run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    digits = datasets.load("mnist-5k")
    net = nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    snn = convert(trace(net, digits.train_x[:2]), RateCode(100), calibration=digits.train_x[:256])
    neuro.save(snn, tmp_path / "snn.h5")
    code, out, err = run("--snn", "snn.h5", "--steps", 512)
    assert code == 0, err
    assert "no layer loses enough" in out


def test_wrong_use_is_refused(run) -> None:
    assert run("--steps", 0)[0] == 2
    code, _, err = run("--snn", "missing.h5")
    assert code == 2
    assert "missing.h5" in err
    assert run("--out", "nowhere/losses.html")[0] == 2
