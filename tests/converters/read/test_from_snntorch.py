"""Networks of snnTorch fire here as they do there, step by step, and find their way back."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from converters.read.from_snntorch import from_snntorch
from converters.read.to_modules import Wired
from converters.read.to_snntorch import to_snntorch
from neuro import Graph, datasets, simulate
from neuro.errors import NeuroError, ParameterError, UnsupportedNode
from neuro.graph import Input
from neuro.nodes import IF, LI, LIF, Add, Affine, Alpha, Concat, Leaky, MaxCount, Recurrent, Synaptic

snn = pytest.importorskip("snntorch", reason="snnTorch is not installed: its networks are not compared")

RESETS = ("subtract", "zero", "none")


def series(steps: int = 100, *shape: int, seed: int = 0) -> Tensor:
    """Input currents that make neurons of threshold 1 fire every few steps."""
    return torch.randn(steps, *(shape or (3, 6)), generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.3


def at_rest(module: nn.Module) -> nn.Module:
    for part in module.modules():
        for state in ("mem", "syn", "syn_exc", "syn_inh", "spk"):
            if state in part._buffers:
                part._buffers[state] = torch.zeros(0)
    return module


def theirs(module: nn.Module, x: Tensor, output: int = 0) -> Tensor:
    """What the module gives, called once per step from rest."""
    at_rest(module)
    with torch.no_grad():
        results = [module(step) for step in x]
    return torch.stack([result[output] if isinstance(result, tuple) else result for result in results])


def ours(graph: Graph, x: Tensor, **options: Any) -> Tensor:
    return simulate(graph, x, record=["outputs"], **options).recordings["outputs"][graph.output]


def assert_same(cell: nn.Module, x: Tensor) -> Tensor:
    expected = theirs(cell, x)
    found = ours(from_snntorch(cell, x[0]), x)
    assert torch.equal(found, expected), cell
    return expected


PER_NEURON = torch.tensor([0.0, 0.3, 0.7, 0.9, 0.99, 1.2])


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("delay", [True, False])
def test_leaky_in_all_its_forms(reset: str, delay: bool) -> None:
    fired = torch.zeros(())
    for beta, theta, factor in itertools.product((0.9, PER_NEURON), (1.0, PER_NEURON + 0.1), (1.0, 0.7)):
        cell = snn.Leaky(
            beta, theta, reset_mechanism=reset, reset_delay=delay, graded_spikes_factor=factor, init_hidden=True
        )
        fired += assert_same(cell, series()).count_nonzero()
    assert fired > 1000


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("delay", [True, False])
def test_synaptic_in_all_its_forms(reset: str, delay: bool) -> None:
    for alpha, beta in itertools.product((0.8, PER_NEURON), (0.9, PER_NEURON.flip(0))):
        cell = snn.Synaptic(alpha, beta, 0.8, reset_mechanism=reset, reset_delay=delay, init_hidden=True)
        assert assert_same(cell, series()).any()


@pytest.mark.parametrize("reset", RESETS)
def test_alpha_in_all_its_forms(reset: str) -> None:
    for alpha, beta in ((0.9, 0.8), (1.0, 0.5), (PER_NEURON.clamp(0.1, 1), PER_NEURON.clamp(0.1, 1) / 2)):
        cell = snn.Alpha(alpha, beta, 0.3, reset_mechanism=reset, init_hidden=True)
        assert assert_same(cell, series()).any()


def test_learnt_parameters_count_as_they_are() -> None:
    cell = snn.Leaky(torch.rand(6), torch.rand(6) + 0.2, learn_beta=True, learn_threshold=True, init_hidden=True)
    with torch.no_grad():
        cell.threshold.mul_(1.5)
        cell.beta[0] = 1.7
    assert_same(cell, series())
    for surrogate in (
        snn.surrogate.fast_sigmoid(),
        snn.surrogate.triangular(),
        snn.surrogate.straight_through_estimator(),
    ):
        assert_same(snn.Leaky(0.9, spike_grad=surrogate, init_hidden=True), series())


def test_a_late_reset_to_zero_is_a_reset_to_zero() -> None:
    cell = snn.Leaky(0.9, 0.7, reset_mechanism="zero", init_hidden=True)
    graph = from_snntorch(cell, series()[0])
    (node,) = (node for node in graph.nodes.values() if isinstance(node, LIF))
    assert torch.equal(torch.nextafter(node.theta, torch.tensor(0.0)), torch.tensor(0.7))
    at_threshold = torch.tensor([0.7, 0.7 + 1e-7, 0.0, 0.0, 0.0, 0.0]).expand(1, 1, 6)
    assert ours(graph, at_threshold).tolist() == theirs(cell, at_threshold).tolist() == [[[0, 1, 0, 0, 0, 0]]]


def test_subtraction_without_delay_is_lif_below_twice_the_threshold() -> None:
    calm, wild = series() * 0.3, series() * 4
    nothing = torch.zeros(())
    lif = Graph({"x": Input((6,)), "n": LIF(torch.tensor(0.9), torch.ones(()), nothing)}, {"n": ("x",)})
    cell = snn.Leaky(0.9, reset_delay=False, init_hidden=True)
    assert torch.equal(ours(lif, calm), theirs(cell, calm))
    assert not torch.equal(ours(lif, wild), theirs(cell, wild))
    assert_same(cell, wild)


@pytest.mark.parametrize("reset", RESETS)
def test_recurrent_populations(reset: str) -> None:
    """Sums of multiples of 1/64 are exact, so their order does not matter; with a leak it does, rarely."""
    x = (series() * 64).round() / 64
    forms = ({"linear_features": 6}, {"all_to_all": False, "V": torch.arange(6) / 8 - 0.25})
    for form, delay in itertools.product(forms, (True, False)):
        for beta, agreeing in ((1.0, 1.0), (0.9, 0.999)):
            cells = [snn.RLeaky(beta, reset_mechanism=reset, reset_delay=delay, init_hidden=True, **form)]
            if delay:
                cells.append(snn.RSynaptic(0.5 * beta, beta, reset_mechanism=reset, init_hidden=True, **form))
            for cell in cells:
                for parameter in cell.recurrent.parameters():
                    parameter.data = (parameter.data * 64).round() / 64
                exact = agreeing if isinstance(cell, snn.RLeaky) else 0.999
                graph = from_snntorch(cell, x[0])
                assert any(isinstance(node, Recurrent) for node in graph.nodes.values())
                same = ours(graph, x) == theirs(cell, x)
                assert float(same.float().mean()) >= exact


def test_recurrent_convolutions() -> None:
    x = series(20, 2, 3, 5, 5)
    cell = snn.RLeaky(0.8, conv2d_channels=3, kernel_size=3, init_hidden=True)
    same = ours(from_snntorch(cell, x[0]), x) == theirs(cell, x)
    assert float(same.float().mean()) > 0.999


def test_a_filter_without_reset() -> None:
    x = series(40, 3, 6)
    cell = snn.StateLeaky(PER_NEURON.clamp(0, 0.9), 6, threshold=0.8, graded_spikes_factor=0.5)
    with torch.no_grad():
        spikes, potential = cell(x)
    assert float((ours(from_snntorch(cell, x, time=True), x) == spikes).float().mean()) > 0.999
    torch.testing.assert_close(ours(from_snntorch(cell, x, time=True, output=1), x), potential)


def layers(*cells: nn.Module) -> nn.Sequential:
    """Layers with weights in multiples of 1/256, so that sums of spikes are exact in any order."""
    net = nn.Sequential(nn.Linear(6, 8), cells[0], nn.Linear(8, 5), cells[1])
    return rounded(net, 256)


def rounded(net: nn.Module, grid: int) -> Any:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((parameter * grid).round() / grid)
    return net


def coarse(x: Tensor) -> Tensor:
    return (x * 16).round() / 16


class Step(nn.Module):
    """One step as the tutorials write it: states in, states out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(6, 8), snn.Leaky(0.9)
        self.fc2, self.lif2 = nn.Linear(8, 5), snn.Synaptic(0.6, 0.9)
        rounded(self, 256)

    def forward(self, x: Tensor, mem1: Any, syn2: Any, mem2: Any) -> tuple:
        spk1, mem1 = self.lif1(self.fc1(x), mem1)
        spk2, syn2, mem2 = self.lif2(self.fc2(spk1), syn2, mem2)
        return spk2, mem1, syn2, mem2


