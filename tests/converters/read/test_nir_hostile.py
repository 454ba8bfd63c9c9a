"""Hostile NIR files get one typed line that names file, node and field, in little time and memory."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from converters.read.from_nir import from_nir
from converters.read.nir_file import RawGraph, RawNode, write_raw
from neuro.errors import NeuroError

MUTANTS = int(os.environ.get("NEURO_MUTANTS", "500"))
SECONDS, MEGABYTES = 2.0, 300.0
text = h5py.string_dtype()


def small() -> RawGraph:
    """An input, weights, a recurrent population, a convolution of it and a read-out."""
    ones = np.ones(4)
    nodes = {
        "input": RawNode("Input", {"shape": np.array([3])}),
        "fc": RawNode("Affine", {"weight": np.arange(12.0).reshape(4, 3), "bias": ones}),
        "lif": RawNode("CubaLIF", {
            "tau_syn": ones * 2e-4, "tau_mem": ones * 1e-3, "r": ones * 10, "w_in": ones * 2, "v_leak": 0 * ones,
            "v_threshold": ones, "v_reset": 0 * ones,
        }),
        "back": RawNode("Linear", {"weight": np.eye(4)}),
        "delay": RawNode("Delay", {"delay": ones * 3e-4}),
        "li": RawNode("LI", {"tau": ones * 1e-2, "r": ones, "v_leak": 0 * ones}),
        "output": RawNode("Output", {"shape": np.array([4])}),
    }  # fmt: skip
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "delay"), ("delay", "li")]
    return RawGraph(nodes, (*edges, ("li", "output")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("nir") / "net.nir"
    write_raw(path, small())
    assert from_nir(path, dt=1e-4).nodes
    return path.read_bytes()


@pytest.fixture
def file(tmp_path: Path, whole: bytes) -> Path:
    path = tmp_path / "net.nir"
    path.write_bytes(whole)
    return path


def put(place: str, value: object, **options: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if place in file:
            del file[place]
        file.create_dataset(place, data=value, **options)

    return change


def node(kind: str, **fields: object) -> Callable[[h5py.File], None]:
    """Another node between `li` and `output`."""

    def change(file: h5py.File) -> None:
        group = file.create_group("node/nodes/odd")
        group.create_dataset("type", data=kind, dtype=text)
        for name, value in fields.items():
            group.create_dataset(name, data=value)
        edges([("li", "odd"), ("odd", "output")], without=("li", "output"))(file)

    return change


def edges(more: list[tuple[str, str]], without: tuple[str, str] | None = None) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        found = [(a.decode(), b.decode()) for a, b in file["node/edges"][()]]
        kept = [edge for edge in found if edge != without]
        put("node/edges", np.array([*kept, *more], dtype=object), dtype=text)(file)

    return change


def link(target: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["node/nodes/fc/weight"]
        file["node/nodes/fc/weight"] = target

    return change


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 3))
    del file["node/nodes/fc/weight"]
    file["node/nodes/fc"].create_virtual_dataset("weight", layout)


def external(file: h5py.File) -> None:
    del file["node/nodes/fc/weight"]
    file["node/nodes/fc"].create_dataset("weight", (4, 3), "u1", external=[("/etc/hostname", 0, 12)])


def huge(file: h5py.File) -> None:
    del file["node/nodes/fc/weight"]
    file["node/nodes/fc"].create_dataset("weight", (1 << 18, 1 << 18), "f8", chunks=(64, 64))


def bomb(file: h5py.File) -> None:
    del file["node/nodes/fc/weight"]
    zeros = np.zeros((4, 1 << 22))
    file["node/nodes/fc"].create_dataset("weight", data=zeros, chunks=(1, 1 << 18), compression="gzip")


def many_bombs(file: h5py.File) -> None:
    for index in range(30):
        group = file.create_group(f"node/nodes/n{index}")
        group.create_dataset("type", data="Scale", dtype=text)
        group.create_dataset("scale", (1 << 20,), "f8", chunks=(1 << 16,), compression="gzip", fillvalue=1)


def deep(file: h5py.File) -> None:
    group = file["node"]
    for _ in range(40):
        group = group.create_group("nodes/g") if "nodes" not in group else group["nodes"].create_group("g")
        group.create_dataset("type", data="NIRGraph", dtype=text)


def crowd(file: h5py.File) -> None:
    group = file["node/nodes"]
    for index in range(100_001):
        group.id.links.create_soft(str(index).encode(), b"/node/nodes/fc")


def attributes(file: h5py.File) -> None:
    file["node"].attrs["x"] = np.zeros(8000, "u1")
    file["node/nodes/fc"].attrs["y"] = np.empty(4, dtype=[("a", "f8"), ("b", "f8")])


def values(place: str, value: float, of: int = 4) -> Callable[[h5py.File], None]:
    return put(f"node/nodes/{place}", np.full(of, value))


HOSTILE: dict[str, tuple[Callable[[h5py.File], None], tuple[str, ...]]] = {
    "external link": (link(h5py.ExternalLink("other.h5", "/x")), ("fc/weight", "ExternalLink")),
    "soft link": (link(h5py.SoftLink("/node/nodes/fc/bias")), ("fc/weight", "SoftLink")),
    "virtual dataset": (virtual, ("fc/weight", "virtual")),
    "external storage": (external, ("fc/weight", "another file")),
    "huge declared size": (huge, ("fc/weight", "declares")),
    "compression bomb": (bomb, ("fc/weight", "declares")),
    "many small bombs": (many_bombs, ("node/nodes/n", "declares")),
    "NaN": (values("fc/bias", np.nan), ("fc", "bias", "NaN")),
    "infinite": (values("lif/r", np.inf), ("lif", "'r'", "infinite")),
    "beyond float32": (values("fc/bias", 1e300), ("fc", "bias", "float32")),
    "negative tau": (values("li/tau", -1.0), ("li", "tau", "> 0")),
    "tau 0": (values("lif/tau_syn", 0.0), ("lif", "tau_syn", "> 0")),
    "tau below dt": (values("lif/tau_mem", 1e-6), ("lif", "tau_mem", "smaller dt")),
    "threshold 0": (values("lif/v_threshold", 0.0), ("lif", "v_threshold", "> 0")),
    "threshold below reset": (values("lif/v_reset", 2.0), ("lif", "v_threshold", "v_reset")),
    "complex": (put("node/nodes/fc/bias", np.full(4, 1j)), ("fc/bias", "plain numbers")),
    "text for numbers": (put("node/nodes/fc/bias", "x", dtype=text), ("fc", "bias", "numbers")),
    "numbers for a type": (put("node/nodes/fc/type", 3.0), ("fc", "type")),
    "no type": (lambda file: file["node/nodes/fc"].__delitem__("type"), ("fc", "type", "missing")),
    "field missing": (lambda file: file["node/nodes/li"].__delitem__("tau"), ("li", "tau", "missing")),
    "field unknown": (put("node/nodes/li/refractory", 3.0), ("li", "refractory", "unknown")),
    "shape of a parameter": (values("li/v_leak", 0.0, of=3), ("li", "v_leak", "(3,)")),
    "negative delay": (values("delay/delay", -1e-4), ("delay", "delay", ">= 0")),
    "delay between steps": (values("delay/delay", 1.5e-4), ("delay", "delay", "whole number")),
    "delay for ever": (values("delay/delay", 1e3), ("delay", "steps")),
    "unknown type": (node("Pickle", scale=np.ones(4)), ("odd", "Pickle")),
    "weights of another size": (put("node/nodes/fc/weight", np.ones((4, 7))), ("fc", "(4, 7)")),
    "weights in three dimensions": (put("node/nodes/fc/weight", np.ones((2, 4, 3))), ("fc", "weight", "(2, 4, 3)")),
    "bias of another size": (put("node/nodes/fc/bias", np.ones(3)), ("fc", "bias", "(3,)")),
    "output of another size": (put("node/nodes/output/shape", [9]), ("output", "shape", "[9]")),
    "input without size": (put("node/nodes/input/shape", [0]), ("input", "shape", ">= 1")),
    "input of astronomic size": (put("node/nodes/input/shape", [1 << 20, 1 << 20]), ("input",)),
    "stride 0": (node("SumPool2d", kernel_size=[2, 2], stride=[0, 1], padding=[0, 0]), ("odd", "stride")),
    "pool of a vector": (node("AvgPool2d", kernel_size=[2, 2], stride=[2, 2], padding=[0, 0]), ("odd", "AvgPool")),
    "dimension that is none": (node("Flatten", start_dim=5, end_dim=-1), ("odd", "start_dim")),
    "padding in words": (
        node("Conv1d", weight=np.ones((1, 4, 1)), bias=[0.0], stride=1, padding="none", dilation=1, groups=1),
        ("odd", "padding", "'none'"),
    ),
    "groups that do not divide": (
        node("Conv1d", weight=np.ones((3, 4, 1)), bias=np.ones(3), stride=1, padding=0, dilation=1, groups=2),
        ("odd", "groups"),
    ),
    "loop of two populations": (
        lambda file: (
            file.copy(file["node/nodes/lif"], file["node/nodes"], "twin"),
            edges([("lif", "twin"), ("twin", "lif")])(file),
        ),
        ("loop", "lif", "twin"),
    ),
    "loop without population": (edges([("fc", "fc")]), ("loop", "fc")),
    "loop with a delay": (edges([("delay", "lif")]), ("loop", "lif", "delay")),
    "edge twice": (edges([("fc", "lif")]), ("edges", "'fc' -> 'lif'", "twice")),
    "edge to nowhere": (edges([("fc", "ghost")]), ("edges", "'ghost'", "no node")),
    "edge into an input": (edges([("fc", "input")]), ("edges", "'fc' -> 'input'")),
    "edges in a row": (put("node/edges", np.array(["fc", "lif"], dtype=object), dtype=text), ("edges", "(2,)")),
    "edges of fractions": (put("node/edges", np.ones((2, 2))), ("edges", "float64")),
    "nothing flows in": (edges([], without=("input", "fc")), ("edges",)),
    "leads nowhere": (edges([], without=("li", "output")), ("edges",)),
    "no edges": (lambda file: file["node"].__delitem__("edges"), ("edges", "missing")),
    "no nodes": (lambda file: file["node"].__delitem__("nodes"), ("nodes", "missing")),
    "no network": (lambda file: file.__delitem__("node"), ("node", "missing")),
    "a name with a slash": (lambda file: file.move("node/nodes/fc", "node/nodes/a/b"), ("'a'", "type")),
    "version 99": (put("version", "99", dtype=text), ("version", "99")),
    "version in numbers": (put("version", [1, 0]), ("version",)),
    "graphs in graphs": (deep, ("deeper",)),
    "a crowd of nodes": (crowd, ("20000 objects",)),
    "compound attribute": (attributes, ("fc@y", "plain numbers")),
    "damaged metadata": (put("node/nodes/fc/metadata/neuro", "[" * 9000, dtype=text), ("fc", "metadata")),
}


def megabytes(kind: str) -> float:
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(kind))


def refused(path: Path, *said: str) -> None:
    """One typed line that names the file and says `said`, in little time and memory."""
    before, start = measured_peak(), time.perf_counter()
    with pytest.raises(NeuroError) as caught:
        from_nir(path, dt=1e-4)
    assert time.perf_counter() - start < SECONDS
    assert measured_peak() - before < MEGABYTES
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *said):
        assert part in message, message
    assert len(message) < 1000


def measured_peak() -> float:
    """The largest memory of this process since the last call where the system tells it, 0 elsewhere."""
    if not os.path.exists("/proc/self/clear_refs"):
        return 0.0
    peak = megabytes("VmHWM:")
    try:
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as reset:
            reset.write("5")
    except OSError:
        pass
    return peak


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, file: Path) -> None:
    change, said = HOSTILE[name]
    with h5py.File(file, "r+") as opened:
        change(opened)
    measured_peak()
    refused(file, *said)


def broken(whole: bytes) -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "cut", whole[: len(whole) // 2]
    yield "first bytes only", whole[:100]
    yield "other bytes", b"\x89PNG" + whole
    yield "text", b"graph { a -> b }"


def test_a_text_longer_than_the_file_is_refused(tmp_path: Path, whole: bytes) -> None:
    """HDF5 makes room for what the four bytes before a text claim, here 2 GiB, before it looks for the text."""
    path = tmp_path / "net.nir"
    path.write_bytes(whole)
    with h5py.File(path) as opened:
        place = opened["node/edges"].id.get_offset()
    path.write_bytes(whole[:place] + b"\x00\x00\x00\x80" + whole[place + 4 :])
    measured_peak()
    refused(path, "edges", "longer than the file")


def test_broken_files_are_refused(tmp_path: Path, whole: bytes) -> None:
    for name, content in broken(whole):
        path = tmp_path / f"{name}.nir"
        path.write_bytes(content)
        refused(path)
    refused(tmp_path / "absent.nir", "cannot be opened")
    refused(tmp_path, "not a regular file")
    os.mkfifo(tmp_path / "pipe.nir")
    refused(tmp_path / "pipe.nir", "not a regular file")


def test_mutants_give_graphs_or_typed_lines(tmp_path: Path, whole: bytes) -> None:
    path, accepted = tmp_path / "mutant.nir", 0
    for seed in range(MUTANTS):
        draw = random.Random(seed)
        mutant = bytearray(whole)
        for _ in range(draw.choice((1, 2, 8))):
            mutant[draw.randrange(len(mutant))] ^= draw.choice((1, 4, 128, 255))
        if seed % 5 == 0:
            del mutant[draw.randrange(len(mutant)) :]
        path.write_bytes(mutant)
        start = time.perf_counter()
        try:
            accepted += bool(from_nir(path, dt=1e-4).nodes)
            said = f"{path}"
        except NeuroError as error:
            said = str(error)
        assert str(path) in said, (seed, said)
        assert "\n" not in said, (seed, said)
        assert time.perf_counter() - start < SECONDS, seed
    assert 0 < accepted < MUTANTS
