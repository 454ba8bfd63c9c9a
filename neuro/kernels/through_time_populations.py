"""Populations that train, fused over time on the CPU: one pass over the currents forward, one backward.

Only currents are kept for the backward pass, which steps through them once more before it turns back in time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import singledispatch
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from neuro.dynamics import State, rest
from neuro.graph import Shape
from neuro.kernels import through_time_rows as rows
from neuro.nodes import IF, LI, LIF, CurrentLI, CurrentLIF, Leaky, Neuron, Synaptic
from neuro.surrogate import (
    ArcTan,
    Boxcar,
    FastSigmoid,
    MultiGaussian,
    Sigmoid,
    SuperSpike,
    Surrogate,
    Triangle,
)

BLOCK = 256
"""Neurons per work item: their potentials over time stay in the first- or second-level cache."""

SURROGATES: dict[type[Surrogate], int] = {
    ArcTan: rows.ARCTAN,
    FastSigmoid: rows.FAST_SIGMOID,
    Sigmoid: rows.SIGMOID,
    SuperSpike: rows.SUPER_SPIKE,
    Triangle: rows.TRIANGLE,
    Boxcar: rows.BOXCAR,
    MultiGaussian: rows.MULTI_GAUSSIAN,
}


@dataclass(frozen=True, eq=False)
class Equation:
    """How `through_time_rows` computes a population: its family, reset and parameters, in the order of the rows."""

    family: int
    reset: int
    delay: bool
    parameters: tuple[Tensor | None, ...]


@singledispatch
def equation(node: Neuron) -> Equation | None:
    """The fused equation of a population; None where it has none."""
    return None


_RESETS = {"subtract": rows.SUBTRACT, "zero": rows.ZERO, "value": rows.ZERO, "none": rows.NONE}


@equation.register
def _(node: IF) -> Equation:
    return Equation(rows.IMMEDIATE, _RESETS[node.reset], False, (None, None, node.theta, None, None))


@equation.register
def _(node: LIF) -> Equation:
    return Equation(rows.IMMEDIATE, _RESETS[node.reset], False, (None, node.beta, node.theta, None, None))


@equation.register
def _(node: Leaky) -> Equation:
    return Equation(rows.LATE, _RESETS[node.reset], node.delay, (None, node.beta, node.theta, None, None))


@equation.register
def _(node: Synaptic) -> Equation:
    return Equation(rows.LATE_CURRENT, _RESETS[node.reset], node.delay, (node.alpha, node.beta, node.theta, None, None))


@equation.register
def _(node: CurrentLIF) -> Equation:
    given = (node.rate_syn, node.rate_mem, node.theta, node.v_leak, node.v_reset)
    return Equation(rows.EULER, _RESETS[node.reset], False, given)


@equation.register
def _(node: LI) -> Equation:
    return Equation(rows.LEAK, rows.NONE, False, (None, node.beta, None, None, None))


@equation.register
def _(node: CurrentLI) -> Equation:
    return Equation(rows.EULER_LEAK, rows.NONE, False, (node.rate_syn, node.rate_mem, None, node.v_leak, None))


def coded(surrogate: Surrogate) -> tuple[int, np.ndarray]:
    """The number of a surrogate in `through_time_rows.slopes`, and its parameters."""
    shape = np.zeros(4, dtype=np.float32)
    values = astuple(surrogate)
    shape[: len(values)] = values
    return SURROGATES[type(surrogate)], shape


def why_not(node: Neuron, current: Tensor, surrogate: Surrogate) -> str | None:
    """Why the fused kernels cannot compute that population; None where they can."""
    if type(node) not in equation.registry or equation(node) is None:
        return f"no fused equation of {node.kind}"
    if type(surrogate) not in SURROGATES:
        return f"no fused slope of {type(surrogate).__name__}"
    tensors = (current, *(tensor for _, tensor in node.tensors()))
    if any(tensor.dtype != torch.float32 for tensor in tensors):
        return "fused in float32 only"
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return "fused on the CPU only"
    return None


def launch(kernel: Callable[..., None], *arguments: Any) -> None:
    """Runs a parallel kernel; the first launch of numba may change how many threads torch uses, which is undone."""
    threads = torch.get_num_threads()
    kernel(*arguments)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _forward(family, reset, delay, current, steps, v, s, p, z):
    batch, size = v.shape
    blocks = (size + BLOCK - 1) // BLOCK
    for item in numba.prange(batch * blocks):
        b = item // blocks
        low = (item % blocks) * BLOCK
        high = min(low + BLOCK, size)
        own = p[:, low:high].copy()
        for t in range(steps):
            i = current[t if len(current) > 1 else 0, b, low:high]
            rows.forward(family, reset, delay, i, v[b, low:high], s[b, low:high], own, z[t, b, low:high])


@numba.njit(error_model="numpy")
def back_in_time(
    form, current, place, n, v, s, own, surrogate, shape, gz, gz_place, of_v, of_s, gi, gi_place, of_own, learn, before,
    scratch,
):  # fmt: skip
    """n neurons of a sample: from currents and the gradients gz of the outputs to gradients of the currents.

    current, gz and gi are (time, rows, neurons), each with its place (row, first neuron); v and s (n,) are the first
    state. of_v and of_s (n,) turn from the gradients of the last state into those of the first one. before (2, time,
    at least n), scratch (5, at least n).
    """
    family, reset, delay = form
    steps = len(gz)
    b, low = place
    high = low + n
    rows.copy(before[0, 0, :n], v)
    rows.copy(before[1, 0, :n], s)
    for t in range(steps - 1):
        rows.copy(before[0, t + 1, :n], before[0, t, :n])
        if family != rows.IMMEDIATE:
            rows.copy(before[1, t + 1, :n], before[1, t, :n])
        i = current[t if len(current) > 1 else 0, b, low:high]
        rows.forward(family, reset, delay, i, before[0, t + 1, :n], before[1, t + 1, :n], own, scratch[0, :n])
    for back in range(steps):
        t = steps - 1 - back
        i = current[t if len(current) > 1 else 0, b, low:high]
        rows.backward(
            family, reset, delay, i, before[0, t, :n], before[1, t, :n], own, surrogate, shape,
            gz[t, gz_place[0], gz_place[1] : gz_place[1] + n], of_v, of_s,
            gi[t, gi_place[0], gi_place[1] : gi_place[1] + n], of_own, learn, scratch,
        )  # fmt: skip


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _backward(form, current, v, s, p, surrogate, shape, gz, gv, gs, gi, gp, learn):
    batch, size = v.shape
    blocks = (size + BLOCK - 1) // BLOCK
    for item in numba.prange(batch * blocks):
        b = item // blocks
        low = (item % blocks) * BLOCK
        high = min(low + BLOCK, size)
        own = p[:, low:high].copy()
        of_own = np.zeros(own.shape, dtype=np.float32)
        scratch = np.empty((5, high - low), dtype=np.float32)
        before = np.empty((2, len(gz), high - low), dtype=np.float32)
        back_in_time(
            form, current, (b, low), high - low, v[b, low:high], s[b, low:high], own, surrogate, shape, gz, (b, low),
            gv[b, low:high], gs[b, low:high], gi, (b, low), of_own, learn, before, scratch,
        )  # fmt: skip
        if learn:
            gp[b, :, low:high] = of_own


def _turned(dimensions: int, lead: int) -> tuple[int, ...]:
    return (*range(lead), *range(lead + 1, dimensions), lead)


def channels_last(tensor: Tensor, lead: int) -> bool:
    """Whether memory holds the channels of (*lead, channels, *space) side by side, as fast convolutions want them."""
    turned = tensor.ndim > lead + 1 and tensor.permute(_turned(tensor.ndim, lead)).is_contiguous()
    return turned and not tensor.is_contiguous()


def flat(tensor: Tensor, lead: int, last: bool) -> Tensor:
    """(*lead, neurons) contiguous; the channels of a position side by side if `last`."""
    tensor = tensor.permute(_turned(tensor.ndim, lead)) if last else tensor
    return tensor.contiguous().reshape(*tensor.shape[:lead], -1)


def shaped(rows_: Tensor, features: Shape, last: bool) -> Tensor:
    """The inverse of `flat`: (*lead, *features)."""
    lead = rows_.shape[:-1]
    if not last:
        return rows_.reshape(*lead, *features)
    return rows_.reshape(*lead, *features[1:], features[0]).movedim(-1, len(lead))


def table(parameters: tuple[Tensor | None, ...], features: Shape, last: bool) -> np.ndarray:
    """(5, neurons): a row per parameter, ones for those that an equation has not."""
    found = np.ones((len(parameters), math.prod(features)), dtype=np.float32)
    for row, parameter in zip(found, parameters, strict=True):
        if parameter is not None:
            row[:] = flat(parameter.detach().expand(features), 0, last).numpy()
    return found


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, surrogate: Surrogate, form: tuple[int, int, bool], current: Tensor, v: Tensor, s: Tensor,
        *parameters: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        steps, batch, *features = current.shape
        shape = tuple(features)
        held = steps > 1 and current.stride(0) == 0
        last = channels_last(current[:1], 2)
        i = flat(current[:1] if held else current, 2, last)
        own = table(parameters, shape, last)
        first = [flat(state, 1, last) for state in (v, s)]
        after = [state.clone() for state in first]
        z = torch.empty(steps, batch, i.shape[2])
        if z.numel():
            launch(_forward, *form, i.numpy(), steps, after[0].numpy(), after[1].numpy(), own, z.numpy())
        ctx.save_for_backward(i, *first, *parameters)
        ctx.surrogate, ctx.form, ctx.last, ctx.own, ctx.shape = surrogate, form, last, own, shape
        return shaped(z, shape, last), shaped(after[0], shape, last), shaped(after[1], shape, last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        i, v, s, *parameters = ctx.saved_tensors
        of_z = flat(gradients[0], 2, ctx.last)
        of_v, of_s = (flat(g, 1, ctx.last).clone() for g in gradients[1:])
        of_current = torch.empty_like(of_z)
        learn = any(ctx.needs_input_grad[5:])
        of_own = torch.zeros(len(v), len(parameters), v.shape[1]) if learn else torch.zeros(1, 1, 1)
        if of_z.numel():
            launch(
                _backward, ctx.form, i.numpy(), v.numpy(), s.numpy(), ctx.own, *coded(ctx.surrogate), of_z.numpy(),
                of_v.numpy(), of_s.numpy(), of_current.numpy(), of_own.numpy(), learn,
            )  # fmt: skip

        def back(rows_: Tensor) -> Tensor:
            return shaped(rows_, ctx.shape, ctx.last)

        found = of_own.sum(0) if learn else [None] * len(parameters)
        of_parameters = [
            None if p is None or g is None else back(g).sum_to_size(p.shape)
            for p, g in zip(parameters, found, strict=True)
        ]
        return None, None, back(of_current), back(of_v), back(of_s), *of_parameters


def run_fused(node: Neuron, current: Tensor, surrogate: Surrogate, state: State | None) -> tuple[Tensor, State]:
    """The same contract as `neuro.kernels.through_time.run`, for populations that have an `equation`."""
    known = equation(node)
    assert known is not None
    steps, batch, *features = current.shape
    start = rest(node, batch, tuple(features)) if state is None else state
    s = start.kept[0] if start.kept else start.v.detach()
    form = (known.family, known.reset, known.delay)
    z, v, after = _Fused.apply(surrogate, form, current, start.v, s, *known.parameters)
    return z, State(v, start.t + steps, (after,) if start.kept else ())
