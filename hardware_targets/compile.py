"""compile: a spiking graph becomes integers on the cores of a chip.

run: the chip's arithmetic on data, tick by tick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hardware_targets.check import check
from hardware_targets.chip import Chip, load_chip
from hardware_targets.loihi.program import STATE_SHIFT, Input
from hardware_targets.loihi.program import Program as IntegerProgram
from hardware_targets.loihi.simulate import LoihiRun, simulate_program
from hardware_targets.lower import Layer, lower
from hardware_targets.place import Placement, place
from hardware_targets.quantise import QuantisationError, quantise_layer
from neuro.counts import Counts, Tally
from neuro.errors import BackendMissing, DoesNotFit, ParameterError, ShapeError
from neuro.graph import Graph
from neuro.nodes import Readout
from neuro.simulate import Run

PIXEL_BITS = 8
Backend = Literal["simulator", "lava"]


@dataclass(frozen=True, eq=False)
class Program:
    """A network on a chip: its integers, its place on the cores, and how data get in and results out.

    input_step: the real value of one unit of the graded input spikes, or None where the input is sent as plain spikes.
    output_unit: the real current of one unit of the last population's activation, per class. errors: what quantising
    lost, layer by layer.
    """

    graph: Graph
    chip: Chip
    integers: IntegerProgram
    placement: Placement
    layers: tuple[Layer, ...]
    input_step: float | None
    most_steps: int
    output_unit: np.ndarray
    errors: tuple[QuantisationError, ...]

    @property
    def depth(self) -> int:
        """Ticks from an input to the last population."""
        return self.layers[-1].level


@dataclass(frozen=True, eq=False)
class ChipRun(Run):
    """A run on a chip: also which share of the read-outs and potentials touched the limits of the chip's registers."""

    saturated: Mapping[str, int] = field(default_factory=dict)


def compile(graph: Graph, chip: Chip | str, calibration: Tensor | None = None, *, most_steps: int = 256) -> Program:
    """Quantise a spiking graph to the chip's integers and place it on its cores.

    chip: a Chip, its name, or a path to a .toml.
    calibration: (samples, *features), sets the step of the graded input spikes; data in [0, 1] need none.
    most_steps: the longest run; the read-out's unit is chosen so that it cannot saturate before. Raises DoesNotFit
    with every violated limit, UnsupportedNode with every node that no chip holds.
    """
    chip = chip if isinstance(chip, Chip) else load_chip(chip)
    if chip.family != "loihi":
        raise ParameterError(
            f"chip {chip.name!r} is of family {chip.family!r}; compile knows 'loihi1' and 'loihi2' so far"
        )
    layers = lower(graph)
    if graph.output != layers[-1].name:
        raise ParameterError(
            f"{graph.name!r} must end in a population that the host reads: a Readout, or one that fires"
        )
    fit = check(graph, chip)
    if not fit.ok:
        raise DoesNotFit(str(fit), fit.violations)
    (entry,) = graph.inputs
    graded = "graded_spike_bits" in chip.arithmetic and chip.width("graded_spike_bits") >= PIXEL_BITS
    step = _input_step(graph, calibration) if graded else None
    levels = {entry: 0} | {layer.name: layer.level for layer in layers}
    steps_of = {} if step is None else {entry: step}
    weight_bits, mantissa_bits = max(chip.choices("weight_bits")), chip.width("bias_bits")
    quantised = [quantise_layer(layer, levels, steps_of, weight_bits, mantissa_bits, most_steps) for layer in layers]
    integers = IntegerProgram(
        inputs=(Input(entry, int(np.prod(graph.shapes[entry]))),),
        populations=tuple(part.population for part in quantised),
        connections=tuple(connection for part in quantised for connection in part.connections),
    )
    return Program(
        graph,
        chip,
        integers,
        place(integers, chip),
        layers,
        step,
        most_steps,
        quantised[-1].unit,
        tuple(q.error for q in quantised),
    )


def _input_step(graph: Graph, calibration: Tensor | None) -> float:
    """The step of 8-bit input: data in [0, 1] in 255 steps; others by their largest magnitude, one bit for the sign."""
    if calibration is None:
        return 1 / (2**PIXEL_BITS - 1)
    if tuple(calibration.shape[1:]) != graph.shapes[graph.inputs[0]]:
        raise ShapeError(f"calibration data {tuple(calibration.shape)} do not fit {graph.shapes[graph.inputs[0]]}")
    low, high = float(calibration.min()), float(calibration.max())
    if low >= 0:
        return max(high, 1e-12) / (2**PIXEL_BITS - 1)
    return max(-low, high) / (2 ** (PIXEL_BITS - 1) - 1)


