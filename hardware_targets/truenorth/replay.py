"""Replay a folder of golden vectors and count the ticks that are spike-exact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuro.errors import ParameterError

from .core import Overflow
from .ranc import Format, read_inputs, read_outputs
from .ranc_network import events_from, read_network
from .simulate import Events, rest, run


@dataclass(frozen=True)
class Replay:
    """How a replay went.

    exact of ticks: ticks whose set of output lines equals the expected one; first_difference: the first tick that
    differs, its
    missing and surplus lines; cores: simulated; spikes, synaptic_events: totals; lost: packets (input or spikes) with
    no receiver
    """

    folder: str
    ticks: int
    exact: int
    first_difference: int | None
    missing: tuple[int, ...]
    surplus: tuple[int, ...]
    cores: int
    spikes: int
    synaptic_events: int
    lost: int


def replay(
    folder: str | Path,
    *,
    grid: tuple[int, int],
    bus: tuple[int, int],
    outputs: int,
    offset: int,
    form: Format | None = None,
    overflow: Overflow = "none",
    threads: int | None = None,
) -> Replay:
    """Run the folder's cores on its input and compare the output bus with its expected output, tick by tick.

    Expected tick t is compared with simulated tick t + offset. Errors: FileError, ParameterError.
    """
    if not 0 <= offset <= 1 << 16:
        raise ParameterError(f"replay: offset must be 0..65536 ticks, got {offset}")
    form = form or Format()
    network, used = read_network(folder, grid, bus, outputs, form, overflow)
    events, lost = events_from(read_inputs(folder, form), used, grid)
    golden = read_outputs(folder, outputs)
    count = golden.ends.size
    ticks = count + offset
    soon = events.tick < ticks
    done = run(network, rest(network), ticks, Events(*(field[soon] for field in events)), threads=threads)
    shown = done.output_tick >= offset
    # A tick and a line make one number: the sets of all ticks are compared at once.
    have = np.unique((done.output_tick[shown] - offset) * outputs + done.output_line[shown])
    want = np.unique(golden.ticks() * outputs + golden.fields["line"])
    different = np.setxor1d(have, want)
    wrong = np.unique(different // outputs)
    first = int(wrong[0]) if wrong.size else None
    here = different[different // outputs == first] if first is not None else different
    missing = np.isin(here, want)
    return Replay(
        folder=str(folder),
        ticks=count,
        exact=count - int(wrong.size),
        first_difference=first,
        missing=tuple(int(line) for line in here[missing] % outputs),
        surplus=tuple(int(line) for line in here[~missing] % outputs),
        cores=network.count,
        spikes=int(done.counts["spikes"].sum()),
        synaptic_events=int(done.counts["synaptic_events"].sum()),
        lost=lost + int(done.counts["lost"].sum()),
    )
