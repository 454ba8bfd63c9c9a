"""Kernels of training equal dynamics.step under autograd: spikes bit for bit, gradients within 1e-5."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuro.dynamics import State
from neuro.errors import ParameterError
from neuro.graph import Graph, Input
from neuro.kernels import through_time
from neuro.kernels.through_time_pooled import window
from neuro.nodes import (
    IF,
    LI,
    LIF,
    AdaptiveLIF,
    Affine,
    AvgPool,
    Conv,
    CurrentLI,
    CurrentLIF,
    Leaky,
    Neuron,
    Reshape,
    Synaptic,
)
from neuro.surrogate import (
    ArcTan,
    Boxcar,
    FastSigmoid,
    MultiGaussian,
    Sigmoid,
    SuperSpike,
    Surrogate,
    Triangle,
)

SURROGATES = [ArcTan(), FastSigmoid(), Sigmoid(), SuperSpike(), Triangle(0.7, 1.3), Boxcar(), MultiGaussian()]

POPULATIONS = [
    ("IF", "subtract"), ("IF", "zero"), ("IF", "none"), ("LIF", "subtract"), ("LIF", "zero"), ("LIF", "none"),
    *((kind + delay, reset) for kind in ("Leaky", "Synaptic") for delay in ("", " late")
      for reset in ("subtract", "zero", "none")),
    ("CurrentLIF", "value"), ("CurrentLIF", "subtract"), ("LI", ""), ("CurrentLI", ""),
]  # fmt: skip


def population(kind: str, reset: str, form: tuple[int, ...]) -> Neuron:
    """A population whose parameters learn."""

    def between(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(form)).requires_grad_()

    name, _, delay = kind.partition(" ")
    match name:
        case "IF":
            return IF(between(0.5, 1), between(-0.5, 0.5), reset)  # type: ignore[arg-type]
        case "LIF":
            return LIF(between(0, 1), between(0.5, 1), between(-0.5, 0.5), reset)  # type: ignore[arg-type]
        case "Leaky":
            return Leaky(between(0, 1), between(0.5, 1), reset, bool(delay))  # type: ignore[arg-type]
        case "Synaptic":
            return Synaptic(between(0, 1), between(0, 1), between(0.5, 1), reset, bool(delay))  # type: ignore[arg-type]
        case "CurrentLIF":
            rates = between(0.1, 0.9), between(0.1, 0.9)
            return CurrentLIF(*rates, between(0.3, 1), between(-0.2, 0.2), between(-0.2, 0.2), reset)  # type: ignore[arg-type]
        case "LI":
            return LI(between(0, 1))
        case _:
            return CurrentLI(between(0.1, 0.9), between(0.1, 0.9), between(-0.2, 0.2))


def gradients(
    node: Neuron, current: Tensor, surrogate: Surrogate, kernel: through_time.Kernel, weights: tuple[Tensor, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs, and the gradients of a loss that reads outputs and the last state."""
    given = current.clone(memory_format=torch.preserve_format).requires_grad_()
    z, state = through_time.run(node, given, surrogate, kernel=kernel)
    loss = (z * weights[0]).sum() + (state.v * weights[1]).sum() + sum(kept.square().sum() for kept in state.kept)
    wanted = dict(node.tensors())
    found = torch.autograd.grad(loss, [given, *wanted.values()], allow_unused=True, materialize_grads=True)
    assert state.t == len(current)
    return z.detach(), dict(zip(["current", *wanted], found, strict=True)) | {"v": state.v.detach()}


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    """Within the tolerance of the largest number."""
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-6))


def check(node: Neuron, current: Tensor, surrogate: Surrogate) -> None:
    weights = torch.randn(current.shape), torch.randn(current.shape[1:])
    z, found = gradients(node, current, surrogate, "numba", weights)
    expected_z, expected = gradients(node, current, surrogate, "reference", weights)
    assert torch.equal(z, expected_z)
    assert torch.equal(found["v"], expected["v"])
    for name, gradient in found.items():
        assert gradient.shape == expected[name].shape
        assert close(gradient, expected[name]), name


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("kind", "reset"), POPULATIONS)
def test_fused_populations_equal_the_reference(kind: str, reset: str, surrogate: Surrogate) -> None:
    torch.manual_seed(len(kind) + len(reset))
    node = population(kind, reset, (19,))
    check(node, torch.randn(9, 3, 19) + 0.4, surrogate)


@settings(deadline=None, max_examples=60)
@given(
    which=st.sampled_from(POPULATIONS),
    surrogate=st.sampled_from(SURROGATES),
    shape=st.sampled_from([(1,), (300,), (3, 4), (2, 3, 5)]),
    steps=st.integers(1, 6),
    batch=st.integers(0, 3),
    layout=st.sampled_from(["contiguous", "held", "channels last", "turned"]),
    seed=st.integers(0, 10**6),
)
def test_any_shape_and_layout(
    which: tuple[str, str], surrogate: Surrogate, shape: tuple[int, ...], steps: int, batch: int, layout: str, seed: int
) -> None:
    torch.manual_seed(seed)
    current = torch.randn(steps, batch, *shape) + 0.4
    if layout == "held":
        current = current[:1].expand(steps, batch, *shape)
    elif layout == "channels last":
        current = current.movedim(2, -1).contiguous().movedim(-1, 2)
    elif layout == "turned":
        current = current.transpose(0, 1).contiguous().transpose(0, 1)
    form = (shape[0], *(1,) * (len(shape) - 1))
    if batch:
        check(population(*which, form), current, surrogate)


