"""neuro inspect --kernels: every product and population with the kernel that it trains on, and why."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from typer.testing import CliRunner

from neuro import save
from neuro.cli import app
from neuro.graph import Graph, Input
from neuro.nodes import LIF, AdaptiveLIF, Affine


def saved(folder: Path) -> str:
    half, one = torch.tensor(0.5), torch.tensor(1.0)
    nodes = {
        "x": Input((70,)), "hidden": Affine(torch.randn(64, 70)), "lif": LIF(half, one, half),
        "out": Affine(torch.randn(10, 64)), "adaptive": AdaptiveLIF(half, half, one, one),
    }  # fmt: skip
    edges = {"hidden": ("x",), "lif": ("hidden",), "out": ("lif",), "adaptive": ("out",)}
    path = folder / "net.h5"
    save(Graph(nodes, edges), path)
    return str(path)


def test_kernels_are_listed_with_reasons(tmp_path: Path) -> None:
    path = saved(tmp_path)
    shown = CliRunner().invoke(app, ["inspect", path, "--kernels"])
    assert shown.exit_code == 0, shown.output
    assert "lif: numba (fused over time)" in shown.stdout
    assert "adaptive: reference (no fused equation of AdaptiveLIF)" in shown.stdout
    listed = json.loads(CliRunner().invoke(app, ["inspect", path, "--kernels", "--json"]).stdout)["kernels"]
    assert {entry["node"]: entry["kernel"] for entry in listed} == {
        "hidden": "events", "lif": "numba", "out": "dense", "adaptive": "reference",
    }  # fmt: skip


def test_kernels_stay_out_where_nobody_asks(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert "kernels" not in json.loads(CliRunner().invoke(app, ["inspect", path, "--json"]).stdout)