class Loop(Step):
    """The same with the loop over time in forward; the input is constant, or has time first."""

    def __init__(self, steps: int | None) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> tuple:  # type: ignore[override]
        mem1 = self.lif1.reset_mem()
        syn2, mem2 = self.lif2.reset_mem()
        spikes, potentials = [], []
        for step in range(self.steps or x.size(0)):
            result = super().forward(x if self.steps else x[step], mem1, syn2, mem2)
            spk2, mem1, syn2, mem2 = result
            spikes.append(spk2)
            potentials.append(mem2)
        return torch.stack(spikes, dim=0), torch.stack(potentials, dim=0)


def test_every_way_to_write_a_network() -> None:
    x = coarse(series(30))
    step = Step()
    expected, states = [], (None, None, None)
    with torch.no_grad():
        for current in x:
            spikes, *states = step(current, *states)  # type: ignore[assignment]
            expected.append(spikes)
    graph = from_snntorch(step, x[0])
    assert list(graph.nodes) == ["x", "fc1", "lif1", "fc2", "lif2"]
    assert torch.equal(ours(graph, x), torch.stack(expected))
    assert torch.stack(expected).any()
    timed = Loop(None)
    timed.load_state_dict(step.state_dict())
    assert torch.equal(ours(from_snntorch(timed, x, time=True), x), torch.stack(expected))
    constant = Loop(30)
    constant.load_state_dict(step.state_dict())
    with torch.no_grad():
        spikes, _ = constant(x[1])
    assert torch.equal(ours(from_snntorch(constant, x[1]), x[1], steps=30), spikes)


