"""What the page of a comparison shows below its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hardware_targets import Program
from neuro.baselines.compressed import compressed, stopwatch
from neuro.baselines.photonic import noise_curves
from neuro.baselines.rival import Plan
from neuro.cli.bill_page import bill_sections
from neuro.cli.comparison import Priced, curves, mean_of
from neuro.cli.protocol import Match, Outcome
from neuro.cli.spiking_rows import program_of, steps_of
from neuro.nodes import Spiking
from neuro.report import Row, Section, plots
from neuro.report.noise import accuracy_against_noise
from neuro.report.rivalry import Speed, controls
from neuro.report.sheet import engineering
from neuro.report.verdicts import reference
from neuro.shown import Sheet
from neuro.simulate import simulate

SHOWN = 200
"""Validation samples behind the plots of activity."""


def sections(found: Outcome, tables: Mapping[Match, Sequence[Priced]], measured: Sequence[Speed]) -> list[Section]:
    """The second table, the plots, and what stands behind them."""
    main = next(iter(tables.values()))
    rows = [one.row for one in main]
    parts = [_other(match, table) for match, table in tables.items() if table is not main]
    parts += _fronts(rows)
    parts += _in_time(found, main)
    parts += bill_sections(found.book.task.name, main)
    parts += _sparse_speed(measured)
    parts += _routing(main)
    parts += _noise(found, main)
    parts += _spikes(found, main)
    parts += _chip(found, main)
    return parts


def _other(match: Match, table: Sequence[Priced]) -> Section:
    said = {
        "accuracy": "Each rival at its least energy (model A) within one point of the dense network on validation "
        "samples, or, where none comes so near, at its most accurate.",
        "parameters": "Each rival at the size at which it stores about as many numbers as the dense network: sparse "
        "networks are wider, mixtures have smaller experts.",
    }
    titles = {"accuracy": "At equal accuracy", "parameters": "At equal stored parameters"}
    return Section(titles[match], said[match], rows=[one.row for one in table])


def _fronts(rows: Sequence[Row]) -> list[Section]:
    looks = plots.looks_of(rows)
    named = {row.model for row in (reference(rows), *controls(rows)) if row is not None}
    parts = []
    for column, letter, what in (
        ("energy_operations_J", "A (operations)", "arithmetic alone"),
        ("energy_memory_J", "B (operations and memory)", "arithmetic and the words moved to and from memory"),
    ):
        parts.append(
            Section(
                f"Accuracy against energy, model {letter}",
                f"Each row of the table under the model that prices {what}. Up and to the left is better; rows on the "
                "dotted line are beaten by no other row under this model. They and the dense network "
                "have their names beside them, others where there is room; the pointer names every one.",
                plots.accuracy_against_energy(plots.points(rows, column), model=letter, looks=looks, named=named),
            )
        )
    return parts


def _in_time(found: Outcome, main: Sequence[Priced]) -> list[Section]:
    series = curves(found)
    if not series:
        return []
    dense = {one.row.model: one.line.validation[0].accuracy for one in main if one.line.row in ("dense", "cnn")}
    return [
        Section(
            "Accuracy against time steps",
            "Spiking networks after each number of steps, on validation samples, and the dense networks that most of "
            "them come from. Few steps leave the firing rates coarse.",
            plots.accuracy_against_time(series, dense=dense),
        )
    ]


def _routing(main: Sequence[Priced]) -> list[Section]:
    lines = [
        (one.row.model, f"{unevenness:.2f}", f"{100 * (mean_of(one.line.tested, 'overflow') or 0):.1f} %")
        for one in main
        if (unevenness := mean_of(one.line.tested, "unevenness")) is not None
    ]
    if not lines:
        return []
    sheet: Sheet = (
        "Routing on validation samples",
        ("model", "load, max / mean", "over a capacity factor of 1.25"),
        lines,
        ("1 is a perfect balance, the number of experts a collapse onto one.",),
    )
    text = "How evenly samples fall on experts. In inference nothing is dropped: there is room for all."
    return [Section("Routing of the mixtures", text, table=sheet)]


BATCHES = (1, 128)


def speeds(found: Outcome, main: Sequence[Priced]) -> list[Speed]:
    """How fast sparse rows run with their zeros left out, beside the same networks computed densely."""
    measured = []
    for one in main:
        if one.row.family == "sparse":
            graph, x = found.network(one.line), found.book.task.split().validation_x
            density = (one.row.parameters_active or 0) / graph.parameters
            for batch in BATCHES:
                sparse, dense = (stopwatch(part, x[:batch], 0.1) for part in (compressed(graph), graph))
                how = f"per sample, {batch} at once, one thread, CSR"
                measured.append(Speed(one.row.model, density, sparse, dense, how))
    return measured


def _sparse_speed(measured: Sequence[Speed]) -> list[Section]:
    if not measured:
        return []
    lines = [
        (
            speed.model, speed.how, f"{100 * (1 - speed.density):.1f} %", engineering(speed.seconds, "s"),
            engineering(speed.dense_seconds, "s"), f"{speed.dense_seconds / speed.seconds:.2f}",
        )
        for speed in measured
    ]  # fmt: skip
    headings = ("model", "how", "zeros", "time", "computed densely", "times as fast")
    note = "Processor time on this machine."
    sheet: Sheet = ("Sparse inference, measured", headings, lines, (note,))
    text = "A share of zeros is no speed: this is what leaving them out saves on this machine."
    return [Section("Sparse inference, measured", text, table=sheet)]


def _noise(found: Outcome, main: Sequence[Priced]) -> list[Section]:
    """What coarse and noisy phases and few photons do to the network on meshes of interferometers."""
    meshes = [one for one in main if one.line.row == "photonic"]
    if not meshes:
        return []
    curves = noise_curves(found.network(meshes[0].line), found.book.task.split(), found.seed)
    texts = {
        "phase bits": "Each phase of a mesh is set to so many bits.",
        "photons per MAC": "Light comes in photons, counted with a Poisson error at every detector.",
        "phase noise (rad)": "Each phase of a fabricated mesh is off by a normal error.",
    }
    return [
        Section(
            f"Optics: accuracy against {quantity}",
            f"{texts[quantity]} Validation samples; everything else is ideal.",
            accuracy_against_noise({meshes[0].row.model: curve}, quantity, logarithmic=quantity != "phase bits"),
        )
        for quantity, curve in curves.items()
    ]


def _spikes(found: Outcome, main: Sequence[Priced]) -> list[Section]:
    """Raster and activity of the spiking network with the smallest population."""
    graphs = {
        one.row.model: (one, found.network(one.line))
        for one in main
        if one.row.family == "spiking" and one.line.row.endswith("rate")
    }
    if not graphs:
        return []
    x = found.book.task.split().validation_x[:SHOWN]
    activity = {}
    for model, (one, graph) in graphs.items():
        run = simulate(graph, x, steps=steps_of(graph, one.line.plan), record=["spikes"])
        spikes = {name: train for name, train in run.recordings["spikes"].items() if _fires(graph.nodes[name])}
        activity[model] = {layer: float(train.float().mean()) for layer, train in spikes.items()}
    layer, train = min(spikes.items(), key=lambda item: item[1][0, 0].numel())
    first = train[:, 0].flatten(1).numpy()
    times, neurons = np.nonzero(first)
    return [
        Section(
            "Spikes of one image",
            f"Every dot is a spike of one of the {first.shape[1]:,} neurons of layer {layer!r} of {model!r}, the "
            "smallest, while the network looks at the first validation image.",
            plots.spike_raster(times, neurons, steps=len(first), population=first.shape[1], layer=layer),
        ),
        Section(
            "Activity of each layer",
            f"Spikes per neuron and step, mean over {len(x)} validation images. Every spike costs one accumulate for "
            "each synapse it meets.",
            plots.activity_per_layer(activity),
        ),
    ]


def _fires(node: object) -> bool:
    return isinstance(node, Spiking)


def _chip(found: Outcome, main: Sequence[Priced]) -> list[Section]:
    """Where the last network on a chip lives, and the error of its integers."""
    placed = [one for one in main if one.line.row.endswith("chip")]
    if not placed:
        return []
    line = placed[-1].line
    return _chip_sections(placed[-1].row.model, program_of(found.network(line), line.plan, found.book.task.split()))


def _chip_sections(model: str, program: Program) -> list[Section]:
    placement, chip = program.placement, program.chip
    count = len(placement.cores)
    per_tile = chip.limit("cores_per_tile")
    across = int(np.ceil(np.sqrt(per_tile)))
    tiles = placement.tiles
    inside = np.array([core.number for core in placement.cores]) % per_tile
    limit = chip.limit("synapse_memory_bits")
    load = [core.used["memory_bits"] / limit for core in placement.cores]
    labels = [row[1] for row in placement.rows()]
    width, height = chip.limit("mesh_width") * across, chip.limit("mesh_height") * (-(-per_tile // across))
    return [
        Section(
            f"Cores of {chip.title}",
            f"{model!r} takes {count} core{'s' * (count > 1)}. Colour shows how much of a core's synapse memory is "
            "taken; point at a core to see its neurons.",
            plots.core_loads(
                (tiles[:, 0] * across + inside % across).tolist(),
                (tiles[:, 1] * (-(-per_tile // across)) + inside // across).tolist(),
                load, labels, mesh=(width, height), resource="synapse memory",
            ),
            details=tuple(f"core {row[0]}: {row[1]}" for row in placement.rows()),
            details_title="Which neurons live where",
        ),
        Section(
            "Error of the chip's integers",
            f"Root mean square error of the weights of each layer of {model!r}, relative to their size, after "
            "quantising to the chip's format.",
            plots.quantisation_error({model: {error.layer: 100 * error.weight for error in program.errors}}),
        ),
    ]  # fmt: skip


def assumptions(found: Outcome, tables: Mapping[Match, Sequence[Priced]], plan: Plan) -> list[str]:
    """What the numbers rest on."""
    task = found.book.task
    split = task.split()
    main = next(iter(tables.values()))
    seeds = max((len(one.line.tested) for one in main), default=0)
    tested = len(split.test_y[: task.samples])
    said = [
        f"Data: {split.provenance}. Trained on {len(split.train_y):,}, chosen on {len(split.validation_y):,}, "
        f"tested on {tested:,} samples, once, {seeds} seed{'s' if seeds > 1 else ''}.",
        f"Every row has {plan.epochs} epochs of training and images shifted by up to {plan.augment.shift} "
        f"pixel{'s' * (plan.augment.shift != 1)}; "
        "its size is chosen among the points of its ladder, at most five, with the first seed.",
        "The input of a converted spiking network is the image, held constant as a current: its first layer is "
        "computed once per image in multiply-accumulates and counted as such. On a chip the pixels are sent as 8-bit "
        "graded spikes at every step.",
        "MACs are those of a dense engine: zero weights are left out, zero activations and padding are not. Rows that "
        "say 'zeros skipped' and exact windows, whose pixels come as graded spikes, leave zero activations out too.",
        "Rows compute in float32 unless they say int8, bits, exact windows or chip: between rows of two number formats "
        "the format decides, more than spikes, zeros or experts do.",
        "Stored parameters of a sparse network are its weights and their places (CSR), where that is less than all: "
        "places are read with the weights. Words have 32 bits, of integer networks 8.",
        "Accumulates count one addition for each non-zero weight that a spike meets, borders respected.",
        "Every neuron is updated at every step and pays for it.",
        "A dense layer reads each weight once an image and each activation once a layer; an event-driven layer "
        "reads a weight and reads and writes a potential for every accumulate.",
        "Latency in ticks is end to end: time steps plus one tick for each layer of neurons; exact windows take a "
        "window of T ticks for each layer. Dense rows and one spike in continuous time have no ticks.",
    ]
    if found.sizeless:
        said.append(f"Without a form of equal storage: {', '.join(found.sizeless)}.")
    for row, why in found.left_out.items():
        said.append(f"Left out: {row}: {why}")
    for table in tables.values():
        for one in table:
            for bill in one.bills.values():
                said += [sentence for sentence in bill.assumptions if sentence not in said]
    return said