def encode_input(program: Program, x: Tensor, steps: int) -> np.ndarray:
    """What enters the chip, (steps, batch, size): graded integers, or evenly spaced spikes.

    x: (batch, *features), held constant, or a series (steps, batch, *features). Spikes for a constant x:
    floor((t + 1) x + 1/2) - floor(t x + 1/2), so that after t steps their number is round(t x). They need x in [0, 1],
    and in a series 0 or 1; ParameterError otherwise.
    """
    shape, series = program.graph.shapes[program.graph.inputs[0]], _is_series(program, x)
    if not series and tuple(x.shape[1:]) != shape:
        sizes = ", ".join(map(str, shape))
        raise ShapeError(
            f"{program.graph.name!r} takes (batch, {sizes}) or (steps, batch, {sizes}), got {tuple(x.shape)}"
        )
    if series and len(x) != steps:
        raise ParameterError(f"{program.graph.name!r}: x has {len(x)} steps, not {steps}")
    if not bool(torch.isfinite(x).all()):
        raise ParameterError("the input holds NaN or infinite values")
    flat = x.flatten(2 if series else 1).double().numpy()
    if program.input_step is not None:
        limit = 2**PIXEL_BITS - 1
        levels = np.clip(np.round(flat / program.input_step), -limit, limit).astype(np.int32)
        return levels if series else np.broadcast_to(levels, (steps, *levels.shape))
    if series:
        if not bool(((flat == 0) | (flat == 1)).all()):
            raise ParameterError(f"chip {program.chip.name!r} takes plain spikes, so a series must hold 0 and 1 alone")
        return flat.astype(np.int32)
    if flat.min() < 0 or flat.max() > 1:
        raise ParameterError(
            f"chip {program.chip.name!r} takes plain spikes, so inputs must lie in [0, 1]; "
            f"got {flat.min():g}..{flat.max():g}"
        )
    edges = np.floor(np.arange(steps + 1)[:, None, None] * flat + 0.5)
    return np.diff(edges, axis=0).astype(np.int32)


def _is_series(program: Program, x: Tensor) -> bool:
    shape = program.graph.shapes[program.graph.inputs[0]]
    return x.ndim == len(shape) + 2 and tuple(x.shape[2:]) == shape


def run(
    program: Program,
    x: Tensor,
    *,
    steps: int,
    backend: Backend = "simulator",
    record: Sequence[str] = (),
    batch_size: int = 250,
) -> ChipRun:
    """Run a compiled network for `steps` ticks of input plus the ticks that the pipeline needs.

    x: (batch, *features), held constant, or a series (steps, batch, *features). outputs: (batch, classes), the mean
    current of a Readout in the units of the graph's, or the spikes per step of a last population that fires, as
    `neuro.simulate` gives them. counts: synaptic events as `accumulates`, updates, packets between cores and their
    hops. record: "spikes" and "v".
    Raises ParameterError for a bad number of steps and BackendMissing where the engine is not there.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= program.most_steps:
        raise ParameterError(
            f"steps must be an integer from 1 to {program.most_steps} "
            f"(compile(..., most_steps=...) sets it), got {steps!r}"
        )
    if backend == "lava":
        raise BackendMissing(
            "run() does not reach Lava yet: use backend='simulator', or hardware_targets.lava.via_lava.run_in_lava"
        )
    if backend != "simulator":
        raise ParameterError(f"backend must be 'simulator' or 'lava', got {backend!r}")
    (entry,) = program.graph.inputs
    last = program.layers[-1]
    ticks = steps + program.depth
    outputs, counts, kept = [], [], []
    saturated: dict[str, int] = {}
    for chunk in x.split(batch_size, dim=1 if _is_series(program, x) else 0):
        given = encode_input(program, chunk, steps)
        result = simulate_program(program.integers, {entry: given}, ticks, record=tuple(record))  # type: ignore[arg-type]
        outputs.append(_read(program, result, last, steps))
        counts.append(_counts(program, result, ticks))
        for name, v in result.state.v.items():
            saturated[name] = saturated.get(name, 0) + int((np.abs(v) >= 2**23 - 1).sum())
        kept.append(result)
    recordings = {
        what: {
            layer.name: torch.cat(
                [torch.from_numpy(np.array(getattr(part, what)[layer.name])) for part in kept], 1
            ).unflatten(2, layer.shape)
            for layer in program.layers
        }
        for what in record
    }
    total = counts[0]
    for part in counts[1:]:
        total = total + part
    return ChipRun(torch.cat(outputs), total, recordings, saturated)


def _read(program: Program, result: LoihiRun, last: Layer, steps: int) -> Tensor:
    if isinstance(last.node, Readout):
        v = result.state.v[last.name].astype(np.float64) / 2**STATE_SHIFT
        read = v * program.output_unit / max(steps - last.node.start, 1)
    else:
        read = result.spike_counts[last.name].astype(np.float64) / steps
    return torch.from_numpy(read).float().unflatten(1, last.shape)


def _counts(program: Program, result: LoihiRun, ticks: int) -> Counts:
    events = result.counts
    nodes: dict[str, Tally] = {}
    (entry,) = program.graph.inputs
    nodes[entry] = replace(_sent(program, entry, events.spikes[entry]), spikes=0)
    for layer in program.layers:
        synaptic = sum(events.synaptic_events[c.name] for c in program.integers.into(layer.name))
        active, inactive = events.active_updates[layer.name], events.inactive_updates[layer.name]
        nodes[layer.name] = _sent(program, layer.name, events.spikes[layer.name]) + Tally(
            accumulates=synaptic,
            additions=active + inactive,
            comparisons=active + inactive,
            updates=active + inactive,
            updates_active=active,
            weight_words=synaptic,
            state_words=2 * (synaptic + active + inactive),
            activation_words=2 * int(events.spikes[layer.name].sum()),
        )
    return Counts(events.samples, ticks, nodes, program.chip.family)


def _sent(program: Program, name: str, spikes: np.ndarray) -> Tally:
    """Spikes of a population, and the packets and hops that they become on the mesh."""
    fired = {name: spikes}
    return Tally(spikes=int(spikes.sum()), packets=program.placement.packets(fired), hops=program.placement.hops(fired))
