"""neuro simulate: run a network on a data set and count what it does."""

from __future__ import annotations

from dataclasses import fields

from rich.table import Table

from neuro.cli.arguments import (
    Data,
    Factor,
    Json,
    Model,
    Root,
    Samples,
    Steps,
    TimeStep,
    Weights,
    accuracy_of,
    check_steps,
    console,
    latency,
    need_data,
    print_json,
    read_model,
    warn_near_chance,
)
from neuro.counts import Tally
from neuro.flow import bits_per_event, has_neurons
from neuro.simulate import simulate as simulate_graph

SHOWN = ("macs", "accumulates", "spikes", "updates", "weight_words", "state_words", "activation_words")


def simulate(
    model: Model,
    weights: Weights = None,
    data: Data = None,
    data_root: Root = None,
    scale: Factor = None,
    steps: Steps = 32,
    samples: Samples = None,
    dt: TimeStep = None,
    as_json: Json = False,
) -> None:
    """Run a network on the test samples: accuracy, and counts for every node.

    Examples: `neuro simulate snn.h5 --data mnist-5k --steps 16`, `neuro simulate net.onnx --data cifar10 --scale 255`,
    `neuro simulate net.nir --data mnist-5k --dt 1e-4`
    """
    check_steps(steps)
    split = need_data(data, data_root, "there is nothing to run on")
    graph = read_model(model, weights, split, None, dt=dt, scale=scale)
    x, y = split.test_x[:samples], split.test_y[:samples]
    series = x.transpose(0, 1) if split.timed else x
    run = simulate_graph(graph, series, steps=None if split.timed or not has_neurons(graph) else steps, progress=True)
    counts, size = run.counts, len(y)
    nodes = {name: tally for name, tally in counts.nodes.items() if tally != Tally()}
    accuracy = accuracy_of(run.outputs, y)
    warn_near_chance(accuracy, y, scale)
    if as_json:
        print_json(
            {
                "model": graph.name,
                "accuracy": accuracy,
                "test_samples": size,
                "latency_ticks": counts.steps,
                "bits_per_event": bits_per_event(graph),
                "total": {item.name: getattr(counts.total, item.name) / size for item in fields(Tally)},
                "nodes": {
                    n: {item.name: getattr(t, item.name) / size for item in fields(Tally)} for n, t in nodes.items()
                },
            }
        )
        return
    table = Table("node", *SHOWN, title=f"{graph.name}: per sample")
    for name, tally in (*nodes.items(), ("total", counts.total)):
        table.add_row(name, *(f"{getattr(tally, what) / size:,.0f}" for what in SHOWN))
    console().print(table)
    console().print(
        f"accuracy {100 * accuracy:.2f} % on {size:,} test samples, {latency(graph, counts.steps)}", highlight=False
    )