def test_sequences_convolutions_and_readouts() -> None:
    x = coarse(series(20, 2, 1, 8, 8))
    net = rounded(
        nn.Sequential(
            nn.Conv2d(1, 3, 3), snn.Leaky(0.9, init_hidden=True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 4),
            snn.Leaky(0.8, reset_mechanism="none", init_hidden=True, output=True),
        ),
        64,
    )  # fmt: skip
    assert torch.equal(ours(from_snntorch(net, x[0]), x), theirs(net, x))
    readout = from_snntorch(net, x[0], output=1)
    assert isinstance(readout.nodes[readout.output], LI)
    assert torch.equal(ours(readout, x), theirs(net, x, output=1))


def test_the_module_is_left_as_it_was() -> None:
    net = layers(snn.Leaky(0.9, init_hidden=True), snn.Leaky(0.9, init_hidden=True))
    net(series()[0]).sum().backward()
    before = [(part, value) for part in net.modules() for key, value in part._buffers.items() if key == "mem"]
    members = [list(vars(part)) for part in net.modules()]
    from_snntorch(net, series()[0])
    assert len(before) == 2
    assert all(part.mem is value for part, value in before)
    assert [list(vars(part)) for part in net.modules()] == members
    assert net.training
    assert net[1].mem.requires_grad


class Feedback(Loop):
    """Spikes of the step before enter the first layer: no repetition of one feed-forward step."""

    def __init__(self) -> None:
        super().__init__(20)
        self.back = nn.Linear(5, 8)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        mem1, spk2 = self.lif1.reset_mem(), torch.zeros(len(x), 5)
        syn2, mem2 = self.lif2.reset_mem()
        spikes = []
        for _ in range(20):
            spk1, mem1 = self.lif1(self.fc1(x) + 3 * self.back(spk2), mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), syn2, mem2)
            spikes.append(spk2)
        return torch.stack(spikes)


