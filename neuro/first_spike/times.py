"""When neurons first fire, in closed form, and the exact gradients of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.first_spike import reference
from neuro.first_spike.membrane import Kind, Membrane, membrane_of

Backend = Literal["auto", "reference", "numba"]

FLAT = 1e-7
"""Slope over threshold below which a potential only touches the threshold: no derivative exists, 0 is given."""

_limit: ContextVar[float] = ContextVar("limit of the gradient of one neuron and sample", default=float("inf"))


@contextmanager
def gradient_limit(limit: float) -> Iterator[None]:
    """Within it, neurons of a sample whose largest |dL/dw| is above `limit` give no gradients at all.

    Near a potential that only just reaches its threshold dT/dw has no bound; Goeltz et al. 2021 drop such neurons.
    Counts for calls of `first_spike_times` made inside of it. ParameterError unless limit > 0.
    """
    if not limit > 0:
        raise ParameterError(f"gradient_limit must be > 0, got {limit}")
    token = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(token)


def first_spike_times(
    times: Tensor,
    weight: Tensor,
    theta: Tensor | float = 1.0,
    *,
    membrane: Kind = "equal",
    tau: float = 1.0,
    axonal: Tensor | None = None,
    synaptic: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """First spikes (batch, out) of neurons with exponential synapses, +inf where a neuron stays silent.

    times (batch, in): one spike per input, +inf for none. weight (out, in), as in nn.Linear. theta: thresholds, one or
    (out,), > 0. axonal (in,) and synaptic (out, in) delays are added to the times of their inputs. All times and `tau`,
    the synaptic time constant, have one unit. With eps of `Membrane`, an output fires at the first T with

        sum over arrivals t_i < T of  w_i eps((T - t_i) / tau) = theta   (alpha: tau eps).

    membrane: "equal" tau_m = tau_s, "double" tau_m = 2 tau_s (theta is threshold times leak conductance; Goeltz et al.
    2021, fast and deep), "non-leaky" (Mostafa 2017), "alpha" (Comsa et al. 2020). Gradients are exact for all tensors,
    by the implicit function theorem: dT = (dtheta - sum eps dw + sum w eps' dt / tau) / V'(T). An input after the spike
    has none. Computed in float64, whatever the type of the arguments. backend "numba" on the CPU, the torch
    "reference" elsewhere.

    Raises ShapeError and ParameterError before any work: NaN or -inf times, thresholds <= 0, shapes that do not fit.
    """
    model = membrane_of(membrane)
    theta = torch.as_tensor(theta, dtype=weight.dtype, device=weight.device)
    _check(times, weight, theta, tau, axonal, synaptic, backend)
    arrival = times if axonal is None else times + axonal
    level = (theta / tau if membrane == "alpha" else theta).expand(len(weight))
    scaled = None if synaptic is None else synaptic / tau
    # an unscaled clock keeps the bits of the times
    spikes = _FirstSpike.apply(
        arrival if tau == 1 else arrival / tau, weight, level, scaled, model, _fused(backend, weight), _limit.get()
    )
    return spikes if tau == 1 else spikes * tau


def _fused(backend: str, weight: Tensor) -> bool:
    return backend == "numba" or (backend == "auto" and weight.device.type == "cpu")


def _check(
    times: Tensor, weight: Tensor, theta: Tensor, tau: float, axonal: Tensor | None, synaptic: Tensor | None,
    backend: str,
) -> None:  # fmt: skip
    if backend not in ("auto", "reference", "numba"):
        raise ParameterError(f"first_spike_times: backend must be 'auto', 'reference' or 'numba', got {backend!r}")
    if weight.ndim != 2 or times.ndim != 2 or times.shape[1] != weight.shape[1]:
        raise ShapeError(
            "first_spike_times takes times (batch, in) and weight (out, in), "
            f"got {tuple(times.shape)} and {tuple(weight.shape)}"
        )
    outputs, inputs = weight.shape
    for name, tensor, shapes in (
        ("theta", theta, ((), (1,), (outputs,))),
        ("axonal", axonal, ((inputs,),)),
        ("synaptic", synaptic, ((outputs, inputs),)),
    ):
        if tensor is not None and tuple(tensor.shape) not in shapes:
            raise ShapeError(f"first_spike_times: {name} must have shape {shapes[-1]}, got {tuple(tensor.shape)}")
    if not (0 < tau < float("inf")):
        raise ParameterError(f"first_spike_times: tau must be > 0 and finite, got {tau}")
    if bool((theta.detach() <= 0).any()):
        raise ParameterError(f"first_spike_times: theta must be > 0, got {float(theta.detach().min())}")
    if not bool((times.detach() > -torch.inf).all()):
        raise ParameterError("first_spike_times: times hold NaN or -inf; a silent input is +inf")
    if backend == "numba" and weight.device.type != "cpu":
        raise ParameterError(f"first_spike_times: backend 'numba' runs on the CPU, the weights are on {weight.device}")


class _FirstSpike(torch.autograd.Function):
    """Times and parameters in units of tau_s in, spike times out."""

    @staticmethod
    def forward(
        ctx: Any, times: Tensor, weight: Tensor, theta: Tensor, delay: Tensor | None, model: Membrane, fused: bool,
        limit: float,
    ) -> Tensor:  # fmt: skip
        engine: Any = _Numba if fused else _Reference
        engine = engine(model, times, weight, theta, delay)
        spikes, slopes = engine.forward()
        ctx.engine, ctx.spikes, ctx.slopes, ctx.limit = engine, spikes, slopes, limit
        return spikes.to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        engine, spikes, slopes = ctx.engine, ctx.spikes, ctx.slopes
        fired = torch.isfinite(spikes) & (slopes > FLAT * engine.theta.double())
        pull = torch.where(fired, -given[0].double() / torch.where(fired, slopes, 1.0), 0.0)
        if ctx.limit < float("inf"):
            pull = engine.limited(spikes, pull, ctx.limit)
        of_times, of_weight, of_delay = engine.backward(spikes, pull, ctx.needs_input_grad[0])
        kinds = (engine.times, engine.weight, engine.theta, engine.delay)
        found = (of_times, of_weight, -pull.sum(0), of_delay)
        cast = (None if g is None or t is None else g.to(t.dtype) for g, t in zip(found, kinds, strict=True))
        return (*cast, None, None, None)


class _Reference:
    def __init__(self, model: Membrane, times: Tensor, weight: Tensor, theta: Tensor, delay: Tensor | None) -> None:
        self.model, self.times, self.weight, self.theta, self.delay = model, times, weight, theta, delay
        self.exact = [None if tensor is None else tensor.double() for tensor in (times, weight, theta, delay)]

    def forward(self) -> tuple[Tensor, Tensor]:
        times, weight, theta, delay = self.exact
        assert times is not None
        assert weight is not None
        assert theta is not None
        return reference.forward(self.model, times, weight, theta, delay)

    def limited(self, spikes: Tensor, pull: Tensor, limit: float) -> Tensor:
        times, _, _, delay = self.exact
        assert times is not None
        return torch.where(
            pull.abs() * reference.largest_responses(self.model, times, delay, spikes) <= limit, pull, 0.0
        )

    def backward(self, spikes: Tensor, pull: Tensor, want_times: bool) -> tuple[Tensor | None, ...]:
        times, weight, _, delay = self.exact
        assert times is not None
        assert weight is not None
        return reference.backward(self.model, times, weight, delay, spikes, pull)


class _Numba:
    def __init__(self, model: Membrane, times: Tensor, weight: Tensor, theta: Tensor, delay: Tensor | None) -> None:
        self.model, self.times, self.weight, self.theta, self.delay = model, times, weight, theta, delay
        self.constants = (model.leak, model.gain)
        self.at = as_array(times.double())
        self.level = as_array(theta.double())
        self.dense = None if delay is None else (as_array(weight.double()), as_array(delay.double()))
        self.columns = None if self.dense is not None else _columns(weight)

    def forward(self) -> tuple[Tensor, Tensor]:
        from neuro.kernels import first_spike, first_spike_delays

        with torch_threads():
            if self.dense is not None:
                spikes, slopes = first_spike_delays.forward(self.at, *self.dense, self.level, *self.constants)
            else:
                self.order, counts, self.steps = first_spike.prepared(self.at, *self.constants)
                spikes, slopes, self.last = first_spike.forward(
                    self.at, self.order, counts, self.steps, self.columns, self.level, *self.constants
                )
        return torch.from_numpy(spikes), torch.from_numpy(slopes)

    def limited(self, spikes: Tensor, pull: Tensor, limit: float) -> Tensor:
        from neuro.kernels import first_spike, first_spike_delays

        with torch_threads():
            if self.dense is not None:
                most = first_spike_delays.largest_responses(self.at, self.dense[1], *self.constants, spikes.numpy())
                return torch.where(pull.abs() * torch.from_numpy(most) <= limit, pull, 0.0)
            return torch.from_numpy(
                first_spike.limited(
                    self.at, self.order, *self.constants, self.model.peak, spikes.numpy(), self.last, as_array(pull),
                    limit,
                )
            )  # fmt: skip

    def backward(self, spikes: Tensor, pull: Tensor, want_times: bool) -> tuple[Tensor | None, ...]:
        from neuro.kernels import first_spike, first_spike_delays

        force = as_array(pull)
        with torch_threads():
            if self.dense is not None:
                of_weight, of_delay, of_times = first_spike_delays.backward(
                    self.at, *self.dense, *self.constants, spikes.numpy(), force
                )
                return torch.from_numpy(of_times), torch.from_numpy(of_weight), torch.from_numpy(of_delay)
            of_weight, of_times = first_spike.backward(
                self.at, self.order, self.steps, self.columns, *self.constants, spikes.numpy(), self.last, force,
                want_times,
            )  # fmt: skip
        of_rows = torch.from_numpy(of_weight)[:, : len(self.weight)].t()
        return torch.from_numpy(of_times.sum(0)) if want_times else None, of_rows, None


def as_array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())


def _columns(weight: Tensor) -> np.ndarray:
    """(in, out) with columns of zeros up to a whole number of vectors."""
    from neuro.kernels.first_spike import LANES

    padded = weight.new_zeros(weight.shape[1], -(-len(weight) // LANES) * LANES)
    padded[:, : len(weight)] = weight.detach().t()
    return padded.numpy()


@contextmanager
def torch_threads() -> Iterator[None]:
    """The first parallel launch of numba may change how many threads torch uses."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
