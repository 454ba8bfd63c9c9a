"""A graph survives its file bit for bit, and no file can do more than be refused."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro import files
from neuro.errors import FileError, NeuroError, ParameterError, ShapeError
from neuro.files import load, register_kind, save, seal
from neuro.graph import Change, Graph, Input, Node
from neuro.nodes import (
    IAF,
    IF,
    LI,
    LIF,
    Accumulate,
    AdaptiveLIF,
    Add,
    Affine,
    Alpha,
    AvgPool,
    BatchNorm,
    BoxLIF,
    Clamp,
    Concat,
    Conv,
    ConvTranspose,
    CountThenFire,
    CurrentLI,
    CurrentLIF,
    Delay,
    Delta,
    Dequantise,
    Diffractive,
    Dropout,
    EarliestWins,
    Experts,
    GradedIF,
    IDLevel,
    LatencyCode,
    Leaky,
    LeakyReLU,
    MaxCount,
    MaxCountAgain,
    MaxPool,
    MeshAffine,
    OffsetIF,
    Pad,
    Permute,
    Pulse,
    Quantise,
    QuantumCircuit,
    RampFirstSpike,
    Readout,
    Recurrent,
    ReLU,
    Requantise,
    Reshape,
    ResidualIF,
    Scale,
    ScatteredIntensity,
    Sigma,
    SigmaDeltaReLU,
    Sigmoid,
    Sign,
    Sine,
    Slice,
    Softmax,
    Staircase,
    Synaptic,
    Tanh,
    TimedLIF,
    TimeToFirstSpike,
)
from neuro.nodes.activations import Elementwise


def assert_equal(left: object, right: object) -> None:
    """Equality of fields, bits and order; frozen dataclasses with tensors have none of their own."""
    if isinstance(left, Graph):
        assert isinstance(right, Graph)
        assert list(left.nodes) == list(right.nodes)
        assert (left.name, left.history, dict(left.sources)) == (right.name, right.history, dict(right.sources))
        assert (dict(left.shapes), dict(left.dtypes)) == (dict(right.shapes), dict(right.dtypes))
        for name in left.nodes:
            assert_equal(left.nodes[name], right.nodes[name])
    elif isinstance(left, Node):
        assert type(left) is type(right)
        for item in fields(left):
            assert_equal(getattr(left, item.name), getattr(right, item.name))
    elif isinstance(left, Tensor):
        assert isinstance(right, Tensor)
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        bits = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (left, right)]
        assert torch.equal(*bits)
    elif isinstance(left, tuple):
        assert isinstance(right, tuple)
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    else:
        assert type(left) is type(right)
        assert left == right


def chain(*nodes: Node, name: str = "network", history: tuple[Change, ...] = ()) -> Graph:
    named = {str(index): node for index, node in enumerate(nodes)}
    return Graph(named, {str(index): (str(index - 1),) for index in range(1, len(nodes))}, name, history)


def every_kind() -> Graph:
    """A graph that holds every kind of node once or more."""
    expert = chain(Input((6,)), Affine(torch.randn(5, 6), torch.randn(5)), ReLU(), name="expert")
    router = chain(Input((6,)), Affine(torch.randn(2, 6)), name="router")
    inside = {"x": Input((4,)), "y": Input((4,)), "add": Add(), "fire": IF(torch.ones(4), torch.ones(()))}
    loop = Graph(inside, {"add": ("x", "y"), "fire": ("add",)}, "loop")
    one = torch.tensor(1.0)
    nodes: dict[str, Node] = {
        "image": Input((3, 8, 8)),
        "conv/1": Conv(torch.randn(4, 3, 3, 3), None, (1, 1), (1, 1)),
        ".": BatchNorm(torch.randn(4), torch.rand(4) + 1, torch.randn(4), torch.randn(4), 1e-3),
        "..": ReLU(),
        "": IF(one, torch.tensor(0.5)),
        "sum": Add(),
        "cat": Concat(0),
        "slice": Slice(0, 1, 7, 2),
        "permute": Permute((0, 2, 1)),
        "clamp": Clamp(0, float("inf")),
        "leaky": LeakyReLU(0.1),
        "drop": Dropout(0.25),
        "scale": Scale(torch.randn(3, 1, 1), None),
        "transposed": ConvTranspose(torch.randn(3, 3, 1, 1), torch.randn(3)),
        "pad": Pad(((0, 0), (1, -1), (0, 2)), -0.0),
        "max": MaxPool((2, 2), (2, 2), (0, 0), ceil=True),
        "avg": AvgPool((2, 3), (2, 1), (1, 0), False),
        "quantise": Quantise(0.1, -128, 127),
        "integer": Conv(torch.randint(-9, 9, (2, 3, 1, 1), dtype=torch.int8), torch.tensor([1, -7], dtype=torch.int32)),
        "requantise": Requantise(torch.rand(2) + 0.1, 0, 255),
        "pulse": Pulse(),
        "fire": CountThenFire(torch.tensor([[[3]], [[4]]]), torch.tensor(1), 8, 4),
        "stairs": Staircase(torch.tensor(1), torch.tensor(0), 7),
        "accumulate": Accumulate(torch.tensor(-2)),
        "dequantise": Dequantise(torch.tensor([0.5, 0.25])),
        "count": MaxCount((1, 1), (1, 1), (0, 0)),
        "again": MaxCountAgain((1, 1), (1, 1), (0, 0), warmup=2),
        "offset": OffsetIF(one, one / 2, 3),
        "residual": ResidualIF(one, one / 2, 2),
        "ramp": RampFirstSpike(torch.tensor(1.5, dtype=torch.float64), 2.0, 4),
        "flat": Reshape((18,)),
        "\x00\n\ud800Ω<b>": LIF(torch.rand(18), one, one.new_zeros(()), "zero"),
        "select": Slice(0, 0, 6),
        "experts": Experts(router, (expert, chain(Input((6,)), Affine(torch.zeros(5, 6)))), 2),
        "affine": Affine(torch.randn(4, 5).double(), torch.randn(4).double()),
        "leak": LI(torch.tensor(0.9)),
        "readout": Readout(3),
        "graded": GradedIF(torch.rand(4) + 0.1, one, 7, signed=True),
        "changes": Delta(one, torch.tensor(0.5), 127),
        "sigma delta": SigmaDeltaReLU(torch.randn(4), one, torch.tensor(0.5), 127),
        "sigma": Sigma(torch.randn(4)),
        "late": Leaky(torch.rand(4), one, "none", False),
        "synaptic": Synaptic(torch.rand(4), one / 2, one),
        "alpha": Alpha(one, torch.rand(4), one, "subtract"),
        "current": CurrentLIF(one, one, -50 * one, -65 * one, -65 * one),
        "box": BoxLIF(one, one, one, one, "subtract"),
        "iaf": IAF(one, torch.rand(4)),
        "current leak": CurrentLI(one, one, one),
        "delay": Delay(torch.tensor([0.0, 1.0, 2.0, 3.0])),
        "loop": Recurrent(loop),
        "sigmoid": Sigmoid(),
        "tanh": Tanh(),
        "softmax": Softmax(0, True),
        "sine": Sine(),
        "sign": Sign(),
        "circuit": QuantumCircuit(torch.rand(2, 4, 3), False),
        "bundle": IDLevel(torch.ones(4, 4, dtype=torch.int8), -torch.ones(2, 4, dtype=torch.int8), -1.0),
        "bundled": Dequantise(torch.ones(4)),
        "mesh": MeshAffine(torch.rand(1, 1, 16, 2), torch.rand(1, 1, 4), torch.ones(1, 1), 4, 4, None, 6, 0.01, 9.0),
        "scattered": ScatteredIntensity(4, 4, None, 3),
        "picture": Reshape((1, 2, 2)),
        "diffracted": Diffractive(torch.rand(1, 16, 16), 4, 1e-6, 1e-4, 532e-9),
        "adaptive": AdaptiveLIF(one / 2, torch.rand(4), one, one, "zero"),
        "latency": LatencyCode(0.1, 3.0, None, 0.9),
        "timed": TimeToFirstSpike(torch.randn(4, 5), torch.rand(4) + 0.1, "double", 2.0, torch.rand(5), None),
        "trains": TimedLIF(torch.randn(3, 4), one, "equal", 1.5, 2),
        "earliest": EarliestWins(20.0),
    }
    names = list(nodes)
    sources = {name: (names[index],) for index, name in enumerate(names[1:])}
    sources |= {"sum": ("..", ""), "cat": ("conv/1", "sum")}
    return Graph(nodes, sources, "Ω/..\x00", (Change("..", "ReLU", "IF", "rate"), Change("", "a", "b", "\ud800")))


def test_every_kind_survives(tmp_path: Path) -> None:
    graph = every_kind()
    used = {node.kind for node in graph.nodes.values()}
    builtin = {name for name, kind in files._KINDS.items() if kind.__module__.startswith("neuro.")}
    assert used == builtin, "a new kind of node: add it to every_kind"
    save(graph, tmp_path / "graph.h5")
    assert_equal(load(tmp_path / "graph.h5"), graph)


def test_equal_graphs_give_equal_bytes(tmp_path: Path) -> None:
    graph = every_kind()
    save(graph, tmp_path / "a.h5")
    time.sleep(1.1)  # HDF5 keeps times in seconds, if it keeps them
    save(graph, tmp_path / "b.h5")
    save(load(tmp_path / "a.h5"), tmp_path / "c.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes() == (tmp_path / "c.h5").read_bytes()


names = st.text(max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random shapes, names, edges and parameters: vectors through affine, elementwise, merging and spiking nodes."""
    width = draw(st.integers(1, 4))
    chosen = draw(st.lists(names, min_size=2, max_size=12, unique=True))
    nodes: dict[str, Node] = {chosen[0]: Input((width,))}
    sources: dict[str, tuple[str, ...]] = {}
    random_bits = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    for index, name in enumerate(chosen[1:], 1):
        earlier = st.sampled_from(chosen[:index])
        dtype = draw(dtypes)
        weight = torch.randn(width, width, generator=random_bits).to(dtype)
        theta = torch.tensor(draw(st.floats(1e-3, 1e3)))
        kinds: list[Node] = [
            Affine(weight, draw(st.sampled_from([None, weight[0]]))),
            Affine(weight.T),
            Scale(weight[:, :1].reshape(-1), weight[0]),
            Clamp(draw(st.floats(-9, 0)), draw(st.integers(1, 9))),
            LeakyReLU(draw(numbers)),
            Softmax(0, draw(st.booleans())),
            Pad(((draw(st.integers(0, 3)),) * 2,), draw(numbers)),
            Permute((0,)),
            IF(theta, torch.rand(width, generator=random_bits), draw(st.sampled_from(["zero", "subtract"]))),
            LIF(torch.rand(1, generator=random_bits), theta, -theta),
            Add(),
        ]
        nodes[name] = draw(st.sampled_from(kinds))
        count = draw(st.integers(2, 4)) if isinstance(nodes[name], Add) else 1
        sources[name] = tuple(draw(earlier) for _ in range(count))
        if isinstance(nodes[name], Pad):
            before, _ = nodes[name].amounts[0]  # type: ignore[attr-defined]
            nodes[name] = Pad(((before, -before),), nodes[name].value)  # type: ignore[attr-defined]
    history = tuple(Change(*draw(st.tuples(names, names, names, names))) for _ in range(draw(st.integers(0, 2))))
    return Graph(nodes, sources, draw(names), history)