class Beyond(Loop):
    """A layer behind the last population, in the loop."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        spikes, _ = super().forward(x)
        return F.linear(spikes, torch.eye(5) * 3, torch.ones(5))


class Shown(Step):
    """What comes out is a potential that spikes reset."""

    def forward(self, x: Tensor, *states: Any) -> Tensor:  # type: ignore[override]
        _, mem1 = self.lif1(self.fc1(x))
        return self.fc2(mem1)


class Looks(Step):
    def forward(self, x: Tensor, mem1: Tensor) -> Tensor:  # type: ignore[override]
        return self.fc2(self.lif1(self.fc1(x), mem1 * 0.5)[0])


def no_step_function(x: Tensor) -> Tensor:
    return torch.sigmoid(5 * x)


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (lambda: nn.Sequential(snn.Lapicque(0.9, init_hidden=True)), "Lapicque"),
        (lambda: nn.Sequential(nn.Linear(6, 6)), "neuro.trace"),
        (lambda: snn.Leaky(0.9, state_quant=lambda v: v.round(), init_hidden=True), "state_quant"),
        (lambda: snn.Leaky(0.9, spike_grad=no_step_function, init_hidden=True), "spike_grad"),
        (lambda: snn.Leaky(0.9, threshold=-1.0, init_hidden=True), "theta must be > 0"),
        (lambda: snn.RSynaptic(0.9, 0.8, linear_features=6, reset_delay=False, init_hidden=True), "reset_delay"),
        (lambda: snn.StateLeaky(0.9, 6, kernel_truncation_steps=3), "truncated"),
        (Feedback, "differ from those of the graph"),
        (lambda: Beyond(20), "differ from those of the graph|state"),
        (Shown, "spikes reset"),
        (Looks, "does not run|cannot be traced"),
    ],
)
def test_refusals(module: Any, says: str) -> None:
    made = module()
    timed = isinstance(made, snn.StateLeaky)
    with pytest.raises(NeuroError, match=says):
        from_snntorch(made, series() if timed else series()[0], time=timed)


def test_bad_calls_are_refused_before_any_work() -> None:
    net = layers(snn.Leaky(0.9, init_hidden=True), snn.Leaky(0.9, init_hidden=True))
    with pytest.raises(ParameterError, match="example"):
        from_snntorch(net, torch.zeros(6))
    with pytest.raises(ParameterError, match="Module"):
        from_snntorch(3, torch.zeros(1, 6))  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="output=7"):
        from_snntorch(snn.Leaky(0.9), torch.zeros(2, 6), output=7)
    with pytest.warns(UserWarning, match="Inhibition"):
        inhibited = snn.Leaky(0.9, inhibition=True, init_hidden=True)
    with pytest.raises(ParameterError, match="inhibition"):
        from_snntorch(inhibited, torch.zeros(2, 6))


def test_there_and_back() -> None:
    x = 4 * coarse(series(30))
    cells: list[tuple[Any, Any]] = [
        (snn.Leaky(0.9, 0.5, init_hidden=True), snn.Synaptic(0.5, 0.9, init_hidden=True)),
        (snn.Leaky(0.9, reset_mechanism="zero", init_hidden=True), snn.Alpha(0.9, 0.8, 0.3, init_hidden=True)),
        (snn.Leaky(torch.rand(8), reset_delay=False, init_hidden=True), snn.Leaky(0.5, init_hidden=True)),
    ]
    for pair in cells:
        net = layers(*pair)
        with torch.no_grad():
            net[2].weight.abs_().mul_(4)
        graph = from_snntorch(net, x[0])
        back = to_snntorch(graph)
        assert isinstance(back, nn.Sequential)
        assert torch.equal(theirs(back, x), theirs(net, x))
        assert theirs(net, x).any()
        again = from_snntorch(back, x[0])
        for one, other in zip(graph.nodes.values(), again.nodes.values(), strict=True):
            assert type(one) is type(other)
            assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one.tensors(), other.tensors(), strict=True))
        back(x[0]).sum().backward()
        assert back[0].weight.grad is not None


def test_networks_with_branches_come_out_as_wired_modules() -> None:
    one, x = torch.ones(()), coarse(series(20))
    nodes = {
        "x": Input((6,)), "a": Affine(torch.randn(4, 6)), "f": Leaky(one * 0.9, one), "b": Affine(torch.randn(4, 6)),
        "g": Synaptic(one * 0.5, one * 0.5, one), "sum": Add(), "cat": Concat(0), "h": LI(one * 0.9),
    }  # fmt: skip
    sources = {
        "a": ("x",),
        "f": ("a",),
        "b": ("x",),
        "g": ("b",),
        "sum": ("f", "g"),
        "cat": ("sum", "f"),
        "h": ("cat",),
    }
    graph = Graph(nodes, sources)
    back = to_snntorch(graph)
    assert isinstance(back, Wired)
    torch.testing.assert_close(theirs(back, x, output=1), ours(graph, x))


def test_what_snntorch_cannot_say_is_listed() -> None:
    one = torch.ones(())
    nodes = {
        "x": Input((1, 4, 4)), "if": IF(one, one / 2), "max": MaxCount((2, 2), (2, 2), (0, 0)),
        "late": LIF(one, one, one * 0), "li": LI(one),
    }  # fmt: skip
    graph = Graph(nodes, {"if": ("x",), "max": ("if",), "late": ("max",), "li": ("late",)})
    with pytest.raises(UnsupportedNode, match=r"(?s)3 node\(s\).*v0 != 0.*'max': MaxCount.*late spikes") as caught:
        to_snntorch(graph)
    assert len(str(caught.value).splitlines()) == 4
    with pytest.raises(ParameterError, match="allow"):
        to_snntorch(graph, allow=("everything",))
    del nodes["max"]
    allowed = to_snntorch(Graph(nodes, {"if": ("x",), "late": ("if",), "li": ("late",)}), allow=("v0", "late spikes"))
    assert len(theirs(allowed, torch.rand(5, 2, 1, 4, 4))) == 5


def test_trained_on_digits_it_keeps_spikes_and_accuracy() -> None:
    """One epoch in snnTorch on MNIST-5k, ten steps."""
    split = datasets.load("mnist-5k")
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 48), snn.Leaky(0.9, init_hidden=True), nn.Linear(48, 10),
        snn.Leaky(0.9, init_hidden=True),
    )  # fmt: skip
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    for x, y in zip(split.train_x[:2000].split(100), split.train_y[:2000].split(100), strict=True):
        at_rest(net)
        loss = F.cross_entropy(torch.stack([net(x) for _ in range(10)]).sum(0), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x, y = split.test_x[:300], split.test_y[:300]
    hidden: list[Tensor] = []
    net[2].register_forward_hook(lambda part, given, spikes: hidden.append(spikes))
    for exact in (False, True):
        if exact:
            # Multiples of 2^-12 and 1/16 add without rounding, in whatever order a matrix product takes them.
            net, x = rounded(net, 4096), coarse(x)
        hidden.clear()
        expected = theirs(net, x.expand(10, *x.shape))
        inside = torch.stack(hidden).bool()
        graph = from_snntorch(net, x[:2])
        run = simulate(graph, x, steps=10, record=["spikes"])
        spikes = run.recordings["spikes"]
        assert inside.any()
        accuracy = (expected.sum(0).argmax(1) == y).float().mean()
        assert accuracy > 0.75
        if exact:
            assert torch.equal(spikes["2"], inside)
            assert torch.equal(spikes["4"], expected.bool())
            assert (run.outputs.argmax(1) == y).float().mean() == accuracy
        else:
            assert float((spikes["4"] != expected.bool()).float().mean()) < 1e-3


def test_alpha_and_synaptic_nodes_refuse_bad_parameters() -> None:
    one = torch.ones(())
    with pytest.raises(ParameterError, match="greater than beta"):
        Alpha(one / 2, one / 2, one)
    with pytest.raises(ParameterError, match="alpha must lie"):
        Synaptic(2 * one, one, one)
    with pytest.raises(ParameterError, match="reset must be 'subtract' or 'zero' or 'none'"):
        Leaky(one, one, "half")  # type: ignore[arg-type]