def spikes_of(density: float, *shape: int, binary: bool = True) -> Tensor:
    x = (torch.rand(shape) < density).float()
    return x if binary else x * torch.randn(shape)


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.sampled_from([(1, 1), (5, 3), (40, 64), (17, 70), (33, 300)]),
    steps=st.sampled_from([1, 5, 70]),
    batch=st.integers(1, 4),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    binary=st.booleans(),
    bias=st.booleans(),
    kernel=st.sampled_from(["auto", "numba"]),
    seed=st.integers(0, 10**6),
)
def test_products_follow_events(
    sizes: tuple[int, int], steps: int, batch: int, density: float, binary: bool, bias: bool,
    kernel: through_time.Kernel, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    inputs, outputs = sizes
    node = Affine(
        torch.randn(outputs, inputs, requires_grad=True), torch.randn(outputs, requires_grad=True) if bias else None
    )
    x = spikes_of(density, steps, batch, inputs, binary=binary).requires_grad_()
    weights = spikes_of(0.2, steps, batch, outputs, binary=False)
    wanted = [x, *(tensor for _, tensor in node.tensors())]
    y = through_time.product(node, x, kernel=kernel)
    expected = node.forward(x)
    assert close(y, expected)
    found = torch.autograd.grad((y * weights).sum(), wanted)
    for gradient, exact in zip(found, torch.autograd.grad((expected * weights).sum(), wanted), strict=True):
        assert close(gradient, exact)


@pytest.mark.parametrize("surrogate", [ArcTan(), Triangle()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("kind", "reset"), POPULATIONS)
def test_fused_layers_equal_product_and_population(kind: str, reset: str, surrogate: Surrogate) -> None:
    torch.manual_seed(3)
    node = Affine(torch.randn(300, 40, requires_grad=True), torch.randn(300, requires_grad=True))
    neurons = population(kind, reset, (300,))
    x = spikes_of(0.2, 7, 3, 40).requires_grad_()
    wanted = [x, *(tensor for part in (node, neurons) for _, tensor in part.tensors())]
    weights = torch.randn(7, 3, 300)
    found = []
    for layer in (
        lambda: through_time.layer(node, neurons, x, surrogate, kernel="numba"),
        # the same order of sums: one layer against its two halves
        lambda: through_time.run(neurons, through_time.product(node, x, kernel="numba"), surrogate, kernel="reference"),
    ):
        z, state = layer()
        loss = (z * weights).sum() + state.v.sum() + sum(kept.square().sum() for kept in state.kept)
        gradients_ = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        found.append((z, state.v, *gradients_))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    for fused, halves in zip(*found, strict=True):
        assert close(fused, halves)


def test_cutting_time_equals_one_run() -> None:
    torch.manual_seed(0)
    node, neurons = Affine(torch.randn(80, 30)), LIF(torch.tensor(0.9), torch.tensor(1.0), torch.tensor(0.2))
    x = spikes_of(0.3, 10, 4, 30)
    whole, after = through_time.layer(node, neurons, x, ArcTan(), kernel="numba")
    first, middle = through_time.layer(node, neurons, x[:4], ArcTan(), kernel="numba")
    second, last = through_time.layer(node, neurons, x[4:], ArcTan(), middle, kernel="numba")
    assert torch.equal(whole, torch.cat([first, second]))
    assert torch.equal(after.v, last.v)
    assert after.t == last.t == 10


def test_a_held_input_is_multiplied_once() -> None:
    torch.manual_seed(0)
    node = Affine(torch.randn(80, 30, requires_grad=True))
    x = torch.rand(1, 4, 30).expand(6, 4, 30)
    y = through_time.product(node, x)
    assert y.stride(0) == 0
    y.square().sum().backward()
    found, node.weight.grad = node.weight.grad, None
    node.forward(x).square().sum().backward()
    assert found is not None
    assert node.weight.grad is not None
    assert close(found, node.weight.grad)


def test_no_gradient_of_an_input_that_needs_none() -> None:
    x = spikes_of(0.1, 3, 2, 70).requires_grad_()
    node = Affine(torch.randn(70, 70, requires_grad=True))
    y = through_time.product(node, x, needs_input_gradient=False)
    y.sum().backward()
    assert x.grad is None


def test_what_has_no_kernel_takes_the_reference_and_can_not_be_forced() -> None:
    decay, one = torch.tensor(0.5), torch.tensor(1.0)
    node = AdaptiveLIF(decay, decay, one, one)
    current = torch.rand(4, 2, 3)
    z, state = through_time.run(node, current, ArcTan())
    assert z.shape == (4, 2, 3)
    assert isinstance(state, State)
    with pytest.raises(ParameterError, match="no fused equation of AdaptiveLIF"):
        through_time.run(node, current, ArcTan(), kernel="numba")
    with pytest.raises(ParameterError, match="in float32 only"):
        through_time.run(LI(decay), current.double(), ArcTan(), kernel="numba")
    with pytest.raises(ParameterError, match="kernel must be"):
        through_time.run(LI(decay), current, ArcTan(), kernel="cuda")  # type: ignore[arg-type]


def test_a_layer_says_why_it_is_dense() -> None:
    node = Affine(torch.randn(80, 30))
    assert through_time.why_dense(node, spikes_of(0.1, 5, 4, 30)) is None
    assert "% of the inputs are not zero" in str(through_time.why_dense(node, torch.ones(5, 4, 30)))
    assert "fewer than" in str(through_time.why_dense(Affine(torch.randn(10, 30)), torch.ones(5, 4, 30)))


@settings(deadline=None, max_examples=40)
@given(
    which=st.sampled_from(POPULATIONS),
    channels=st.sampled_from([(1, 16), (3, 32), (2, 48), (1, 80), (2, 5)]),
    kernel_size=st.sampled_from([(1, 1), (3, 3), (2, 3), (5, 4)]),
    padding=st.sampled_from([(0, 0), (1, 1), (2, 0), (0, 3)]),
    pool=st.sampled_from([None, (1, 1), (2, 2), (1, 3), (2, 1)]),
    binary=st.booleans(),
    bias=st.booleans(),
    input_gradient=st.booleans(),
    kernel=st.sampled_from(["auto", "numba"]),
    seed=st.integers(0, 10**6),
)
def test_convolved_and_pooled_layers(
    which: tuple[str, str], channels: tuple[int, int], kernel_size: tuple[int, int], padding: tuple[int, int],
    pool: tuple[int, int] | None, binary: bool, bias: bool, input_gradient: bool, kernel: through_time.Kernel,
    seed: int,
) -> None:  # fmt: skip
    """Weights are whole numbers over 8, so sums are exact in any order and spikes the same."""
    torch.manual_seed(seed)
    into, out = channels
    weight = (torch.randint(-8, 9, (out, into, *kernel_size)) / 8).requires_grad_()
    node = Conv(weight, (torch.randint(-8, 9, (out,)) / 8).requires_grad_() if bias else None, padding=padding)
    image = (into, 6, 7)
    shape = node.output_shape(image)
    neurons = population(*which, (shape[0], 1, 1))
    x = spikes_of(0.3, 4, 2, *image)
    x = (x if binary else x * torch.randint(1, 5, x.shape)).requires_grad_(input_gradient)
    node_pool = None if pool is None else AvgPool(pool, pool, (0, 0))
    wanted = [tensor for part in (node, neurons) for _, tensor in part.tensors()] + ([x] if input_gradient else [])
    found = []
    for forced in (kernel, "reference"):
        z, state = through_time.layer(node, neurons, x, ArcTan(), kernel=forced, pool=node_pool)  # type: ignore[arg-type]
        weights = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
        loss = (z * weights).sum() + state.v.sum() + sum(kept.square().sum() for kept in state.kept)
        gradients_ = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        found.append((z, state.v, *gradients_))
    assert close(found[0][0], found[1][0], 1e-6)
    followed = kernel == "numba" and not input_gradient and out % 16 == 0
    if followed and window(node_pool, shape) is not None:
        assert "Events" in type(found[0][0].grad_fn).__name__
    for fused, loop in zip(*found, strict=True):
        assert close(fused, loop)


def test_the_plan_names_every_product_and_population() -> None:
    lif = LIF(torch.tensor(0.9), torch.tensor(1.0), torch.tensor(0.0))
    one = torch.tensor(0.5)
    nodes = {
        "x": Input((1, 8, 8)), "conv": Conv(torch.randn(16, 1, 3, 3)), "lif": lif,
        "conv2": Conv(torch.randn(8, 16, 3, 3)),
        "adaptive": AdaptiveLIF(one, one, one, one), "flat": Reshape((128,)), "wide": Affine(torch.randn(70, 128)),
        "lif2": lif, "out": Affine(torch.randn(10, 70)),
    }  # fmt: skip
    names = list(nodes)
    graph = Graph(nodes, {after: (before,) for before, after in itertools.pairwise(names)})
    found = {choice.node: (choice.kernel, choice.why) for choice in through_time.plan(graph, ArcTan())}
    assert {name: kernel for name, (kernel, _) in found.items()} == {
        "conv": "events", "lif": "numba", "conv2": "dense", "adaptive": "reference", "wide": "events", "lif2": "numba",
        "out": "dense",
    }  # fmt: skip
    assert "AdaptiveLIF" in found["adaptive"][1]
    assert "fewer than 64 outputs" in found["out"][1]
