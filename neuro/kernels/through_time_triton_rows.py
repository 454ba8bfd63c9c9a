"""IF and LIF populations over time as Triton kernels. Importing this module imports Triton.

Currents, outputs and gradients keep their element type (bfloat16 or float32) in memory; membranes are float32 in
registers. The forward pass keeps potentials in the element type of the currents, and spikes as bits, 32 steps to a
word: so the backward pass knows exactly who fired, however its potentials were rounded.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def slope(u, a, b, c, d, SURROGATE: tl.constexpr):
    """dz/du of neuro.surrogate; the numbers of the surrogates are those of `through_time_rows`."""
    if SURROGATE == 0:
        q = 1.5707963267948966 * a * u
        result = 0.5 * a / (1 + q * q)
    elif SURROGATE == 1:
        q = 1 + a * tl.abs(u)
        result = 0.5 * a / (q * q)
    elif SURROGATE == 2:
        q = tl.exp(-a * tl.abs(u))
        result = a * q / ((1 + q) * (1 + q))
    elif SURROGATE == 3:
        q = 1 + a * tl.abs(u)
        result = 1 / (q * q)
    elif SURROGATE == 4:
        result = b * tl.maximum(1 - tl.abs(u) / a, 0.0)
    elif SURROGATE == 5:
        result = tl.where(tl.abs(u) <= a, b, 0.0)
    else:
        per_root = 0.3989422804014327
        middle = tl.exp(-0.5 * (u / a) * (u / a)) * per_root / a
        left = tl.exp(-0.5 * ((u - a) / (c * a)) * ((u - a) / (c * a))) * per_root / (c * a)
        right = tl.exp(-0.5 * ((u + a) / (c * a)) * ((u + a) / (c * a))) * per_root / (c * a)
        result = d * ((1 + b) * middle - b * (left + right))
    return result


@triton.jit
def forward(
    current, v, beta, theta, out, kept, bits, steps, rows, neurons, RESET: tl.constexpr, KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """All steps of BLOCK of the `rows` = batch * neurons membranes; v advances in place."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    decay = tl.load(beta + row % neurons, mask=inside, other=0.0)
    level = tl.load(theta + row % neurons, mask=inside, other=1.0)
    membrane = tl.load(v + row, mask=inside, other=0.0)
    word = tl.zeros((BLOCK,), dtype=tl.int32)
    for t in range(steps):
        i = tl.load(current + t * rows + row, mask=inside, other=0.0).to(tl.float32)
        u = decay * membrane + i
        fired = u >= level
        tl.store(out + t * rows + row, tl.where(fired, 1.0, 0.0).to(out.dtype.element_ty), mask=inside)
        if KEEP:
            tl.store(kept + t * rows + row, u.to(kept.dtype.element_ty), mask=inside)
            word = word | (tl.where(fired, 1, 0) << (t % 32))
            if t % 32 == 31 or t == steps - 1:
                tl.store(bits + (t // 32) * rows + row, word, mask=inside)
                word = tl.zeros((BLOCK,), dtype=tl.int32)
        if RESET == 0:
            membrane = tl.where(fired, u - level, u)
        elif RESET == 1:
            membrane = tl.where(fired, 0.0, u)
        else:
            membrane = u
    tl.store(v + row, membrane, mask=inside)


@triton.jit
def backward(
    of_out, v, beta, theta, kept, bits, of_v, of_current, of_beta, of_theta, a, b, c, d, steps, rows, neurons,
    RESET: tl.constexpr, SURROGATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Back in time; of_v turns from the gradient of the last state into that of the first one, v."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    decay = tl.load(beta + row % neurons, mask=inside, other=0.0)
    level = tl.load(theta + row % neurons, mask=inside, other=1.0)
    g = tl.load(of_v + row, mask=inside, other=0.0)
    first = tl.load(v + row, mask=inside, other=0.0)
    sum_beta = tl.zeros((BLOCK,), dtype=tl.float32)
    sum_theta = tl.zeros((BLOCK,), dtype=tl.float32)
    for back in range(steps):
        t = steps - 1 - back
        u = tl.load(kept + t * rows + row, mask=inside, other=0.0).to(tl.float32)
        fired = ((tl.load(bits + (t // 32) * rows + row, mask=inside, other=0) >> (t % 32)) & 1) != 0
        e = tl.load(of_out + t * rows + row, mask=inside, other=0.0).to(tl.float32) * slope(
            u - level, a, b, c, d, SURROGATE
        )
        sum_theta -= e
        if RESET == 0:
            sum_theta -= tl.where(fired, g, 0.0)
        if RESET == 1:
            g = tl.where(fired, 0.0, g)
        g = g + e
        tl.store(of_current + t * rows + row, g.to(of_current.dtype.element_ty), mask=inside)
        early = tl.maximum(t - 1, 0)
        before = tl.load(kept + early * rows + row, mask=inside, other=0.0).to(tl.float32)
        spiked = ((tl.load(bits + (early // 32) * rows + row, mask=inside, other=0) >> (early % 32)) & 1) != 0
        if RESET == 0:
            before = tl.where(spiked, before - level, before)
        elif RESET == 1:
            before = tl.where(spiked, 0.0, before)
        sum_beta += g * tl.where(t > 0, before, first)
        g = decay * g
    tl.store(of_v + row, g, mask=inside)
    tl.store(of_beta + row, sum_beta, mask=inside)
    tl.store(of_theta + row, sum_theta, mask=inside)
