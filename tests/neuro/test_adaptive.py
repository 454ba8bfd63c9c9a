"""Neurons whose threshold rises with every spike, and membranes that are never reset."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.read.to_nir import to_nir
from hardware_targets import price
from neuro import load, save, simulate
from neuro.dynamics import State, rest, step
from neuro.errors import LossyExport, ParameterError, UnsupportedNode
from neuro.graph import Graph, Input
from neuro.kernels import scan
from neuro.nodes import IF, LI, LIF, AdaptiveLIF, Affine
from neuro.surrogate import Triangle, spike

ONE, ZERO = torch.ones(()), torch.zeros(())


def adaptive(
    beta: float = 0.9, rho: float = 0.95, rise: float = 0.5, theta: float = 1.0, reset: str = "subtract"
) -> AdaptiveLIF:
    return AdaptiveLIF(*(torch.tensor(value) for value in (beta, rho, rise, theta)), reset)  # type: ignore[arg-type]


def alone(node: object, size: int = 3) -> Graph:
    return Graph({"in": Input((size,)), "node": node}, {"node": ("in",)})  # type: ignore[dict-item]


def drive(node: AdaptiveLIF, currents: list[float]) -> tuple[list[float], list[float], list[float]]:
    state, z, v, a = rest(node, 1, (1,)), [], [], []
    for i in currents:
        state, fired = step(node, state, torch.tensor([[i]]))
        z.append(fired.item())
        v.append(state.v.item())
        a.append(state.kept[0].item())
    return z, v, a


def test_by_hand() -> None:
    """Threshold 1 + a / 2: 1, then 1.5, then 1.25 again."""
    z, v, a = drive(adaptive(0.5, 0.5, 0.5), [1.0, 1.25, 0.75, 0.5])
    assert (z, v, a) == ([1, 0, 1, 0], [0.0, 1.25, 0.375, 0.6875], [1, 0.5, 1.25, 0.625])
    assert drive(adaptive(0.5, 0.5, 0.5, reset="zero"), [1.0, 1.25, 0.75])[1] == [0.0, 1.25, 0.0]
    assert drive(adaptive(0.5, 0.5, 0.5, reset="none"), [1.0, 1.25, 0.75])[1] == [1.0, 1.75, 1.625]


def test_intervals_grow_under_a_constant_current() -> None:
    z = torch.tensor(drive(adaptive(0.95, 0.99, 0.3), [0.2] * 200)[0])
    intervals = torch.diff(z.nonzero()[:, 0])
    assert len(intervals) > 5
    assert intervals[-1] > intervals[0]
    plain = torch.diff(torch.tensor(drive(adaptive(0.95, 0.99, 0.0), [0.2] * 200)[0]).nonzero()[:, 0])
    assert int(plain.max()) - int(plain.min()) <= 1
    assert float(z.sum()) < len(plain)


@given(st.integers(0, 10**6), st.sampled_from(["subtract", "zero", "none"]))
def test_without_rise_it_is_a_lif(seed: int, reset: str) -> None:
    current = torch.randn(30, 4, 3, generator=torch.Generator().manual_seed(seed))
    one = simulate(alone(adaptive(rise=0.0, reset=reset)), current, record=["spikes", "v"])
    other = simulate(alone(LIF(torch.tensor(0.9), ONE, ZERO, reset)), current, record=["spikes", "v"])  # type: ignore[arg-type]
    assert torch.equal(one.recordings["spikes"]["node"], other.recordings["spikes"]["node"])
    assert torch.equal(one.recordings["v"]["node"], other.recordings["v"]["node"])


@given(st.integers(1, 14))
def test_cutting_time_equals_one_run(cut: int) -> None:
    node, current = adaptive(), torch.randn(15, 2, 3, generator=torch.Generator().manual_seed(cut))
    whole = parts = rest(node, 2, (3,))
    for i in current:
        whole, last = step(node, whole, i)
    for i in current[:cut]:
        parts, _ = step(node, parts, i)
    parts = State(parts.v.clone(), parts.t, tuple(tensor.clone() for tensor in parts.kept))
    for i in current[cut:]:
        parts, output = step(node, parts, i)
    assert torch.equal(last, output)
    assert torch.equal(whole.v, parts.v)
    assert torch.equal(whole.kept[0], parts.kept[0])


def test_a_citizen_of_files_counts_and_exports(tmp_path: Path) -> None:
    graph = Graph(
        {
            "in": Input((3,)),
            "w": Affine(torch.randn(4, 3)),
            "node": AdaptiveLIF(torch.rand(4), torch.rand(4), ONE, ONE, "zero"),
        },
        {"w": ("in",), "node": ("w",)},
    )
    save(graph, tmp_path / "net.h5")
    again = load(tmp_path / "net.h5").nodes["node"]
    assert isinstance(again, AdaptiveLIF)
    assert again.reset == "zero"
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(again.tensors(), graph.nodes["node"].tensors(), strict=True))
    run = simulate(graph, torch.rand(10, 5, 3))
    tally = run.counts.nodes["node"]
    assert (tally.updates, tally.multiplications, tally.state_words) == (200, 600, 800)
    assert price(run.counts, "45nm").total > 0
    with pytest.raises(LossyExport, match="NIR has no AdaptiveLIF"):
        to_nir(graph, tmp_path / "net.nir", dt=1e-3)


def test_what_knows_no_neurons_without_reset_says_so(tmp_path: Path) -> None:
    from hardware_targets.lower import lower
    from neuro.oracles.via_brian2 import _populations

    graph = alone(LIF(torch.tensor(0.9), ONE, ZERO, "none"))
    with pytest.raises(LossyExport, match="spikes without reset"):
        to_nir(graph, tmp_path / "net.nir", dt=1e-3, allow_loss=("reset",))
    with pytest.raises(UnsupportedNode, match="fires without reset"):
        lower(graph)
    with pytest.raises(UnsupportedNode, match="without reset"):
        _populations(graph)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from(["LI", "LIF", "IF"]))
def test_the_scan_is_the_step(seed: int, steps: int, kind: str) -> None:
    """Currents are whole and beta is a half, so that sums are exact in any order as long as they fit: bit for bit."""
    draw = torch.Generator().manual_seed(seed)
    steps = min(steps, 20)
    node = {"LI": LI(ONE / 2), "LIF": LIF(ONE / 2, ONE, ZERO, "none"), "IF": IF(ONE, ZERO, "none")}[kind]
    current = torch.randint(-2, 3, (steps, 2, 3), generator=draw).float().requires_grad_()
    weights = torch.randint(0, 2, (steps, 2, 3), generator=draw).float()
    start = State(torch.randint(-1, 2, (2, 3), generator=draw).float())
    state, outputs = start, []
    for i in current:
        state, z = step(node, state, i, lambda v, theta, strict=False: spike(v - theta, Triangle(), strict))
        outputs.append(z)
    wanted = torch.stack(outputs)
    got, after = scan.run(node, current, Triangle(), start)
    assert torch.equal(got, wanted)
    assert torch.equal(after.v, state.v)
    assert after.t == steps
    ours, theirs = (torch.autograd.grad((y * weights).sum(), current)[0] for y in (got, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_scan_of_real_numbers_is_near_the_step() -> None:
    current, beta = torch.randn(200, 3, 4), torch.tensor([0.0, 0.5, 0.95, 1.0])
    v, wanted = torch.zeros(3, 4), []
    for i in current.double():
        v = beta.double() * v + i
        wanted.append(v)
    potentials = scan.potentials(beta, current, torch.zeros(3, 4))
    torch.testing.assert_close(potentials.double(), torch.stack(wanted), rtol=1e-5, atol=2e-5)
    assert not scan.supports(LIF(beta, ONE, ZERO))
    assert not scan.supports(adaptive(reset="none"))


def test_domains() -> None:
    for field, value, told in (
        ("beta", 1.5, "must lie in"),
        ("rho", -0.1, "must lie in"),
        ("rise", -1.0, "must be >= 0"),
        ("theta", 0.0, "must be > 0"),
    ):
        with pytest.raises(ParameterError, match=rf"AdaptiveLIF: {field} {told}.*, got {value:g}"):
            adaptive(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="reset must be"):
        adaptive(reset="hard")
    assert math.isinf(LIF.domains["theta"].high)
