"""Hostile files of every format, read in a process of their own that is watched from below.

A hook of the interpreter sees every file that Python opens, every folder it lists, every socket, process and import.
The kernel's inotify sees who opens the file that the hostile ones point to, C libraries included.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import neuro
from neuro.trace import trace

onnx = pytest.importorskip("onnx")
helper, node = onnx.helper, onnx.helper.make_node
if sys.platform != "linux":
    pytest.skip("inotify and /proc are Linux", allow_module_level=True)

SECONDS, MEGABYTES = 2.0, 300.0

CHILD = """
import ctypes, json, os, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import onnx.inliner, torch
import converters.read.from_tflite
from converters.read import read
from neuro.errors import NeuroError
from neuro.weights import load_weights

good, watched, *hostile = sys.argv[1:]
example = torch.zeros(1, 2)
weights = (".pt", ".pth", ".npz", ".safetensors")


def open_file(path):
    if Path(path).suffix in weights:
        return load_weights(path)
    return read(path, example=example, dt=1e-4)


def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


for path in sorted(Path(good).iterdir()):
    open_file(path)  # what the libraries load at their first use is loaded now
system = ctypes.CDLL(None)
watch = system.inotify_init1(os.O_NONBLOCK)
assert watch >= 0 and system.inotify_add_watch(watch, watched.encode(), 0x20 | 0x1) >= 0
open(watched).close()
assert os.read(watch, 4096), "the watch works"
seen, on = [], [False]
NAMES = ("open", "os.listdir", "os.scandir", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "import",
         "socket.connect", "socket.getaddrinfo", "os.mkdir", "os.remove", "ctypes.dlopen", "pickle.find_class")


def hook(name, given):
    if on[0] and name in NAMES:
        seen.append((name, str(given[0])[:200]))


sys.addaudithook(hook)
for path in hostile:
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak(), time.process_time()
    seen.clear()
    on[0] = True
    try:
        open_file(path)
        said = "read"
    except NeuroError as error:
        said = f"{type(error).__name__}: {error}"
    except BaseException as error:
        said = f"UNTYPED {type(error).__name__}: {error}"
    on[0] = False
    cost = time.process_time() - start
    try:
        touched = len(os.read(watch, 4096))
    except BlockingIOError:
        touched = 0
    others = sorted({entry for entry in seen if entry != ("open", path)})
    print(json.dumps([path, said, cost, peak() - before, others, touched]), flush=True)
"""


def network() -> neuro.Graph:
    return trace(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()), torch.zeros(1, 2))


def onnx_model(*nodes: Any, held: tuple[Any, ...] = (), **more: Any) -> Any:
    entering = helper.make_tensor_value_info("x", 1, ["batch", 2])
    leaving = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph(list(nodes), "g", [entering], [leaving], list(held))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **more)


def kept_outside(location: str) -> Any:
    tensor = onnx.TensorProto(dims=(2, 2), data_type=1, name="w", data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return onnx_model(node("MatMul", ["x", "w"], ["y"]), held=(tensor,))


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that holds a message."""
    length, size = bytearray(), len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes((number << 3 | 2, *length, size)) + content


def nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, again and again; protobuf itself writes at most 100 levels."""
    inner = b""
    for _ in range(depth):
        inner = field(1, field(5, field(6, inner)))
    return b"\x08\x08" + field(7, inner)


def onnx_files(folder: Path, secret: Path) -> None:
    weight = onnx.TensorProto(dims=(1 << 20, 1 << 20), data_type=1, name="w", raw_data=b"")
    large = onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "s")
    chain = [node("Relu", ["x"], ["v0"]), *(node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(110_000))]
    opset = helper.make_opsetid("", 17)
    functions = [helper.make_function("f", "F0", ["a"], ["b"], [node("Relu", ["a"], ["b"])], [opset])]
    for number in range(1, 40):
        calls = [node(f"F{number - 1}", ["a"], ["t"], domain="f"), node(f"F{number - 1}", ["t"], ["b"], domain="f")]
        made = helper.make_function("f", f"F{number}", ["a"], ["b"], calls, [opset, helper.make_opsetid("f", 1)])
        functions.append(made)
    laughs = onnx_model(node("F39", ["x"], ["y"], domain="f"), functions=functions)
    laughs.opset_import.append(helper.make_opsetid("f", 1))
    models = {
        "outside": kept_outside(f"../{secret.name}"), "absolute": kept_outside(str(secret)),
        "shape": onnx_model(node("MatMul", ["x", "w"], ["y"]), held=(weight,)),
        "filled": onnx_model(node("ConstantOfShape", ["s"], ["w"]), node("MatMul", ["x", "w"], ["y"]), held=(large,)),
        "nodes": onnx_model(*chain), "laughs": laughs,
    }  # fmt: skip
    (folder / "depth.onnx").write_bytes(nested(3000))
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


def hdf5_changes(secret: Path) -> dict[str, Callable[[h5py.File, str], None]]:
    """What can be put in the place of a dataset."""

    def virtual(file: h5py.File, place: str) -> None:
        layout = h5py.VirtualLayout((3, 2), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "x", (3, 2))
        file.create_virtual_dataset(place, layout)

    def deep(file: h5py.File, place: str) -> None:
        group = file
        for _ in range(500):
            group = group.create_group("g")

    def zeros(file: h5py.File, place: str) -> None:
        many = np.zeros((1 << 11, 1 << 13), np.float32)
        file.create_dataset(place, data=many, chunks=(64, 1 << 13), compression="gzip")

    return {
        "link": lambda file, place: file.__setitem__(place, h5py.ExternalLink(str(secret), "/x")),
        "storage": lambda file, place: file.create_dataset(place, (3, 2), "f4", external=[(str(secret), 0, 24)]),
        "virtual": virtual,
        "shape": lambda file, place: file.create_dataset(place, (1 << 20, 1 << 20), "f4", chunks=(64, 64)),
        "bomb": zeros,
        "deep": deep,
        "cycle": lambda file, place: file.__setitem__(f"{place.rpartition('/')[0]}/again", file["/"]),
    }


def hdf5_files(folder: Path, secret: Path, good: Path) -> None:
    for whole, place in ((good / "net.nir", "node/nodes/fc/weight"), (good / "keras.h5", KERNEL)):
        for name, change in hdf5_changes(secret).items():
            path = folder / f"{name}{'_keras' if whole.suffix == '.h5' else ''}{whole.suffix}"
            path.write_bytes(whole.read_bytes())
            with h5py.File(path, "r+") as file:
                del file[place]
                change(file, place)


KERNEL = "model_weights/dense_0/dense_0/kernel:0"


def good_files(folder: Path) -> None:
    """One honest file of each format."""
    from keras_fixtures import Spec, named, write_h5, write_keras

    from converters.read.nir_file import RawGraph, RawNode, write_raw

    neuro.save(network(), folder / "ours.h5")
    (folder / "net.onnx").write_bytes(onnx_model(node("Relu", ["x"], ["y"])).SerializeToString())
    nodes = {
        "input": RawNode("Input", {"shape": np.array([2])}),
        "fc": RawNode("Affine", {"weight": np.ones((3, 2)), "bias": np.ones(3)}),
        "output": RawNode("Output", {"shape": np.array([3])}),
    }
    write_raw(folder / "net.nir", RawGraph(nodes, (("input", "fc"), ("fc", "output"))))
    layers = named([Spec("Dense", {"activation": "relu"}, [np.ones((2, 3), np.float32), np.ones(3, np.float32)])])
    for write, name in ((write_h5, "keras.h5"), (write_keras, "net.keras")):
        write(folder / name, layers, (2,))
    weights = {"w": torch.ones(2, 3)}
    torch.save(weights, folder / "w.pt")
    np.savez(folder / "w.npz", w=np.ones(3))
    from safetensors.torch import save_file

    save_file(weights, folder / "w.safetensors")
    program = torch.export.export(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
    torch.export.save(program, folder / "net.pt2")


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.read_bytes, (self.path,)


def archives(folder: Path, secret: Path, good: Path) -> None:
    for suffix in (".keras", ".pt2", ".npz", ".pt"):
        with zipfile.ZipFile(folder / f"bomb{suffix}", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("archive/data.pkl" if suffix == ".pt" else "model.weights.h5", b"\0" * (1 << 27))
    (folder / "raw.pt").write_bytes(pickle.dumps(Canary(secret)))
    torch.save({"w": torch.ones(2), "evil": Canary(secret)}, folder / "evil.pth")
    np.savez(folder / "objects.npz", w=np.array([Canary(secret)], dtype=object))
    with zipfile.ZipFile(folder / "shape.npz", "w") as archive:
        text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
        text += b" " * (-(len(text) + 11) % 64) + b"\n"
        archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (folder / "shape.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (folder / "header.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    (folder / "brackets.keras").write_bytes((good / "net.keras").read_bytes())
    with zipfile.ZipFile(folder / "brackets.keras", "w") as archive:
        archive.writestr("config.json", "[" * 500_000)
        archive.writestr("model.weights.h5", (good / "keras.h5").read_bytes())
    for name in ("net.tflite", "net.keras", "net.onnx", "net.nir", "net.pt2", "w.safetensors", "w.npz"):
        (folder / f"noise_{name}").write_bytes(np.random.default_rng(1).bytes(4096))


def test_hostile_files_open_nothing_and_cost_little(tmp_path: Path) -> None:
    secret, folder, good = tmp_path / "secret.h5", tmp_path / "hostile", tmp_path / "good"
    folder.mkdir()
    good.mkdir()
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((3, 2), np.float32)
    good_files(good)
    onnx_files(folder, secret)
    hdf5_files(folder, secret, good)
    archives(folder, secret, good)
    files = sorted(map(str, folder.iterdir()))
    command = [sys.executable, "-c", CHILD, str(good), str(secret), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == files
    wrong = []
    for path, said, seconds, megabytes, others, touched in lines:
        kind, _, text = said.partition(": ")
        typed = kind in ("FileError", "UnsupportedNode") and path in text
        if not typed or seconds > SECONDS or megabytes > MEGABYTES or others or touched:
            wrong.append((Path(path).name, said[:200], seconds, megabytes, others[:5], touched))
    assert not wrong, "\n".join(map(str, wrong))
