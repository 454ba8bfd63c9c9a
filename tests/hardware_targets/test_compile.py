"""compile and run: the chip's integers follow the floating-point network, and what they lose is reported."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters import RateCode, convert
from hardware_targets import compile, load_chip, price, run
from hardware_targets.compile import encode_input
from hardware_targets.loihi.program import Conv2d, Sparse
from neuro.errors import DoesNotFit, ParameterError, ShapeError, UnsupportedNode
from neuro.graph import Graph, Input
from neuro.nodes import Add, Affine, AvgPool, Conv, MaxPool, ReLU, Reshape
from neuro.simulate import simulate

LOIHI2 = load_chip("loihi2")


def residual(seed: int, pool: type = AvgPool) -> Graph:
    """conv - relu - (conv + identity) - relu - pool - conv - relu - fc: a shortcut, a pool, shared kernels."""
    generator = torch.Generator().manual_seed(seed)

    def conv(out: int, into: int, stride: int = 1) -> Conv:
        weight = torch.randn(out, into, 3, 3, generator=generator) / (into * 9) ** 0.5
        return Conv(1.4 * weight, 0.1 * torch.randn(out, generator=generator), (stride, stride), (1, 1), (1, 1))

    nodes = {
        "x": Input((2, 8, 8)), "c1": conv(4, 2), "r1": ReLU(), "c2": conv(4, 4), "r2": ReLU(), "c3": conv(4, 4),
        "add": Add(), "r3": ReLU(), "p": pool((2, 2), (2, 2), (0, 0)), "c4": conv(6, 4), "r4": ReLU(),
        "f": Reshape((96,)),
        "fc": Affine(torch.randn(5, 96, generator=generator) / 10, torch.randn(5, generator=generator) / 10),
    }  # fmt: skip
    order = ["x", "c1", "r1", "c2", "r2", "c3"]
    sources = {after: (before,) for before, after in pairwise(order)}
    sources |= {
        "add": ("c3", "r1"),
        "r3": ("add",),
        "p": ("r3",),
        "c4": ("p",),
        "r4": ("c4",),
        "f": ("r4",),
        "fc": ("f",),
    }
    return Graph(nodes, sources, "residual")


@pytest.fixture(scope="module")
def snn_and_x():
    x = torch.rand(12, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    return convert(residual(0), RateCode(), calibration=x), x


def test_the_chip_follows_the_network(snn_and_x) -> None:
    snn, x = snn_and_x
    program = compile(snn, LOIHI2, calibration=x)
    for steps in (16, 128):
        on_chip, in_float = run(program, x, steps=steps), simulate(snn, x, steps=steps)
        scale = float(in_float.outputs.abs().max())
        assert float((on_chip.outputs - in_float.outputs).abs().max()) < 0.1 * scale
        assert on_chip.counts.total.spikes == pytest.approx(in_float.counts.total.spikes, rel=0.1)
    assert on_chip.saturated["readout"] == 0


def test_errors_are_small_and_named(snn_and_x) -> None:
    snn, x = snn_and_x
    program = compile(snn, LOIHI2, calibration=x)
    assert [error.layer for error in program.errors] == ["r1", "r2", "r3", "r4", "readout"]
    for error in program.errors:
        assert error.weight < 0.02
        assert error.bias < 0.01
        assert error.clipped == 0


def test_fewer_weight_bits_lose_more(snn_and_x) -> None:
    from dataclasses import replace

    from hardware_targets import Quantity

    snn, x = snn_and_x
    errors = []
    for bits in (8, 6, 4):
        narrow = replace(
            LOIHI2, arithmetic={**LOIHI2.arithmetic, "weight_bits": Quantity((bits,), "bit", "this test", "assumed")}
        )
        program = compile(snn, narrow, calibration=x)
        assert all(connection.num_weight_bits == bits for connection in program.integers.connections)
        errors.append(max(error.weight for error in program.errors))
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_weights_are_held_by_the_format_unchanged(snn_and_x, bits: int) -> None:
    """Multiples of what the format stores, within its range: the chip finds no bits to cut."""
    snn, x = snn_and_x
    program = compile(snn, LOIHI2, calibration=x, weight_bits=bits)
    for connection in program.integers.connections:
        assert connection.num_weight_bits == bits
        assert np.abs(connection.weights).max() <= 254
        assert (connection.weights % 2 ** (9 - bits) == 0).all()
        if hasattr(connection, "rows"):  # Lava's convolution cuts nothing anyway
            assert np.array_equal(connection.effective_weights, connection.weights)


def test_few_bits_still_follow_the_network(snn_and_x) -> None:
    snn, x = snn_and_x
    wanted = simulate(snn, x, steps=64).outputs
    apart = []
    for bits in (8, 5, 4, 3):
        found = run(compile(snn, LOIHI2, calibration=x, weight_bits=bits), x, steps=64).outputs
        apart.append(float((found - wanted).norm() / wanted.norm()))
    assert apart[0] < 0.05
    assert apart[0] < apart[1] < apart[3] < 0.6
    with pytest.raises(ParameterError, match="has weights of 2, 3, 4, 5, 6, 8 bits, not 9"):
        compile(snn, LOIHI2, weight_bits=9)


def test_shortcuts_wait_for_the_branch_beside_them(snn_and_x) -> None:
    """The identity from r1 to r3 skips r2, so its spikes are delayed by one tick; pools go into shared kernels."""
    snn, x = snn_and_x
    by_name = {c.name: c for c in compile(snn, LOIHI2, calibration=x).integers.connections}
    shortcut = by_name["r1->r3"]
    assert isinstance(shortcut, Sparse)
    assert shortcut.max_delay == 1
    pooled = by_name["r3->r4"]
    assert pooled.max_delay == 0
    assert isinstance(by_name["x->r1"], Conv2d)


def test_populations_start_when_their_input_arrives(snn_and_x) -> None:
    snn, x = snn_and_x
    program = compile(snn, LOIHI2, calibration=x)
    assert [p.start for p in program.integers.populations] == [1, 2, 3, 4, 5]
    assert program.depth == 5
    assert run(program, x, steps=7).counts.steps == 12


def test_silent_image_with_silent_biases_costs_no_event() -> None:
    torch.manual_seed(0)
    nodes = {"x": Input((9,)), "a": Affine(torch.randn(6, 9)), "r": ReLU(), "b": Affine(torch.randn(3, 6))}
    graph = Graph(nodes, {"a": ("x",), "r": ("a",), "b": ("r",)})
    snn = convert(graph, RateCode(), calibration=torch.rand(20, 9))
    result = run(compile(snn, LOIHI2), torch.zeros(4, 9), steps=10)
    total = result.counts.total
    assert (total.accumulates, total.spikes, total.packets) == (0, 0, 0)
    assert total.updates > 0


@given(st.integers(0, 2**31 - 1), st.integers(1, 40))
def test_plain_spike_input_sends_the_rounded_count(seed: int, steps: int) -> None:
    from dataclasses import replace

    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 7, generator=generator)
    torch.manual_seed(0)
    graph = Graph({"x": Input((7,)), "a": Affine(torch.rand(4, 7)), "r": ReLU(), "b": Affine(torch.rand(2, 4))},
                  {"a": ("x",), "r": ("a",), "b": ("r",)})  # fmt: skip
    program = replace(compile(convert(graph, RateCode(), calibration=x), LOIHI2), input_step=None)
    spikes = encode_input(program, x, steps)
    assert set(np.unique(spikes)) <= {0, 1}
    assert np.array_equal(spikes.sum(0), np.floor(steps * x.double().numpy() + 0.5))


def test_batches_do_not_change_results(snn_and_x) -> None:
    snn, x = snn_and_x
    program = compile(snn, LOIHI2, calibration=x)
    whole, cut = run(program, x, steps=9), run(program, x, steps=9, batch_size=5)
    assert torch.equal(whole.outputs, cut.outputs)
    assert whole.counts == cut.counts


def test_the_bill_of_a_chip_run(snn_and_x) -> None:
    snn, x = snn_and_x
    program = compile(snn, LOIHI2, calibration=x)
    counts = run(program, x, steps=8).counts
    bill = price(counts, LOIHI2)
    assert bill.joules["synaptic_event"] == pytest.approx(counts.total.accumulates * 23.6e-12)
    assert bill.status == "assumed"


def test_hard_reset_fits_loihi1_and_soft_reset_does_not() -> None:
    torch.manual_seed(0)
    graph = Graph({"x": Input((9,)), "a": Affine(torch.randn(6, 9)), "r": ReLU(), "b": Affine(torch.randn(3, 6))},
                  {"a": ("x",), "r": ("a",), "b": ("r",)})  # fmt: skip
    x = torch.rand(20, 9)
    loihi1 = load_chip("loihi1")
    with pytest.raises(DoesNotFit, match="reset subtract needed, zero available"):
        compile(convert(graph, RateCode(), calibration=x), loihi1)
    snn = convert(graph, RateCode(reset="zero"), calibration=x)
    program = compile(snn, loihi1)
    assert program.input_step is None  # plain spikes: Loihi 1 has no graded ones
    spikes = torch.from_numpy(encode_input(program, x, 200)).float()
    on_chip, in_float = run(program, x, steps=200).outputs, simulate(snn, spikes).outputs
    assert float((on_chip - in_float).abs().max()) < 0.05 * float(in_float.abs().max())
    with pytest.raises(ParameterError, match=r"must lie in \[0, 1\]"):
        run(program, 2 * x, steps=4)


def test_refusals(snn_and_x) -> None:
    snn, x = snn_and_x
    program = compile(snn, LOIHI2, calibration=x, most_steps=32)
    for steps in (0, -1, 33, True, 2.5):
        with pytest.raises(ParameterError, match="steps must be"):
            run(program, x, steps=steps)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="takes"):
        run(program, torch.rand(2, 8, 8), steps=4)
    with pytest.raises(ParameterError, match="NaN"):
        run(program, torch.full_like(x, float("nan")), steps=4)
    with pytest.raises(ParameterError, match="backend"):
        run(program, x, steps=4, backend="loihi")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedNode, match="MaxCount"):
        compile(convert(residual(0, MaxPool), RateCode(), calibration=x), LOIHI2)
    with pytest.raises(UnsupportedNode, match="convert the network first"):
        compile(residual(0), LOIHI2)
