"""Affine layers that train on what is not zero: sums of listed rows of weights, tile by tile, and populations on them.

A tile holds a few columns of all rows of a table, so it stays in the second-level cache; the rows that one sample asks
for again and again over time stay in the first. Sums are those of the dense product in another order.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from neuro.kernels import through_time_rows as rows
from neuro.kernels.synapses import LANES, padded
from neuro.kernels.through_time_lists import STEPS, Lists
from neuro.kernels.through_time_populations import BLOCK, back_in_time, launch
from neuro.kernels.through_time_vectors import scaled_sum1, scaled_sum2, scaled_sum4, sum1, sum2, sum4

WIDEST = 4 * LANES
"""Columns of a tile at most."""


def tiles(matrix: Tensor) -> np.ndarray:
    """matrix (rows, columns) as (tiles, rows, width), columns padded with zeros."""
    count, columns = matrix.shape
    width = min(1 << (padded(columns) // LANES - 1).bit_length(), WIDEST // LANES) * LANES
    wide = torch.zeros(-(-columns // width), count, width)
    whole = columns // width
    wide[:whole] = matrix.detach()[:, : whole * width].reshape(count, whole, width).transpose(0, 1)
    if whole < len(wide):
        wide[-1, :, : columns - whole * width] = matrix.detach()[:, whole * width :]
    return wide.numpy()


def untiled(accumulated: np.ndarray, columns: int) -> Tensor:
    """The inverse of `tiles`, transposed: (columns, rows) contiguous."""
    tensor = torch.from_numpy(accumulated)
    return tensor.transpose(1, 2).reshape(-1, tensor.shape[1])[:columns]


def row(vector: Tensor | None, columns: int, like: np.ndarray) -> np.ndarray:
    """A bias, or zeros, padded to the columns of the tiles."""
    found = np.zeros(like.shape[0] * like.shape[2], dtype=np.float32)
    if vector is not None:
        found[:columns] = vector.detach().numpy()
    return found


@numba.njit(error_model="numpy")
def _sum(binary, width, target, at, table, base, stride, index, values, low, high):
    if binary:
        if width == 64:
            sum4(target, at, table, base, stride, index, values, low, high)
        elif width == 32:
            sum2(target, at, table, base, stride, index, values, low, high)
        else:
            sum1(target, at, table, base, stride, index, values, low, high)
    elif width == 64:
        scaled_sum4(target, at, table, base, stride, index, values, low, high)
    elif width == 32:
        scaled_sum2(target, at, table, base, stride, index, values, low, high)
    else:
        scaled_sum1(target, at, table, base, stride, index, values, low, high)


@numba.njit(error_model="numpy")
def _add(to, given):
    for k in range(len(to)):
        to[k] += given[k]


@numba.njit(error_model="numpy")
def _sums(first, index, values, binary, table, bias, b, batch, low, block):
    """The rows of a product from column `low` on, for all steps of sample b, into block (steps, columns)."""
    inputs, width = table.shape[1:]
    flat = table.reshape(-1)
    wide = block.shape[1]
    into = block.reshape(-1)
    for column in range(0, wide, width):
        base = (low + column) * inputs
        for t in range(len(block)):
            r = t * batch + b
            rows.copy(block[t, column : column + width], bias[low + column : low + column + width])
            _sum(binary, width, into, t * wide + column, flat, base, width, index, values, first[r], first[r + 1])


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _product(first, index, values, binary, table, bias, wide, out):
    steps, batch, size = out.shape
    for item in numba.prange((size + wide - 1) // wide * batch):
        low, b = np.int64(item) // batch * wide, np.int64(item) % batch
        high = min(low + wide, size)
        block = np.empty((steps, min(wide, len(bias) - low)), dtype=np.float32)
        _sums(first, index, values, binary, table, bias, b, batch, low, block)
        for t in range(steps):
            rows.copy(out[t, b, low:high], block[t])


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _layer(form, first, index, values, binary, table, bias, wide, v, s, p, current, keep, z):
    family, reset, delay = form
    steps, batch, size = z.shape
    for item in numba.prange((size + wide - 1) // wide * batch):
        low, b = np.int64(item) // batch * wide, np.int64(item) % batch
        high = min(low + wide, size)
        n = high - low
        block = np.empty((steps, min(wide, len(bias) - low)), dtype=np.float32)
        _sums(first, index, values, binary, table, bias, b, batch, low, block)
        own = p[:, low:high].copy()
        for t in range(steps):
            rows.forward(family, reset, delay, block[t, :n], v[b, low:high], s[b, low:high], own, z[t, b, low:high])
            if keep:
                rows.copy(current[t, b, low:high], block[t])


@numba.njit(error_model="numpy")
def _spread(g, early, inputs, begins, entries, scales, binary, block, total):
    """Adds to the total (tiles, inputs, width) of every active input the rows of `block` when it was active."""
    size, width = total.shape[1:]
    wide = block.shape[1]
    flat, added = total.reshape(-1), block.reshape(-1)
    for tile in range(wide // width):
        base = early * wide + tile * width
        k = 0
        while inputs[g, k] >= 0:
            at = (tile * size + np.int64(inputs[g, k])) * width
            _sum(binary, width, flat, at, added, base, wide, entries, scales, begins[g, k], begins[g, k + 1])
            k += 1


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _weight_gradient(inputs, begins, entries, scales, binary, group, g, wide, total, of_bias):
    steps, batch, size = g.shape
    parts, columns = of_bias.shape
    width = total.shape[3]
    groups = (steps + group - 1) // group
    for item in numba.prange((size + wide - 1) // wide * parts):
        low, part = np.int64(item) // parts * wide, np.int64(item) % parts
        high = min(low + wide, size)
        block = np.zeros((steps, min(wide, columns - low)), dtype=np.float32)
        own = total[part, low // width : (low + block.shape[1]) // width]
        bias = of_bias[part, low : low + block.shape[1]]
        for b in range(part * batch // parts, (part + 1) * batch // parts):
            for t in range(steps):
                rows.copy(block[t, : high - low], g[t, b, low:high])
                _add(bias, block[t])
            for k in range(groups):
                _spread(b * groups + k, k * group, inputs, begins, entries, scales, binary, block, own)


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _layer_back(
    form, inputs, begins, entries, scales, binary, group, current, v, s, p, surrogate, shape, gz, gv, gs, gi, passed,
    gp, learn, wide, total, of_bias,
):  # fmt: skip
    steps, batch, size = gz.shape
    parts, columns = of_bias.shape
    width = total.shape[3]
    groups = (steps + group - 1) // group
    for item in numba.prange((size + wide - 1) // wide * parts):
        low, part = np.int64(item) // parts * wide, np.int64(item) % parts
        high = min(low + wide, size)
        n = high - low
        block = np.zeros((steps, 1, min(wide, columns - low)), dtype=np.float32)
        flat = block.reshape(steps, -1)
        own = total[part, low // width : (low + block.shape[2]) // width]
        bias = of_bias[part, low : low + block.shape[2]]
        mine = p[:, low:high].copy()
        of_mine = np.zeros(mine.shape, dtype=np.float32)
        scratch = np.empty((5, n), dtype=np.float32)
        before = np.empty((2, steps, n), dtype=np.float32)
        for b in range(part * batch // parts, (part + 1) * batch // parts):
            back_in_time(
                form, current, (b, low), n, v[b, low:high], s[b, low:high], mine, surrogate, shape, gz, (b, low),
                gv[b, low:high], gs[b, low:high], block, (0, 0), of_mine, learn, before, scratch,
            )  # fmt: skip
            for t in range(steps):
                _add(bias, flat[t])
                if passed:
                    rows.copy(gi[t, b, low:high], flat[t])
            for k in range(groups):
                _spread(b * groups + k, k * group, inputs, begins, entries, scales, binary, flat, own)
        if learn:
            gp[part, :, low:high] = of_mine


def _parts(columns: int, batch: int) -> int:
    """Shares of the batch that are summed apart, so that all threads have work."""
    return max(1, min(-(-numba.get_num_threads() // -(-columns // BLOCK)), batch))


def product(lists: Lists, table: np.ndarray, bias: Tensor | None, columns: int) -> Tensor:
    """x M + bias (time, batch, columns) for the listed x and the `tiles` of M."""
    out = torch.empty(lists.steps, lists.batch, columns)
    launch(
        _product,
        lists.first,
        lists.index,
        lists.values,
        lists.binary,
        table,
        row(bias, columns, table),
        BLOCK,
        out.numpy(),
    )
    return out


def weight_gradient(lists: Lists, g: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight (out, in) and bias (out,) from those of the product, g (time, batch, out)."""
    columns = g.shape[2]
    shape = tiles(torch.zeros(1, columns)).shape
    parts = _parts(columns, lists.batch)
    total = np.zeros((parts, shape[0], lists.size, shape[2]), dtype=np.float32)
    of_bias = np.zeros((parts, shape[0] * shape[2]), dtype=np.float32)
    launch(_weight_gradient, *lists.by_input, lists.binary, STEPS, g.contiguous().numpy(), BLOCK, total, of_bias)
    return _summed(total, of_bias, columns)


