"""Chains of first-spike layers, integrated by Brian2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.first_spike import membrane_of
from neuro.nodes import TimeToFirstSpike
from neuro.oracles.via_brian2 import SYNAPSES, _brian2


def first_spikes_via_brian2(
    layers: Sequence[TimeToFirstSpike], times: Tensor, *, step: float = 1e-3, until: float = 20.0
) -> list[Tensor]:
    """Spike times (batch, out) of every layer, +inf for none, as Brian2 integrates them in float64.

    times (batch, in): input spikes >= 0 in the unit of the layers' tau, +inf for none; Brian2 puts them, and delays, on
    its grid of `step`. The equations of `neuro.first_spike.membrane` are integrated by its method "exact" ("rk4" for
    equal time constants, which it cannot solve) up to `until`; a neuron that has fired cannot fire again. A spike is
    seen at the end of its step, so times agree with the closed form to one step for a layer whose input lies on the
    grid. Raises ShapeError and ParameterError for input that does not fit or more than 5,000,000 synapses,
    BackendMissing without brian2.
    """
    if not layers or times.ndim != 2 or times.shape[1] != layers[0].weight.shape[1]:
        raise ShapeError(f"first_spikes_via_brian2 takes times (batch, in) for its layers, got {tuple(times.shape)}")
    if not (step > 0 and until > step):
        raise ParameterError(f"first_spikes_via_brian2: needs 0 < step < until, got {step} and {until}")
    if bool((times < 0).any()):
        raise ParameterError("first_spikes_via_brian2: Brian2 starts at 0; shift the times")
    batch = len(times)
    synapses = batch * sum(node.weight.numel() for node in layers)
    if synapses > SYNAPSES:
        raise ParameterError(f"{synapses:,} synapses are too many for Brian2; take fewer samples")
    brian = _brian2()
    target = brian.prefs.codegen.target
    brian.prefs.codegen.target = "numpy"
    try:
        return _integrated(brian, layers, times, step, until)
    finally:
        brian.prefs.codegen.target = target


def _integrated(
    brian: Any, layers: Sequence[TimeToFirstSpike], times: Tensor, step: float, until: float
) -> list[Tensor]:
    """One second of Brian2 is one unit of time."""
    batch, second = len(times), brian.second
    clock = brian.Clock(dt=step * second)
    flat = times.double().reshape(-1).numpy()
    fires = np.flatnonzero(np.isfinite(flat))
    before = brian.SpikeGeneratorGroup(flat.size, fires, np.round(flat[fires] / step) * step * second, clock=clock)
    network, monitors = brian.Network(before), []
    for node in layers:
        model = membrane_of(node.membrane)
        group = brian.NeuronGroup(
            batch * len(node.weight),
            """
            dv/dt = (gain * current - leak * v) / tau : 1
            dcurrent/dt = -current / tau : 1
            theta : 1
            """,
            threshold="v >= theta", reset="theta = inf", method="rk4" if model.leak == 1 else "exact", clock=clock,
            namespace={"gain": model.gain, "leak": model.leak, "tau": node.tau * second, "inf": math.inf},
        )  # fmt: skip
        level = node.theta.detach().double() / (node.tau if node.membrane == "alpha" else 1.0)
        group.theta = np.tile(level.expand(len(node.weight)).numpy(), batch)
        delay = torch.zeros(node.weight.shape, dtype=torch.float64)
        for part in (node.axonal, node.synaptic):
            delay = delay if part is None else delay + part.detach().double()
        outputs, inputs = node.weight.shape
        joins = brian.Synapses(before, group, "w : 1", on_pre="current_post += w", clock=clock)
        sample = np.arange(batch)[:, None]
        source, place = (index.ravel() for index in np.meshgrid(np.arange(inputs), np.arange(outputs), indexing="ij"))
        joins.connect(i=(sample * inputs + source).ravel(), j=(sample * outputs + place).ravel())
        joins.w = np.tile(node.weight.detach().double().t().reshape(-1).numpy(), batch)
        joins.delay = np.tile(np.round(delay.t().reshape(-1).numpy() / step) * step, batch) * second
        monitors.append(brian.SpikeMonitor(group))
        network.add(group, joins, monitors[-1])
        before = group
    network.run(until * second, namespace={})
    found = []
    for node, monitor in zip(layers, monitors, strict=True):
        fired = torch.full((batch * len(node.weight),), torch.inf, dtype=torch.float64)
        fired[torch.from_numpy(np.asarray(monitor.i, dtype=np.int64))] = torch.from_numpy(
            np.asarray(monitor.t / second)
        )
        found.append(fired.reshape(batch, -1))
    return found
