"""Networks of Norse fire here as they do there, step by step, and find their way back."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from converters.read.from_norse import from_norse
from converters.read.to_modules import Wired
from converters.read.to_norse import to_norse
from neuro import Graph, datasets, simulate
from neuro.errors import NeuroError, ParameterError, UnsupportedNode
from neuro.graph import Input
from neuro.nodes import IAF, IF, LIF, Add, Affine, BoxLIF, CurrentLI, CurrentLIF, Recurrent

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    norse = pytest.importorskip("norse.torch", reason="Norse is not installed: its networks are not compared")
    from norse.torch.functional.reset import reset_subtract

PER_NEURON = torch.tensor([0.2, 0.5, 0.8, 1.0, 1.3, 2.0])


def series(steps: int = 100, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(steps, *(shape or (3, 6)), generator=torch.Generator().manual_seed(seed)) + 0.4


def theirs(module: nn.Module, x: Tensor) -> Tensor:
    """What cells give, step by step from rest."""
    told, state = [], None
    with torch.no_grad():
        for current in x:
            out, state = module(current, state)
            told.append(out)
    return torch.stack(told)


def ours(graph: Graph, x: Tensor, **options: Any) -> Tensor:
    return simulate(graph, x, record=["outputs"], **options).recordings["outputs"][graph.output]


def lif(**changes: Any) -> Any:
    return norse.LIFParameters(**{name: torch.as_tensor(value) for name, value in changes.items()})


BIO = {"v_leak": -65.0, "v_th": -50.0, "v_reset": -70.0, "tau_syn_inv": 2.0, "tau_mem_inv": 0.05}


def test_current_based_cells() -> None:
    for p, dt, size in (
        (lif(), 1e-3, 3.0),
        (lif(tau_mem_inv=200 * PER_NEURON, v_th=PER_NEURON), 1e-3, 2.0),
        (lif(v_leak=0.1 * PER_NEURON, v_reset=-0.2 * PER_NEURON, tau_syn_inv=150.0), 2e-3, 3.0),
        (lif(**BIO), 0.5, 200.0),
    ):
        x = series() * size
        cell = norse.LIFCell(p, dt=dt)
        graph = from_norse(cell, x[0])
        expected = theirs(cell, x)
        assert expected.any()
        assert not expected.all()
        assert torch.equal(ours(graph, x), expected)
        if p.v_leak.ndim == 0:
            whole = norse.LIF(p, dt=dt)
            assert torch.equal(ours(from_norse(whole, x, time=True), x), whole(x)[0].detach())


def test_box_cells() -> None:
    for leak, reset, method in itertools.product((0.0, 0.3, 0.1 * PER_NEURON), (0.0, -0.5), (None, reset_subtract)):
        p = norse.LIFBoxParameters(
            150 * PER_NEURON, torch.as_tensor(leak), PER_NEURON, torch.as_tensor(reset),
            **({} if method is None else {"reset_method": method}),
        )  # fmt: skip
        cell, x = norse.LIFBoxCell(p), series() * 4
        expected = theirs(cell, x)
        assert expected.any()
        assert torch.equal(ours(from_norse(cell, x[0]), x), expected)


def test_integrators() -> None:
    for reset in (0.0, 0.4, -1.0):
        p = norse.IAFParameters(PER_NEURON, torch.as_tensor(reset))
        cell, x = norse.IAFCell(p), series() * 0.5
        graph = from_norse(cell, x[0])
        assert isinstance(graph.nodes[graph.output], IAF if reset else IF)
        assert torch.equal(ours(graph, x), theirs(cell, x))
        assert theirs(cell, x).any()


def test_leaky_readouts() -> None:
    x = series()
    for leak in (0.0, 0.7):
        cells = (
            norse.LICell(norse.LIParameters(v_leak=torch.tensor(leak))),
            norse.LIBoxCell(norse.LIBoxParameters(v_leak=torch.tensor(leak))),
        )
        for cell in cells:
            assert torch.equal(ours(from_norse(cell, x[0]), x), theirs(cell, x))
        whole = norse.LI(norse.LIParameters(v_leak=torch.tensor(leak)))
        assert torch.equal(ours(from_norse(whole, x, time=True), x), whole(x)[0].detach())


def test_recurrent_populations() -> None:
    """Sums of multiples of 1/64 are exact in any order until the current has decayed a few times."""
    x = (series() * 64).round() / 64
    cell = norse.LIFRecurrentCell(6, 5, lif(v_th=0.3), autapses=True)
    graph = from_norse(cell, x[0])
    assert isinstance(graph.nodes[graph.output], Recurrent)
    expected = theirs(cell, x)
    assert expected.any()
    assert float((ours(graph, x) == expected).float().mean()) > 0.999
    whole = norse.LIFRecurrent(6, 5, lif(v_th=0.3))
    same = ours(from_norse(whole, x, time=True), x) == whole(x)[0]
    assert float(same.float().mean()) > 0.999


def rounded(net: nn.Module, grid: int) -> Any:
    """Weights in multiples of 1/grid: sums of spikes are exact, in whatever order a matrix product takes them."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((parameter * grid).round() / grid)
    return net


