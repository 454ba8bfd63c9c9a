"""NIR in and out: equations in closed form first, then Norse on the same graph, then every layout and round trips."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from converters.read.from_nir import from_nir
from converters.read.nir_units import Units, above, below
from converters.read.to_nir import to_nir
from neuro.errors import FileError, LossyExport, ParameterError
from neuro.graph import Graph, Input, Node
from neuro.nodes import (
    IAF,
    IF,
    LI,
    LIF,
    Add,
    Affine,
    AvgPool,
    BoxLIF,
    Conv,
    CurrentLI,
    Delay,
    MaxPool,
    Readout,
    Recurrent,
    Reshape,
    Scale,
)
from neuro.simulate import simulate

nir = pytest.importorskip("nir", reason="the nir package is needed to write what from_nir reads")
DT = 1e-4


def chain(*nodes: object, shape: Sequence[int] = (5,)) -> object:
    """A nir.NIRGraph of nodes in a row; types are not checked, since nir 1.0.8 refuses grouped convolutions."""
    named = {"input": nir.Input(np.array(shape)), **{f"n{i}": node for i, node in enumerate(nodes)}}
    order = [*named, "output"]
    return graph({**named, "output": nir.Output(np.array([], dtype=int))}, list(itertools.pairwise(order)))


def graph(nodes: Mapping[str, object], edges: list[tuple[str, str]]) -> object:
    return nir.NIRGraph(dict(nodes), edges, type_check=False)


def spikes(found: Graph, x: Tensor, name: str) -> Tensor:
    return simulate(found, x, record=["spikes"]).recordings["spikes"][name].float()


def outputs(found: Graph, x: Tensor) -> Tensor:
    return simulate(found, x, record=["outputs"]).recordings["outputs"][found.output]


def lif(
    n: int, tau: object = 2e-3, r: object = 1.0, v_leak: object = 0.0, theta: object = 0.1, v_reset: object = 0.0
) -> object:
    values = {"tau": tau, "r": r, "v_leak": v_leak, "v_threshold": theta, "v_reset": v_reset}
    return nir.LIF(**{name: np.broadcast_to(np.asarray(value, float), n).copy() for name, value in values.items()})


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def assert_same(left: Graph, right: Graph) -> None:
    """All nodes, names, edges and order the same, tensors bit for bit."""
    assert list(left.nodes) == list(right.nodes)
    assert dict(left.sources) == dict(right.sources)
    for name, node in left.nodes.items():
        other = right.nodes[name]
        assert type(node) is type(other), name
        for item in fields(node):  # type: ignore[arg-type]
            one, two = getattr(node, item.name), getattr(other, item.name)
            if isinstance(one, Tensor):
                assert (one.dtype, one.shape) == (two.dtype, two.shape), (name, item.name)
                assert torch.equal(one, two), (name, item.name)
            elif isinstance(one, Graph):
                assert_same(one, two)
                assert one.name == two.name
            else:
                assert one == two, (name, item.name)


@settings(max_examples=40)
@given(st.floats(1e-3, 5e-2), st.floats(1.05, 8), st.floats(0.2, 3), st.sampled_from([1e-4, 2.5e-4, 1e-3]))
def test_exact_integration_fires_when_the_closed_form_does(tau: float, drive: float, theta: float, dt: float) -> None:
    first = -tau * math.log(1 - 1 / drive) / dt
    found = from_nir(chain(lif(1, tau=tau, r=2.0, theta=theta), shape=(1,)), dt=dt, integrator="exact")
    steps = math.ceil(first) + 2
    fired = spikes(found, torch.full((steps, 1, 1), drive * theta / 2), "n0")[:, 0, 0]
    assert abs(int(fired.argmax()) + 1 - first) < 1 + 1e-3 * first


@given(st.floats(2e-4, 5e-2), st.floats(-2, 2), st.floats(-2, 2), st.integers(1, 50))
@settings(max_examples=30)
def test_leaky_integrators_follow_their_equation(tau: float, v_leak: float, current: float, steps: int) -> None:
    node = nir.LI(tau=np.array([tau]), r=np.array([3.0]), v_leak=np.array([v_leak]))
    x = torch.full((steps, 1, 1), current)
    exact = outputs(from_nir(chain(node, shape=(1,)), dt=DT, integrator="exact"), x)[-1].item()
    assert exact == pytest.approx(v_leak + 3 * current * (1 - math.exp(-steps * DT / tau)), rel=1e-4, abs=1e-4)
    euler = outputs(from_nir(chain(node, shape=(1,)), dt=DT), x)[-1].item()
    assert euler == pytest.approx(v_leak + 3 * current * (1 - (1 - DT / tau) ** steps), rel=1e-4, abs=1e-4)


def test_neurons_fire_above_their_threshold_not_at_it() -> None:
    """NIR: z = [v > v_threshold]. A current of exactly the threshold never fires, whatever is added up."""
    x = torch.full((3000, 1, 3), 1.0)
    found = from_nir(chain(lif(3, tau=[5e-4, 2.5e-3, 7e-3], theta=1.0), shape=(3,)), dt=DT)
    assert not spikes(found, x, "n0").any()
    half = nir.IF(r=np.ones(1), v_threshold=np.ones(1), v_reset=np.zeros(1))
    fired = spikes(from_nir(chain(half, shape=(1,))), torch.full((9, 1, 1), 0.5), "n0")
    assert fired.flatten().tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 1]


def test_discrete_neurons_become_lif_and_keep_their_threshold() -> None:
    """r = tau / dt is how frameworks of discrete time write v <- beta v + i."""
    found = from_nir(chain(lif(5, tau=1e-3, r=10.0, theta=0.7)), dt=DT)
    node = found.nodes["n0"]
    assert isinstance(node, LIF)
    assert torch.equal(node.beta, torch.full((5,), 0.9))
    assert bool((node.theta == np.nextafter(np.float32(0.7), np.float32(1))).all())
    assert isinstance(from_nir(chain(lif(5, tau=1e-3, r=10.0)), dt=2e-4).nodes["n0"], BoxLIF)


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_thresholds_survive_the_change_of_edge(theta: float) -> None:
    value = np.array([theta], np.float32)
    assert above(below(value)) == value
    assert below(value) < value


@given(st.floats(1e-6, 1), st.sampled_from(["euler", "exact"]), st.floats(1e-6, 1e-2))
def test_rates_and_time_constants_are_inverse(rate: float, integrator: str, dt: float) -> None:
    units = Units(dt, "zero", integrator)  # type: ignore[arg-type]
    rates = np.array([rate * 0.999])
    assert units.rate(units.tau(rates)) == pytest.approx(rates, rel=1e-9)


def norse_spikes(given_graph: object, x: Tensor, dt: float = DT) -> Tensor:
    norse = pytest.importorskip("norse.torch", reason="Norse is the independent engine")
    module, state, fired = norse.from_nir(given_graph, dt=dt), None, []
    with torch.no_grad():
        for current in x:
            z, state = module(current, state)
            fired.append(z)
    return torch.stack(fired)


NORSE = {
    "LIF": lif(7, tau=np.linspace(1e-3, 5e-3, 7)),
    "LIF towards a leak": lif(7, tau=np.linspace(1e-3, 2e-2, 7), v_leak=np.linspace(-0.2, 0.2, 7), theta=0.25),
    "CubaLIF": nir.CubaLIF(
        tau_syn=np.linspace(2e-4, 4e-3, 7), tau_mem=np.linspace(8e-3, 1e-3, 7), r=np.full(7, 1.7), v_leak=np.zeros(7),
        v_threshold=np.full(7, 0.1), w_in=np.full(7, 0.9),
    ),
    "IF": nir.IF(r=np.ones(7), v_threshold=np.full(7, 1.5)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NORSE)
def test_norse_gives_the_same_spikes(name: str) -> None:
    """Norse on the same graph with the same dt, 1000 steps, every spike."""
    torch.manual_seed(0)
    weights = nir.Affine(draws(1, 7, 5).astype(np.float32), draws(2, 7).astype(np.float32) * 0.1)
    nodes = {"input": nir.Input(np.array([5])), "fc": weights, "n": NORSE[name], "output": nir.Output(np.array([7]))}
    network = nir.NIRGraph(nodes, [("input", "fc"), ("fc", "n"), ("n", "output")])
    x = (torch.rand(1000, 3, 5) < 0.3).float()
    ours = spikes(from_nir(network, dt=DT), x, "n")
    assert ours.sum() > 50
    assert torch.equal(ours, norse_spikes(network, x))


@pytest.mark.filterwarnings("ignore")
def test_norse_reads_what_is_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rate, one = torch.tensor([0.02, 0.05, 0.1]), torch.ones(3)
    box = BoxLIF(rate, 0.1 * one, 0.02 * one, 0 * one)
    own = Graph({"image": Input((4,)), "fc": Affine(torch.randn(3, 4)), "box": box}, {"fc": ("image",), "box": ("fc",)})
    to_nir(own, tmp_path / "net.nir", dt=DT)
    x = (torch.rand(500, 2, 4) < 0.3).float()
    ours = spikes(own, x, "box")
    assert ours.any()
    assert torch.equal(ours, norse_spikes(nir.read(tmp_path / "net.nir"), x))


def braille_like(nested: bool) -> object:
    """The recurrent network of the NIR paper, small: affine, recurrent CubaLIF, affine, CubaLIF; dt = 1e-4."""

    def cuba(n: int, alpha: float, beta: float) -> object:
        one = np.ones(n)
        return nir.CubaLIF(
            tau_syn=one * DT / (1 - alpha), tau_mem=one * DT / (1 - beta), r=one / (1 - beta), v_leak=0 * one,
            v_threshold=one, w_in=one / (1 - alpha),
        )  # fmt: skip

    back = nir.Affine(draws(3, 6, 6) * 0.5, draws(4, 6) * 0.1)
    inner = {"lif": cuba(6, 0.5, 0.9), "w_rec": back}
    loop = [("lif", "w_rec"), ("w_rec", "lif")]
    nodes = {"input": nir.Input(np.array([4])), "fc1": nir.Affine(draws(5, 6, 4) * 0.4, draws(6, 6) * 0.1)}
    ends = {
        "fc2": nir.Affine(draws(7, 2, 6), draws(8, 2) * 0.1),
        "lif2": cuba(2, 0.6, 0.55),
        "output": nir.Output(np.array([2])),
    }
    tail = [("fc2", "lif2"), ("lif2", "output")]
    if not nested:
        named = {f"lif1.{name}": node for name, node in inner.items()}
        edges = [(f"lif1.{a}", f"lif1.{b}") for a, b in loop]
        return graph(
            {**nodes, **named, **ends}, [("input", "fc1"), ("fc1", "lif1.lif"), *edges, ("lif1.lif", "fc2"), *tail]
        )
    ports = {"input": nir.Input(np.array([6])), "output": nir.Output(np.array([6]))}
    sub = nir.NIRGraph({**inner, **ports}, [("input", "lif"), *loop, ("lif", "output")], type_check=False)
    return graph({**nodes, "lif1": sub, **ends}, [("input", "fc1"), ("fc1", "lif1"), ("lif1", "fc2"), *tail])


@pytest.mark.parametrize("nested", [False, True])
def test_recurrent_networks_equal_their_recursion(nested: bool, tmp_path: Path) -> None:
    """Written out by hand in float64: i_t = x_t + W z_(t-1) + b, s <- alpha s + i, v <- beta v + s, reset to 0."""
    torch.manual_seed(1)
    x = (torch.rand(300, 2, 4) < 0.3).float()
    s1, v1, z1, s2, v2 = np.zeros((2, 6)), np.zeros((2, 6)), np.zeros((2, 6)), np.zeros((2, 2)), np.zeros((2, 2))
    hidden, wanted = [], []
    for entered in x.double().numpy():
        current = (
            entered @ (draws(5, 6, 4) * 0.4).T + draws(6, 6) * 0.1 + z1 @ (draws(3, 6, 6) * 0.5).T + draws(4, 6) * 0.1
        )
        s1 = 0.5 * s1 + current
        v1 = 0.9 * v1 + s1
        z1 = (v1 > 1).astype(float)
        v1 = v1 * (1 - z1)
        s2 = 0.6 * s2 + z1 @ draws(7, 2, 6).T + draws(8, 2) * 0.1
        v2 = 0.55 * v2 + s2
        wanted.append((v2 > 1).astype(float))
        v2 = v2 * (v2 <= 1)
        hidden.append(z1)
    network = braille_like(nested)
    nir.write(str(tmp_path / "net.nir"), network)
    for source in (network, tmp_path / "net.nir"):
        found = from_nir(source, dt=DT)
        node = found.nodes["lif1.lif"]
        assert isinstance(node, Recurrent)
        assert torch.equal(spikes(found, x, "lif1.lif"), torch.tensor(np.stack(hidden)).float())
        assert torch.equal(spikes(found, x, "lif2"), torch.tensor(np.stack(wanted)).float())
        assert 0.01 < np.mean(hidden) < 0.9
        to_nir(found, tmp_path / "again.nir", dt=DT)
        assert_same(from_nir(tmp_path / "again.nir", dt=DT), found)
    with h5py.File(tmp_path / "again.nir") as written:
        kinds = {name: node["type"][()].decode() for name, node in written["node/nodes"].items()}
    assert (kinds["lif1.lif"], kinds["lif1.w_rec"], kinds["lif2"]) == ("CubaLIF", "Affine", "CubaLIF")


def test_weights_keep_bias_groups_and_rectangles() -> None:
    torch.manual_seed(0)
    affine = nir.Affine(np.zeros((3, 5)), np.array([10.0, 20.0, 30.0]))
    assert simulate(from_nir(chain(affine)), torch.zeros(1, 5)).outputs.tolist() == [[10, 20, 30]]
    x = torch.randn(2, 4, 9, 8)
    for stride, padding, dilation, groups in [
        ((1, 2), (0, 2), (1, 1), 2),
        ((2, 1), (1, 0), (2, 1), 4),
        ((1, 1), (1, 2), (1, 1), 1),
    ]:
        weight, bias = draws(1, 8, 4 // groups, 3, 5).astype(np.float32), draws(2, 8).astype(np.float32)
        node = nir.Conv2d(None, weight, stride, padding, dilation, groups, bias)
        wanted = torch.nn.functional.conv2d(
            x, torch.from_numpy(weight), torch.from_numpy(bias), stride, padding, dilation, groups
        )
        assert torch.equal(simulate(from_nir(chain(node, shape=(4, 9, 8))), x).outputs, wanted)
    weight, series = draws(3, 6, 2, 4).astype(np.float32), torch.randn(2, 4, 11)
    for padding, around in (("same", (1, 2)), ("valid", (0, 0)), (2, (2, 2))):
        node = nir.Conv1d(None, weight, 1, padding, 1, 2, np.zeros(6, np.float32))
        padded = torch.nn.functional.pad(series, around)
        wanted = torch.nn.functional.conv1d(padded, torch.from_numpy(weight), None, 1, 0, 1, 2)
        assert torch.allclose(simulate(from_nir(chain(node, shape=(4, 11))), series).outputs, wanted, atol=1e-6)


def test_pools_flatten_and_scales() -> None:
    x = torch.rand(2, 3, 7, 6)
    kernel, stride, padding = np.array([3, 2]), np.array([2, 2]), np.array([1, 0])
    mean = torch.nn.functional.avg_pool2d(x, (3, 2), (2, 2), (1, 0))
    pooled = from_nir(chain(nir.AvgPool2d(kernel, stride, padding), shape=(3, 7, 6)))
    assert torch.equal(simulate(pooled, x).outputs, mean)
    summed = from_nir(chain(nir.SumPool2d(kernel, stride, padding), shape=(3, 7, 6)))
    assert torch.allclose(simulate(summed, x).outputs, 6 * mean)
    for start, end, shape in [(0, -1, (126,)), (1, 2, (3, 42)), (0, 1, (21, 6)), (1, -1, (3, 42))]:
        node = nir.Flatten(np.array([3, 7, 6]), start, end)
        assert simulate(from_nir(chain(node, shape=(3, 7, 6))), x).outputs.shape == (2, *shape)
    scale = nir.Scale(np.arange(5.0))
    assert torch.equal(simulate(from_nir(chain(scale)), torch.ones(1, 5)).outputs[0], torch.arange(5.0))


def test_delays_and_thresholds() -> None:
    x = torch.randn(30, 2, 3)
    late = outputs(from_nir(chain(nir.Delay(np.array([0.0, 3e-4, 2e-3])), shape=(3,)), dt=DT), x)
    for feature, steps in enumerate((0, 3, 20)):
        assert torch.equal(late[steps:, :, feature], x[: 30 - steps, :, feature])
        assert not late[:steps, :, feature].any()
    fired = spikes(from_nir(chain(nir.Threshold(np.array([0.5])), shape=(3,))), x, "n0")
    assert torch.equal(fired, (x > 0.5).float())


def test_one_number_stands_for_all_and_edges_add_up() -> None:
    x = torch.rand(40, 2, 3, 4, 4)
    one = nir.LIF(tau=np.array(1e-3), r=np.array(5.0), v_leak=np.array(0.0), v_threshold=np.array(1.0))
    full = lif(1, tau=1e-3, r=5.0, theta=1.0)
    many = nir.LIF(
        **{n: np.broadcast_to(getattr(full, n), (3, 4, 4)).copy() for n in ("tau", "r", "v_leak", "v_threshold")}
    )
    assert torch.equal(
        spikes(from_nir(chain(one, shape=(3, 4, 4)), dt=DT), x, "n0"),
        spikes(from_nir(chain(many, shape=(3, 4, 4)), dt=DT), x, "n0"),
    )
    nodes = {"input": nir.Input(np.array([5])), "a": nir.Scale(np.full(5, 2.0)), "b": nir.Scale(np.full(5, 3.0))}
    edges = [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output"), ("input", "output")]
    found = from_nir(graph({**nodes, "output": nir.Output(np.array([5]))}, edges))
    assert torch.equal(simulate(found, torch.ones(1, 5)).outputs, torch.full((1, 5), 6.0))


def test_reset_modes() -> None:
    node = lif(1, tau=1e-3, r=10.0, theta=1.0, v_reset=0.25)
    x = torch.full((8, 1, 1), 0.75)
    for reset in ("zero", "subtract"):
        v, fired, potential = 0.0, [], []
        for _ in range(8):
            v = 0.9 * v + 0.75
            fired.append(float(v > 1))
            v = v - fired[-1] if reset == "subtract" else 0.25 if fired[-1] else v
            potential.append(v)
        found = from_nir(chain(node, shape=(1,)), dt=DT, reset=reset)  # type: ignore[arg-type]
        run = simulate(found, x, record=["spikes", "v"])
        assert run.recordings["spikes"]["n0"].float().flatten().tolist() == fired
        assert run.recordings["v"]["n0"].flatten().tolist() == pytest.approx(potential, abs=1e-5)
        assert any(
            reset in change.why and "0.0001 s" in change.why and "euler" in change.why for change in found.history
        )


def test_time_needs_a_step() -> None:
    for node in (lif(5), NORSE["CubaLIF"], nir.Delay(np.full(5, 1e-3)), nir.LI(*(np.ones(5) for _ in range(3)))):
        with pytest.raises(ParameterError, match=r"node 'n0', field .*say how long a step is, e\.g\. dt=1e-4"):
            from_nir(chain(node, shape=(7,) if node is NORSE["CubaLIF"] else (5,)))
    assert from_nir(chain(nir.IF(np.ones(5), np.ones(5)))).nodes["n0"].kind == "IF"
    for wrong in (0, -1e-4, math.nan, "1", True):
        with pytest.raises(ParameterError, match="dt must be a time step in seconds"):
            from_nir(chain(lif(5)), dt=wrong)  # type: ignore[arg-type]
    for name in ("reset", "integrator"):
        with pytest.raises(ParameterError, match=f"{name} must be"):
            from_nir(chain(lif(5)), dt=DT, **{name: "soft"})  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"a path or a nir\.NIRGraph"):
        from_nir(3)


def test_historic_layouts_say_the_same(tmp_path: Path) -> None:
    """One network as nir 0.0.1, 0.0.6, 0.1.0, 0.2.0 and 1.0 wrote it: Affine, LIF, Affine, LI."""
    w1, b1, w2, b2 = (draws(i, *s).astype(np.float32) for i, s in enumerate([(6, 4), (6,), (2, 6), (2,)]))
    time6, time2 = np.full(6, 1e-3), np.full(2, 5e-3)
    membrane = {"tau": time6, "r": np.ones(6), "v_leak": np.zeros(6)}
    end = {"type": "LI", "tau": time2, "r": np.ones(2), "v_leak": np.zeros(2)}

    def put(group: h5py.Group, values: Mapping[str, object]) -> None:
        for key, value in values.items():
            group.create_dataset(key, data=value, **({"dtype": h5py.string_dtype()} if isinstance(value, str) else {}))

    def write(version: str) -> Path:
        path = tmp_path / f"{version}.nir"
        oldest, numbered = version == "0.0.1", version in ("0.0.1", "0.0.6")
        weight, threshold = ("weights", "theta") if oldest else ("weight", "v_threshold")
        kind = "Linear" if oldest else "Affine"
        work = [
            {"type": kind, weight: w1, "bias": b1}, {"type": "LIF", **membrane, threshold: np.full(6, 0.1)},
            {"type": kind, weight: w2, "bias": b2}, end,
        ]  # fmt: skip
        first, last = {"type": "Input", "shape": np.array([4])}, {"type": "Output"}
        nodes = work if oldest else [first, *work, last if numbered else {**last, "shape": np.array([2])}]
        names = [str(i) for i in range(len(nodes))] if numbered else ["input", "fc1", "lif", "fc2", "li", "output"]
        with h5py.File(path, "w") as file:
            top = file if oldest else file.create_group("node")
            for name, node in zip(names, nodes, strict=True):
                put(top.create_group(f"nodes/{name}"), node)
            pairs = list(zip(range(len(nodes)), range(1, len(nodes)), strict=False))
            edges = pairs if numbered else [(names[a], names[b]) for a, b in pairs]
            top.create_dataset("edges", data=edges)
            if not oldest:
                put(top, {"type": "NIRGraph"})
            if version >= "0.2":
                file.create_dataset("version", data=version)
        return path

    torch.manual_seed(0)
    x = (torch.rand(200, 2, 4) < 0.3).float()
    found = {
        version: outputs(from_nir(write(version), dt=DT), x)
        for version in ("0.0.1", "0.0.6", "0.1.0", "0.2.0", "1.0.8")
    }
    for value in found.values():
        assert torch.equal(value, found["1.0.8"])
    assert found["1.0.8"].abs().sum() > 0


def test_flatten_that_counted_the_batch() -> None:
    """Files of old exporters count the batch among the dimensions; the weights that follow tell."""
    flat, after = nir.Flatten(np.array([2, 3, 4]), 1, -1), nir.Affine(draws(0, 5, 24), draws(1, 5))
    found = from_nir(chain(flat, after, shape=(2, 3, 4)))
    assert found.shapes[found.output] == (5,)
    assert any("Flatten" in change.was for change in found.history)


names = st.text(st.characters(min_codepoint=1), max_size=6)


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """Random small networks of all that NIR can say; random names, shapes and forms of parameters."""
    seed = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    channels, height, width = draw(st.integers(1, 3)), draw(st.integers(3, 6)), draw(st.integers(3, 6))
    nodes: dict[str, Node] = {}
    labels = iter(draw(st.lists(names, min_size=12, max_size=12, unique=True)))
    sources: dict[str, tuple[str, ...]] = {}
    last = next(labels)
    nodes[last] = Input((channels, height, width))
    shape: tuple[int, ...] = (channels, height, width)

    def parameter(low: float, high: float) -> Tensor:
        form = draw(st.sampled_from([(), (1,) * len(shape), shape, (shape[0], *(1,) * (len(shape) - 1))]))
        return low + (high - low) * torch.rand(form, generator=seed)

    def add(node: Node, *given: str) -> None:
        nonlocal last, shape
        name = next(labels)
        sources[name], nodes[name] = given or (last,), node
        last, shape = name, node.output_shape(*(shape for _ in sources[name]))

    def neuron() -> Node:
        zero, full = torch.zeros(()), torch.ones(shape)
        kinds: list[Node] = [
            IF(parameter(0.1, 2), zero, "zero"), LIF(parameter(0, 0.99), parameter(0.1, 2), zero, "zero"),
            BoxLIF(parameter(0.01, 0.9), parameter(1, 2), parameter(-1, 0.5), parameter(-1, 0.5)),
            IAF(parameter(0.5, 1), parameter(-1, 0.2)), IAF(parameter(0.5, 1), zero), LI(parameter(0.1, 0.9)),
            CurrentLI(full, parameter(0.1, 0.9), parameter(-1, 1)), Scale(parameter(0.5, 2)),
            Delay(torch.randint(0, 4, shape, generator=seed).float()),
        ]  # fmt: skip
        return draw(st.sampled_from(kinds))

    add(neuron())
    bias = draw(st.sampled_from([None, torch.randn(2 * channels, generator=seed)]))
    add(Conv(torch.randn(2 * channels, 1, 2, 3, generator=seed), bias, (1, 2), (0, 1), (1, 1), channels))
    add(neuron())
    if draw(st.booleans()):
        add(AvgPool((2, 1), (1, 1), (0, 0)))
    add(Reshape((math.prod(shape),)))
    before = last
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    add(Affine(torch.randn(shape[0], shape[0], generator=seed).to(dtype)))
    if draw(st.booleans()):
        add(Add(), before, last)
    add(neuron())
    add(IF(torch.ones(()), torch.zeros(()), "zero"))
    return Graph(nodes, sources)


@settings(max_examples=20, deadline=None)
@given(own=networks(), integrator=st.sampled_from(["euler", "exact"]))
def test_our_graphs_survive_nir(own: Graph, integrator: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("nir")
    to_nir(own, folder / "a.nir", dt=DT, integrator=integrator)  # type: ignore[arg-type]
    again = from_nir(folder / "a.nir", dt=DT, integrator=integrator)  # type: ignore[arg-type]
    assert_same(again, own)
    to_nir(again, folder / "b.nir", dt=DT, integrator=integrator)  # type: ignore[arg-type]
    assert (folder / "a.nir").read_bytes() == (folder / "b.nir").read_bytes()
    x = torch.randn(5, 2, *own.shapes[own.inputs[0]])
    assert torch.equal(simulate(own, x).outputs, simulate(again, x).outputs)


def spiking(*nodes: Node) -> Graph:
    named = {str(index): node for index, node in enumerate(nodes)}
    return Graph(named, {str(i): (str(i - 1),) for i in range(1, len(nodes))})


def test_nothing_is_lost_in_silence(tmp_path: Path) -> None:
    one, zero, path = torch.ones(()), torch.zeros(()), tmp_path / "net.nir"
    pool = MaxPool((2, 2), (2, 2), (0, 0))
    full = spiking(Input((3, 4, 4)), IF(one, one / 2), pool, Reshape((12,)), Affine(torch.randn(2, 12)), Readout())
    with pytest.raises(LossyExport) as caught:
        to_nir(full, path, dt=DT)
    told = str(caught.value)
    for part in (
        "IF '1': soft reset",
        "IF '1': the initial potential",
        "MaxPool '2'",
        "Readout '5': the mean",
        "allow_loss=",
    ):
        assert part in told
    with pytest.raises(LossyExport, match="MaxPool '2'"):
        to_nir(full, path, dt=DT, allow_loss=("reset", "v0", "readout"))
    assert not path.exists()
    soft = spiking(Input((3,)), LIF(one / 2, one, zero), Affine(torch.randn(2, 3)), Readout())
    with pytest.raises(LossyExport, match="Readout"):
        to_nir(soft, path, dt=DT, allow_loss=("reset",))
    to_nir(soft, path, dt=DT, allow_loss=("reset", "readout"))
    x = torch.rand(20, 2, 3)
    again = from_nir(path, dt=DT, reset="subtract")
    summed, mean = simulate(again, x).outputs, simulate(soft, x).outputs
    assert torch.allclose(summed, 20 * mean, atol=1e-4)
    for node, part in (
        (LIF(one, one, zero, "zero"), "no time constant"),
        (Scale(one, one), "adds nothing"),
        (Reshape((3, 1)), "no flattening"),
    ):
        with pytest.raises(LossyExport, match=part):
            to_nir(spiking(Input((3,)), Affine(torch.eye(3)), node), path, dt=DT)
    with pytest.raises(ParameterError, match="allow_loss takes"):
        to_nir(soft, path, dt=DT, allow_loss=("everything",))
    with pytest.raises(ParameterError, match="how long a step is"):
        to_nir(soft, path, dt=None)  # type: ignore[arg-type]


def test_files_are_read_by_the_nir_package(tmp_path: Path) -> None:
    """Its own type checks accept them; metadata change nothing of what it reads."""
    one, zero = torch.ones(()), torch.zeros(())
    own = spiking(
        Input((2, 6, 6)), Conv(torch.randn(3, 2, 3, 3), None), LIF(0.9 * one, one, zero, "zero"),
        AvgPool((2, 2), (2, 2), (0, 0)), Reshape((12,)), Affine(torch.randn(4, 12), torch.randn(4)), LI(0.5 * one),
        LIF(0.8 * one, one, zero, "zero"),
    )  # fmt: skip
    to_nir(own, tmp_path / "net.nir", dt=DT)
    theirs = nir.read(tmp_path / "net.nir")
    assert [type(node).__name__ for node in theirs.nodes.values()].count("LIF") == 2
    assert theirs.nodes["2"].tau == pytest.approx(np.full((3, 4, 4), 1e-3))
    assert_same(from_nir(theirs, dt=DT), own)
    nir.write(str(tmp_path / "again.nir"), theirs)
    assert_same(from_nir(tmp_path / "again.nir", dt=DT), own)


def test_contradictions_are_told_with_their_place() -> None:
    conv = nir.Conv2d((9, 9), np.ones((1, 1, 3, 3)), 1, 0, 1, 1, np.zeros(1))
    with pytest.raises(FileError, match=r"node 'n0', field 'input_shape'.*\(9, 9\).*\(8, 8\)"):
        from_nir(chain(conv, shape=(1, 8, 8)))
    with pytest.raises(FileError, match=r"node 'n0', field 'v_reset'.*features have shape \(3, 4, 4\)"):
        from_nir(chain(nir.IF(np.ones(3), np.ones(3)), shape=(3, 4, 4)))
