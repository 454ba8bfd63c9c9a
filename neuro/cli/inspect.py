"""neuro inspect: what is in a network file."""

from __future__ import annotations

import typer

from neuro.cli.arguments import Data, Json, Model, Root, Shape, TimeStep, Weights, print_json, read_data, read_model


def inspect(
    model: Model,
    weights: Weights = None,
    data: Data = None,
    data_root: Root = None,
    shape: Shape = None,
    dt: TimeStep = None,
    as_json: Json = False,
) -> None:
    """Show the nodes, shapes and parameters of a network, and what conversions did to it.

    Example: `neuro inspect snn.h5`
    """
    graph = read_model(model, weights, read_data(data, data_root), shape, shapes_only=True, dt=dt)
    if not as_json:
        typer.echo(str(graph))
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
        }
    )
