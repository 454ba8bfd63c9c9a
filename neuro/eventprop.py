"""Exact gradients of spike trains: the adjoint of leaky neurons that fire more than once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.first_spike.membrane import Kind, Membrane, membrane_of
from neuro.first_spike.times import FLAT, as_array, torch_threads


def spike_trains(
    trains: Tensor,
    weight: Tensor,
    theta: Tensor | float = 1.0,
    *,
    membrane: Kind = "double",
    tau: float = 1.0,
    most: int = 8,
) -> Tensor:
    """The first `most` spikes (batch, out, most) of every neuron in order, +inf behind the last one.

    trains (batch, in, k): spike times of the inputs, in any order, +inf for none. weight (out, in), theta one or
    (out,).
    The neurons are those of `first_spike_times` (its docstring gives the units), with v <- 0 at a spike while the
    current stays; a neuron that has fired `most` times is silent from then on. With most=1 it is that function. Spikes
    are solved in closed form from event to event; gradients are exact for trains, weight and theta, by the adjoint of
    the dynamics with its jumps (EventProp: Wunderlich and Pehle 2021, eq. 9-13 [recalled]). Float64 inside, on the CPU.

    Raises ShapeError and ParameterError before any work.
    """
    model = membrane_of(membrane)
    theta = torch.as_tensor(theta, dtype=weight.dtype, device=weight.device)
    if weight.ndim != 2 or trains.ndim != 3 or trains.shape[1] != weight.shape[1]:
        raise ShapeError(
            f"spike_trains takes trains (batch, in, k) and weight (out, in), got {tuple(trains.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if tuple(theta.shape) not in ((), (1,), (len(weight),)):
        raise ShapeError(f"spike_trains: theta must have shape ({len(weight)},), got {tuple(theta.shape)}")
    if bool((theta.detach() <= 0).any()):
        raise ParameterError(f"spike_trains: theta must be > 0, got {float(theta.detach().min())}")
    if not (0 < tau < float("inf")):
        raise ParameterError(f"spike_trains: tau must be > 0 and finite, got {tau}")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ParameterError(f"spike_trains: most must be a whole number >= 1, got {most!r}")
    if bool(torch.isnan(trains.detach()).any()) or bool((trains.detach() == -torch.inf).any()):
        raise ParameterError("spike_trains: trains hold NaN or -inf; no spike is +inf")
    if weight.device.type != "cpu":
        raise ParameterError(f"spike_trains runs on the CPU, the weights are on {weight.device}")
    level = (theta / tau if membrane == "alpha" else theta).expand(len(weight))
    spikes = _EventProp.apply(trains if tau == 1 else trains / tau, weight, level, model, most)
    return spikes if tau == 1 else spikes * tau


class _EventProp(torch.autograd.Function):
    """Times in tau_s."""

    @staticmethod
    def forward(ctx: Any, trains: Tensor, weight: Tensor, theta: Tensor, model: Membrane, most: int) -> Tensor:
        from neuro.kernels import eventprop

        events = as_array(trains.double().flatten(1))
        with torch_threads():
            order = eventprop.ordered(events)
            network = (trains.shape[2], as_array(weight.double()), as_array(theta.double()), model.leak, model.gain)
            spikes, currents = eventprop.forward(events, *order, *network, most)  # type: ignore[call-arg]
        ctx.arguments = (events, *order, *network, spikes, currents)
        ctx.kinds = (trains, weight, theta)
        return torch.from_numpy(spikes).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        from neuro.kernels import eventprop

        with torch_threads():
            of_weight, of_theta, of_events = eventprop.backward(*ctx.arguments, as_array(given[0].double()), FLAT)  # type: ignore[call-arg]
        found: tuple[np.ndarray, ...] = (of_events.reshape(ctx.kinds[0].shape), of_weight, of_theta)
        cast = (torch.from_numpy(g).to(kind.dtype) for g, kind in zip(found, ctx.kinds, strict=True))
        return (*cast, None, None)
