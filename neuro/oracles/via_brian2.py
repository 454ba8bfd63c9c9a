"""The same Graph as groups of Brian2: neurons integrated exactly, weights as synapses."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.errors import BackendMissing, ParameterError, ShapeError, UnsupportedNode
from neuro.graph import Graph, Input
from neuro.nodes import (
    IF,
    LIF,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Dropout,
    Neuron,
    Pad,
    Permute,
    Reshape,
    Scale,
    Slice,
    Weighted,
)

SYNAPSES = 5_000_000
"""More than that is no work for an oracle."""

_AFFINE = (Weighted, Scale, BatchNorm, AvgPool, Add, Concat, Reshape, Permute, Slice, Pad, Dropout)


def via_brian2(graph: Graph, x: Tensor, steps: int | None = None) -> dict[str, Tensor]:
    """Spikes of every population of `graph`, (time, batch, *features), as Brian2 2.9 computes them in float64.

    `x` is (batch, *features), held for `steps`, or (time, batch, *features). Populations are `IF` (v : 1) and `LIF`
    (dv/dt = -v / tau, tau = -dt / ln beta, method "exact"; beta in (0, 1)), one NeuronGroup each for the whole batch.
    What lies between two of them must be affine and becomes one synapse per non-zero weight, delay 0. Each population
    has its own places in the schedule of a step (synapses, threshold, reset) in the order of the graph, so that spikes
    pass all layers within the step, as here. What comes behind the last population is left out. NumPy as code target,
    no compiler. Raises UnsupportedNode listing every node without a form, ShapeError and ParameterError for input
    that does not fit or networks above 5,000,000 synapses, BackendMissing without brian2.
    """
    populations = _populations(graph)
    shape = graph.shapes[graph.inputs[0]]
    timed = x.ndim == len(shape) + 2
    if tuple(x.shape[1 + timed :]) != shape or (steps is None and not timed):
        raise ShapeError(f"{graph.name!r} takes (batch, *{shape}) and steps, or (time, batch, *{shape})")
    series = (x if timed else x.expand(steps or 0, *x.shape)).double().flatten(2)
    brian = _brian2()
    target = brian.prefs.codegen.target
    brian.prefs.codegen.target = "numpy"
    try:
        network, monitors = _built(brian, graph, populations, series)
        network.run(len(series) * brian.second, namespace={})
    finally:
        brian.prefs.codegen.target = target
    return {name: _spikes(monitors[name], len(series), series.shape[1], graph.shapes[name]) for name in populations}


def _brian2() -> ModuleType:
    try:
        import brian2
    except ImportError as error:
        raise BackendMissing("Brian2 is not installed; pip install brian2") from error
    return brian2


def _populations(graph: Graph) -> tuple[str, ...]:
    """Names of the populations, in order, once every node before the last of them has a form."""
    names = tuple(name for name, node in graph.nodes.items() if isinstance(node, IF | LIF))
    needed, waiting = set(names), list(names)
    while waiting:
        for source in graph.sources[waiting.pop()]:
            if source not in needed:
                needed.add(source)
                waiting.append(source)
    known = (IF, LIF, Input, *_AFFINE)
    odd = [f"{graph.nodes[n].kind} {n!r}" for n in graph.nodes if n in needed and not isinstance(graph.nodes[n], known)]
    odd += [
        f"LIF {n!r} with beta outside (0, 1)"
        for n in names
        if isinstance(node := graph.nodes[n], LIF) and bool(((node.beta <= 0) | (node.beta >= 1)).any())
    ]
    odd += [f"{node.kind} {n!r} without reset" for n in names if (node := graph.nodes[n]).reset == "none"]  # type: ignore[attr-defined]
    if odd or not names or len(graph.inputs) != 1:
        raise UnsupportedNode(
            f"{graph.name!r} has no form in Brian2: {', '.join(odd) or 'one input and IF or LIF needed'}"
        )
    return names


def _built(brian: Any, graph: Graph, populations: tuple[str, ...], series: Tensor) -> tuple[Any, dict[str, Any]]:
    """A network with one second per step, and the monitors of its populations."""
    batch = series.shape[1]
    groups: dict[str, Any] = {}
    monitors: dict[str, Any] = {}
    slots = [f"{slot}{place}" for place in range(len(populations)) for slot in ("synapses", "thresholds", "resets")]
    network = brian.Network()
    network.schedule = ["start", "groups", *slots, "end"]
    clock = brian.Clock(dt=1 * brian.second)
    for place, name in enumerate(populations):
        node, size = graph.nodes[name], math.prod(graph.shapes[name])
        assert isinstance(node, IF | LIF)
        group = brian.NeuronGroup(
            size * batch,
            ("dv/dt = -v / tau : 1\ntau : second" if isinstance(node, LIF) else "v : 1") + "\ntheta : 1",
            threshold="v >= theta",
            reset="v -= theta" if node.reset == "subtract" else "v = 0",
            method="exact",
            clock=clock,
        )
        group.thresholder["spike"].when, group.resetter["spike"].when = f"thresholds{place}", f"resets{place}"
        group.theta, group.v = _rows(node.theta, graph.shapes[name], batch), _rows(node.v0, graph.shapes[name], batch)
        if isinstance(node, LIF):
            group.tau = -1 / np.log(_rows(node.beta, graph.shapes[name], batch)) * brian.second
        weights, bias = _affine(graph, graph.sources[name][0])
        drive = bias.expand(len(series), batch, size)
        if (source := graph.inputs[0]) in weights:
            drive = drive + series @ weights.pop(source)
        values = brian.TimedArray(drive.reshape(len(series), -1).numpy(), dt=1 * brian.second)
        group.namespace["drive"] = values
        network.add(group, group.run_regularly("v += drive(t, i)", clock=clock, when=f"synapses{place}"))
        for source, weight in weights.items():
            network.add(_synapses(brian, groups[source], group, weight, batch, f"synapses{place}"))
        groups[name] = group
        monitors[name] = brian.SpikeMonitor(group, when="end")
        network.add(monitors[name])
    return network, monitors


def _affine(graph: Graph, entry: str) -> tuple[dict[str, Tensor], Tensor]:
    """What enters at `entry` as a sum: a matrix (size of source, size) for every input and population, and a bias."""
    between, sources, waiting = set(), [], [entry]
    while waiting:
        name = waiting.pop()
        if isinstance(graph.nodes[name], Neuron | Input):
            sources += [name] if name not in sources else []
        elif name not in between:
            between.add(name)
            waiting.extend(graph.sources[name])

    def at_entry(given: dict[str, Tensor]) -> Tensor:
        for name, node in graph.nodes.items():
            if name in between:
                given[name] = node.forward(*(given[source] for source in graph.sources[name]))  # type: ignore[attr-defined]
        return given[entry].detach().flatten(1).double()

    def silent(rows: int) -> dict[str, Tensor]:
        return {name: torch.zeros(rows, *graph.shapes[name]) for name in sources}

    bias = at_entry(silent(1))[0]
    weights = {}
    for source in sources:
        size = math.prod(graph.shapes[source])
        if size * len(bias) > 20 * SYNAPSES:
            raise ParameterError(
                f"{graph.name!r}: {source!r} to {entry!r} is too large for Brian2; take a smaller network"
            )
        weights[source] = at_entry(silent(size) | {source: torch.eye(size).reshape(size, *graph.shapes[source])}) - bias
    return weights, bias


def _synapses(brian: Any, before: Any, after: Any, weight: Tensor, batch: int, when: str) -> Any:
    """One synapse per non-zero weight and sample, delivered in the slot `when`."""
    i, j = (index.numpy() for index in weight.nonzero(as_tuple=True))
    if len(i) * batch > SYNAPSES:
        raise ParameterError(f"{len(i) * batch} synapses are too many for Brian2; take fewer samples")
    synapses = brian.Synapses(before, after, "w : 1", on_pre="v_post += w", clock=after.clock)
    synapses.pre.when = when
    if not len(i):
        synapses.active = False
        return synapses
    sample = np.arange(batch)[:, None]
    synapses.connect(i=(sample * weight.shape[0] + i).ravel(), j=(sample * weight.shape[1] + j).ravel())
    synapses.w = np.tile(weight.numpy()[i, j], batch)
    return synapses


def _rows(parameter: Tensor, shape: tuple[int, ...], batch: int) -> np.ndarray:
    return np.tile(parameter.detach().double().expand(shape).reshape(-1).numpy(), batch)


def _spikes(monitor: Any, steps: int, batch: int, shape: tuple[int, ...]) -> Tensor:
    fired = torch.zeros(steps, batch * math.prod(shape), dtype=torch.bool)
    at = np.rint(np.asarray(monitor.t / monitor.clock.dt)).astype(np.int64)
    fired[torch.from_numpy(at), torch.from_numpy(np.asarray(monitor.i, dtype=np.int64))] = True
    return fired.reshape(steps, batch, *shape)
