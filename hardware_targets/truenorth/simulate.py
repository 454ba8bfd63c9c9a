"""Run a network of cores: spikes in as events, spikes out as events, the state passed in and handed back."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ParameterError, ShapeError

from . import kernels, pages
from .network import Network


class State(NamedTuple):
    """Everything a chip remembers between two ticks.

    tick: number of ticks done;  v: (cores, neurons) int32 potentials [weight units];
    pending: (slots, words) uint64, spikes under way: slot d holds those that act d ticks from now, bit a of a core's
    words is axon a
    """

    tick: int
    v: NDArray[np.int32]
    pending: NDArray[np.uint64]


class Events(NamedTuple):
    """Spikes sent in from outside: each acts on `axon` of `core` at `tick` (counted from tick 0 of the network).
    Arrays (events,).
    """

    tick: NDArray[Any]
    core: NDArray[Any]
    axon: NDArray[Any]


@dataclass(frozen=True, eq=False)
class ChipRun:
    """What `run` returns.

    state: where the network is now.  counts: per tick, name -> (ticks,) int64: spikes, synaptic_events,
    neuron_updates, active_cores,
    packets, hops, crossings (of chip borders), lost (packets to a place off the grid).
    output_tick, output_line: (outputs,) spikes that left the network; ascending, each line at most once a tick.
    spike_tick, spike_core, spike_neuron: (spikes,) every spike, in order of tick, core, neuron; empty unless recorded.
    """

    state: State
    counts: dict[str, NDArray[np.int64]]
    output_tick: NDArray[np.int64]
    output_line: NDArray[np.int32]
    spike_tick: NDArray[np.int64]
    spike_core: NDArray[np.int64]
    spike_neuron: NDArray[np.int64]


WORTH_A_THREAD = 64  # cores; below that, handing work over costs more than the work
COUNTS = ("spikes", "synaptic_events", "neuron_updates", "active_cores", "packets", "hops", "crossings", "lost")


def rest(network: Network) -> State:
    """The state at power-on: initial potentials, nothing under way."""
    v = network.v[:, : network.shape.neurons].copy()
    return State(0, v, np.zeros((network.slots, network.pending_words), np.uint64))


def run(
    network: Network,
    state: State,
    ticks: int,
    events: Events | None = None,
    *,
    record: bool = False,
    threads: int | None = None,
) -> ChipRun:
    """Advance `ticks` ticks from `state` (which is not changed). The result does not depend on the number of threads.

    events: input spikes; those outside [state.tick, state.tick + ticks) are refused. record: keep every spike.
    """
    n, c = network.shape.neurons, network.count
    if ticks < 0:
        raise ParameterError(f"run: ticks must be >= 0, got {ticks}")
    if state.v.shape != (c, n) or state.pending.shape != (network.slots, network.pending_words):
        raise ShapeError(f"run: the state belongs to another network: v {state.v.shape}, pending {state.pending.shape}")
    lanes = max(1, min(threads or c // WORTH_A_THREAD, len(processors()), c))
    v = pages.zeros(network.v.shape, np.int32)
    v[:, :n] = state.v
    pending = pages.zeros((lanes, *state.pending.shape), np.uint64)
    pending[0] = np.roll(state.pending, state.tick % network.slots, axis=0)
    ends, bits = _sorted_events(network, state.tick, ticks, events)
    counts, lines, line_ends, spikes, spike_ends = _in_lanes(network, state.tick, ticks, v, pending, ends, bits, record)
    after = state.tick + ticks
    waiting = np.roll(np.bitwise_or.reduce(pending, axis=0), -(after % network.slots), axis=0)
    when = state.tick + np.arange(ticks)
    return ChipRun(
        State(after, v[:, :n].copy(), waiting),
        {name: counts[:, k] for k, name in enumerate(COUNTS)},
        np.repeat(when, np.diff(line_ends, prepend=0)),
        lines,
        np.repeat(when, np.diff(spike_ends, prepend=0)),
        spikes.astype(np.int64) // network.v.shape[1],
        spikes.astype(np.int64) % network.v.shape[1],
    )


def processors() -> list[int]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1)) if os.name == "posix" else [0]


def _in_lanes(
    network: Network,
    begin: int,
    ticks: int,
    v: NDArray[np.int32],
    pending: NDArray[np.uint64],
    ends: NDArray[np.int64],
    bits: NDArray[np.int64],
    record: bool,
) -> Any:
    """Run the compiled lanes, one thread each, and return what lane 0 returns.

    Threads are kept on one processor each: they meet twice per tick, and a scheduler that packs them on one makes that
    slow.
    """
    lanes, c, width = pending.shape[0], *v.shape
    share = -(-c // lanes)
    scratch = (
        np.empty((lanes, share * width + 64), np.int32),
        np.zeros((lanes, 8), np.int64),
        np.zeros((lanes, 16), np.int64),
    )
    barrier, asleep = np.zeros(16, np.int64), np.zeros(c, np.bool_)

    def lane(k: int, cpu: int | None) -> Any:
        if cpu is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {cpu})  # 0: this thread only
        chip = network.net, network.tables, v, pending, asleep, network.kind, network.seeds
        return kernels.run_lane(k, barrier, begin, ticks, *chip, ends, bits, record, *scratch)

    if lanes == 1:
        return lane(0, None)
    with ThreadPoolExecutor(lanes) as pool:
        first, *_ = [pool.submit(lane, k, cpu) for k, cpu in enumerate(processors()[:lanes])]
        return first.result()


def _sorted_events(
    network: Network, begin: int, ticks: int, events: Events | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if events is None:
        return np.zeros(ticks, np.int64), np.zeros(0, np.int64)
    tick, core, axon = (np.asarray(a, dtype=np.int64).ravel() for a in events)
    if not tick.size == core.size == axon.size:
        raise ShapeError(f"run: events need equal lengths, got {tick.size} ticks, {core.size} cores, {axon.size} axons")
    for name, value, low, high in (
        ("tick", tick, begin, begin + ticks), ("core", core, 0, network.count), ("axon", axon, 0, network.shape.axons)
    ):  # fmt: skip
        wrong = (value < low) | (value >= high)
        if wrong.any():
            raise ParameterError(
                f"run: event {int(wrong.argmax())}: {name} must be {low}..{high - 1}, got {value[wrong][0]}"
            )
    if tick.size and (np.diff(tick) < 0).any():
        order = np.argsort(tick, kind="stable")
        tick, core, axon = tick[order], core[order], axon[order]
    ends = np.searchsorted(tick, begin + np.arange(ticks), side="right").astype(np.int64)
    return ends, (core * network.axon_words + axon // 64) << 6 | axon % 64
