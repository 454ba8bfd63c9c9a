"""At equal storage: every rival keeps about as many words as the dense network, the places of its weights included."""

from __future__ import annotations

import pytest
import torch

from neuro.baselines.compressed import stored_words
from neuro.baselines.registry import RIVALS
from neuro.baselines.rival import Plan
from neuro.datasets import Split

PLAN = Plan(epochs=2, batch_size=50)
DENSE = 266_610
"""784-300-100-10."""

LEAST = {"photonic": 0.89, "photonic-faint": 0.89, "hd-levels": 0.0}
"""Whole tiles make large steps, see `_as_many_phases`; `searched` may find that fewer dimensions do better."""

SIZED = ("dense", "int8", "quantised", "pruned", "gradual", "2:4", "sparse-momentum", "rigl", "rigl-uniform", "set",
         "static", "static-uniform", "switch-parameters", "hd-vanilla", "hd-adapt", "hd-online", "hd-trained",
         "hd-levels", "photonic", "photonic-faint")  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Split:
    """Noise of the size of MNIST: what is learnt does not matter, how much is kept does."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for count in (100, 50, 50):
        parts += [torch.rand(count, 1, 28, 28, generator=generator), torch.arange(count) % 10]
    return Split("noise", *parts, tuple(map(str, range(10))), "made for this test")


def test_the_rows_that_have_such_a_size(data: Split) -> None:
    assert tuple(name for name, rival in RIVALS.items() if rival.equal(data, PLAN) is not None) == SIZED


@pytest.mark.parametrize("name", SIZED)
def test_as_many_words_as_the_dense_network(name: str, data: Split) -> None:
    if name.startswith("hd-"):
        pytest.importorskip("torchhd", reason="hypervectors need torch-hd")
    plan = RIVALS[name].equal(data, PLAN)
    assert plan is not None
    words = stored_words(RIVALS[name].build(data, 0, plan).graph)
    assert LEAST.get(name, 0.98) * DENSE <= words <= 1.02 * DENSE
