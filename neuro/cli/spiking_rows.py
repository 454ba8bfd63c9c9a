"""The rows of a comparison that need converters or chips: spiking networks, how each is built and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from converters import Calibrated, Exact, FirstSpike, RateCode, activations_replaced, convert
from converters.recipes import Integer
from converters.tuning import brief
from hardware_targets import Program, compile, load_chip
from hardware_targets import run as run_on_chip
from neuro import Network
from neuro.baselines.networks import small_cnn
from neuro.baselines.rival import Plan, Rival, Trained, along, itself, no_size, single
from neuro.cli.arguments import accuracy_of
from neuro.counts import Counts
from neuro.datasets import Split
from neuro.encode import Constant
from neuro.errors import ParameterError
from neuro.flow import has_neurons
from neuro.graph import Graph
from neuro.modules import LIF, Readout
from neuro.nodes import TimedLIF, TimeToFirstSpike
from neuro.shown import many
from neuro.simulate import simulate
from neuro.trace import trace
from neuro.training import Encoded, MembraneCrossEntropy, accuracy, fit, random_affine
from neuro.windows import duration

PERCENTILES = (99.0, 99.9, 100.0)
CALIBRATION = 512
"""Training samples that tell a conversion its ranges."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a network said of samples, what that took, and what it keeps where that differs from the graph."""

    outputs: Tensor
    counts: Counts
    stored: int | None = None
    notes: tuple[str, ...] = ()


Run = Callable[[Graph, Plan, Split, Tensor], Answer]


def steps_of(graph: Graph, plan: Plan) -> int | None:
    """The plan's T for a network that is run step by step; None for those that know how long they take."""
    timed = any(isinstance(node, TimeToFirstSpike | TimedLIF) for node in graph.nodes.values())
    return plan.steps if has_neurons(graph) and duration(graph) is None and not timed else None


def simulated(graph: Graph, plan: Plan, data: Split, x: Tensor) -> Answer:
    """By `neuro.simulate`."""
    found = simulate(graph, x, steps=steps_of(graph, plan))
    return Answer(found.outputs, found.counts)


def zeros_skipped(graph: Graph, plan: Plan, data: Split, x: Tensor) -> Answer:
    """By `neuro.simulate`, as an engine counts that skips zero activations, as spiking networks skip silent neurons.

    It reads as much memory as before: only its multipliers rest.
    """
    found = simulate(graph, x, steps=steps_of(graph, plan))
    nodes = {name: replace(tally, macs=tally.effective_macs) for name, tally in found.counts.nodes.items()}
    note = "The same network on an engine that skips zero activations, as spiking ones do; memory traffic is unchanged."
    return Answer(found.outputs, replace(found.counts, nodes=nodes), notes=(note,))


def on_chip(graph: Graph, plan: Plan, data: Split, x: Tensor) -> Answer:
    """In the integers of the plan's chip, placed."""
    program = program_of(graph, plan, data)
    found = run_on_chip(program, x, steps=steps_of(graph, plan))
    stored = sum(int(np.count_nonzero(c.weights)) for c in program.integers.connections)
    note = (
        f"Simulated in the chip's integers on {many(len(program.placement.cores), 'core')}; stored are the synapses, "
        "and pixels arrive as graded spikes of 8 bits at every step."
    )
    return Answer(found.outputs, found.counts, stored, (note,))


def program_of(graph: Graph, plan: Plan, data: Split) -> Program:
    """The network compiled for the plan's chip; ParameterError where that chip takes no conversions."""
    program = compile(graph, load_chip(plan.chip), calibration=data.train_x[:CALIBRATION])
    if not isinstance(program, Program):
        raise ParameterError(f"compare converts networks for chips of the family 'loihi', not for {plan.chip!r}")
    return program


