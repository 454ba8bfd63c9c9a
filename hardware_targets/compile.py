"""compile: a spiking graph becomes integers on the cores of a chip.

run: the chip's arithmetic on data, tick by tick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args, overload

import numpy as np
import torch
from torch import Tensor

from hardware_targets.check import check
from hardware_targets.chip import Chip, load_chip
from hardware_targets.chip_program import (
    PIXEL_BITS,
    Program,
    check_once,
    chip_input,
    encode_input,
    input_step_of,
    is_series,
    read_output,
)
from hardware_targets.count_windows import counts_in_windows, entries, lower_windows
from hardware_targets.first_spikes import lower_first_spikes, speaks_by_first_spikes
from hardware_targets.lava.side_by_side import Agreement, run_side_by_side
from hardware_targets.lava.via_lava import Engine
from hardware_targets.loihi.program import Input
from hardware_targets.loihi.program import Program as IntegerProgram
from hardware_targets.loihi.simulate import LoihiRun, simulate_program
from hardware_targets.lower import lower
from hardware_targets.place import place
from hardware_targets.quantise import QuantisationError, quantise_layer
from hardware_targets.schedule import schedule, unused
from hardware_targets.soft_reset import without_soft_reset
from hardware_targets.spike_times import lower_spike_times, tells_time
from hardware_targets.truenorth.program import CoreProgram, CoreRun, compile_to_cores, run_on_cores
from neuro.counts import Counts, Tally
from neuro.errors import DoesNotFit, ParameterError
from neuro.graph import Graph
from neuro.simulate import Run

__all__ = [
    "Backend",
    "ChipRun",
    "Program",
    "SoftReset",
    "chip_input",
    "compile",
    "encode_input",
    "run",
    "spike_rates",
    "weight_width",
]

SoftReset = Literal["refuse", "current"]
Backend = Literal["simulator", "lava", "board"]


@dataclass(frozen=True, eq=False)
class ChipRun(Run):
    """A run on a chip: also which share of the read-outs and potentials touched the limits of the chip's registers.

    agreement: how Lava's spikes and states compare with our simulator's, where Lava ran it. refired: neurons of a
    network of first spikes that fired a second time, by layer, over all samples; they should be none.
    """

    saturated: Mapping[str, int] = field(default_factory=dict)
    agreement: Agreement | None = None
    refired: Mapping[str, int] = field(default_factory=dict)


def compile(
    graph: Graph,
    chip: Chip | str,
    calibration: Tensor | None = None,
    *,
    weight_bits: int | None = None,
    soft_reset: SoftReset = "refuse",
    resolution: float | None = None,
    most_steps: int = 256,
    effort: float = 1.0,
    seed: int = 0,
) -> Program | CoreProgram:
    """Quantise a spiking graph to the chip's integers and place it on its cores.

    chip: a Chip, its name, or a path to a .toml.
    calibration: (samples, *features), sets the step of the graded input spikes (data in [0, 1] need none), and its
    spikes on the chip decide which neurons are placed near each other. effort, seed: of `place`.
    weight_bits: a width that the chip offers, by default its largest; networks in integers keep the weights they have.
    soft_reset: what becomes of it on chips that only reset to zero; "current" makes the synaptic current the membrane,
    which costs a synapse per neuron and leaks a 4096th per tick where the network does not leak (`soft_reset.py`).
    resolution: the length of a tick where neurons fire once in continuous time, in the unit of their tau; tau / 32.
    most_steps: the longest run; the read-out's unit is chosen so that it cannot saturate before. Raises DoesNotFit
    with every violated limit, UnsupportedNode with every node that no chip holds. On chips of the family "truenorth"
    nothing is quantised, weights must be few-valued, and only graph, chip and seed count.
    """
    chip = chip if isinstance(chip, Chip) else load_chip(chip)
    if chip.family == "truenorth":
        return compile_to_cores(graph, chip, seed=seed)
    if chip.family != "loihi":
        raise ParameterError(
            f"chip {chip.name!r} is of family {chip.family!r}; compile knows the families 'loihi' and 'truenorth'"
        )
    if counts_in_windows(graph):
        program = _counting(graph, chip)
    elif speaks_by_first_spikes(graph):
        program = _first_spiking(graph, chip, calibration, weight_bits)
    elif tells_time(graph):
        times = lower_spike_times(graph, chip, weight_width(chip, weight_bits), resolution)
        first = place(times.integers, chip, effort=0.0)
        unit = np.ones(1)
        program = Program(
            graph, chip, times.integers, first, times.layers, None, times.ticks, unit, times.errors, times=times
        )
    else:
        program = _streaming(graph, chip, calibration, weight_bits, most_steps, soft_reset)
    rates = None if calibration is None else spike_rates(program, calibration)
    return replace(program, placement=place(program.integers, chip, rates=rates, effort=effort, seed=seed))


def _streaming(
    graph: Graph,
    chip: Chip,
    calibration: Tensor | None,
    weight_bits: int | None,
    most_steps: int,
    soft_reset: SoftReset,
) -> Program:
    """A network that is shown its data at every step: weights, thresholds and biases are rounded."""
    layers, bits = lower(graph), weight_width(chip, weight_bits)
    if graph.output != layers[-1].name:
        raise ParameterError(
            f"{graph.name!r} must end in a population that the host reads: a Readout, or one that fires"
        )
    by_current = soft_reset == "current" and "subtract" not in chip.choices("reset_modes")
    fit = check(graph, chip, weight_bits=bits)
    broken = tuple(v for v in fit.violations if not (by_current and v.resource == "reset"))
    if broken:
        raise DoesNotFit(str(fit), broken)
    (entry,) = graph.inputs
    graded = "graded_spike_bits" in chip.arithmetic and chip.width("graded_spike_bits") >= PIXEL_BITS
    step = input_step_of(graph, calibration) if graded else None
    levels = {entry: 0} | {layer.name: layer.level for layer in layers}
    steps_of = {} if step is None else {entry: step}
    mantissa_bits = chip.width("bias_bits")
    quantised = [quantise_layer(layer, levels, steps_of, bits, mantissa_bits, most_steps) for layer in layers]
    integers = IntegerProgram(
        inputs=(Input(entry, int(np.prod(graph.shapes[entry]))),),
        populations=tuple(part.population for part in quantised),
        connections=tuple(connection for part in quantised for connection in part.connections),
    )
    clock = None
    if by_current:
        name = unused("clock", levels)
        integers, starts = without_soft_reset(integers, name)
        clock = (name, starts) if starts else None
    errors = tuple(part.error for part in quantised)
    return Program(
        graph, chip, integers, fit.placement, layers, step, most_steps, quantised[-1].unit, errors, clock=clock
    )


def _counting(graph: Graph, chip: Chip) -> Program:
    """A network in integers already: nothing is rounded, so nothing is lost."""
    populations = lower_windows(graph)
    layers = tuple(part.layer for part in populations)
    errors = tuple(QuantisationError(layer.name, 0.0, 0.0, 0.0, 0, 1.0) for layer in layers)
    plan = schedule(populations, entries(graph), chip)
    first = place(plan.integers, chip, effort=0.0)
    return Program(graph, chip, plan.integers, first, layers, None, plan.ticks, np.ones(1), errors, plan)


def _first_spiking(graph: Graph, chip: Chip, calibration: Tensor | None, weight_bits: int | None) -> Program:
    """A network of ramps to a first spike, whose times count ticks."""
    step = input_step_of(graph, calibration)
    signed = calibration is not None and float(calibration.min()) < 0
    high = 2 ** (PIXEL_BITS - signed) - 1
    found = lower_first_spikes(graph, step, -high if signed else 0, high, weight_width(chip, weight_bits))
    layers = tuple(part.layer for part in found.populations)
    plan = schedule(found.populations, found.entries, chip)
    first = place(plan.integers, chip, effort=0.0)
    return Program(graph, chip, plan.integers, first, layers, step, plan.ticks, found.unit, found.errors, plan)


def weight_width(chip: Chip, bits: int | None) -> int:
    """Bits of a signed weight: what was asked for, or the most; ParameterError for a width that the chip lacks."""
    known = sorted(width for width in chip.choices("weight_bits") if width > 1)  # one bit would be the sign alone
    if bits is not None and bits not in known:
        raise ParameterError(f"chip {chip.name!r} has weights of {', '.join(map(str, known))} bits, not {bits!r}")
    return known[-1] if bits is None else bits


def spike_rates(program: Program, x: Tensor, *, steps: int = 16, samples: int = 32) -> dict[str, np.ndarray]:
    """Spikes per sample and tick of every neuron and input, {part: (size,)}, over some evenly chosen samples of x."""
    chosen = x[:: max(1, len(x) // samples)][:samples]
    given, ticks = chip_input(program, chosen, min(steps, program.most_steps))
    spikes = simulate_program(program.integers, given, ticks).counts.spikes
    return {name: fired / (len(chosen) * ticks) for name, fired in spikes.items()}


@overload
def run(
    program: Program,
    x: Tensor,
    *,
    steps: int | None = None,
    backend: Backend = "simulator",
    record: Sequence[str] = (),
    batch_size: int = 250,
    timeout: float = 600.0,
) -> ChipRun: ...


@overload
def run(
    program: Program | CoreProgram,
    x: Tensor,
    *,
    steps: int | None = None,
    backend: Backend = "simulator",
    record: Sequence[str] = (),
    batch_size: int = 250,
    timeout: float = 600.0,
) -> ChipRun | CoreRun: ...


def run(
    program: Program | CoreProgram,
    x: Tensor,
    *,
    steps: int | None = None,
    backend: Backend = "simulator",
    record: Sequence[str] = (),
    batch_size: int = 250,
    timeout: float = 600.0,
) -> ChipRun | CoreRun:
    """Run a compiled network for `steps` ticks of input plus the ticks that the pipeline needs.

    x: (batch, *features), held constant, or a series (steps, batch, *features). outputs: (batch, classes), the mean
    current of a Readout in the units of the graph's, or the spikes per step of a last population that fires, as
    `neuro.simulate` gives them. A network that counts in windows takes x once and needs no steps; its outputs are those
    of the graph, exactly. counts: synaptic events as `accumulates`, updates, packets between cores and their
    hops. record: "spikes" and "v".
    backend: "lava" runs the same integers in lava-nc and compares spikes, u and v with the simulator (`agreement`);
    "board" does so on Loihi 2 hardware where Intel's lava-loihi is installed, which was never tested. timeout: seconds
    that Lava may take for `batch_size` samples.
    Raises ParameterError for a bad number of steps and BackendMissing where the engine is not there or late.
    """
    if isinstance(program, CoreProgram):
        if backend != "simulator":
            raise ParameterError(f"chip {program.chip.name!r} has one backend, 'simulator', got {backend!r}")
        return run_on_cores(program, x, steps=steps, record=record, batch_size=batch_size)
    if program.once:
        steps = check_once(program, x, steps)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= program.most_steps:
        raise ParameterError(
            f"steps must be an integer from 1 to {program.most_steps} "
            f"(compile(..., most_steps=...) sets it), got {steps!r}"
        )
    if backend not in get_args(Backend):
        raise ParameterError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    outputs, counts, kept = [], [], []
    saturated: dict[str, int] = {}
    refired: dict[str, int] = {}
    agreement: Agreement | None = None
    for chunk in x.split(batch_size, dim=1 if is_series(program, x) else 0):
        given, ticks = chip_input(program, chunk, steps)
        if backend == "simulator":
            kinds = {*record, "spikes"} if program.times is not None else set(record)
            result = simulate_program(program.integers, given, ticks, record=tuple(kinds))
        else:
            engine: Engine = "runtime" if backend == "lava" else "board"
            result, compared = run_side_by_side(program.integers, given, ticks, engine=engine, timeout=timeout)
            agreement = compared if agreement is None else agreement + compared
        outputs.append(read_output(program, result, steps))
        counts.append(_counts(program, result, ticks))
        if program.times is not None:
            for layer in program.layers:
                refired[layer.name] = refired.get(layer.name, 0) + int((result.spike_counts[layer.name] > 1).sum())
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
    return ChipRun(torch.cat(outputs), total, recordings, saturated, agreement, refired)


def _counts(program: Program, result: LoihiRun, ticks: int) -> Counts:
    events = result.counts
    nodes: dict[str, Tally] = {}
    for entry in program.integers.inputs:
        nodes[entry.name] = replace(_sent(program, entry.name, events.spikes[entry.name]), spikes=0)
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