def coarse(x: Tensor) -> Tensor:
    return (x * 16).round() / 16


class Sequences(nn.Module):
    """Time first, each module over the whole series."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.flat = norse.Lift(nn.Conv2d(1, 3, 3)), nn.Flatten(2)
        self.lif1, self.fc, self.lif2 = norse.LIF(lif(v_th=0.4)), nn.Linear(48, 4), norse.LIF(lif(v_th=0.1))

    def forward(self, x: Tensor) -> Tensor:
        z, _ = self.lif1(self.conv(x))
        z, _ = self.lif2(self.fc(self.flat(z)))
        return z


class Loop(nn.Module):
    """Cells in a loop over time, as the tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif, self.fc2, self.li = (
            nn.Linear(6, 8),
            norse.LIFCell(lif(v_th=0.3)),
            nn.Linear(8, 4),
            norse.LICell(),
        )

    def forward(self, x: Tensor) -> Tensor:
        s1 = s2 = None
        voltages = []
        for step in range(x.shape[0]):
            z, s1 = self.lif(self.fc1(x[step]), s1)
            v, s2 = self.li(self.fc2(torch.relu(z)), s2)
            voltages.append(v)
        return torch.stack(voltages)


def test_every_way_to_write_a_network() -> None:
    x = 4 * coarse(series(30))
    net = rounded(
        norse.SequentialState(
            nn.Linear(6, 8),
            norse.LIFCell(lif(v_th=0.4)),
            nn.Linear(8, 5),
            norse.LIFBoxCell(),
            nn.Linear(5, 3),
            norse.LICell(),
        ),
        64,
    )
    graph = from_norse(net, x[0])
    assert [node.kind for node in graph.nodes.values()][1:] == [
        "Affine",
        "CurrentLIF",
        "Affine",
        "BoxLIF",
        "Affine",
        "CurrentLI",
    ]
    assert list(graph.nodes)[1:] == list("012345")
    assert torch.equal(ours(graph, x), theirs(net, x))
    images = coarse(series(20, 2, 1, 6, 6))
    sequences = rounded(Sequences(), 64)
    assert sequences(images).any()
    assert torch.equal(ours(from_norse(sequences, images, time=True), images), sequences(images))
    stacked = rounded(norse.SequentialState(norse.Lift(nn.Linear(6, 8)), norse.LIF(lif(v_th=0.2))), 64)
    assert torch.equal(ours(from_norse(stacked, x, time=True), x), stacked(x)[0])
    loop = rounded(Loop(), 64)
    assert torch.equal(ours(from_norse(loop, x, time=True), x), loop(x))


