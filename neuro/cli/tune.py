"""neuro tune: which recipe reaches a goal at the least cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from converters import Goal
from converters import tune as tune_graph
from converters.tuning import Cost, Counted, candidates
from hardware_targets import chips, compile, price
from hardware_targets import run as run_program
from hardware_targets.price import tables
from neuro.cli.arguments import (
    Data,
    Factor,
    Json,
    Model,
    Root,
    Weights,
    check_out,
    console,
    need_data,
    print_json,
    read_model,
    warn_near_chance,
)
from neuro.counts import Tally
from neuro.errors import ParameterError
from neuro.graph import Graph
from neuro.report import Section, write_page
from neuro.simulate import Run

ON_CHIP = 20
"""Samples that run on a chip to know its joules."""


@dataclass(frozen=True)
class Joules:
    """Joules per sample by an energy table, or by a chip, on which the network is compiled and run."""

    table: str

    def __call__(self, graph: Graph, x: Tensor, run: Run) -> float:
        if self.table not in chips():
            return price(run.counts, self.table, stored_words=graph.parameters).per_sample
        program = compile(graph, self.table, calibration=x)
        steps = run.counts.steps - program.depth
        return price(run_program(program, x[:ON_CHIP], steps=max(steps, 1)).counts, self.table).per_sample

    def __str__(self) -> str:
        return f"J per sample, {self.table}"


def cost_named(name: str) -> Cost:
    """ "ticks", a count of `Tally`, an energy table or a chip, as a cost."""
    if name == "ticks" or name in Tally.__dataclass_fields__:
        return Counted(name)
    if name in tables():
        return Joules(name)
    raise ParameterError(f"--cost must be ticks, spikes, accumulates, {', '.join(tables())}; got {name!r}")


def tune(
    model: Model,
    weights: Weights = None,
    data: Data = None,
    data_root: Root = None,
    scale: Factor = None,
    max_loss: Annotated[float, typer.Option(help="Points that may be lost on validation samples.")] = 0.5,
    cost: Annotated[
        str, typer.Option(help="ticks, spikes, accumulates, an energy table, or a chip (joules).")
    ] = "ticks",
    calibration: Annotated[int, typer.Option(help="Training samples that set the thresholds.", min=1)] = 512,
    samples: Annotated[int, typer.Option(help="Validation samples.", min=1)] = 1000,
    graded: Annotated[bool, typer.Option(help="Try events of several bits too.")] = False,
    layers: Annotated[
        int, typer.Option(help="So many layers, the costliest first, get a percentile of their own afterwards.", min=0)
    ] = 0,
    jobs: Annotated[int, typer.Option(help="Processes; -1 for all cores.")] = 1,
    folder: Annotated[Path | None, typer.Option(help="Keep trials here; a second call goes on from them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a page with the picture here (.html).")] = None,
    as_json: Json = False,
) -> None:
    """Try every recipe that needs no training, at several levels and steps, on validation samples.

    Example: `neuro tune net.py:build --weights net.safetensors --data mnist --max-loss 0.5 --cost 45nm --folder trials`
    """
    check_out(out)
    goal = Goal(max_loss / 100, cost_named(cost))
    split = need_data(data, data_root, "recipes are compared on validation samples")
    if not len(split.validation_y):
        raise ParameterError(f"{split.name} has no validation samples to compare recipes on")
    graph = read_model(model, weights, split, None, scale=scale)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    found = tune_graph(
        graph, goal, calibration=split.train_x[:calibration],
        validation=(split.validation_x[:samples], split.validation_y[:samples]),
        tried=candidates(graded), layers=layers, folder=folder, jobs=jobs, progress=True,
    )  # fmt: skip
    warn_near_chance(found.dense, split.validation_y[:samples], scale)
    if out is not None:
        title, _, _, notes = found.sheet()
        section = Section("Accuracy against cost", "Every point is a recipe on validation samples.", found.picture())
        write_page(out, [], title=f"{graph.name}: {title}", sections=[section], assumptions=notes)
    if as_json:
        best = None if found.best is None else asdict(found.best)
        print_json({"dense": found.dense, "best": best, "trials": [_plain(asdict(trial)) for trial in found.trials]})
        return
    console().print(found)


def _plain(trial: dict[str, object]) -> dict[str, object]:
    """JSON knows no infinity: a refused trial has no cost."""
    return {**trial, "cost": None} if trial["refused"] is not None else trial
