"""neuro inspect: what is in a network file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from neuro.cli.arguments import (
    Data,
    Factor,
    Json,
    Model,
    Root,
    Shape,
    TimeStep,
    Weights,
    print_json,
    read_data,
    read_model,
)
from neuro.graph import Graph

if TYPE_CHECKING:
    from neuro.kernels.through_time import Choice


def inspect(
    model: Model,
    weights: Weights = None,
    data: Data = None,
    data_root: Root = None,
    scale: Factor = None,
    shape: Shape = None,
    dt: TimeStep = None,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Say which kernel every layer takes when it trains, and why.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the nodes, shapes and parameters of a network, and what conversions did to it.

    Examples: `neuro inspect snn.h5`, `neuro inspect net.onnx`, `neuro inspect net.nir --dt 1e-4`,
    `neuro inspect snn.h5 --kernels`,
    `neuro inspect net.py:build --weights folder-of-hugging-face --shape 3,224,224`
    """
    graph = read_model(model, weights, read_data(data, data_root), shape, shapes_only=True, dt=dt, scale=scale)
    choices = _choices(graph) if kernels else []
    if not as_json:
        typer.echo(str(graph))
        for choice in choices:
            typer.echo(f"{choice.node}: {choice.kernel} ({choice.why})")
        return
    print_json(
        {
            "name": graph.name,
            "parameters": graph.parameters,
            "nodes": [
                {
                    "name": name,
                    "kind": node.kind,
                    "sources": list(graph.sources[name]),
                    "shape": list(graph.shapes[name]),
                    "parameters": node.parameters,
                }
                for name, node in graph.nodes.items()
            ],
            "history": [str(change) for change in graph.history],
            **({"kernels": [choice._asdict() for choice in choices]} if kernels else {}),
        }
    )


def _choices(graph: Graph) -> list[Choice]:
    # Compiled kernels take a second to import, which other commands need not wait for.
    from neuro.kernels.through_time import plan
    from neuro.surrogate import ArcTan

    return plan(graph, ArcTan())
