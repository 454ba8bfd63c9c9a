"""What trains in the place of neurons: the staircase that they make of a ReLU, and their spikes as rows of a batch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.errors import ParameterError
from neuro.graph import Graph, Node, Shape, Stateless
from neuro.kernels.if_through_time import fire
from neuro.nodes import IF, Elementwise, MaxCount, Readout


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

    Bu et al. 2022 (arXiv 2303.04347), eq. 12 [recalled]. The gradient passes the floor unchanged.
    """

    ceiling: Tensor
    levels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool((self.ceiling.detach() <= 0).any()) or self.levels < 1:
            least = float(self.ceiling.detach().min())
            raise ParameterError(f"ClipFloorShift: ceiling must be > 0 and levels >= 1, got {least} and {self.levels}")

    def forward(self, *inputs: Tensor) -> Tensor:
        z = inputs[0]
        with torch.no_grad():
            counts = clip_floor_shift(z, self.ceiling, self.levels)
        return _StraightThrough.apply(z, self.ceiling, counts, self.levels)


class InTime(Stateless):
    """A node with state as one without, its rows (steps * batch, *features)."""

    @property
    @abstractmethod
    def timed(self) -> Node:
        """The node that it stands for."""


@dataclass(frozen=True, eq=False)
class Fires(Elementwise, InTime):
    """IF neurons with soft reset; gradients as in `neuro.kernels.if_through_time`."""

    theta: Tensor
    v0: Tensor
    steps: int

    def forward(self, *inputs: Tensor) -> Tensor:
        # channels last, as images lie in memory
        current = inputs[0].unflatten(0, (self.steps, -1)).movedim(2, -1)
        spikes = fire(current, *(_channels_last(p) for p in (self.theta, self.v0)))
        return spikes.movedim(-1, 2).flatten(0, 1)

    @property
    def timed(self) -> IF:
        return IF(self.theta, self.v0)


def _channels_last(parameter: Tensor) -> Tensor:
    return parameter.movedim(0, -1) if parameter.ndim else parameter


@dataclass(frozen=True, eq=False)
class Peaks(InTime):
    """MaxCount: spikes when the largest count of a window grows."""

    counter: MaxCount
    steps: int

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.counter.output_shape(*shapes)

    def forward(self, *inputs: Tensor) -> Tensor:
        sums = inputs[0].float().unflatten(0, (self.steps, -1)).cumsum(0)
        peaks = self.counter.window.forward(sums.flatten(0, 1)).unflatten(0, (self.steps, -1))
        return torch.diff(peaks, dim=0, prepend=torch.zeros_like(peaks[:1])).flatten(0, 1).to(inputs[0].dtype)

    @property
    def timed(self) -> MaxCount:
        return self.counter


@dataclass(frozen=True, eq=False)
class Mean(InTime):
    """Readout: the mean over the steps, (batch, *features)."""

    steps: int

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0].float().unflatten(0, (self.steps, -1)).mean(0)

    @property
    def timed(self) -> Readout:
        return Readout()


def as_rows(snn: Graph, steps: int) -> Graph:
    """The spiking graph as a network without state: x repeated `steps` times in, the read-out at the last step out."""

    def stateless(node: Node) -> Node:
        if isinstance(node, IF):
            return Fires(node.theta, node.v0, steps)
        if isinstance(node, MaxCount):
            return Peaks(node, steps)
        return Mean(steps) if isinstance(node, Readout) else node

    return snn.edit(nodes={name: stateless(node) for name, node in snn.nodes.items()})


def in_time(rows: Graph) -> Graph:
    """The inverse of `as_rows`."""
    return rows.edit(nodes={n: node.timed if isinstance(node, InTime) else node for n, node in rows.nodes.items()})
