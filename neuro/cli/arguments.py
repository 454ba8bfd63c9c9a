"""Arguments that several commands share, and how they become values."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from converters.read import read
from neuro import datasets
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.flow import bits_per_event
from neuro.graph import Graph
from neuro.rewrite import scaled_inputs
from neuro.weights import load_module

Model = Annotated[
    str,
    typer.Argument(help="A file (.h5, .onnx, .keras, .tflite, .nir, .pt2), or file.py:function giving a torch module."),
]
Weights = Annotated[
    Path | None, typer.Option(help="Weights of file.py:function: .safetensors, or a state dict (.pt, .pth).")
]
Data = Annotated[str | None, typer.Option("--data", help="A known data set (see `neuro data`) or a path.")]
Root = Annotated[Path | None, typer.Option("--data-root", help="Folder that holds data sets; also NEURO_DATA.")]
Shape = Annotated[
    str | None, typer.Option("--shape", help="Shape of one sample where no data set says it, e.g. 1,28,28.")
]
Factor = Annotated[
    float | None,
    typer.Option("--scale", help="Multiply inputs, which lie in [0, 1], by this: 255 where raw pixels were learnt."),
]
TimeStep = Annotated[float | None, typer.Option("--dt", help="NIR files: length of a time step [s].")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Seed = Annotated[int, typer.Option(help="Everything random follows from it.", min=0)]
Samples = Annotated[int | None, typer.Option(help="Use only the first so many test samples.", min=1)]
Steps = Annotated[int, typer.Option("--steps", "-T", help="Time steps.")]

progress = Console(stderr=True)
"""Progress and remarks; results are printed on stdout."""


def say(text: str) -> None:
    """A remark on stderr, as it is."""
    progress.print(text, markup=False, highlight=False, soft_wrap=True)


def console() -> Console:
    """Where results are printed: as wide as the terminal, 120 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """A result as JSON with a fixed layout."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def check_steps(steps: int) -> int:
    """Refuse a bad number of steps before any work."""
    if not 1 <= steps <= 100_000:
        raise ParameterError(f"--steps must lie in 1..100000, got {steps}")
    return steps


def check_out(out: Path | None) -> None:
    """Refuse a place that cannot be written before any work."""
    if out is None:
        return
    if out.is_dir():
        raise ParameterError(f"--out {out} is a folder; name a file")
    if not out.parent.is_dir():
        raise ParameterError(f"--out {out}: there is no folder {out.parent}; make it first")


def read_data(name: str | None, root: Path | None) -> Split | None:
    """The data set of --data, or None."""
    return None if name is None else datasets.load(name, root)


def need_data(name: str | None, root: Path | None, why: str) -> Split:
    """The data set of --data; ParameterError where it is missing."""
    split = read_data(name, root)
    if split is None:
        raise ParameterError(f"--data is missing: {why}; `neuro data` lists what there is")
    return split


def read_model(
    model: str,
    weights: Path | None,
    split: Split | None,
    shape: str | None,
    *,
    shapes_only: bool = False,
    dt: float | None = None,
    scale: float | None = None,
) -> Graph:
    """The network of a MODEL argument as a Graph, traced where it is torch code.

    shapes_only: the values of its weights do not matter to the caller, so nothing is said where none are given.
    scale: the factor of --scale becomes part of the network, so that it takes what data sets give.
    """
    if scale is not None and not (math.isfinite(scale) and scale != 0):
        raise ParameterError(f"--scale must be a finite number other than 0, e.g. 255, got {scale}")
    graph = _read(model, weights, split, shape, shapes_only, dt)
    return graph if scale is None else scaled_inputs(graph, scale)


def _read(
    model: str, weights: Path | None, split: Split | None, shape: str | None, shapes_only: bool, dt: float | None
) -> Graph:
    if ":" not in Path(model).name:
        needs_example = model.endswith(".pt2")
        graph = read(model, example=_example(split, shape) if needs_example else None, dt=dt)
        for change in graph.history[-1:] if model.endswith(".onnx") else ():
            say(f"{model}: {change.why}")
        return graph
    if weights is None and not shapes_only:
        say(f"no --weights: {model} is used with the values that its function gives, random ones unless it loads some")
    return read(load_module(model, weights), example=_example(split, shape), name=Path(model.split(":")[0]).stem)


def _example(split: Split | None, shape: str | None) -> torch.Tensor:
    if shape is not None:
        try:
            sizes = tuple(int(size) for size in shape.split(","))
        except ValueError:
            sizes = ()
        if not sizes or min(sizes) < 1 or math.prod(sizes) > 10**8:
            raise ParameterError(f"--shape must be positive integers with commas, e.g. 1,28,28, got {shape!r}")
    elif split is not None:
        sizes = split.features
    else:
        raise ParameterError("tracing needs the shape of a sample: give --data NAME or --shape 1,28,28")
    return torch.rand(2, *sizes, generator=torch.Generator().manual_seed(0))


def accuracy_of(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of samples whose largest output is their label."""
    return int((outputs.argmax(1) == labels).sum()) / len(labels)


def latency(graph: Graph, ticks: int) -> str:
    """How long an answer takes, and how wide the events are that carry it."""
    bits = bits_per_event(graph)
    return f"{ticks} ticks end to end" + (f", events of {bits} bit{'s' if bits > 1 else ''}" if bits else "")


def warn_near_chance(accuracy: float, labels: torch.Tensor, scale: float | None) -> None:
    """Say on stderr that a trained network does hardly better than the commonest answer, and what may be the cause."""
    guess = int(labels.bincount().max()) / len(labels)
    if accuracy > guess + 0.25 * (1 - guess):
        return
    told = "not given" if scale is None else f"{scale:g}"
    say(
        f"warning: {100 * accuracy:.1f} % accuracy of the network as it was trained, where always giving the commonest "
        f"of the classes has {100 * guess:.1f} %: it may have learnt inputs of another scale (--scale is {told}; 255 "
        "for raw pixels, data here lie in [0, 1]), another normalisation (put it in the network), or other classes"
    )
