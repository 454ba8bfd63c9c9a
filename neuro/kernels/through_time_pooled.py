"""Populations over images and their average pools as one differentiable function, on currents or on a convolution."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from neuro.graph import Shape
from neuro.kernels.synapses import LANES
from neuro.kernels.through_time_images import events_backward, events_forward, pooled_backward, pooled_forward
from neuro.kernels.through_time_lists import Lists
from neuro.kernels.through_time_populations import Equation, coded, flat, launch, shaped, table
from neuro.nodes import AvgPool, Conv
from neuro.surrogate import Surrogate

WHOLE = (1, 1)
"""The window of a population that is not pooled."""


def window(pool: AvgPool | None, shape: Shape) -> tuple[int, int] | None:
    """Rows and columns of windows that tile an image (channels, rows, columns) without rest; None where they do not."""
    if len(shape) != 3:
        return None
    if pool is None:
        return WHOLE
    tiled = len(pool.kernel) == 2 and pool.kernel == pool.stride and not any(pool.padding)
    if not tiled or any(size % k for size, k in zip(shape[1:], pool.kernel, strict=True)):
        return None
    return pool.kernel[0], pool.kernel[1]


def followed(node: Conv) -> bool:
    """Whether the kernels can follow events through a convolution: stride 1, one group, channels in whole vectors."""
    plain = set(node.stride) == set(node.dilation) == {1} and node.groups == 1
    return node.weight.ndim == 4 and plain and node.weight.shape[0] % LANES == 0


def _windows(g: Tensor) -> Tensor:
    """(time, batch, channels, rows, columns) as (time, batch, rows, columns * channels)."""
    return g.movedim(2, -1).contiguous().flatten(3)


def _image(rows_: Tensor, channels: int) -> Tensor:
    return rows_.unflatten(3, (-1, channels)).movedim(-1, 2)


def _of_parameters(own: Tensor | None, parameters: list[Tensor | None], shape: Shape) -> list[Tensor | None]:
    found = [None] * len(parameters) if own is None else list(own.sum(0))
    return [
        None if p is None or g is None else shaped(g, shape, True).sum_to_size(p.shape)
        for p, g in zip(parameters, found, strict=True)
    ]


class Pooled(torch.autograd.Function):
    """A population on currents (time, batch, channels, rows, columns), its outputs pooled."""

    @staticmethod
    def forward(
        ctx: Any, surrogate: Surrogate, known: Equation, over: tuple[int, int], current: Tensor, v: Tensor, s: Tensor,
        *parameters: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        steps, batch, channels, height, width = current.shape
        shape = (channels, height, width)
        i = flat(current[:1] if current.stride(0) == 0 else current, 2, True)
        form, own = (known.family, known.reset, known.delay), table(parameters, shape, True)
        first = [flat(state, 1, True) for state in (v, s)]
        after = [state.clone() for state in first]
        out = torch.zeros(steps, batch, height // over[0], width // over[1] * channels)
        size = (*over, width * channels, channels)
        launch(pooled_forward, form, i.numpy(), steps, size, *(a.numpy() for a in after), own, out.numpy())
        ctx.save_for_backward(i, *first, *parameters)
        ctx.surrogate, ctx.form, ctx.size, ctx.own, ctx.shape = surrogate, form, size, own, shape
        return _image(out, channels), shaped(after[0], shape, True), shaped(after[1], shape, True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        i, v, s, *parameters = ctx.saved_tensors
        g = _windows(gradients[0])
        of_v, of_s = (flat(given, 1, True).clone() for given in gradients[1:])
        learn = any(ctx.needs_input_grad[6:])
        of_own = torch.zeros((len(v), len(parameters), v.shape[1]) if learn else (1, 1, 1))
        of_current = torch.empty(len(g), *v.shape)
        launch(
            pooled_backward, ctx.form, i.numpy(), ctx.size, v.numpy(), s.numpy(), ctx.own, *coded(ctx.surrogate),
            g.numpy(), of_v.numpy(), of_s.numpy(), of_current.numpy(), of_own.numpy(), learn,
        )  # fmt: skip
        back = [shaped(given, ctx.shape, True) for given in (of_current, of_v, of_s)]
        return None, None, None, *back, *_of_parameters(of_own if learn else None, parameters, ctx.shape)


def _rows_of(weight: Tensor) -> np.ndarray:
    """(out, in, rows, columns) as (rows, in, columns turned round * out)."""
    return weight.detach().flip(3).permute(2, 1, 3, 0).flatten(2).contiguous().numpy()


class Events(torch.autograd.Function):
    """A population on a convolution of listed events, its outputs pooled; no gradient for the events."""

    @staticmethod
    def forward(
        ctx: Any, surrogate: Surrogate, known: Equation, over: tuple[int, int], lists: Lists, image: Shape, node: Conv,
        weight: Tensor, bias: Tensor | None, v: Tensor, s: Tensor, *parameters: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        shape = node.output_shape(image)
        channels, height, width = shape
        batch = lists.batch // image[1]
        events = (lists.first, lists.index, lists.values, lists.binary, batch)
        size = (image[1], image[0], channels, node.padding[0], node.padding[1] * channels)
        form, own = (known.family, known.reset, known.delay), table(parameters, shape, True)
        first = [flat(state, 1, True) for state in (v, s)]
        after = [state.clone() for state in first]
        given = np.zeros(channels, dtype=np.float32) if bias is None else bias.detach().contiguous().numpy()
        out = torch.zeros(lists.steps, batch, height // over[0], width // over[1] * channels)
        launch(
            events_forward, form, events, size, over, _rows_of(weight), given, *(a.numpy() for a in after), own,
            out.numpy(),
        )  # fmt: skip
        ctx.save_for_backward(weight, bias, *first, *parameters)
        ctx.surrogate, ctx.form, ctx.over, ctx.events, ctx.size = surrogate, form, over, events, size
        ctx.own, ctx.shape, ctx.given = own, shape, given
        return _image(out, channels), shaped(after[0], shape, True), shaped(after[1], shape, True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, v, s, *parameters = ctx.saved_tensors
        out, into, down, across = weight.shape
        g = _windows(gradients[0])
        of_v, of_s = (flat(given, 1, True).clone() for given in gradients[1:])
        learn = any(ctx.needs_input_grad[10:])
        of_own = torch.zeros((len(v), len(parameters), v.shape[1]) if learn else (1, 1, 1))
        parts = min(2 * numba.get_num_threads(), max(len(v), 1))
        total = np.zeros((parts, down, into, across * out), dtype=np.float32)
        of_bias = np.zeros((parts, out), dtype=np.float32)
        launch(
            events_backward, ctx.form, ctx.events, ctx.size, ctx.over, _rows_of(weight), ctx.given, v.numpy(),
            s.numpy(), ctx.own, *coded(ctx.surrogate), g.numpy(), of_v.numpy(), of_s.numpy(), of_own.numpy(), learn,
            total, of_bias,
        )  # fmt: skip
        of_weight = torch.from_numpy(total.sum(0)).unflatten(2, (across, out)).permute(3, 1, 0, 2).flip(3)
        return (
            *(None,) * 6, of_weight, None if bias is None else torch.from_numpy(of_bias.sum(0)),
            *(shaped(given, ctx.shape, True) for given in (of_v, of_s)),
            *_of_parameters(of_own if learn else None, parameters, ctx.shape),
        )  # fmt: skip
