"""Triton kernels under Triton's interpreter, in a process of its own: they equal the reference on the CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from neuro.errors import ParameterError
from neuro.kernels import through_time
from neuro.nodes import IF, LI
from neuro.surrogate import ArcTan

CHECK = """
import torch
from neuro.kernels import through_time
from neuro.nodes import IF, LIF
from neuro.surrogate import ArcTan, Boxcar, FastSigmoid, MultiGaussian, Sigmoid, SuperSpike, Triangle

def between(low, high):
    return (low + (high - low) * torch.rand(37)).requires_grad_()

def gradients(node, current, surrogate, kernel, weights):
    given = current.clone().requires_grad_()
    z, state = through_time.run(node, given, surrogate, kernel=kernel)
    loss = (z * weights).sum() + state.v.square().sum()
    return z, state.v, *torch.autograd.grad(loss, [given, *(tensor for _, tensor in node.tensors())])

torch.manual_seed(0)
checked = 0
every = [ArcTan(), FastSigmoid(), Sigmoid(), SuperSpike(), Triangle(), Boxcar(), MultiGaussian()]
for reset in ("subtract", "zero", "none"):
    for k, surrogate in enumerate(every):
        steps = 40 if k == 0 else 5
        theta, v0 = between(0.5, 1), between(-0.5, 0.5)
        node = IF(theta, v0, reset) if k == 1 else LIF(between(0, 1), theta, v0, reset)
        current, weights = torch.randn(steps, 2, 37) + 0.3, torch.randn(steps, 2, 37)
        found = gradients(node, current, surrogate, "triton", weights)
        expected = gradients(node, current, surrogate, "reference", weights)
        assert torch.equal(found[0], expected[0]), (reset, surrogate)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), (reset, surrogate)
        checked += 1
half = torch.randn(5, 2, 37).bfloat16()
z, state = through_time.run(node, half, ArcTan(), kernel="triton")
same, _ = through_time.run(node, half.float(), ArcTan(), kernel="reference")
assert z.dtype == torch.bfloat16 and state.v.dtype == torch.float32 and torch.equal(z.float(), same)
print(checked, "equal")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed: its kernels unchecked")
def test_triton_kernels_equal_the_reference() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "21 equal"


def test_triton_can_not_be_forced_where_it_does_not_run() -> None:
    one = torch.tensor(1.0)
    with pytest.raises(ParameterError, match="kernel='triton': Triton kernels run on a GPU"):
        through_time.run(IF(one, one), torch.rand(2, 1, 3), ArcTan(), kernel="triton")
    with pytest.raises(ParameterError, match="no Triton kernel of LI"):
        through_time.run(LI(one), torch.rand(2, 1, 3), ArcTan(), kernel="triton")
