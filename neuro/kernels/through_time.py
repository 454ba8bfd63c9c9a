"""Training through time on the fastest kernel that computes a layer exactly; which one, and why, can be asked."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from neuro.dynamics import State, rest
from neuro.errors import ParameterError
from neuro.graph import Graph, Input, Node, Shape, Stateless
from neuro.kernels import through_time_affine as affine
from neuro.kernels.reference import run_steps
from neuro.kernels.through_time_lists import Lists, density, listed
from neuro.kernels.through_time_pooled import Events, Pooled, followed, window
from neuro.kernels.through_time_populations import coded, equation, run_fused, table, why_not
from neuro.kernels.through_time_triton import run_triton
from neuro.kernels.through_time_triton import why_not as why_not_triton
from neuro.nodes import Affine, AvgPool, Conv, Neuron
from neuro.surrogate import Surrogate, spike

Kernel = Literal["auto", "reference", "numba", "triton"]
"""reference: `neuro.dynamics.step` in a loop under autograd, products dense. numba: populations fused over time,
products on what is not zero wherever that can be. triton: populations fused over time on a GPU. auto: the fastest one
of those that are exact."""

FOLLOWING: tuple[Kernel, ...] = ("auto", "numba")
"""Kernels whose products may follow what is not zero."""

EVENTS_PAY = 0.35
"""Share of inputs that are not zero up to which sums of listed rows take less time than the dense product.