class Forgets(nn.Module):
    """Begins anew at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 6), norse.LIFCell(lif(v_th=0.05))

    def forward(self, x: Tensor) -> Tensor:
        z, _ = self.lif(self.fc(x))
        return z


class Averaged(Forgets):
    def forward(self, x: Tensor, state: Any = None) -> tuple:  # type: ignore[override]
        z, state = self.lif(self.fc(x), state)
        return z - z.mean(0), state


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (lambda: norse.SequentialState(nn.Linear(6, 6), norse.LIFAdExCell()), "LIFAdExCell"),
        (lambda: norse.SequentialState(nn.Linear(6, 6), norse.LSNNCell()), "LSNNCell"),
        (lambda: norse.LIFCell(lif(tau_mem_inv=-1.0)), "rate_mem"),
        (lambda: norse.LIFCell(lif(v_th=float("nan"))), "NaN"),
        (lambda: norse.LIFBoxCell(norse.LIFBoxParameters(reset_method=max)), "reset_method"),
        (lambda: nn.Sequential(nn.Linear(6, 6)), "neuro.trace"),
        (Forgets, "differ from those of the graph"),
        (Averaged, "batch|mean"),
    ],
)
def test_refusals(module: Any, says: str) -> None:
    with pytest.raises(NeuroError, match=says):
        from_norse(module(), series()[0])


def test_there_and_back() -> None:
    x, one = 4 * coarse(series(40)), torch.ones(())
    neurons = (
        CurrentLIF(one * 0.2, one * 0.1, one * 0.3, one * 0, one * 0),
        BoxLIF(PER_NEURON / 2, one * 0.3, one * 0.1, -one, "subtract"),
        IAF(one, PER_NEURON - 1.5),
        IF(one, one * 0, "zero"),
        CurrentLI(one * 0.3, one * 0.3, one * 0),
        CurrentLI(one, one * 0.3, one * 0.2),
    )
    for node in neurons:
        graph = Graph(
            {"x": Input((6,)), "a": Affine(rounded(nn.Linear(6, 6), 64).weight), "n": node}, {"a": ("x",), "n": ("a",)}
        )
        back = to_norse(graph)
        assert torch.equal(theirs(back, x), ours(graph, x))
        assert theirs(back, x).any()
        again = from_norse(back, x[0])
        assert type(again.nodes[again.output]) is type(node)
        assert all(
            torch.equal(a, b)
            for (_, a), (_, b) in zip(node.tensors(), again.nodes[again.output].tensors(), strict=True)
        )
        close = theirs(to_norse(graph, dt=1e-3), x) - ours(graph, x)
        assert float((close.abs() > 1e-4).float().mean()) < 0.01
        back(x[0])[0].sum().backward()
        assert back[0].weight.grad is not None


def test_branches_come_out_as_wired_modules_with_states() -> None:
    one, x = torch.ones(()), coarse(series(20))
    neuron = CurrentLIF(one * 0.5, one * 0.5, one * 0.3, one * 0, one * 0)
    nodes = {
        "x": Input((6,)),
        "f": neuron,
        "b": Affine(torch.eye(6)),
        "sum": Add(),
        "g": BoxLIF(one, one, one * 0, one * 0),
    }
    graph = Graph(nodes, {"f": ("x",), "b": ("f",), "sum": ("b", "x"), "g": ("sum",)})
    back = to_norse(graph)
    assert isinstance(back, Wired)
    assert torch.equal(theirs(back, x), ours(graph, x))


def test_what_norse_cannot_say_is_listed() -> None:
    one = torch.ones(())
    graph = Graph({"x": Input((4,)), "a": LIF(one, one, one), "b": IF(one, one / 2)}, {"a": ("x",), "b": ("a",)})
    with pytest.raises(UnsupportedNode, match=r"(?s)2 node\(s\).*'a': LIF.*'b': IF"):
        to_norse(graph)
    with pytest.raises(ParameterError, match="dt"):
        to_norse(graph, dt=0.0)


def test_trained_on_digits_it_keeps_spikes_and_accuracy() -> None:
    """One epoch in Norse on MNIST-5k, ten steps of 1 ms, leaky read-out."""
    split = datasets.load("mnist-5k")
    net = norse.SequentialState(
        nn.Flatten(), nn.Linear(784, 48), norse.LIFCell(lif(v_th=0.5, alpha=50.0)), nn.Linear(48, 10), norse.LICell()
    )
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)

    def voltages(x: Tensor) -> Tensor:
        told, state = [], None
        for _ in range(10):
            v, state = net(x, state)
            told.append(v)
        return torch.stack(told)

    for x, y in zip(split.train_x[:2000].split(100), split.train_y[:2000].split(100), strict=True):
        loss = F.cross_entropy(voltages(x)[-1], y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x, y = split.test_x[:300], split.test_y[:300]
    hidden: list[Tensor] = []
    net[2].register_forward_hook(lambda part, given, result: hidden.append(result[0]))
    for exact in (False, True):
        if exact:
            net, x = rounded(net, 4096), coarse(x)
        hidden.clear()
        with torch.no_grad():
            expected = voltages(x)
        inside = torch.stack(hidden).bool()
        graph = from_norse(net, x[:2])
        run = simulate(graph, x, steps=10, record=["spikes", "outputs"])
        found = run.recordings["outputs"][graph.output]
        accuracy = (expected[-1].argmax(1) == y).float().mean()
        assert inside.any()
        assert accuracy > 0.75
        if exact:
            assert torch.equal(run.recordings["spikes"]["2"], inside)
            assert torch.equal(found, expected)
            assert (run.outputs.argmax(1) == y).float().mean() == accuracy
        else:
            assert float((run.recordings["spikes"]["2"] != inside).float().mean()) < 1e-3
            assert float((found - expected).abs().mean()) < 1e-3
