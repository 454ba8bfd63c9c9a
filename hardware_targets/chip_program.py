"""A network on a chip: its integers, its place on the cores, how data get in and results out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hardware_targets.chip import Chip
from hardware_targets.count_windows import counts_in_windows, entering, leaving
from hardware_targets.loihi.program import STATE_SHIFT
from hardware_targets.loihi.program import Program as IntegerProgram
from hardware_targets.loihi.simulate import LoihiRun
from hardware_targets.lower import Layer
from hardware_targets.place import Placement
from hardware_targets.quantise import QuantisationError
from hardware_targets.schedule import Schedule
from hardware_targets.soft_reset import clock_spikes
from hardware_targets.spike_times import SpikeTimes
from neuro.errors import ParameterError, ShapeError
from neuro.graph import Graph
from neuro.nodes import EarliestWins, Readout
from neuro.windows import check_steps

PIXEL_BITS = 8


@dataclass(frozen=True, eq=False)
class Program:
    """A network on a chip: its integers, its place on the cores, and how data get in and results out.

    input_step: the real value of one unit of the graded input spikes, or None where the input is sent as plain spikes.
    output_unit: the real current of one unit of the last population's activation, per class. errors: what quantising
    lost, layer by layer. schedule: when every population fires, of a network that counts in windows and takes its data
    once; None where data stream in. clock: its input and the ticks from which on its axons fire, where neurons get the
    current of their bias so. times: of a network of neurons that fire once, how its times became ticks.
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
    schedule: Schedule | None = None
    clock: tuple[str, tuple[int, ...]] | None = None
    times: SpikeTimes | None = None

    @property
    def once(self) -> bool:
        """Whether the network takes its data once and as many ticks as it needs."""
        return self.schedule is not None or self.times is not None

    @property
    def depth(self) -> int:
        """Ticks from an input to the last population."""
        return self.layers[-1].level


def input_step_of(graph: Graph, calibration: Tensor | None) -> float:
    """The step of 8-bit input: data in [0, 1] in 255 steps; others by their largest magnitude, one bit for the sign."""
    if calibration is None:
        return 1 / (2**PIXEL_BITS - 1)
    if tuple(calibration.shape[1:]) != graph.shapes[graph.inputs[0]]:
        raise ShapeError(f"calibration data {tuple(calibration.shape)} do not fit {graph.shapes[graph.inputs[0]]}")
    low, high = float(calibration.min()), float(calibration.max())
    if low >= 0:
        return max(high, 1e-12) / (2**PIXEL_BITS - 1)
    return max(-low, high) / (2 ** (PIXEL_BITS - 1) - 1)


def chip_input(program: Program, x: Tensor, steps: int) -> tuple[dict[str, np.ndarray], int]:
    """What enters every input of the chip, {name: (time, batch, size)}, and how many ticks the run takes.

    steps: of data that stream in; a network that counts in windows takes as many ticks as its schedule.
    """
    if program.times is not None:
        return {program.times.entry: program.times.spikes(program.graph, x)}, program.times.ticks
    if program.schedule is None:
        given, ticks = {program.graph.inputs[0]: encode_input(program, x, steps)}, steps + program.depth
        if program.clock is not None:
            name, starts = program.clock
            batch = given[program.graph.inputs[0]].shape[1]
            given[name] = np.repeat(clock_spikes(starts, ticks)[:, None], batch, 1)
        return given, ticks
    _check_data(program, x, once=True)
    if program.input_step is None:
        return program.schedule.spikes(entering(program.graph, x)), program.schedule.ticks
    ((name, entry),) = program.schedule.entries.items()
    levels = (x.flatten(1).double() / program.input_step).round().clamp(entry.low, entry.high)
    return program.schedule.spikes({name: levels}), program.schedule.ticks


def check_once(program: Program, x: Tensor, steps: int | None) -> int:
    """The ticks of a network that takes its data once; ParameterError where a series or other steps are asked for."""
    if is_series(program, x):
        raise ParameterError(f"{program.graph.name!r} sees its input once; pass (batch, *features) without time")
    if counts_in_windows(program.graph):
        check_steps(program.graph, steps, timed=False)
    elif steps not in (None, program.most_steps):
        raise ParameterError(f"{program.graph.name!r} takes {program.most_steps} ticks; leave steps={steps} out")
    return program.most_steps


def _check_data(program: Program, x: Tensor, once: bool) -> None:
    shape = program.graph.shapes[program.graph.inputs[0]]
    if tuple(x.shape[1:]) != shape and (once or not is_series(program, x)):
        sizes = ", ".join(map(str, shape))
        over_time = "" if once else f" or (steps, batch, {sizes})"
        raise ShapeError(f"{program.graph.name!r} takes (batch, {sizes}){over_time}, got {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise ParameterError("the input holds NaN or infinite values")


def encode_input(program: Program, x: Tensor, steps: int) -> np.ndarray:
    """What enters the chip, (steps, batch, size): graded integers, or evenly spaced spikes.

    x: (batch, *features), held constant, or a series (steps, batch, *features). Spikes for a constant x:
    floor((t + 1) x + 1/2) - floor(t x + 1/2), so that after t steps their number is round(t x). They need x in [0, 1],
    and in a series 0 or 1; ParameterError otherwise.
    """
    _check_data(program, x, once=False)
    series = is_series(program, x)
    if series and len(x) != steps:
        raise ParameterError(f"{program.graph.name!r}: x has {len(x)} steps, not {steps}")
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


def is_series(program: Program, x: Tensor) -> bool:
    shape = program.graph.shapes[program.graph.inputs[0]]
    return x.ndim == len(shape) + 2 and tuple(x.shape[2:]) == shape


def read_output(program: Program, result: LoihiRun, steps: int) -> Tensor:
    """The outputs of the graph, (batch, *outputs), from what the chip holds after a run."""
    last = program.layers[-1]
    if program.times is not None:
        answer = program.graph.nodes[program.graph.output]
        assert isinstance(answer, EarliestWins)
        return answer.forward(program.times.times(result.spikes[last.name])).float()
    if program.schedule is not None:
        sums = torch.from_numpy(result.state.v[last.name] >> STATE_SHIFT).long()
        if program.input_step is None:
            return leaving(program.graph, sums.unflatten(1, last.shape))
        return (sums * torch.from_numpy(program.output_unit)).float().unflatten(1, last.shape)
    if isinstance(last.node, Readout):
        v = result.state.v[last.name].astype(np.float64) / 2**STATE_SHIFT
        read = v * program.output_unit / max(steps - last.node.start, 1)
    else:
        read = result.spike_counts[last.name].astype(np.float64) / steps
    return torch.from_numpy(read).float().unflatten(1, last.shape)
