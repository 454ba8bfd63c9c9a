"""Weights refitted in closed form: what a layer really receives is mapped to what it gave in the original network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.nodes import Affine, Conv

ROWS = 8192
"""Output positions used, at the least."""

ROWS_PER_INPUT = 32
"""Output positions used for each weight of a channel, where there are so many."""

FEWEST_ROWS_PER_INPUT = 4
"""With less data the weights stay as they are: a fit would be to the noise."""

RIDGE = 0.1
ROUNDS = 5
"""Times that targets below zero are set anew."""


def refit(
    node: Affine | Conv,
    seen: Tensor,
    wanted: Tensor,
    ridge: float = RIDGE,
    samples: int | None = None,
    seed: int = 0,
    rectified: bool = False,
    rest: Tensor | None = None,
) -> Affine | Conv:
    """The node with the weights W' and the bias b' that minimise, over sampled rows p of its input,

    mean |W' p + b' - y|^2 + ridge * (mean variance of p) * |W' - W|^2,

    by the normal equations. seen (batch, *inputs): what the node receives now. wanted (batch, *outputs): what it should
    give. samples: output positions used, drawn with `seed`; if None, 32 for each weight of a channel, at least 8,192.
    Where the data have fewer than four for each weight only the bias is fitted. Runs of equal columns of a matrix, as
    an average pool before it leaves them, stay equal and count as one weight. Layer-wise reconstruction as in Li et al.
    2021, SNN calibration [recalled], with ridge regression in place of gradient descent.

    rectified: values below zero are all alike to what reads the sum. Not the distance to y < 0 counts then but that to
    the nearest value below zero, by turns: each target below zero is set to what the node gives, if that is below zero,
    and to zero otherwise, and the fit is repeated. rest (batch, *outputs): what is added to the node first.
    Raises ParameterError for a ridge that is not positive and ShapeError where the data do not fit the node.
    """
    if not ridge > 0:
        raise ParameterError(f"refit: ridge must be > 0, got {ridge}")
    shape = (len(seen), *node.output_shape(tuple(seen.shape[1:])))
    for what, values in (("wanted", wanted), ("rest", wanted if rest is None else rest)):
        if tuple(values.shape) != shape:
            raise ShapeError(f"refit: {node.kind} gives {shape} on these inputs, but {what} is {tuple(values.shape)}")
    if isinstance(node, Affine) and (run := _run(node.weight)) > 1:
        means, of_means = seen.unflatten(-1, (-1, run)).mean(-1), replace(node, weight=node.weight[:, ::run] * run)
        found = refit(of_means, means, wanted, ridge, samples, seed, rectified, rest)
        return replace(found, weight=found.weight.repeat_interleave(run, 1) / run)
    inputs = node.weight[0].numel()
    samples = max(ROWS, ROWS_PER_INPUT * inputs) if samples is None else samples
    drawn = _drawn(node, seen, [wanted] if rest is None else [wanted, rest], samples, seed)
    rows, target, *others = (part.to(node.weight.dtype) for part in drawn)
    other = others[0] if others else torch.zeros_like(target)
    weight = node.weight.detach().reshape(len(rows), -1, rows.shape[2])
    level = rows.new_zeros(()) if node.bias is None else node.bias.detach().reshape(len(rows), 1, -1)
    mean = rows.mean(1, keepdim=True)
    centred = rows - mean
    enough = rows.shape[1] >= FEWEST_ROWS_PER_INPUT * inputs
    change = _regression(centred, ridge) if enough else None
    start = centred @ weight.mT
    given, fitted = start + mean @ weight.mT + level + other, weight
    for _ in range(ROUNDS if rectified else 1):
        goal = (torch.where(target <= 0, given.clamp(max=0), target) if rectified else target) - other
        middle = goal.mean(1, keepdim=True)
        fitted = weight if change is None else weight + change(goal - middle - start)
        level = middle - mean @ fitted.mT
        given = centred @ fitted.mT + middle + other
    return replace(node, weight=fitted.reshape(node.weight.shape).contiguous(), bias=level.reshape(-1))


def _run(weight: Tensor) -> int:
    """The length of the runs of equal columns that a matrix consists of."""
    changes = (weight[:, 1:] != weight[:, :-1]).any(0).nonzero().reshape(-1) + 1
    return math.gcd(weight.shape[1], *changes.tolist())


def _regression(rows: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """From what is left to explain (groups, rows, outputs) to weights (groups, outputs, inputs); rows are centred."""
    _, count, inputs = rows.shape
    gram = (rows.mT @ rows).double() / count
    trace = gram.diagonal(dim1=1, dim2=2)
    strength = ridge * trace.sum(1, keepdim=True) / inputs
    trace += strength.clamp(min=torch.finfo(torch.float32).tiny)
    factor = torch.linalg.cholesky(gram)
    return lambda left: torch.cholesky_solve((rows.mT @ left).double() / count, factor).to(rows.dtype).mT


def _drawn(node: Affine | Conv, seen: Tensor, values: list[Tensor], samples: int, seed: int) -> list[Tensor]:
    """At some positions: the rows that the weights meet (groups, rows, inputs of a group), and each of `values`."""
    if isinstance(node, Affine):
        flat = [part.reshape(-1, part.shape[-1]) for part in (seen, *values)]
        chosen = _positions(len(flat[0]), samples, seed)
        return [part[chosen][None] for part in flat]
    batch, _, *space = values[0].shape
    chosen = _positions(batch * math.prod(space), samples, seed)
    places = torch.unravel_index(chosen, (batch, *space))
    found = []
    for part in (_windows(node, seen), *values):
        rows = part.movedim(1, 1 + len(space))[places].reshape(len(chosen), node.groups, -1)
        found.append(rows.transpose(0, 1).contiguous())
    return found


def _positions(size: int, samples: int, seed: int) -> Tensor:
    if size <= samples:
        return torch.arange(size)
    return torch.randint(size, (samples,), generator=torch.Generator().manual_seed(seed))


def _windows(node: Conv, x: Tensor) -> Tensor:
    """What the kernel covers at each place, as a view: (batch, channels, *space, *kernel)."""
    x = F.pad(x, [pad for pad in reversed(node.padding) for _ in range(2)])
    sizes = zip(node.weight.shape[2:], node.stride, node.dilation, strict=True)
    for dim, (size, stride, apart) in enumerate(sizes, start=2):
        x = x.unfold(dim, apart * (size - 1) + 1, stride)[..., ::apart]
    return x
