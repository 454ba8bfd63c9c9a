"""IF and LIF populations that train on a GPU, fused over time with Triton. Triton is imported at the first call."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

from neuro.dynamics import State, rest
from neuro.kernels.through_time_populations import SURROGATES, coded, equation
from neuro.nodes import IF, LIF, Neuron
from neuro.surrogate import Surrogate

BLOCK = 256
"""Membranes of one program."""

STORED = (torch.float32, torch.bfloat16)
"""Element types of currents; membranes are float32."""


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on the CPU (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not(node: Neuron, current: Tensor, surrogate: Surrogate) -> str | None:
    """Why Triton cannot compute that population; None where it can."""
    if type(node) not in (IF, LIF):
        return f"no Triton kernel of {node.kind}"
    if type(surrogate) not in SURROGATES:
        return f"no fused slope of {type(surrogate).__name__}"
    if current.dtype not in STORED or any(t.dtype != torch.float32 for _, t in node.tensors()):
        return "Triton kernels take float32 or bfloat16 currents and float32 parameters"
    if not current.is_cuda and not interpreted():
        return "Triton kernels run on a GPU"
    return None if importlib.util.find_spec("triton") else "Triton is not installed"


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, surrogate: Surrogate, reset: int, keep: bool, current: Tensor, v: Tensor, beta: Tensor | None,
        theta: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        import triton

        from neuro.kernels import through_time_triton_rows as rows

        steps, batch, *features = current.shape
        i = current.contiguous()
        size = v[0].numel() if len(v) else 0
        decay, level = (
            torch.ones(size, device=i.device) if p is None else p.detach().expand(features).reshape(-1).contiguous()
            for p in (beta, theta)
        )
        first = v.detach().to(torch.float32).contiguous()
        after, z = first.clone(), torch.empty_like(i)
        kept = torch.empty_like(i) if keep else z
        words = torch.empty((steps + 31) // 32 if keep else 1, batch, size, dtype=torch.int32, device=i.device)
        if i.numel():
            rows.forward[(triton.cdiv(batch * size, BLOCK),)](
                i, after, decay, level, z, kept, words, steps, batch * size, size, RESET=reset, KEEP=keep, BLOCK=BLOCK
            )
        ctx.save_for_backward(first, decay, level, kept, words, beta, theta)
        ctx.surrogate, ctx.reset, ctx.features = surrogate, reset, features
        return z, after

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        import triton

        from neuro.kernels import through_time_triton_rows as rows

        first, decay, level, kept, words, beta, theta = ctx.saved_tensors
        g, of_v = gradients[0].contiguous(), gradients[1].clone(memory_format=torch.contiguous_format)
        of_current = torch.empty_like(g)
        of_beta, of_theta = torch.zeros_like(of_v), torch.zeros_like(of_v)
        number, shape = coded(ctx.surrogate)
        if g.numel():
            rows.backward[(triton.cdiv(first.numel(), BLOCK),)](
                g, first, decay, level, kept, words, of_v, of_current, of_beta, of_theta, *map(float, shape), len(g),
                first.numel(), decay.numel(), RESET=ctx.reset, SURROGATE=number, BLOCK=BLOCK,
            )  # fmt: skip
        return (
            None, None, None, of_current, of_v, None if beta is None else of_beta.sum(0).sum_to_size(beta.shape),
            of_theta.sum(0).sum_to_size(theta.shape),
        )  # fmt: skip


def run_triton(node: Neuron, current: Tensor, surrogate: Surrogate, state: State | None) -> tuple[Tensor, State]:
    """The same contract as `neuro.kernels.through_time.run`; outputs have the element type of the currents.

    Currents in bfloat16 halve the memory traffic; membranes and the gradients of parameters stay float32.
    """
    known = equation(node)
    assert known is not None
    start = rest(node, current.shape[1], tuple(current.shape[2:]), device=current.device) if state is None else state
    _, beta, theta, _, _ = known.parameters
    z, v = _Fused.apply(surrogate, known.reset, torch.is_grad_enabled(), current, start.v, beta, theta)
    return z, State(v, start.t + len(current))