@dataclass(frozen=True)
class Entry:
    """A row: how its network is built, on the trained network of which other row (`of`), and how it is run.

    `build(data, seed, plan, base)`; `device` names the chip or table of model C that the row is priced by; "" for none.
    `clocked`: its latency is a number of ticks.
    """

    title: str
    build: Callable[[Split, int, Plan, Graph | None], Trained]
    family: str
    ladder: Callable[[Split, Plan], tuple[Plan, ...]]
    equal: Callable[[Split, Plan], Plan | None]
    of: str = ""
    run: Run = simulated
    device: Callable[[Plan], str] = field(default=lambda plan: "")
    clocked: bool = True

    @classmethod
    def of_rival(cls, rival: Rival, device: str = "") -> Entry:
        """A rival that stands on its own."""
        return cls(
            rival.title, lambda data, seed, plan, base: rival.build(data, seed, plan), rival.family, rival.ladder,
            rival.equal, device=lambda plan: device,
        )  # fmt: skip


def _same(data: Split, seed: int, plan: Plan, base: Graph | None) -> Trained:
    assert base is not None
    return Trained(base, accuracy(base, data.validation_x, data.validation_y))


def _judged(graph: Graph, data: Split, plan: Plan, *notes: str, **facts: float) -> Trained:
    found = simulate(graph, data.validation_x, steps=steps_of(graph, plan), count=False)
    return Trained(graph, accuracy_of(found.outputs, data.validation_y), notes, facts)


def _converted(title: str, *recipes: Callable[[Plan], object]) -> Callable[[Split, int, Plan, Graph | None], Trained]:
    """The conversion of the base that does best on validation samples, of one or several recipes."""

    def build(data: Split, seed: int, plan: Plan, base: Graph | None) -> Trained:
        assert base is not None
        calibration, found = data.train_x[:CALIBRATION], []
        for recipe in (make(plan) for make in recipes):
            graph = convert(base, recipe, calibration=calibration).edit(name=title)
            replaced, total = activations_replaced(graph)
            neurons = f", {replaced} of {many(total, 'activation')} replaced by neurons" if total else ""
            said = f"Converted by {brief(recipe)}{neurons}."
            found.append(_judged(graph, data, plan, said if len(recipes) == 1 else f"{said} Chosen on validation."))
        return max(found, key=lambda one: one.validation_accuracy)

    return build


def _rates() -> tuple[Callable[[Plan], object], ...]:
    return tuple(lambda plan, percentile=percentile: RateCode(percentile=percentile) for percentile in PERCENTILES)


def _surrogate(data: Split, seed: int, plan: Plan, base: Graph | None) -> Trained:
    """The dense network's layers with leaky neurons, trained with surrogate gradients on a constant current."""
    sizes = plan.sizes(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(sizes[0], sizes[1])]
        for width, following in pairwise(sizes[1:]):
            layers += [LIF(0.9), nn.Linear(width, following)]
        step = nn.Sequential(*layers, Readout())
    network = Network(trace(step, data.train_x[:2], name="spiking, surrogate gradients"))
    augment = plan.training(seed)["augment"]
    fit(
        network, data, epochs=plan.epochs, batch_size=plan.batch_size, learning_rate=2e-3, seed=seed, augment=augment,
        loss=MembraneCrossEntropy("last"), encode=Encoded(Constant(), plan.steps), threads=plan.threads,
        progress=plan.progress,
    )  # fmt: skip
    return _judged(network.graph, data, plan, "LIF, beta 0.9; the mean current of the last layer is the answer.")