@given(graph=graphs())
def test_random_graphs_survive(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("graph") / "graph.h5"
    save(graph, path)
    again = load(path)
    assert_equal(again, graph)
    first = path.read_bytes()
    save(again, path)
    assert path.read_bytes() == first


def test_parameters_with_gradients_and_views_keep_their_values(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(6, 8))
    save(chain(Input((6,)), Affine(weight.T)), tmp_path / "graph.h5")
    found = load(tmp_path / "graph.h5").nodes["1"].weight  # type: ignore[attr-defined]
    assert torch.equal(found, weight.T)
    assert not found.requires_grad


def test_own_kinds_can_be_registered(tmp_path: Path) -> None:
    @dataclass(frozen=True, eq=False)
    class Shift(Elementwise):
        """y = x + by."""

        by: tuple[tuple[float, ...], ...]

        def forward(self, *inputs: Tensor) -> Tensor:
            return inputs[0] + self.by[0][0]

    graph = chain(Input((2,)), Shift(((0.5, 1.0), ())))
    with pytest.raises(ParameterError, match="register_kind"):
        save(graph, tmp_path / "graph.h5")
    assert os.listdir(tmp_path) == []
    try:
        assert register_kind(Shift) is Shift
        save(graph, tmp_path / "graph.h5")
        assert_equal(load(tmp_path / "graph.h5"), graph)
    finally:
        files._KINDS.pop("Shift")
    with pytest.raises(FileError, match=r"unknown kind 'Shift'.*register"):
        load(tmp_path / "graph.h5")
    with pytest.raises(ParameterError, match="another node kind"):
        register_kind(dataclass(frozen=True, eq=False)(type("ReLU", (Elementwise,), {"forward": ReLU.forward})))
    with pytest.raises(ParameterError, match="concrete"):
        register_kind(Elementwise)


def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path) -> None:
    hostile = [
        chain(Input((2,)), LeakyReLU({"a": 1})),  # type: ignore[arg-type]
        chain(Input((2,)), LeakyReLU(np.float32(1))),  # type: ignore[arg-type]
        chain(Input((2,)), LeakyReLU(object())),  # type: ignore[arg-type]
        chain(Input((2,)), LeakyReLU(torch.ones(2, dtype=torch.uint16))),  # type: ignore[arg-type]
    ]
    for graph in hostile:
        with pytest.raises(ParameterError, match=r"LeakyReLU '1': field slope cannot be saved"):
            save(graph, tmp_path / "graph.h5")
    assert os.listdir(tmp_path) == []


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.h5"
    save(chain(Input((2,)), ReLU()), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, function, full)
            with pytest.raises(FileError, match=r"graph\.h5: cannot be written \(No space left"):
                save(every_kind(), path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["graph.h5"]
    with monkeypatch.context() as patched:
        patched.setattr(files, "seal", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save(every_kind(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["graph.h5"]
    with pytest.raises(FileError, match="cannot be written"):
        save(every_kind(), tmp_path / "absent" / "graph.h5")
    with pytest.raises(FileError, match="is a folder"):
        save(every_kind(), tmp_path)


def test_missing_empty_truncated_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "graph.h5"
    save(every_kind(), path)
    whole = path.read_bytes()
    cases = {
        b"": "empty",
        whole[:100]: "checksum",
        whole[:-1]: "checksum",
        whole[:-9] + b"flipped??": "checksum",
        b"\x89HDF\r\n\x1a\n" + whole: "begin as a graph file",
        whole.replace(b"neuro-graph 1", b"neuro-graph 7", 1): "version '7'.*update",
    }
    for content, rule in cases.items():
        path.write_bytes(content)
        with pytest.raises(FileError, match=rule) as caught:
            load(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileError, match="cannot be opened"):
        load(tmp_path / "absent.h5")


Description = dict[str, Any]


def edit(path: Path, change: Callable[[Description], None]) -> None:
    """What a hostile author would do: change the description and seal the file again."""
    with h5py.File(path, "r+") as file:
        described = json.loads(file["description"][()])
        change(described)
        text = json.dumps(described).encode()
        del file["description"]
        file.create_dataset("description", data=np.array(text), dtype=h5py.string_dtype("ascii", len(text)))
    seal(path)


def set_field(index: int, name: str, value: object) -> Callable[[Description], None]:
    return lambda described: described["nodes"][index]["fields"].__setitem__(name, value)


def set_node(index: int, name: str, value: object) -> Callable[[Description], None]:
    return lambda described: described["nodes"][index].__setitem__(name, value)


EDITS: dict[str, tuple[Callable[[Description], None], str]] = {
    "unknown kind": (set_node(1, "kind", "os.system"), "unknown kind 'os.system'"),
    "kind that is a list": (set_node(1, "kind", ["Conv"]), "unknown kind"),
    "abstract kind": (set_node(1, "kind", "Spiking"), "unknown kind"),
    "unknown field": (set_field(1, "speed", 3), "has fields .*speed"),
    "missing field": (lambda described: described["nodes"][1]["fields"].clear(), "has fields"),
    "text for a number": (set_field(1, "groups", "1"), r"Conv.groups cannot be str"),
    "truth value for a number": (set_field(1, "groups", True), r"Conv.groups cannot be bool"),
    "fraction for an integer": (set_field(1, "stride", [1.0, 1.0]), r"Conv.stride cannot be tuple"),
    "number for a tensor": (set_field(1, "weight", 3), r"Conv.weight cannot be int"),
    "tensor for a number": (set_field(1, "groups", {"tensor": "float32"}), "damaged|impossible|does not hold|KeyError"),
    "unknown element type": (set_field(1, "weight", {"tensor": "quaternion"}), "nothing this program knows"),
    "wrong element type": (set_field(1, "weight", {"tensor": "float64"}), "does not hold torch.float64"),
    "graph for a tensor": (set_field(1, "weight", {"graph": 1}), "impossible|description"),
    "too many graphs": (set_field(1, "weight", {"graphs": 10**9}), "nothing this program knows"),
    "NaN stride": (set_field(1, "stride", [float("nan")]), "Conv.stride cannot be"),
    "huge shape": (set_field(0, "shape", [10**400, 1, 1]), "Conv|description|impossible"),
    "negative source": (set_node(1, "sources", [-1]), "no node number"),
    "source beyond the end": (set_node(1, "sources", [99]), "IndexError"),
    "loop": (set_node(1, "sources", [1]), "cycle"),
    "name that is a number": (set_node(1, "name", 7), "names must be texts"),
    "name twice": (set_node(1, "name", "0"), "each used once"),
    "history of one": (lambda described: described.update(history=[["a"]]), "not as in version 1"),
    "nodes that are none": (lambda described: described.update(nodes=3), "not as in version 1"),
    "no nodes": (lambda described: described.update(nodes=[]), "no nodes"),
    "stride of zero": (set_field(1, "stride", [0, 0]), "stride must be"),
    "weights that do not fit": (set_field(0, "shape", [9, 8, 8]), "cannot take features"),
}


@pytest.mark.parametrize("case", EDITS)
def test_hostile_descriptions(tmp_path: Path, case: str) -> None:
    path = tmp_path / "graph.h5"
    save(chain(Input((3, 8, 8)), Conv(torch.randn(4, 3, 3, 3)), ReLU()), path)
    change, rule = EDITS[case]
    edit(path, change)
    start = time.perf_counter()
    with pytest.raises((FileError, ParameterError, ShapeError), match=rule) as caught:
        load(path)
    assert time.perf_counter() - start < 2
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or any(str(path) in note for note in caught.value.__notes__)


def test_nested_description_and_hostile_hdf5_inside_the_seal(tmp_path: Path) -> None:
    path = tmp_path / "graph.h5"
    save(chain(Input((2,)), Affine(torch.randn(2, 2))), path)
    whole = path.read_bytes()
    with h5py.File(path, "r+") as file:
        text = b"[" * 100_000
        del file["description"]
        file.create_dataset("description", data=np.array(text), dtype=h5py.string_dtype("ascii", len(text)))
    seal(path)
    with pytest.raises(FileError, match="not as in version 1"):
        load(path)
    hostile: list[Callable[[h5py.File], None]] = [
        lambda file: file.__setitem__("1.weight", h5py.ExternalLink("/etc/passwd", "x")),
        lambda file: file.__setitem__("1.weight", h5py.SoftLink("/description")),
        lambda file: file.__setitem__("1.weight", file["/"]) or None,
        lambda file: file.create_dataset("1.weight", (1 << 40, 2), "<f4") and None,
        lambda file: file.create_dataset("1.weight", data=np.zeros((3000, 3000), "<f4"), compression="gzip") and None,
        lambda file: file.create_dataset("1.weight", data=np.array([[b"a"]], "V1")) and None,
    ]
    for build in hostile:
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            del file["1.weight"]
            build(file)
        seal(path)
        with pytest.raises(FileError, match=r"1\.weight"):
            load(path)


def test_nan_weights_in_a_file_meet_the_check_of_the_node(tmp_path: Path) -> None:
    path = tmp_path / "graph.h5"
    save(chain(Input((2,)), Affine(torch.randn(2, 2))), path)
    with h5py.File(path, "r+") as file:
        file["1.weight"][0, 0] = np.nan
    with pytest.raises(FileError, match="checksum"):
        load(path)
    seal(path)
    with pytest.raises(ParameterError, match="Affine: weight holds 1 NaN") as caught:
        load(path)
    assert any("node '1'" in note for note in caught.value.__notes__)


def test_mutants_give_our_errors_or_valid_graphs(tmp_path: Path) -> None:
    path = tmp_path / "graph.h5"
    save(every_kind(), path)
    whole = path.read_bytes()
    accepted = 0
    for seed in range(200):
        draw = random.Random(seed)
        mutant = bytearray(whole)
        if seed % 5 == 0:
            del mutant[draw.randrange(len(mutant)) :]
        for _ in range(draw.choice((1, 4, 16))):
            if mutant:
                mutant[draw.randrange(len(mutant))] ^= draw.choice((1, 128, 255))
        path.write_bytes(mutant)
        with pytest.raises(FileError):
            load(path)
        if len(mutant) < files.SEAL:
            continue
        seal(path)  # as a hostile author would, so that the reader itself is tried
        start = time.perf_counter()
        try:
            assert load(path).nodes
            accepted += 1
        except NeuroError:
            pass
        assert time.perf_counter() - start < 2, seed
    assert accepted > 5, "some mutants only change numbers, which is allowed once the seal is right"
