"""The main job: one task, one split, every rival on it, each a Graph that is counted and priced by the same code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from converters import RateCode, activations_replaced, convert
from converters.recipes import Integer
from hardware_targets import Bill, Chip, ChipRun, Program, compile, price, run
from neuro.baselines.experts import balanced_loss, experts_cnn
from neuro.baselines.networks import small_cnn
from neuro.baselines.sparse import prune
from neuro.cli.arguments import accuracy_of
from neuro.counts import Counts, active_parameters
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.graph import Graph
from neuro.nodes import GradedSpiking, Spiking
from neuro.report import Provenance, Row
from neuro.simulate import Run, simulate
from neuro.trace import trace
from neuro.training import fit, random_affine

ROWS = ("dense", "int8", "pruned", "experts", "spiking", "chip")
PERCENTILES = (99.0, 99.9, 100.0)
COUNTED = Provenance("measured", "counted while this network ran on the test samples in this program")
SCORED = Provenance("measured", "on the test samples, once")


@dataclass(frozen=True, eq=False)
class Study:
    """Everything a comparison found: rows, the networks behind them, and what the plots show."""

    rows: tuple[Row, ...]
    graphs: Mapping[str, Graph]
    curves: Mapping[str, tuple[list[int], list[float]]]
    bills: Mapping[str, Mapping[str, Bill]]
    spiking: Run
    program: Program | None
    chip_run: ChipRun | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()


@dataclass(eq=False)
class _Bench:
    """Rows as they come, on one test set."""

    x: Tensor
    y: Tensor
    rows: list[Row] = field(default_factory=list)
    graphs: dict[str, Graph] = field(default_factory=dict)
    bills: dict[str, dict[str, Bill]] = field(default_factory=dict)

    def accuracy(self, outputs: Tensor) -> float:
        return accuracy_of(outputs, self.y)

    def add(
        self,
        model: str,
        graph: Graph,
        outputs: Tensor,
        counts: Counts,
        chip: Chip | None = None,
        notes: tuple[str, ...] = (),
        stored: int | None = None,
    ) -> None:
        spiking = any(isinstance(node, Spiking | GradedSpiking) for node in graph.nodes.values())
        words = graph.parameters if stored is None else stored
        bills = {"A": price(counts, "45nm"), "B": price(counts, "45nm-memory", stored_words=words)}
        if chip is not None:
            bills["C"] = price(counts, chip)
        known = {"accuracy": SCORED, "macs": COUNTED, "accumulates": COUNTED, "spikes": COUNTED}
        for column, letter in (("energy_operations_J", "A"), ("energy_memory_J", "B"), ("energy_chip_J", "C")):
            if letter in bills:
                known[column] = _provenance(bills[letter])
        self.rows.append(
            Row(
                model=model,
                accuracy=self.accuracy(outputs),
                parameters_stored=words,
                parameters_active=active_parameters(graph) if stored is None else words,
                macs=counts.per_sample("macs"),
                accumulates=counts.per_sample("accumulates") if spiking else None,
                spikes=counts.per_sample("spikes") if spiking else None,
                energy_operations_J=bills["A"].per_sample,
                energy_memory_J=bills["B"].per_sample,
                energy_chip_J=bills["C"].per_sample if "C" in bills else None,
                latency_ticks=counts.steps if spiking else None,
                provenance=known,
                notes=notes,
            )
        )
        self.graphs[model] = graph
        self.bills[model] = bills


def _provenance(bill: Bill) -> Provenance:
    used = sorted({bill.provenance[cause].status for cause, joules in bill.joules.items() if joules > 0})
    how = "modelled" if bill.status in ("measured", "quoted", "modelled") else bill.status
    return Provenance(how, f"counts times the prices of table {bill.table} ({', '.join(used)})")


def check_study(split: Split, wanted: tuple[str, ...], steps: tuple[int, int]) -> None:
    """Refuse what `study` cannot do: unknown rows, steps out of order, samples that are no images (ParameterError)."""
    unknown = [name for name in wanted if name not in ROWS]
    if unknown or not wanted:
        raise ParameterError(f"there is no row {', '.join(unknown) or '(none given)'}; known: {', '.join(ROWS)}")
    short, long = steps
    if not 1 <= short < long:
        raise ParameterError(f"steps must be two growing numbers >= 1, got {short} and {long}")
    if len(split.features) != 3:
        raise ParameterError(
            f"compare trains a convolutional network; {split.name} has samples of shape {split.features}"
        )


def study(
    split: Split,
    chip: Chip,
    *,
    wanted: tuple[str, ...] = ROWS,
    steps: tuple[int, int] = (16, 64),
    seed: int = 0,
    samples: int | None = None,
    epochs: int = 15,
    say: Callable[[str], None] = print,
) -> Study:
    """Train the dense network, make every rival of it, and measure all on the test part.

    steps: the spiking network is reported after the first and after the second number of steps. Everything is chosen on
    the validation part. Raises ParameterError for unknown rows or steps out of order.
    """
    check_study(split, wanted, steps)
    short, long = steps
    bench = _Bench(split.test_x[:samples], split.test_y[:samples])
    shape, classes = split.features, len(split.classes)
    augment = random_affine(shift=2.0, degrees=10.0, scale=0.1)
    calibration = split.train_x[:512]
    example = split.train_x[:2]

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = small_cnn(shape, classes, pooling="stride")  # type: ignore[arg-type]
    say(f"training the dense network: {epochs} epochs on {len(split.train_y):,} samples")
    fit(
        network, split, epochs=epochs, batch_size=128, learning_rate=1e-2, weight_decay=1e-2, seed=seed,
        augment=augment, threads=1, progress=True,
    )  # fmt: skip
    dense = trace(network, example, name="dense fp32")
    dense_run = simulate(dense, bench.x)
    if "dense" in wanted:
        bench.add("dense fp32", dense, dense_run.outputs, dense_run.counts)
    if "int8" in wanted:
        say("quantising it to 8-bit integers")
        integer = convert(dense, Integer(8), calibration=calibration)
        result = simulate(integer, bench.x)
        bench.add("dense int8", integer, result.outputs, result.counts)
    if "pruned" in wanted:
        say("pruning 90 % of its weights and tuning the rest")
        pruned, _ = prune(
            network, split, fraction=0.9, epochs=max(1, epochs // 3), batch_size=128, learning_rate=5e-3, seed=seed,
            augment=augment, threads=1,
        )  # fmt: skip
        _add_trained(
            bench, "pruned 90 % fp32", pruned, example,
            ("Zero weights cost no operation here; dense hardware gains nothing from them.",),
        )  # fmt: skip
    if "experts" in wanted:
        say("training a top-1 mixture of 8 experts on its features")
        with torch.random.fork_rng():
            torch.manual_seed(seed + 1)
            mixture = experts_cnn(network)
        fit(
            mixture, split, epochs=max(1, 2 * epochs // 5), batch_size=128, learning_rate=5e-3, weight_decay=1e-2,
            seed=seed, augment=augment, loss=balanced_loss(0.1), threads=1, progress=True,
        )  # fmt: skip
        _add_trained(bench, "experts top-1 of 8", mixture, example, ("All experts are stored, one works on a sample.",))

    snn, percentile = _best_conversion(dense, split, calibration, short, say)
    replaced, total = activations_replaced(snn)
    say(f"simulating it for {long} steps")
    whole = simulate(snn, bench.x, steps=long, record=["outputs"], count=True, progress=True)
    series = whole.recordings["outputs"][snn.output]
    points = [t for t in (1, 2, 4, 8, 16, 32, 64, 128, 256) if t <= long]
    curves = {"spiking": (points, [bench.accuracy(series[t - 1]) for t in points])}
    brief = simulate(snn, bench.x, steps=short, record=["spikes"])
    if "spiking" in wanted:
        note = (
            f"Converted from the dense network, {replaced} of {total} activations replaced; "
            f"percentile {percentile:g} chosen on validation."
        )
        bench.add(f"spiking T={short}", snn, brief.outputs, brief.counts, notes=(note,))
        bench.add(f"spiking T={long}", snn, whole.outputs, whole.counts)
    program, chip_run = None, None
    if "chip" in wanted:
        say(f"putting it on {chip.title}: quantise, place, run {short} steps on integers")
        compiled = compile(snn, chip, calibration=calibration)
        if not isinstance(compiled, Program):
            raise ParameterError(f"compare converts networks for chips of the family 'loihi', not for {chip.name!r}")
        program = compiled
        chip_run = run(program, bench.x, steps=short)
        stored = sum(int(np.count_nonzero(c.weights)) for c in program.integers.connections)
        cores = len(program.placement.cores)
        note = f"Simulated in the chip's integers on {cores} cores; parameters are the synapses stored."
        bench.add(
            f"spiking {chip.name} T={short}", snn, chip_run.outputs, chip_run.counts, chip, (note,), stored,
        )  # fmt: skip
    facts = {
        "percentile": percentile,
        "replaced": replaced,
        "activations": total,
        "seed": seed,
        "test_samples": len(bench.y),
    }
    return Study(
        tuple(bench.rows),
        bench.graphs,
        curves,
        bench.bills,
        brief,
        program,
        chip_run,
        facts,
        _assumptions(split, bench),
    )


def _add_trained(bench: _Bench, model: str, network: nn.Module, example: Tensor, notes: tuple[str, ...]) -> None:
    graph = trace(network, example, name=model)
    result = simulate(graph, bench.x)
    bench.add(model, graph, result.outputs, result.counts, notes=notes)


def _best_conversion(
    dense: Graph, split: Split, calibration: Tensor, steps: int, say: Callable[[str], None]
) -> tuple[Graph, float]:
    """The conversion whose percentile does best on the validation samples after `steps` steps."""
    scored = []
    for percentile in PERCENTILES:
        snn = convert(dense, RateCode(percentile=percentile), calibration=calibration)
        outputs = simulate(snn, split.validation_x, steps=steps, count=False).outputs
        accuracy = accuracy_of(outputs, split.validation_y)
        scored.append((accuracy, -percentile, snn))
        say(f"converting with percentile {percentile:g}: validation accuracy {100 * accuracy:.2f} % at T = {steps}")
    _, negative, best = max(scored, key=lambda item: item[:2])
    return best, -negative


def _assumptions(split: Split, bench: _Bench) -> tuple[str, ...]:
    said = [
        f"Data: {split.provenance}. Trained on {len(split.train_y):,}, chosen on {len(split.validation_y):,}, "
        f"tested on {len(bench.y):,} samples, once, one seed.",
        "The input of the spiking network is the image, held constant as a current: its first layer is computed once "
        "per image in multiply-accumulates and counted as such. On the chip the pixels are sent as 8-bit graded spikes "
        "at every step.",
        "MACs are those of a dense engine: zero weights are left out, zero activations and padding are not.",
        "Accumulates count one addition for each non-zero weight that a spike meets, borders respected.",
        "Every neuron is updated at every step and pays for it.",
        "A dense layer reads each weight once per image and each activation once per layer; an event-driven layer "
        "reads a weight and reads and writes a potential for every accumulate.",
        "Latency in ticks is end to end: time steps plus one tick for each layer of neurons. Dense rows have no ticks.",
    ]
    for bills in bench.bills.values():
        for bill in bills.values():
            said += [sentence for sentence in bill.assumptions if sentence not in said]
    return tuple(said)
