"""Populations that count in windows: the fused kernel, the equations and the closed form tell the same integers."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from neuro.dynamics import rest
from neuro.kernels import counting, run_steps
from neuro.nodes import CountThenFire
from neuro.windows import spike_counts, unfolded


@given(
    shape=st.sampled_from([(1,), (5,), (2, 3, 4), (counting.BLOCK + 1,)]),
    start=st.integers(1, 6),
    levels=st.integers(1, 5),
    cut=st.integers(1, 11),
    held=st.booleans(),
    keep=st.booleans(),
    dtype=st.sampled_from([torch.int32, torch.int64]),
    seed=st.integers(0, 10**6),
)
def test_steps_equal_the_equations_and_the_closed_form(
    shape: tuple[int, ...], start: int, levels: int, cut: int, held: bool, keep: bool, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randint(1, 40, shape, generator=generator, dtype=torch.int32)
    node = CountThenFire(theta, torch.randint(-9, 20, shape, generator=generator, dtype=torch.int32), start, levels)
    steps = 12
    current = torch.randint(-30, 50, (1 if held else steps, 2, *shape), generator=generator).to(dtype)
    assert counting.supports(node, current)
    wanted, spikes, potentials = run_steps(node, rest(node, 2, shape), current, steps, keep, "reference")
    state, found, kept = run_steps(node, rest(node, 2, shape), current, steps, keep)
    assert found.dtype == spikes.dtype == dtype
    assert torch.equal(found, spikes)
    assert torch.equal(state.v, wanted.v)
    if keep:
        assert torch.equal(kept, potentials)  # type: ignore[arg-type]
    closed = spike_counts(node, current.expand(steps, *current.shape[1:]))
    assert torch.equal(unfolded(node, closed, steps), found.int())
    state, first, _ = run_steps(node, rest(node, 2, shape), current[:cut], cut)
    _, second, _ = run_steps(node, state, current if held else current[cut:], steps - cut)
    assert torch.equal(torch.cat([first, second]), found)
