"""Layers whose values are times: an element is when its one spike comes, +inf where it stays silent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.eventprop import spike_trains
from neuro.first_spike import Kind, first_spike_times, membrane_of
from neuro.graph import Shape, Stateless


@dataclass(frozen=True, eq=False)
class LatencyCode(Stateless):
    """t = early + (1 - x) (late - early) for x in [0, 1]: the larger, the earlier. Shape (n,) to (n,) or (n + 1,).

    Values x <= `silent_below` stay silent (None: every value has a spike). A `bias` is a spike of its own, the same for
    all samples, at the end. Times in the unit of the tau of the layers behind. Goeltz et al. 2021, sec. Methods, with
    early 0.15 and late 2.
    """

    early: float = 0.15
    late: float = 2.0
    silent_below: float | None = None
    bias: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.early) and math.isfinite(self.late) and self.early < self.late):
            raise ParameterError(f"LatencyCode: needs early < late, both finite, got {self.early} and {self.late}")
        if self.bias is not None and not math.isfinite(self.bias):
            raise ParameterError(f"LatencyCode: bias must be a finite time or None, got {self.bias}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 1:
            raise ShapeError(f"LatencyCode: takes features (n,), got {shapes[0]}; flatten them first")
        return (shapes[0][0] + (self.bias is not None),)

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        times = self.early + (1 - x) * (self.late - self.early)
        if self.silent_below is not None:
            times = torch.where(x > self.silent_below, times, torch.inf)
        if self.bias is not None:
            times = torch.cat([times, times.new_full((len(x), 1), self.bias)], 1)
        return times


@dataclass(frozen=True, eq=False)
class TimeToFirstSpike(Stateless):
    """Neurons with exponential synapses that fire at most once; times in, times out: see `first_spike_times`.

    weight (out, in), theta one or (out,), the kind of `membrane`, `tau` the synaptic time constant in the unit of the
    times; delays >= 0 of axons (in,) and synapses (out, in). Goeltz et al. 2021 ("equal", "double"), Mostafa 2017
    ("non-leaky"), Comsa et al. 2020 ("alpha"), delays as in DelGrad.
    """

    weight: Tensor
    theta: Tensor
    membrane: Kind = "equal"
    tau: float = 1.0
    axonal: Tensor | None = None
    synaptic: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        membrane_of(self.membrane)
        if self.weight.ndim != 2:
            raise ShapeError(f"TimeToFirstSpike: weight must be (out, in), got {tuple(self.weight.shape)}")
        outputs, inputs = self.weight.shape
        for name, shapes in (
            ("theta", ((), (outputs,))), ("axonal", ((inputs,),)), ("synaptic", ((outputs, inputs),))
        ):  # fmt: skip
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) not in shapes:
                raise ShapeError(f"TimeToFirstSpike: {name} must have shape {shapes[-1]}, got {tuple(tensor.shape)}")
            if tensor is not None and bool(((tensor <= 0) if name == "theta" else (tensor < 0)).any()):
                least = "> 0" if name == "theta" else ">= 0"
                raise ParameterError(f"TimeToFirstSpike: {name} must be {least}, got {float(tensor.min())}")
        if not (self.tau > 0 and math.isfinite(self.tau)):
            raise ParameterError(f"TimeToFirstSpike: tau must be > 0 and finite, got {self.tau}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if shapes[0] != (self.weight.shape[1],):
            raise ShapeError(f"TimeToFirstSpike: takes ({self.weight.shape[1]},) times, got {shapes[0]}")
        return (len(self.weight),)

    def forward(self, *inputs: Tensor) -> Tensor:
        return first_spike_times(
            inputs[0], self.weight, self.theta, membrane=self.membrane, tau=self.tau, axonal=self.axonal,
            synaptic=self.synaptic,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class TimedLIF(Stateless):
    """Neurons with exponential synapses that fire up to `most` times; spike trains in, spike trains out.

    Takes times (in,) or trains (in, k), gives (out, most) in order, +inf behind the last spike: see `spike_trains`.
    weight (out, in), theta one or (out,). Trained by EventProp, Wunderlich and Pehle 2021.
    """

    weight: Tensor
    theta: Tensor
    membrane: Kind = "double"
    tau: float = 1.0
    most: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        membrane_of(self.membrane)
        if self.weight.ndim != 2 or tuple(self.theta.shape) not in ((), (len(self.weight),)):
            raise ShapeError(
                f"TimedLIF: weight must be (out, in) and theta one or (out,), got {tuple(self.weight.shape)} and "
                f"{tuple(self.theta.shape)}"
            )
        if bool((self.theta <= 0).any()):
            raise ParameterError(f"TimedLIF: theta must be > 0, got {float(self.theta.min())}")
        if isinstance(self.most, bool) or not isinstance(self.most, int) or self.most < 1:
            raise ParameterError(f"TimedLIF: most must be a whole number >= 1, got {self.most!r}")
        if not (self.tau > 0 and math.isfinite(self.tau)):
            raise ParameterError(f"TimedLIF: tau must be > 0 and finite, got {self.tau}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) not in (1, 2) or shapes[0][0] != self.weight.shape[1]:
            raise ShapeError(f"TimedLIF: takes ({self.weight.shape[1]},) times or trains, got {shapes[0]}")
        return (len(self.weight), self.most)

    def forward(self, *inputs: Tensor) -> Tensor:
        (times,) = inputs
        trains = times[..., None] if times.ndim == 2 else times
        return spike_trains(
            trains, self.weight, self.theta, membrane=self.membrane, tau=self.tau, most=self.most
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class EarliestWins(Stateless):
    """y = -min(t, latest), t the first spike of a neuron: the earlier, the larger; silent neurons score -latest.

    Takes times (n,) or trains (n, k).
    """

    latest: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.latest > 0 and math.isfinite(self.latest)):
            raise ParameterError(f"EarliestWins: latest must be > 0 and finite, got {self.latest}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) not in (1, 2):
            raise ShapeError(f"EarliestWins: takes times (n,) or trains (n, k), got {shapes[0]}")
        return shapes[0][:1]

    def forward(self, *inputs: Tensor) -> Tensor:
        (times,) = inputs
        first = times[..., 0] if times.ndim == 3 else times
        return -first.clamp(max=self.latest)