def _summed(total: np.ndarray, of_bias: np.ndarray, columns: int) -> tuple[Tensor, Tensor]:
    whole = total[0] if len(total) == 1 else total.sum(0)
    return untiled(whole, columns), torch.from_numpy(of_bias.sum(0)[:columns])


def layer(
    form: tuple[int, int, bool], lists: Lists, table: np.ndarray, bias: Tensor | None, v: Tensor, s: Tensor,
    p: np.ndarray, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Outputs and, if `keep`, currents (time, batch, neurons) of a population on a product; v and s advance."""
    z = torch.empty(lists.steps, *v.shape)
    current = torch.empty_like(z) if keep else torch.empty(1, 1, 1)
    launch(
        _layer, form, lists.first, lists.index, lists.values, lists.binary, table, row(bias, v.shape[1], table),
        BLOCK, v.numpy(), s.numpy(), p, current.numpy(), keep, z.numpy(),
    )  # fmt: skip
    return z, current


def layer_back(
    form: tuple[int, int, bool], lists: Lists, current: Tensor, v: Tensor, s: Tensor, p: np.ndarray, surrogate: int,
    shape: np.ndarray, gz: Tensor, gv: Tensor, gs: Tensor, passed: bool, learn: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of weight, bias, currents (if `passed`) and parameters (5, neurons; if `learn`); gv, gs in place."""
    columns = v.shape[1]
    tile = tiles(torch.zeros(1, columns)).shape
    parts = _parts(columns, lists.batch)
    total = np.zeros((parts, tile[0], lists.size, tile[2]), dtype=np.float32)
    of_bias = np.zeros((parts, tile[0] * tile[2]), dtype=np.float32)
    gi = torch.empty(gz.shape if passed else (1, 1, 1))
    gp = torch.zeros((parts, 5, columns) if learn else (1, 1, 1))
    launch(
        _layer_back, form, *lists.by_input, lists.binary, STEPS, current.numpy(), v.numpy(), s.numpy(), p, surrogate,
        shape, gz.numpy(), gv.numpy(), gs.numpy(), gi.numpy(), passed, gp.numpy(), learn, BLOCK, total, of_bias,
    )  # fmt: skip
    weight, bias = _summed(total, of_bias, columns)
    return weight, bias, gi if passed else None, gp.sum(0) if learn else None
