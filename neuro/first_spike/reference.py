"""First spikes in plain torch, on any device: all causal prefixes by one sort and cumulative sums.

Inputs arrive at (batch, out or 1, in) and outputs are taken in chunks, so that memory is batch x in x chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuro.errors import ParameterError
from neuro.first_spike.membrane import Membrane

CHUNK = 4_000_000
"""Elements (batch x in x outputs) that are held at once."""

LONGEST = 600.0
"""Between the first and the last input [tau_s]: in double precision no exponential of it under- or overflows."""


def chunks(batch: int, inputs: int, outputs: int) -> list[slice]:
    """Ranges of outputs that together hold at most `CHUNK` elements."""
    size = max(1, CHUNK // max(batch * inputs, 1))
    return [slice(start, min(start + size, outputs)) for start in range(0, outputs, size)]


def forward(
    membrane: Membrane, times: Tensor, weight: Tensor, theta: Tensor, delay: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Spike times and slopes dV/ds there, both (batch, out) float64, time in tau_s.

    times (batch, in), weight and delay (out, in), theta (out,), float64. ParameterError where inputs of a sample lie
    more than 600 tau_s apart.
    """
    parts = [
        _chunk(membrane, times, weight[rows], theta[rows], None if delay is None else delay[rows])
        for rows in chunks(len(times), times.shape[1], len(weight))
    ]
    spikes, slopes = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    return spikes, slopes


def _chunk(
    membrane: Membrane, times: Tensor, weight: Tensor, theta: Tensor, delay: Tensor | None
) -> tuple[Tensor, Tensor]:
    arrival, order = torch.sort(times[:, None] if delay is None else times[:, None] + delay, dim=-1)
    arrives = torch.isfinite(arrival)
    last = torch.where(arrives, arrival, -torch.inf).amax(-1, keepdim=True)
    last = torch.where(torch.isfinite(last), last, 0.0)
    shifted = torch.where(arrives, arrival - last, 0.0)
    if bool((shifted < -LONGEST).any()):
        raise ParameterError(
            f"first spike: inputs lie {-float(shifted.min()):.0f} tau_s apart, the reference takes {LONGEST:.0f}; "
            "use the CPU kernel, which has no limit"
        )
    shape = (len(times), *weight.shape)
    w = torch.where(arrives, weight.expand(shape).gather(-1, order.expand(shape)), 0.0)
    growth = torch.exp(shifted)
    current = (w * growth).cumsum(-1) / growth
    if membrane.leak == 1:
        v = shifted * current - (w * shifted * growth).cumsum(-1) / growth
    else:
        slow = torch.exp(membrane.leak * shifted)
        v = membrane.gain / (1 - membrane.leak) * ((w * slow).cumsum(-1) / slow - current)
    s = membrane.crossing(v, current, theta[:, None])
    ahead = torch.cat([arrival[..., 1:], torch.full_like(arrival[..., :1], torch.inf)], -1)
    valid = arrives & torch.isfinite(s) & (arrival + s <= ahead)
    candidates = torch.where(valid, arrival + s, torch.inf)
    spikes, prefix = candidates.min(-1)
    at = prefix[..., None]
    waited = torch.where(torch.isfinite(spikes), s.gather(-1, at)[..., 0], 0.0)
    slopes = membrane.gain * current.gather(-1, at)[..., 0] * torch.exp(-waited) - membrane.leak * theta
    return spikes, torch.where(torch.isfinite(spikes), slopes, 1.0)


def largest_responses(membrane: Membrane, times: Tensor, delay: Tensor | None, spikes: Tensor) -> Tensor:
    """max over causal inputs of eps(spike - arrival), (batch, out); 0 for silent neurons."""
    parts = []
    for rows in chunks(len(times), times.shape[1], spikes.shape[1]):
        s, causal = _since(times, delay, spikes, rows)
        parts.append(torch.where(causal, membrane.response(s), 0.0).amax(-1))
    return torch.cat(parts, 1)


def backward(
    membrane: Membrane, times: Tensor, weight: Tensor, delay: Tensor | None, spikes: Tensor, pull: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of times, weight and delay; pull (batch, out) is -dL/ds over the slope at each spike."""
    of_times = torch.zeros_like(times)
    of_weight = torch.zeros_like(weight)
    of_delay = None if delay is None else torch.zeros_like(delay)
    for rows in chunks(len(times), times.shape[1], len(weight)):
        s, causal = _since(times, delay, spikes, rows)
        force = torch.where(causal, pull[:, rows, None], 0.0)
        of_weight[rows] = (force * membrane.response(s)).sum(0)
        moved = -force * weight[rows] * membrane.slope(s)
        of_times += moved.sum(1)
        if of_delay is not None:
            of_delay[rows] = moved.sum(0)
    return of_times, of_weight, of_delay


def _since(times: Tensor, delay: Tensor | None, spikes: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """How long before each spike an input arrived, and whether it did; (batch, outputs of the chunk, in)."""
    arrival = times[:, None] if delay is None else times[:, None] + delay[rows]
    at = spikes[:, rows, None]
    causal = (arrival < at) & torch.isfinite(at)
    return torch.where(causal, at - arrival, 0.0), causal
