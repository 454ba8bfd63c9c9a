"""Soft reset on neurons that only reset to zero: the current is the membrane.

A spike resets v and leaves the synaptic current u alone. So u can be what a soft reset keeps: it integrates the input
(du small), v only looks at it (dv = 4095 forgets all but a 4096th of the tick before), and a synapse of the neuron with
itself takes theta from u, one tick after the spike, when the next input comes. The constant current of a bias would
enter v alone: an axon of a clock brings it as spikes.

A leaky neuron keeps its decay: du = dv - 1 multiplies u as dv multiplied v. Integrators do not: at du = 0 a Loihi (as
Lava and nengo-loihi compute it) keeps 4095 of 4096 parts of u per tick, a time constant of 4096 ticks. What u loses is
ceil(|u| / 4096) of 64 parts of a unit, so that the spikes are those of the integrator, bit for bit, as long as
(ticks + 1) ceil(max|u| / 4096) < 32 (`exact_for`); beyond that they may come one unit too early or too late.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hardware_targets.exact_synapses import excitatory, inhibits_itself
from hardware_targets.loihi.program import (
    DECAY_UNITY,
    STATE_SHIFT,
    VOLTAGE_LIMIT,
    Connection,
    Input,
    Neurons,
    Population,
    Program,
)

LOOKS = DECAY_UNITY - 1
"""dv of a membrane that shows the current of its tick."""

HALF = 2 ** (STATE_SHIFT - 1)
"""Half a unit of activation, in units of v."""


def exact_for(largest: int) -> int:
    """Ticks for which an integrator whose membrane stays within `largest` units fires exactly as with a soft reset."""
    loss = -(-(largest << STATE_SHIFT) // DECAY_UNITY)
    return max(0, (HALF - 1) // max(loss, 1) - 1)


def without_soft_reset(program: Program, clock: str) -> tuple[Program, tuple[int, ...]]:
    """The program with hard resets alone, and the ticks from which on each axon of the input `clock` fires."""
    soft = [p for p in program.populations if isinstance(p, Population) and p.reset == "subtract"]
    if not soft:
        return program, ()
    starts = tuple(sorted({p.start for p in soft}))
    populations: list[Neurons] = []
    connections = list(program.connections)
    for p in program.populations:
        if not (isinstance(p, Population) and p.reset == "subtract"):
            populations.append(p)
            continue
        populations.append(_looking(p))
        connections += inhibits_itself(p.name, _taken(p))
        bias, axon = _in_units(p.bias), starts.index(p.start)
        connections += excitatory(clock, len(starts), axon, p.name, np.maximum(bias, 0))
        connections += map(_inhibiting, excitatory(clock, len(starts), axon, p.name, np.maximum(-bias, 0)))
    inputs = (*program.inputs, Input(clock, len(starts)))
    return Program(inputs, tuple(populations), tuple(connections)), starts


def clock_spikes(starts: tuple[int, ...], ticks: int) -> np.ndarray:
    """Spikes of the clock, (ticks, axons): each arrives from its tick on."""
    return (np.arange(1, ticks + 1)[:, None] >= np.array(starts)[None, :]).astype(np.int32)


def _keep(p: Population) -> int:
    """What u keeps per tick, in parts of 4096."""
    return min(DECAY_UNITY - p.dv, DECAY_UNITY - 1)


def _looking(p: Population) -> Population:
    waits = p.start + (p.dv == 0)  # an integrator would not have decayed in its first tick either
    start = np.asarray(p.v0, np.float64) * (DECAY_UNITY / _keep(p)) ** waits
    u0 = np.clip(np.rint(start), -VOLTAGE_LIMIT, VOLTAGE_LIMIT).astype(np.int32)
    # Membranes of whole units are those of v0 modulo one unit: the threshold goes midway between the two nearest.
    rest = (np.asarray(p.v0) - 1) % (2 * HALF) + 1
    return replace(
        p,
        du=DECAY_UNITY - 1 - _keep(p),
        dv=LOOKS,
        bias_mant=HALF - rest,
        bias_exp=0,
        reset="zero",
        u0=u0,
        v0=0,
        start=0,
    )


def _taken(p: Population) -> np.ndarray:
    """What a soft reset would have taken one tick before, decayed by that tick."""
    return np.rint(np.asarray(p.vth, np.int64) * ((DECAY_UNITY - p.dv) / DECAY_UNITY)).astype(np.int64)


def _inhibiting(connection: Connection) -> Connection:
    weights = (-connection.weights).astype(np.int32)
    return replace(connection, weights=weights, sign_mode="inhibitory", name=f"{connection.name}.inhibits")


def _in_units(bias: np.ndarray) -> np.ndarray:
    return np.rint(bias / 2**STATE_SHIFT).astype(np.int64)
