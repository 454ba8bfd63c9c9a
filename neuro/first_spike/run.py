"""First-spike networks as machines run them: spike by spike without a clock, or in ticks of a stated length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neuro.counts import Counts, Tally
from neuro.errors import ParameterError, ShapeError, UnsupportedNode
from neuro.first_spike.membrane import membrane_of
from neuro.graph import Graph, Input, Stateless
from neuro.nodes import EarliestWins, TimeToFirstSpike
from neuro.progress import track
from neuro.simulate import Run

Until = Literal["decision", "end"]


@dataclass(frozen=True, eq=False)
class Chain:
    """A network of first-spike layers one behind the other: what codes the samples, the layers, and the read-out."""

    before: tuple[str, ...]
    layers: tuple[str, ...]
    readout: EarliestWins

    @classmethod
    def of(cls, graph: Graph) -> Chain:
        """The chain of `graph`; UnsupportedNode where it is none."""
        names = list(graph.nodes)
        layers = tuple(name for name in names if isinstance(graph.nodes[name], TimeToFirstSpike))
        readout = graph.nodes[names[-1]]
        single = all(graph.sources[name] == (before,) for before, name in pairwise(names))
        before = tuple(names[: names.index(layers[0])]) if layers else ()
        follows = names[len(before) : -1] == list(layers)
        plain = all(isinstance(graph.nodes[name], Input | Stateless) for name in before)
        if not (layers and single and follows and plain and isinstance(readout, EarliestWins)):
            raise UnsupportedNode(
                f"{graph.name!r} is no chain of a code, TimeToFirstSpike layers and EarliestWins; run_events and "
                "run_clocked take no other"
            )
        return cls(before, layers, readout)

    def coded(self, graph: Graph, x: Tensor) -> Tensor:
        """Spike times of the input (batch, n), float64."""
        shape = graph.shapes[self.before[0]]
        if tuple(x.shape[1:]) != shape:
            raise ShapeError(f"{graph.name!r} takes (batch, {', '.join(map(str, shape))}), got {tuple(x.shape)}")
        if not len(x):
            raise ShapeError(f"the input of {graph.name!r} holds no samples: {tuple(x.shape)}")
        for name in self.before[1:]:
            node = graph.nodes[name]
            assert isinstance(node, Stateless)
            x = node.forward(x)
        return x.double()

    def nodes(self, graph: Graph) -> list[TimeToFirstSpike]:
        found = [graph.nodes[name] for name in self.layers]
        return [node for node in found if isinstance(node, TimeToFirstSpike)]


def run_events(graph: Graph, x: Tensor, *, until: Until = "decision", progress: bool = False) -> Run:
    """Run a chain of first-spike layers on x (batch, *features), event by event in the order of time.

    One queue holds the spikes of all layers; a neuron is updated when a spike reaches it and says when it would fire if
    nothing else came. `until` "decision" ends a sample with the first output spike, which is the answer; "end" goes on
    until no spike is left. Outputs are those of `EarliestWins`; `recordings["times"]` holds the spike times (batch, n)
    of the input code (under the name of its last node) and of every layer, +inf for spikes that did not come.

    Counts: an accumulate and a weight word for every spike at a non-zero synapse, fired neurons included; updates only
    of those that still wait, each with three products, two additions, and three exponentials or logarithms (two
    decays, the next crossing), reading and writing V and I. `steps` is 1: there are no ticks. Float64.
    """
    if until not in ("decision", "end"):
        raise ParameterError(f"run_events: until must be 'decision' or 'end', got {until!r}")
    from neuro.kernels.first_spike_events import run

    chain = Chain.of(graph)
    first = chain.coded(graph, x)
    network = _packed(chain.nodes(graph), first.shape[1])
    widths = network[1]
    found, updates, ignored = [], np.zeros(len(widths), np.int64), np.zeros(len(widths), np.int64)
    for row in track(first.numpy(), len(first), f"events of {graph.name}", progress):
        times, updated, lost = run(row, *network, until == "decision")  # type: ignore[call-arg]
        found.append(torch.from_numpy(times))
        updates, ignored = updates + updated, ignored + lost
    parts = torch.stack(found).split(widths.tolist(), 1)
    recorded = dict(zip((chain.before[-1], *chain.layers), parts, strict=True))
    tallies = {name: Tally() for name in graph.nodes}
    for place, (name, times) in enumerate(recorded.items()):
        spikes, events, own = (
            int(torch.isfinite(times).sum()),
            int(updates[place] + ignored[place]),
            int(updates[place]),
        )
        tallies[name] = Tally(
            spikes=spikes, accumulates=events, weight_words=events, updates=own, updates_active=own,
            multiplications=3 * own, additions=own, exponentials=3 * own, comparisons=own, state_words=4 * own,
            activation_words=2 * spikes,
        )  # fmt: skip
    outputs = chain.readout.forward(parts[-1]).to(x.dtype if x.is_floating_point() else torch.float32)
    return Run(outputs, Counts(len(x), 1, tallies), {"times": recorded})


def _packed(nodes: Sequence[TimeToFirstSpike], inputs: int) -> tuple:
    """The arrays of `neuro.kernels.first_spike_events.run`."""
    width = np.array([inputs, *(len(node.weight) for node in nodes)], dtype=np.int64)
    start = np.concatenate([[0], np.cumsum(width)[:-1]])
    size = width[:-1] * width[1:]
    weight_at = np.concatenate([[0], np.cumsum(size)[:-1]])
    weight, synaptic, axonal = np.zeros(size.sum()), np.zeros(size.sum()), np.zeros(width.sum())
    theta, leak, gain, tau = np.ones(width.sum()), np.ones(len(width)), np.ones(len(width)), np.ones(len(width))
    for place, node in enumerate(nodes):
        here = slice(weight_at[place], weight_at[place] + size[place])
        weight[here] = _flat(node.weight.t())
        if node.synaptic is not None:
            synaptic[here] = _flat(node.synaptic.t())
        if node.axonal is not None:
            axonal[start[place] : start[place] + width[place]] = _flat(node.axonal)
        model = membrane_of(node.membrane)
        level = node.theta / node.tau if node.membrane == "alpha" else node.theta
        theta[start[place + 1] : start[place + 1] + width[place + 1]] = _flat(level)
        leak[place + 1], gain[place + 1], tau[place + 1] = model.leak, model.gain, node.tau
    delayed = np.array([node.synaptic is not None for node in nodes])
    return start, width, weight_at, weight, axonal, synaptic, delayed, theta, leak, gain, tau


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().reshape(-1).numpy()


def run_clocked(graph: Graph, x: Tensor, resolution: float, *, batch_size: int = 500) -> Run:
    """Run a chain of first-spike layers in ticks of `resolution`, in the unit of its times.

    Input spikes and delays are rounded to the nearest tick. In every tick all membranes decay exactly over it,
    those at or above their threshold fire, once, and reach the next layer in the same tick. Outputs are minus the time
    of the tick; among spikes of one tick the potential says who was first: it is put on a straight line from the tick
    before. Silent outputs score -latest, where the run ends. Counts: every neuron in every tick until the answer, with
    three products, two additions and a comparison; an accumulate for every spike at a non-zero synapse until then.
    `recordings["times"]` as in `run_events`, in whole ticks. Float64.
    """
    if not (math.isfinite(resolution) and resolution > 0):
        raise ParameterError(f"run_clocked: resolution must be finite and > 0, got {resolution}")
    chain = Chain.of(graph)
    nodes = chain.nodes(graph)
    ticks = round(chain.readout.latest / resolution)
    parts = [
        _clocked(nodes, chain.coded(graph, part), resolution, ticks, chain.readout.latest)
        for part in x.split(batch_size)
    ]
    outputs = torch.cat([part[0] for part in parts])
    names = (chain.before[-1], *chain.layers)
    recorded = {name: torch.cat([part[1][place] for part in parts]) for place, name in enumerate(names)}
    answered = torch.cat([part[2] for part in parts])
    tallies = {name: Tally() for name in graph.nodes}
    for place, name in enumerate(names):
        spikes = int((recorded[name] <= answered[:, None] * resolution).sum())
        updates = 0 if not place else int((answered + 1).sum()) * len(nodes[place - 1].weight)
        events = sum(part[3][place] for part in parts)
        tallies[name] = Tally(
            spikes=spikes, accumulates=events, weight_words=events, updates=updates, updates_active=updates,
            multiplications=3 * updates, additions=2 * updates, comparisons=updates,
            state_words=4 * updates + 2 * events, activation_words=2 * spikes,
        )  # fmt: skip
    counts = Counts(len(x), int(answered.max()) + 1, tallies)
    return Run(outputs.to(x.dtype if x.is_floating_point() else torch.float32), counts, {"times": recorded})


def _clocked(
    nodes: Sequence[TimeToFirstSpike], first: Tensor, dt: float, ticks: int, latest: float
) -> tuple[Tensor, list[Tensor], Tensor, list[int]]:
    """Scores, times of all layers, the tick of every answer, and synaptic events per layer until then."""
    due = [torch.where(torch.isfinite(first), (first / dt).round(), torch.inf)]
    due += [first.new_full((len(first), len(node.weight)), torch.inf) for node in nodes]
    lags = [_lags(node, dt) for node in nodes]
    v = [torch.zeros_like(times) for times in due[1:]]
    i = [torch.zeros_like(times) for times in due[1:]]
    scores = first.new_full(due[-1].shape, -latest)
    weights = [node.weight.detach().double() for node in nodes]
    synapses = [(weight != 0).double() for weight in weights]
    events = [0] * (len(nodes) + 1)
    answered = torch.full((len(first),), float(ticks), dtype=torch.float64)
    for tick in range(min(0, int(due[0].min()) if torch.isfinite(due[0]).any() else 0), ticks + 1):
        waits = answered >= tick
        if not bool(waits.any()):
            break
        for place, node in enumerate(nodes):
            model = membrane_of(node.membrane)
            step = torch.tensor(dt / node.tau, dtype=torch.float64)
            before = v[place]
            v[place] = model.kept(step) * v[place] + model.response(step) * i[place]
            i[place] = torch.exp(-step) * i[place]
            theta = node.theta.double() / node.tau if node.membrane == "alpha" else node.theta.double()
            fires = (v[place] >= theta) & torch.isinf(due[place + 1])
            due[place + 1][fires] = tick
            if place == len(nodes) - 1 and bool(fires.any()):
                passed = (v[place] - theta) / (v[place] - before).clamp(min=1e-300)
                scores = torch.where(fires, -dt * (tick - 0.999 * passed.clamp(0, 1)), scores)
                answered = torch.where(fires.any(1) & (answered == ticks), float(tick), answered)
            arrives = due[place][:, None] + lags[place] == tick
            if bool(arrives.any()):
                i[place] = i[place] + _received(arrives.double(), weights[place])
                events[place + 1] += int(_received(arrives[waits].double(), synapses[place]).sum())
    return scores, [times * dt for times in due], answered, events


def _lags(node: TimeToFirstSpike, dt: float) -> Tensor:
    """Ticks from a spike to its arrival, (1, in), or (out, in) where synapses have delays of their own."""
    delay = torch.zeros(1, node.weight.shape[1], dtype=torch.float64)
    for own in (node.axonal, node.synaptic):
        delay = delay if own is None else delay + own.detach().double()
    return (delay / dt).round()


def _received(arrives: Tensor, weight: Tensor) -> Tensor:
    """What neurons get (batch, out) from spikes that arrive (batch, 1 or out, in)."""
    return arrives[:, 0] @ weight.t() if arrives.shape[1] == 1 else (arrives * weight).sum(-1)


def agreement(graph: Graph, x: Tensor, resolutions: Sequence[float]) -> dict[float, float]:
    """Share of the samples on which the clocked run of each resolution decides as the event-driven one."""
    wanted = run_events(graph, x).outputs.argmax(1)
    return {dt: float((run_clocked(graph, x, dt).outputs.argmax(1) == wanted).double().mean()) for dt in resolutions}
