"""Networks that train through time: equal to written-out loops, to themselves cut anywhere, and to simulate."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuro import Network, simulate, trace
from neuro.errors import ParameterError, ShapeError, UnsupportedNode
from neuro.graph import Graph, Input
from neuro.modules import IF, LI, LIF, AdaptiveLIF, Alpha, ParallelLIF, Population, Recurrent, Synaptic
from neuro.nodes import GradedIF
from neuro.surrogate import ArcTan, Boxcar, SuperSpike, Triangle
from neuro.unrolled import Trajectory

ONE = torch.ones(())


class WrittenOutSpike(torch.autograd.Function):
    """[v >= theta] forward, the arctan slope of width pi / 2 backward, as a paper would write it."""

    @staticmethod
    def forward(ctx, u):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(u)
        return (u >= 0).float()

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        (u,) = ctx.saved_tensors
        return g / (1 + (math.pi * u) ** 2)


def mlp(*neurons: Population, sizes: tuple[int, ...] = (12, 9, 5)) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k, neuron in enumerate(neurons):
        layers += [nn.Linear(sizes[k], sizes[k + 1]), neuron]
    return nn.Sequential(*layers)


def network(step: nn.Module, features: tuple[int, ...] = (12,), **options: object) -> Network:
    options.setdefault("kernel", "reference")
    return Network(trace(step, torch.zeros(1, *features)), **options)  # type: ignore[arg-type]


def dyadic(net: Network) -> Network:
    """Weights in eighths: every sum of the forward pass is exact, in whatever order."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((8 * parameter).round().clamp(-8, 8) / 8)
    return net


def gradients(net: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.parameters())))


def poisson(*shape: int, seed: int = 0) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


def same_spikes(net: Network, x: Tensor, **options: object) -> bool:
    """Whether simulate gives, for the trained graph, the spikes that the network gave."""
    seen = net(x, record=True, **options)
    run = simulate(net.graph, x, record=["spikes"], kernel="reference", **options)  # type: ignore[arg-type]
    assert seen.spikes.keys() == run.recordings["spikes"].keys()
    return all(torch.equal(run.recordings["spikes"][name].float(), z) for name, z in seen.spikes.items())


