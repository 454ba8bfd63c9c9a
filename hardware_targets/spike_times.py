"""Layers of neurons that fire once (`TimeToFirstSpike`) on the leaky neurons of a chip, in ticks of a stated length.

Loihi's u and v are the two exponentials of the closed form: a spike of weight w sent at tick T makes of v, at tick
T + m, exactly w (kv^m - ku^m) / (kv - ku), with ku and kv what u and v keep per tick; w m k^(m - 1) where both keep k.
Up to a factor, which goes into the threshold, that is the response eps(m dt) of `neuro.first_spike.membrane`: the tick
that a spike travels is the tick that a clocked simulation takes to see it. What is lost is reported: weights of 8 bits,
decays of 12, and times in ticks.

A neuron is kept from firing again by a synapse with itself, as strong as its current can be without wrapping. Where two
spikes come all the same, `run` says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hardware_targets.chip import Chip
from hardware_targets.exact_synapses import inhibits_itself
from hardware_targets.loihi.program import DECAY_UNITY, Connection, Dense, Input, Population, Program
from hardware_targets.lower import Layer
from hardware_targets.placement import Violation
from hardware_targets.quantise import QuantisationError
from hardware_targets.schedule import LARGEST_SUM
from neuro.errors import DoesNotFit, ParameterError
from neuro.first_spike.membrane import Membrane, membrane_of
from neuro.first_spike.run import Chain
from neuro.graph import Graph
from neuro.nodes import TimeToFirstSpike

TICKS_PER_TAU = 32
"""How fine time is unless the user says otherwise."""

LOOSEST_DECAY = 0.05
"""Relative error of a time constant beyond which 12 bits do not hold it."""


@dataclass(frozen=True, eq=False)
class SpikeTimes:
    """A network of first spikes in ticks of `resolution`, the unit being that of its times.

    ticks: until silent neurons have lost. entry, last: names of the input and of the population that answers.
    """

    integers: Program
    layers: tuple[Layer, ...]
    errors: tuple[QuantisationError, ...]
    chain: Chain
    entry: str
    resolution: float
    ticks: int

    @property
    def last(self) -> str:
        """The population that answers."""
        return self.layers[-1].name

    def spikes(self, graph: Graph, x: Tensor) -> np.ndarray:
        """The input spikes, (ticks, batch, size), each in the tick nearest to its time."""
        due = (self.chain.coded(graph, x) / self.resolution).round()
        return np.stack([(due == tick).numpy().astype(np.int32) for tick in range(self.ticks)])

    def times(self, spikes: np.ndarray) -> Tensor:
        """First spikes (batch, size) in the unit of the graph, +inf for silent neurons; spikes (ticks, batch, size)."""
        fired = torch.from_numpy(np.array(spikes)).bool()
        first = fired.to(torch.uint8).argmax(0).double() * self.resolution
        return torch.where(fired.any(0), first, torch.inf)


def tells_time(graph: Graph) -> bool:
    """Whether the layers of a graph are neurons that fire once, in continuous time."""
    return any(isinstance(node, TimeToFirstSpike) for node in graph.nodes.values())


def lower_spike_times(graph: Graph, chip: Chip, weight_bits: int, resolution: float | None) -> SpikeTimes:
    """The integer program of a chain of first-spike layers.

    Raises UnsupportedNode where the graph is no such chain, DoesNotFit where delays, decays or thresholds leave their
    fields, and ParameterError for a resolution that is no time.
    """
    chain = Chain.of(graph)
    nodes = dict(zip(chain.layers, chain.nodes(graph), strict=True))
    dt = min(node.tau for node in nodes.values()) / TICKS_PER_TAU if resolution is None else resolution
    if not (math.isfinite(dt) and dt > 0):
        raise ParameterError(f"resolution must be a time > 0 in the unit of the network, got {resolution}")
    entry = source = chain.before[-1]
    inputs = (Input(source, math.prod(graph.shapes[source])),)
    populations: list[Population] = []
    connections: list[Connection] = []
    layers: list[Layer] = []
    errors: list[QuantisationError] = []
    violations: list[Violation] = []
    for level, (name, node) in enumerate(nodes.items(), 1):
        population, connection, error, broken = _layer(name, source, node, dt, chip, weight_bits)
        populations.append(population)
        connections += [connection, *inhibits_itself(name, _strongest(connection))]
        layers.append(Layer(name, node, graph.shapes[name], (), np.zeros(len(node.weight)), level))  # type: ignore[arg-type]
        errors.append(error)
        violations += broken
        source = name
    if violations:
        raise DoesNotFit("\n".join(map(str, violations)), tuple(violations))
    ticks = round(chain.readout.latest / dt) + 1
    program = Program(inputs, tuple(populations), tuple(connections))
    return SpikeTimes(program, tuple(layers), tuple(errors), chain, entry, dt, ticks)


def _layer(
    name: str, source: str, node: TimeToFirstSpike, dt: float, chip: Chip, weight_bits: int
) -> tuple[Population, Dense, QuantisationError, list[Violation]]:
    """One layer in integers, what that lost, and what does not fit."""
    coarser = f"compile with a coarser resolution than {dt:g}"
    violations: list[Violation] = []
    model, step = membrane_of(node.membrane), dt / node.tau
    ku = min(round(DECAY_UNITY * math.exp(-step)), DECAY_UNITY - 1)
    kv = round(DECAY_UNITY * math.exp(-model.leak * step))
    kv = ku if model.leak == 1 else kv
    for rate, kept in ((1.0, ku), (model.leak, kv)):
        found = -math.log(max(kept, 1) / DECAY_UNITY) / step
        if abs(found - rate) > LOOSEST_DECAY * rate:
            needed = chip.width("decay_bits") + math.ceil(math.log2(abs(found - rate) / (LOOSEST_DECAY * rate)))
            violations.append(Violation(name, None, "decay_bits", needed, chip.width("decay_bits"), coarser))
    weight = node.weight.detach().double().numpy()
    largest = np.abs(weight).max(1)
    unit = np.where(largest > 0, largest, 1.0) / (2 ** (weight_bits - 1) - 1)
    whole = np.rint(weight / unit[:, None])
    theta = node.theta.detach().double().expand(len(weight)).numpy()
    theta = theta / node.tau if node.membrane == "alpha" else theta
    level = theta / unit * _gain(model, step, ku / DECAY_UNITY, kv / DECAY_UNITY)
    vth = np.maximum(np.rint(level), 1)
    if vth.max() > LARGEST_SUM:
        violations.append(Violation(name, None, "threshold", int(vth.max()), LARGEST_SUM, coarser))
    delays, limit = _delays(node, dt), chip.width("delay_max")
    if delays is not None and int(delays.max()) > limit:
        violations.append(Violation(name, None, "delay", int(delays.max()), limit, coarser))
        delays = np.minimum(delays, limit)
    unused = 9 - weight_bits  # low bits that the format does not store
    connection = Dense(
        source=source, target=name, weights=(whole * 2**unused).astype(np.int32), weight_exp=-unused,
        num_weight_bits=weight_bits, sign_mode="mixed", delays=delays,
    )  # fmt: skip
    population = Population(
        name, len(weight), vth=np.minimum(vth, LARGEST_SUM).astype(np.int32), du=DECAY_UNITY - 1 - ku,
        dv=DECAY_UNITY - kv,
    )  # fmt: skip
    power = float((weight**2).sum())
    lost = float(np.sqrt(((whole * unit[:, None] - weight) ** 2).sum() / power)) if power else 0.0
    error = QuantisationError(name, lost, 0.0, float((np.abs(vth - level) / level).max()), 0, float(np.median(unit)))
    return population, connection, error, violations


def _gain(model: Membrane, step: float, ku: float, kv: float) -> float:
    """The highest potential that one weight step makes on the chip, over the highest eps at the same ticks."""
    m = np.arange(1, math.ceil(16 / step) + 1)
    chip = m * ku ** (m - 1.0) if ku == kv else (kv**m - ku**m) / (kv - ku)
    return float(chip.max()) / float(model.response(torch.from_numpy(m * step)).max())


def _delays(node: TimeToFirstSpike, dt: float) -> np.ndarray | None:
    """Extra ticks of every synapse (out, in): those of axons and of synapses together."""
    if node.axonal is None and node.synaptic is None:
        return None
    total = torch.zeros(node.weight.shape, dtype=torch.float64)
    for part in (node.axonal, node.synaptic):
        total = total if part is None else total + part.detach().double()
    return (total / dt).round().numpy().astype(np.int32)


def _strongest(connection: Dense) -> np.ndarray:
    """What a neuron may take from itself without its current ever reaching 24 bits, (targets,)."""
    inhibition = -np.minimum(connection.weights, 0).sum(axis=1) >> -connection.weight_exp
    return np.maximum(LARGEST_SUM - inhibition, 0).astype(np.int64)