def _cnn(data: Split, seed: int, plan: Plan, base: Graph | None) -> Trained:
    if len(data.features) != 3:
        raise ParameterError(f"the convolutional network needs images; {data.name} has samples of {data.features}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = small_cnn(data.features, len(data.classes), pooling="stride")  # type: ignore[arg-type]
    fit(
        network, data, epochs=plan.epochs, batch_size=128, learning_rate=1e-2, weight_decay=1e-2, seed=seed,
        augment=random_affine(shift=2.0, degrees=10.0, scale=0.1), threads=plan.threads, progress=plan.progress,
    )  # fmt: skip
    graph = trace(network.eval(), data.train_x[:2], name="convolutional fp32")
    note = "12C5S2-32C5S2-128-10, trained on images shifted, turned and zoomed."
    return Trained(graph, accuracy(graph, data.validation_x, data.validation_y), (note,))


def _equal(base: str) -> Callable[[Split, Plan], Plan | None]:
    """What starts from the dense network stores as much as it; convolutional networks have a size of their own."""
    return no_size if base.startswith("cnn") else itself


_IN_STEPS = along("steps", 4, 8, 16, 32, 64)
_IN_LEVELS = along("steps", 4, 8, 16)


def _on_loihi(title: str, base: str) -> Entry:
    build = _converted(title, *_rates())
    ladder = along("steps", 8, 16, 32)
    return Entry(title, build, "spiking", ladder, _equal(base), base, on_chip, lambda plan: plan.chip)


SPIKING: Mapping[str, Entry] = {
    name: Entry(title, build, "spiking", ladder, _equal(of), of, clocked=name != "first-spike")
    for name, title, build, ladder, of in (
        ("rate", "spiking, rate code", _converted("spiking, rate code", *_rates()), _IN_STEPS, "dense"),
        ("calibrated", "spiking, calibrated", _converted("spiking, calibrated", lambda p: Calibrated(p.steps)),
         along("steps", 4, 8, 16, 32), "dense"),
        ("exact", "spiking, exact windows", _converted("spiking, exact windows", lambda p: Exact(p.steps)), _IN_LEVELS,
         "dense"),
        ("first-spike", "spiking, one spike", _converted("spiking, one spike", lambda p: FirstSpike()),
         single, "dense"),
        ("surrogate", "spiking, surrogate gradients", _surrogate, along("steps", 2, 4, 8), ""),
        ("cnn-rate", "convolutional spiking, rate", _converted("convolutional spiking, rate", *_rates()), _IN_STEPS,
         "cnn"),
        ("cnn-exact", "convolutional spiking, exact", _converted("convolutional spiking, exact",
         lambda p: Exact(p.steps)), _IN_LEVELS, "cnn"),
    )
} | {
    "chip": _on_loihi("spiking on chip", "dense"),
    "cnn-chip": _on_loihi("convolutional spiking on chip", "cnn"),
}  # fmt: skip

CONVOLUTIONAL: Mapping[str, Entry] = {
    "cnn": Entry("convolutional fp32", _cnn, "dense", single, no_size),
    "cnn-int8": Entry(
        "convolutional int8", _converted("convolutional int8", lambda plan: Integer(8)), "dense",
        single, no_size, "cnn",
    ),
}  # fmt: skip


def _in_integers(rival: Rival) -> Entry:
    """A rival with weights and activations of 8 bits, rounded after training."""
    title = f"{rival.title} int8"
    rounded = _converted(title, lambda plan: Integer(8))

    def build(data: Split, seed: int, plan: Plan, base: Graph | None) -> Trained:
        trained = rival.build(data, seed, plan)
        found = rounded(data, seed, plan, trained.graph)
        return replace(found, notes=(*trained.notes, *found.notes), facts=trained.facts)

    return Entry(title, build, rival.family, rival.ladder, no_size)


INTEGERS = ("small", "logistic", "pruned", "sparse-momentum")
"""Rivals that are also compared in integers: else the number format would decide between them and int8 rows."""

SKIPPING: Mapping[str, Entry] = {
    name: Entry(f"{title}, zeros skipped", _same, "dense", single, _equal(of), of, zeros_skipped)
    for name, of, title in (
        ("dense-gated", "dense", "dense fp32"),
        ("int8-gated", "int8", "dense int8"),
        ("cnn-int8-gated", "cnn-int8", "convolutional int8"),
    )
}
"""Controls: what skipping zeros saves without spikes."""


def optical(entry: Entry) -> Entry:
    """The same spiking network, its events priced by the constants of a photonic chip."""
    return replace(entry, title="optical spiking", family="photonic", device=lambda plan: "photonic-spiking")


def entries(rivals: Mapping[str, Rival], devices: Mapping[str, str]) -> dict[str, Entry]:
    """All rows by name; `devices` names the table of model C for rivals that have one."""
    own = {name: Entry.of_rival(rival, devices.get(name, "")) for name, rival in rivals.items()}
    integers = {f"{name}-int8": _in_integers(rivals[name]) for name in INTEGERS}
    return {**own, **integers, **CONVOLUTIONAL, **SKIPPING, **SPIKING, "optical-spiking": optical(SPIKING["rate"])}