Measured on 784-1000 with random inputs against torch: the times meet at about 0.5, forward and backward; inputs that
come back in time, as those of images do, cost less.
"""

MOST_CHANNELS = 4
"""Wider inputs of a convolution leave too little of an image row to each event: dense products are faster."""

FEWEST_COLUMNS = 64
"""Narrower products cost less than the lists that they would save."""


def run(
    node: Neuron, current: Tensor, surrogate: Surrogate, state: State | None = None, kernel: Kernel = "auto"
) -> tuple[Tensor, State]:
    """Outputs (time, batch, *features) of a population, and its state after the last step.

    current (time, batch, *features). Differentiable in the current, the state and the tensors of the node; a spike has
    the slope of the surrogate, a reset none. Raises ParameterError for a kernel that does not know the population.
    """
    _check(kernel)
    ways = {"numba": (why_not, run_fused), "triton": (why_not_triton, run_triton)}
    if kernel in ways:
        reason = ways[kernel][0](node, current, surrogate)
        if reason is not None:
            raise ParameterError(f"kernel={kernel!r}: {reason}; use 'auto' or 'reference'")
    for name, (refused, fused) in ways.items():
        if kernel == name or (kernel == "auto" and refused(node, current, surrogate) is None):
            return fused(node, current, surrogate, state)
    return run_reference(node, current, surrogate, state)


def run_reference(node: Neuron, current: Tensor, surrogate: Surrogate, state: State | None) -> tuple[Tensor, State]:
    """`neuro.dynamics.step` after step, under autograd: what every other kernel must equal."""

    def fire(v: Tensor, theta: Tensor, strict: bool = False) -> Tensor:
        return spike(v - theta, surrogate, strict)

    if state is None:
        state = rest(node, current.shape[1], tuple(current.shape[2:]), current.dtype, current.device)
    state, z, _ = run_steps(node, state, current, len(current), keep=False, fire=fire)
    return z, state


def product(node: Stateless, x: Tensor, needs_input_gradient: bool = True, kernel: Kernel = "auto") -> Tensor:
    """y = node(x) for x (time, batch, *features), step by step: dense, or sums over what is not zero in x.

    Differentiable in the tensors of the node and, where asked, in x; gradients are those of the dense product up to
    rounding. An x that is held constant (expanded over time) is multiplied once.
    """
    _check(kernel)
    x = x if needs_input_gradient else x.detach()
    if _held(x):
        y = node.forward(x[0])
        return y.expand(len(x), *y.shape)
    lists = _events(node, x, kernel)
    if lists is not None and isinstance(node, Affine):
        flat = x.reshape(len(x), -1, x.shape[-1])
        return _Product.apply(lists, flat, node.weight, node.bias).reshape(*x.shape[:-1], -1)
    return node.forward(_channels_last(node, x.flatten(0, 1))).unflatten(0, x.shape[:2])


def _channels_last(node: Stateless, rows: Tensor) -> Tensor:
    """On the CPU, two-dimensional convolutions are faster with channels last, and populations read them as well."""
    planar = isinstance(node, Conv) and node.weight.ndim == 4 and rows.device.type == "cpu"
    return rows.contiguous(memory_format=torch.channels_last) if planar else rows


def layer(
    node: Stateless, population: Neuron, x: Tensor, surrogate: Surrogate, state: State | None = None,
    needs_input_gradient: bool = True, kernel: Kernel = "auto", pool: AvgPool | None = None,
) -> tuple[Tensor, State]:  # fmt: skip
    """`run(population, product(node, x))`, then `pool` step by step, in one pass where they have kernels.

    Currents then stay in the cache, and spikes that only the pool reads are never written.
    """
    _check(kernel)
    x = x if needs_input_gradient else x.detach()
    fusible = kernel in FOLLOWING and x.numel() > 0 and why_not(population, x, surrogate) is None
    known = equation(population) if fusible else None
    if known is not None and isinstance(node, Affine) and x.ndim == 3 and pool is None and not _held(x):
        lists = _events(node, x, kernel)
        if lists is not None:
            start, s = _start(population, x.shape[1], (len(node.weight),), state)
            form, keep = (known.family, known.reset, known.delay), torch.is_grad_enabled()
            own = (node.weight, node.bias, start.v, s, *known.parameters)
            return _after(_Layer.apply(lists, surrogate, form, keep, x, *own), start, len(x))
    if known is not None and isinstance(node, Conv) and x.ndim == 5 and node.weight.dtype == torch.float32:
        shape = node.output_shape(tuple(x.shape[2:]))
        over = window(pool, shape)
        lists = _convolved_events(node, x, kernel) if over is not None else None
        if lists is not None:
            start, s = _start(population, x.shape[1], shape, state)
            own = (node.weight, node.bias, start.v, s, *known.parameters)
            found = Events.apply(surrogate, known, over, lists, tuple(x.shape[2:]), node, *own)
            return _after(found, start, len(x))
        if over is not None and pool is not None:
            current = product(node, x, needs_input_gradient, kernel)
            start, s = _start(population, x.shape[1], shape, state)
            return _after(Pooled.apply(surrogate, known, over, current, start.v, s, *known.parameters), start, len(x))
    z, after = run(population, product(node, x, needs_input_gradient, kernel), surrogate, state, kernel)
    return z if pool is None else product(pool, z, kernel=kernel), after


def _start(population: Neuron, batch: int, shape: Shape, state: State | None) -> tuple[State, Tensor]:
    """The state before the first step, and its synaptic current, or something of that shape where there is none."""
    start = rest(population, batch, shape) if state is None else state
    return start, start.kept[0] if start.kept else start.v.detach()


def _after(found: tuple[Tensor, Tensor, Tensor], start: State, steps: int) -> tuple[Tensor, State]:
    z, v, s = found
    return z, State(v, start.t + steps, (s,) if start.kept else ())


def _convolved_events(node: Conv, x: Tensor, kernel: Kernel) -> Lists | None:
    """What is not zero in images x, by image row, where a convolution should follow it: it passes no gradient to x."""
    if x.requires_grad or _held(x) or not followed(node):
        return None
    if kernel == "auto" and node.weight.shape[1] > MOST_CHANNELS:
        return None
    steps, batch, channels, height, width = x.shape
    by_row = x.detach().movedim(2, -1).reshape(steps, batch * height, width * channels)
    share, binary, counts = density(by_row)
    return listed(by_row, binary, counts) if share <= EVENTS_PAY or kernel == "numba" else None


def why_dense(node: Stateless, x: Tensor) -> str | None:
    """Why a product does not follow what is not zero in x (time, batch, *features); None where it can and pays."""
    reason = _impossible(node, x)
    if reason is None and len(node.weight) < FEWEST_COLUMNS:  # type: ignore[attr-defined]
        return f"fewer than {FEWEST_COLUMNS} outputs"
    if reason is None:
        share = density(x.reshape(len(x), -1, x.shape[-1]))[0]
        return None if share <= EVENTS_PAY else f"{100 * share:.0f} % of the inputs are not zero"
    return reason


class Choice(NamedTuple):
    """Which kernel a layer takes when it trains on this machine, and why."""

    node: str
    kernel: str
    why: str


def plan(graph: Graph, surrogate: Surrogate) -> list[Choice]:
    """The choice for every product and population of a graph; what depends on activity says at which share it turns."""
    return [
        _choice(graph, name, node, surrogate)
        for name, node in graph.nodes.items()
        if isinstance(node, Affine | Conv | Neuron)
    ]


def _choice(graph: Graph, name: str, node: Node, surrogate: Surrogate) -> Choice:
    if isinstance(node, Neuron):
        reason = why_not(node, torch.empty(1), surrogate)
        return Choice(name, *(("numba", "fused over time") if reason is None else ("reference", reason)))
    x = torch.empty(1, 1, *graph.shapes[graph.sources[name][0]])
    if isinstance(node, Conv):
        outside = isinstance(graph.nodes[graph.sources[name][0]], Input)
        if outside and followed(node) and node.weight.shape[1] <= MOST_CHANNELS:
            return Choice(
                name, "events", f"an input up to {EVENTS_PAY:.0%} not zero that needs no gradient; else dense"
            )
        return Choice(name, "dense", "torch with channels last; events pay on few input channels without gradient")
    reason = _impossible(node, x) if isinstance(node, Stateless) else None
    if reason is None and isinstance(node, Affine) and len(node.weight) < FEWEST_COLUMNS:
        reason = f"fewer than {FEWEST_COLUMNS} outputs"
    if reason is not None:
        return Choice(name, "dense", reason)
    return Choice(name, "events", f"while up to {EVENTS_PAY:.0%} of the inputs are not zero; dense above")


def _check(kernel: str) -> None:
    if kernel not in get_args(Kernel):
        raise ParameterError(f"kernel must be one of {', '.join(map(repr, get_args(Kernel)))}, got {kernel!r}")


def _held(x: Tensor) -> bool:
    return len(x) > 1 and x.stride(0) == 0


def _impossible(node: Stateless, x: Tensor) -> str | None:
    if not isinstance(node, Affine):
        return f"no events through {node.kind}"
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in (x, node.weight)):
        return "events in float32 on the CPU only"
    return None


def _events(node: Stateless, x: Tensor, kernel: Kernel) -> Lists | None:
    """What is not zero in x, where the product should follow it."""
    if kernel not in FOLLOWING or _impossible(node, x) is not None or not x.numel():
        return None
    if kernel == "auto" and len(node.weight) < FEWEST_COLUMNS:  # type: ignore[attr-defined]
        return None
    flat = x.detach().reshape(len(x), -1, x.shape[-1])
    share, binary, counts = density(flat)
    return listed(flat, binary, counts) if share <= EVENTS_PAY or kernel == "numba" else None


def _through(g: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the input, g W, from what is not zero in g (time, batch, out)."""
    share, binary, counts = density(g)
    if share <= EVENTS_PAY and weight.shape[1] >= FEWEST_COLUMNS:
        return affine.product(listed(g, binary, counts), affine.tiles(weight), None, weight.shape[1])
    return g @ weight


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lists: Lists, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.lists = lists
        ctx.save_for_backward(weight)
        return affine.product(lists, affine.tiles(weight.t()), bias, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        g = gradients[0].contiguous()
        of_weight, of_bias = affine.weight_gradient(ctx.lists, g) if any(ctx.needs_input_grad[2:]) else (None, None)
        of_x = _through(g, weight) if ctx.needs_input_grad[1] else None
        return None, of_x, of_weight, of_bias if ctx.needs_input_grad[3] else None


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, lists: Lists, surrogate: Surrogate, form: tuple[int, int, bool], keep: bool, x: Tensor,
        weight: Tensor, bias: Tensor | None, v: Tensor, s: Tensor, *parameters: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        own = table(parameters, (len(weight),), False)
        after, synapse = (state.detach().clone(memory_format=torch.contiguous_format) for state in (v, s))
        z, current = affine.layer(form, lists, affine.tiles(weight.t()), bias, after, synapse, own, keep)
        ctx.save_for_backward(weight, current, v, s, *parameters)
        ctx.lists, ctx.surrogate, ctx.form, ctx.own = lists, surrogate, form, own
        return z, after, synapse

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, current, v, s, *parameters = ctx.saved_tensors
        of_z = gradients[0].contiguous()
        of_v, of_s = (g.clone(memory_format=torch.contiguous_format) for g in gradients[1:])
        wanted = ctx.needs_input_grad
        learn = any(wanted[9:])
        of_weight, of_bias, of_current, of_own = affine.layer_back(
            ctx.form, ctx.lists, current, v.contiguous(), s.contiguous(), ctx.own, *coded(ctx.surrogate), of_z, of_v,
            of_s, wanted[4], learn,
        )  # fmt: skip
        of_x = None if of_current is None else _through(of_current, weight)
        found = [None] * len(parameters) if of_own is None else of_own
        return (
            None, None, None, None, of_x, of_weight, of_bias if wanted[6] else None, of_v, of_s,
            *(
                None if p is None or g is None else g.sum_to_size(p.shape)
                for p, g in zip(parameters, found, strict=True)
            ),
        )  # fmt: skip