def test_the_example_of_the_manual() -> None:
    step = nn.Sequential(nn.Linear(784, 100), LIF(beta=0.95), nn.Linear(100, 10), LIF(beta=0.95))
    net = network(step, (784,))
    x = poisson(25, 4, 784)
    seen = net(x, record=True)
    assert isinstance(seen, Trajectory)
    assert seen.outputs.shape == (25, 4, 10)
    assert torch.equal(seen.outputs, net(x))
    assert torch.equal(seen.outputs, seen.spikes["3"])
    assert {name: tuple(z.shape) for name, z in seen.spikes.items()} == {"1": (25, 4, 100), "3": (25, 4, 10)}
    assert 0 < seen.spikes["1"].mean() < 1
    assert same_spikes(net, x)
    assert [key for key, _ in net.named_parameters()] == ["0/weight", "0/bias", "2/weight", "2/bias"]


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_gradients_of_a_written_out_loop(reset: str) -> None:
    net = network(mlp(LIF(0.9, reset=reset, learn=True), LIF(0.8, theta=0.7, reset=reset, learn=True)))  # type: ignore[arg-type]
    x, target = poisson(15, 6, 12), torch.rand(15, 6, 5)
    own = dict(net.named_parameters())
    layers = [[own[f"{k}/weight"], own[f"{k}/bias"], own[f"{k + 1}/beta"], own[f"{k + 1}/theta"]] for k in (0, 2)]
    v = [torch.zeros(6, 9), torch.zeros(6, 5)]
    outputs = []
    for z in x:
        for k, (weight, bias, beta, theta) in enumerate(layers):
            u = beta * v[k] + z @ weight.T + bias
            z = WrittenOutSpike.apply(u - theta)
            fired = z.detach()
            v[k] = u - theta * fired if reset == "subtract" else u * (1 - fired) if reset == "zero" else u
        outputs.append(z)
    wanted = torch.stack(outputs)
    got = net(x)
    assert torch.equal(got, wanted)
    assert 0.005 < got.mean() < 0.98
    for one, other in zip(
        gradients(net, ((got - target) ** 2).mean()), gradients(net, ((wanted - target) ** 2).mean()), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_gradients_of_a_written_out_recurrent_loop() -> None:
    step = nn.Sequential(
        nn.Linear(12, 7), Recurrent(nn.Linear(7, 7), AdaptiveLIF(0.9, 0.95, 0.2, learn=True)), nn.Linear(7, 3), LI(0.8)
    )
    net = network(step)
    own = dict(net.named_parameters())
    x = poisson(12, 5, 12)
    beta, rho, rise, theta = (own[f"1/population/{name}"] for name in ("beta", "rho", "rise", "theta"))
    back, offset = (own[f"1/back/linear/{name}"] for name in ("weight", "bias"))
    y, v, a, m = torch.zeros(5, 7), torch.zeros(5, 7), torch.zeros(5, 7), torch.zeros(5, 3)
    outputs = []
    for z in x:
        v = beta * v + (z @ own["0/weight"].T + own["0/bias"] + (y @ back.T + offset))
        y = WrittenOutSpike.apply(v - (theta + rise * a))
        v, a = v - theta * y.detach(), rho * a + y
        m = 0.8 * m + y @ own["2/weight"].T + own["2/bias"]
        outputs.append(m)
    wanted, got = torch.stack(outputs), net(x)
    torch.testing.assert_close(got, wanted)
    assert set(own) >= {"1/population/rho", "1/back/linear/weight"}
    for one, other in zip(gradients(net, got.square().mean()), gradients(net, wanted.square().mean()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
def test_gradients_of_snntorch(kind: str) -> None:
    snn = pytest.importorskip("snntorch")
    from neuro import nodes

    weight, x = (0.6 * torch.randn(6, 12)).requires_grad_(), poisson(20, 4, 12)
    if kind == "Leaky":
        node, cell = nodes.Leaky(0.9 * ONE, ONE), snn.Leaky(0.9, spike_grad=snn.surrogate.atan(2.0))
    else:
        node = nodes.Synaptic(0.7 * ONE, 0.9 * ONE, ONE)
        cell = snn.Synaptic(0.7, 0.9, spike_grad=snn.surrogate.atan(2.0))
    affine = nodes.Affine(weight.detach().clone())
    net = Network(Graph({"x": Input((12,)), "w": affine, "z": node}, {"w": ("x",), "z": ("w",)}), kernel="reference")
    states = [torch.zeros(4, 6)] * (1 if kind == "Leaky" else 2)
    outputs = []
    for i in x @ weight.T:
        z, *states = cell(i, *states)
        outputs.append(z)
    wanted, got, target = torch.stack(outputs), net(x), torch.rand(20, 4, 6)
    assert torch.equal(got, wanted)
    assert 0.02 < got.mean() < 0.98
    (theirs,) = torch.autograd.grad(((wanted - target) ** 2).mean(), weight)
    torch.testing.assert_close(gradients(net, ((got - target) ** 2).mean())[0], theirs, rtol=1e-4, atol=1e-7)


def test_gradients_of_norse() -> None:
    """Its recurrent LIF without weights back, whose reset lets no gradient through; its slope forgets alpha (1.1)."""
    pytest.importorskip("norse")
    from norse.torch.functional.lif import LIFParameters, LIFState, lif_step

    from neuro import nodes

    weight, x = (0.6 * torch.randn(6, 12)).requires_grad_(), poisson(20, 4, 12)
    dt, p = 1e-3, LIFParameters(200 * ONE, 100 * ONE, 0 * ONE, 0.3 * ONE, 0 * ONE, "super", 20 * ONE)
    state, outputs = LIFState(torch.zeros(4, 6), torch.zeros(4, 6), torch.zeros(4, 6)), []
    for z in x:
        fired, state = lif_step(z, state, weight, torch.zeros(6, 6), p, dt=dt)
        outputs.append(fired)
    node = nodes.CurrentLIF(dt * p.tau_syn_inv, dt * p.tau_mem_inv, p.v_th, p.v_leak, p.v_reset)
    graph = Graph(
        {"x": Input((12,)), "w": nodes.Affine(weight.detach().clone()), "z": node}, {"w": ("x",), "z": ("w",)}
    )
    net = Network(graph, surrogate=SuperSpike(1.0), kernel="reference")
    wanted, got, target = torch.stack(outputs), net(x), torch.rand(20, 4, 6)
    assert torch.equal(got, wanted)
    assert 0.02 < got.mean() < 0.98
    (theirs,) = torch.autograd.grad(((wanted - target) ** 2).mean(), weight)
    torch.testing.assert_close(gradients(net, ((got - target) ** 2).mean())[0], theirs, rtol=1e-4, atol=1e-7)


NEURONS: tuple[Callable[[], Population], ...] = (
    lambda: IF(), lambda: LIF(0.5), lambda: LIF(0.75, reset="zero"), lambda: ParallelLIF(0.5),
    lambda: AdaptiveLIF(0.5, 0.75, 0.25), lambda: Synaptic(0.5, 0.75),
    lambda: Synaptic(0.5, 0.5, reset="zero", delay=False),
)  # fmt: skip


class Random(nn.Module):
    """A chain of layers with a shortcut and, perhaps, a loop."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)

        def neuron() -> Population:
            return NEURONS[int(torch.randint(len(NEURONS), (), generator=draw))]()

        loop = bool(torch.randint(2, (), generator=draw))
        self.enter, self.first = nn.Linear(6, 5), Recurrent(nn.Linear(5, 5, bias=False), neuron()) if loop else neuron()
        self.between, self.second = nn.Linear(5, 5, bias=False), neuron()
        self.leave, self.last = nn.Linear(5, 3), neuron() if torch.rand((), generator=draw) < 0.5 else LI(0.5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(self.enter(x))
        return self.last(self.leave(z + self.second(self.between(z))))


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 4))
def test_random_networks_keep_their_invariants(seed: int, steps: int, batch: int) -> None:
    """simulate agrees; a batch is a stack of singles; a run cut anywhere, or computed again in parts, is the run."""
    torch.manual_seed(seed)
    net = dyadic(network(Random(seed), (6,), surrogate=Triangle()))
    x = poisson(steps, batch, 6, seed=seed)
    assert same_spikes(net, x)
    whole = net(x, record=True)
    singles = [net(x[:, [b]]) for b in range(batch)]
    assert torch.equal(whole.outputs, torch.cat(singles, 1))
    cut = seed % (steps + 1)
    states, parts = None, []
    for part in (x[:cut], x[cut:]):
        if len(part):
            seen = net(part, states=states, record=True)
            states = seen.states
            parts.append(seen.outputs)
    assert torch.equal(whole.outputs, torch.cat(parts))
    assert states is not None
    for name, state in whole.states.items():
        assert state.t == steps == states[name].t
        assert all(
            torch.equal(a, b) for a, b in zip((state.v, *state.kept), (states[name].v, *states[name].kept), strict=True)
        )
    net.checkpoint = 1 + seed % 4
    assert torch.equal(net(x), whole.outputs)
    for one, other in zip(gradients(net, net(x).sum()), gradients(net, whole.outputs.sum()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_what_is_computed_again_gives_the_same_bytes() -> None:
    """Where sums are exact in any order, gradients of a checkpointed run are those of a plain one, bit for bit."""
    net = dyadic(network(mlp(LIF(0.5), LIF(0.5)), surrogate=Boxcar(width=0.5, height=1.0)))
    x = poisson(12, 4, 12)
    wanted = net(x)
    plain = gradients(net, wanted.sum())
    assert sum(float(g.abs().sum()) for g in plain) > 0
    for net.checkpoint in (1, 5, 12, 50):
        again = net(x, record=True)
        assert torch.equal(again.outputs, wanted)
        assert again.spikes["1"].shape == (12, 4, 9)
        assert all(torch.equal(a, b) for a, b in zip(gradients(net, again.outputs.sum()), plain, strict=True))


def test_checkpoints_hold_less_memory() -> None:
    def held(checkpoint: int) -> int:
        net = network(mlp(Synaptic(0.9, 0.9), Synaptic(0.9, 0.9)), checkpoint=checkpoint)
        kept: set[tuple[int, int]] = set()

        def pack(tensor: Tensor) -> Tensor:
            kept.add((tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = net(poisson(60, 8, 12))
        output.sum().backward()
        return sum(size for _, size in kept)

    assert held(10) < held(0) / 2


def test_batch_norm_over_time() -> None:
    step = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        LIF(0.5),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
        LIF(0.5),
    )
    x = poisson(6, 3, 1, 6, 6)
    net = network(step, (1, 6, 6)).train()
    before = net.graph
    net(x).sum().backward()
    rows = nn.functional.conv2d(x.flatten(0, 1), before.nodes["0"].weight)  # type: ignore[attr-defined]
    torch.testing.assert_close(net.graph.nodes["1"].mean, 0.1 * rows.mean((0, 2, 3)))  # type: ignore[attr-defined]
    assert same_spikes(net.eval(), x)
    net.checkpoint = 2
    assert torch.equal(net(x), Network(net.graph, kernel="reference").eval()(x))
    with pytest.raises(ParameterError, match="batch norms in training need all steps"):
        net.train()(x)


def test_dropout_drops_the_same_values_at_every_step() -> None:
    net = network(nn.Sequential(nn.Dropout(0.5), nn.Identity(), LI(0.0))).train()
    kept = net(torch.ones(7, 3, 12))
    assert torch.equal(kept, kept[:1].expand(7, 3, 12))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(net.eval()(torch.ones(7, 3, 12)), torch.ones(7, 3, 12))


def test_a_constant_input_is_a_held_one() -> None:
    net = network(mlp(LIF(0.9), LIF(0.9)))
    x = torch.rand(4, 12)
    assert torch.equal(net(x, steps=10), net(x.expand(10, 4, 12)))
    assert same_spikes(net, x, steps=10)
    assert net(x, steps=1).shape == (1, 4, 5)
    plain = network(nn.Sequential(LIF(0.5), nn.Linear(12, 2)))
    assert plain(x, steps=3).shape == (3, 4, 2)


def test_parameters_of_neurons_learn_within_their_domain() -> None:
    beta = torch.linspace(0.1, 0.99, 9)
    net = network(mlp(LIF(beta, theta=torch.full((9,), 0.5), learn=("beta", "theta")), LIF(0.9)))
    own = dict(net.named_parameters())
    assert own["1/beta"].shape == own["1/theta"].shape == (9,)
    assert "3/beta" not in own
    with torch.no_grad():
        own["1/beta"].copy_(torch.tensor([-3.0, -3.0, 0.0, 1.0, 1.5, 1.5, 0.5, 0.5, 0.5]))
        own["1/theta"][0] = -1.0
    node = net.graph.nodes["1"]
    assert node.beta.tolist() == [0, 0, 0, 1, 1, 1, 0.5, 0.5, 0.5]  # type: ignore[attr-defined]
    assert 0 < float(node.theta[0]) < 1e-30  # type: ignore[attr-defined]
    assert same_spikes(net, poisson(8, 3, 12))
    net(poisson(8, 3, 12)).sum().backward()
    for sign in (1.0, -1.0):
        live = net.live().nodes["1"].beta  # type: ignore[attr-defined]
        (slope,) = torch.autograd.grad((sign * live).sum(), own["1/beta"])
        held = [0, 0, 0, 1, 1, 1, 1, 1, 1] if sign > 0 else [1, 1, 1, 0, 0, 0, 1, 1, 1]
        assert (sign * slope).tolist() == held


def test_alpha_keeps_its_decays_apart() -> None:
    net = network(mlp(Alpha(0.9, 0.8, learn=True), LIF(0.9)))
    own = dict(net.named_parameters())
    with torch.no_grad():
        own["1/alpha"].fill_(0.5)
        own["1/beta"].fill_(0.7)
    node = net.graph.nodes["1"]
    assert float(node.alpha) > float(node.beta)  # type: ignore[attr-defined]
    assert all(bool(torch.isfinite(g).all()) for g in gradients(net, net(poisson(9, 3, 12)).sum()))


def test_what_learns_can_be_named() -> None:
    graph = trace(mlp(LIF(0.9, learn=True), LIF(0.9)), torch.zeros(1, 12))
    assert {"1/beta", "1/theta"} == {key for key, _ in Network(graph).named_parameters() if key[0] in "13"}
    assert {"1/beta", "3/beta"} == {
        key for key, _ in Network(graph, learn=["beta"]).named_parameters() if key[0] in "13"
    }
    assert {"3/theta"} == {key for key, _ in Network(graph, learn=["3/theta"]).named_parameters() if key[0] in "13"}
    with pytest.raises(
        ParameterError, match=r"learn names \['tau'\]; populations of .* have \['beta', 'theta', 'v0'\]"
    ):
        Network(graph, learn=["tau"])


def test_a_population_can_have_its_own_surrogate() -> None:
    step = mlp(LIF(0.9), LIF(0.9))
    x = poisson(10, 4, 12)
    graph = trace(step, torch.zeros(1, 12))
    wide, narrow = Boxcar(5.0), Boxcar(1e-6)
    both = Network(graph, surrogate=wide, surrogates={"1": narrow}, kernel="reference")
    through = [float(g.abs().sum()) for g in gradients(both, both(x).sum())]
    assert through[0] == 0
    assert through[2] > 0
    with pytest.raises(ParameterError, match=r"surrogates names \['nobody'\]; .* has \['1', '3'\]"):
        Network(graph, surrogates={"nobody": ArcTan()})


def test_a_step_of_any_optimiser_and_the_state_of_another_network() -> None:
    graph = trace(mlp(LIF(0.9, learn=True), LIF(0.9)), torch.zeros(1, 12))
    x, first, second = poisson(9, 8, 12), Network(graph, kernel="reference"), Network(graph, kernel="reference")
    for descent in (torch.optim.AdamW(first.parameters(), 0.05), torch.optim.SGD(first.parameters(), 0.1, 0.9)):
        losses = []
        for _ in range(10):
            descent.zero_grad()
            loss = (first(x).mean(0) - torch.eye(8, 5)).square().mean()
            loss.backward()
            descent.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))
    assert same_spikes(first, x)


def test_membranes_stay_in_32_bits_under_autocast() -> None:
    net = network(nn.Sequential(nn.Linear(12, 9), Recurrent(nn.Linear(9, 9), LIF(0.9)), nn.Linear(9, 5), LI(0.9)))
    x = poisson(10, 4, 12)
    with torch.autocast("cpu", torch.bfloat16):
        seen = net(x, record=True)
    assert seen.outputs.dtype == torch.float32
    assert all(tensor.dtype == torch.float32 for state in seen.states.values() for tensor in (state.v, *state.kept))
    assert all(g.dtype == torch.float32 for g in gradients(net, seen.outputs.sum()))
    torch.testing.assert_close(seen.outputs, net(x), rtol=0.2, atol=0.3)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_torch_compile_around_it() -> None:
    """Code around the network is compiled; within it the kernels of this project run as they are."""
    net = network(mlp(LIF(0.9), LIF(0.9)))
    x = poisson(3, 4, 12)
    wanted = net(x)
    got = torch.compile(lambda x: 2 * net(x), backend="eager")(x) / 2
    assert torch.equal(got, wanted)
    for one, other in zip(gradients(net, got.sum()), gradients(net, wanted.sum()), strict=True):
        torch.testing.assert_close(one, other)


def test_refusals() -> None:
    net = network(mlp(LIF(0.9), LIF(0.9)))
    with pytest.raises(ParameterError, match="say how many steps"):
        net(torch.zeros(3, 12))
    with pytest.raises(ParameterError, match="x has 4 steps, not 5"):
        net(torch.zeros(4, 3, 12), steps=5)
    with pytest.raises(ShapeError, match=r"takes \(time, batch, 12\) or \(batch, 12\), got \(3, 11\)"):
        net(torch.zeros(3, 11), steps=2)
    with pytest.raises(ParameterError, match="states must be those of"):
        net(torch.zeros(4, 3, 12), states={"1": net(torch.zeros(1, 3, 12), record=True).states["1"]})
    with pytest.raises(ParameterError, match="checkpoint must be a number of steps"):
        network(mlp(LIF(0.9)), checkpoint=-1)
    with pytest.raises(ParameterError, match="kernel must be one of"):
        network(mlp(LIF(0.9)), kernel="cuda")
    with pytest.raises(ParameterError, match="has no neurons"):
        network(nn.Linear(12, 2))(torch.zeros(3, 12), steps=2)
    graded = Graph({"x": Input((3,)), "g": GradedIF(ONE, 0 * ONE, 3)}, {"g": ("x",)})
    with pytest.raises(UnsupportedNode, match="do not train through time \\(GradedIF 'g'\\)"):
        Network(graded)
