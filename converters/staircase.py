"""The staircase that an IF neuron makes of a ReLU, with a gradient; IF neurons as nodes of a network without time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.dynamics import rest
from neuro.errors import ParameterError
from neuro.graph import Shape, Stateless
from neuro.kernels import run_steps
from neuro.kernels.narrow import fire
from neuro.nodes import IF, Elementwise, MaxPool


def clip_floor_shift(z: Tensor, ceiling: Tensor, levels: int) -> Tensor:
    """n = clip(floor(z L / lambda + 1/2), 0, L): spikes of an IF neuron with v0 = theta / 2 for a constant current."""
    return z.mul((levels / ceiling).to(z.dtype)).add_(0.5).floor_().clamp_(0, levels)


class _StraightThrough(torch.autograd.Function):
    """lambda n / steps, with the gradients of Bu et al. 2022: floor counts as the identity, n as a step of lambda."""

    @staticmethod
    def forward(ctx, z: Tensor, ceiling: Tensor, counts: Tensor, steps: int) -> Tensor:
        ctx.save_for_backward(z, ceiling, counts)
        ctx.steps = steps
        return counts * (ceiling / steps).to(z.dtype)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, ceiling, counts = ctx.saved_tensors
        (gradient,) = gradients
        share = z * ceiling.reciprocal().to(z.dtype)
        passing = torch.ops.aten.hardtanh_backward  # its first argument where the second lies in (0, 1), else 0
        reach = counts.mul(1 / ctx.steps).sub_(passing(share, share, 0, 1)).mul_(gradient)
        reach = reach.sum(0, dtype=torch.float32).sum_to_size(ceiling.shape)
        return passing(gradient, share, 0, 1), reach, None, None


@dataclass(frozen=True, eq=False)
class ClipFloorShift(Elementwise):
    """h(z) = lambda clip(floor(z L / lambda + 1/2) / L, 0, 1), `ceiling` lambda > 0, in the units of z.

    Bu et al. 2022 (arXiv 2303.04347), eq. 12 [recalled]. The gradient passes the floor unchanged. `counts`, where
    given, stand for the quantised value: spikes that were counted over `levels` steps.
    """

    ceiling: Tensor
    levels: int
    counts: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool((self.ceiling.detach() <= 0).any()) or self.levels < 1:
            least = float(self.ceiling.detach().min())
            raise ParameterError(f"ClipFloorShift: ceiling must be > 0 and levels >= 1, got {least} and {self.levels}")

    def forward(self, *inputs: Tensor) -> Tensor:
        z = inputs[0]
        with torch.no_grad():
            counts = clip_floor_shift(z, self.ceiling, self.levels) if self.counts is None else self.counts.to(z.dtype)
        return _StraightThrough.apply(z, self.ceiling, counts, self.levels)


@dataclass(frozen=True, eq=False)
class Fires(Elementwise):
    """Spikes of IF neurons, each worth theta = `ceiling`, v0 = theta / 2; rows are (steps * batch, *features).

    `tell` gets their numbers, (batch, *features).
    """

    ceiling: Tensor
    steps: int
    tell: Callable[[Tensor], None]

    def forward(self, *inputs: Tensor) -> Tensor:
        # channels last, as images lie in memory
        current = inputs[0].unflatten(0, (self.steps, -1)).movedim(2, -1)
        theta = self.ceiling.movedim(0, -1)
        if current.dtype == torch.bfloat16 and current.device.type == "cpu":
            weighted, counts = fire(current, theta)
        else:
            node = IF(theta, theta / 2)
            _, spikes, _ = run_steps(node, rest(node, current.shape[1], tuple(current.shape[2:])), current, self.steps)
            weighted, counts = spikes * theta, spikes.sum(0)
        self.tell(counts.movedim(-1, 1))
        return weighted.movedim(-1, 2).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Peaks(Stateless):
    """A max-pool of spike counts, as MaxCount, for spikes with one weight per channel; rows (steps * batch, ...)."""

    pool: MaxPool
    steps: int

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.pool.output_shape(*shapes)

    def forward(self, *inputs: Tensor) -> Tensor:
        sums = inputs[0].float().unflatten(0, (self.steps, -1)).cumsum(0)
        peaks = self.pool.forward(sums.flatten(0, 1)).unflatten(0, (self.steps, -1))
        return torch.diff(peaks, dim=0, prepend=torch.zeros_like(peaks[:1])).flatten(0, 1).to(inputs[0].dtype)
