"""Weights arrive exactly, and no file of weights can run code: a canary would sing by making a folder."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from neuro.errors import FileError, NeuroError
from neuro.weights import load_module, load_program, load_weights

MUTANTS = int(os.environ.get("NEURO_MUTANTS", "500"))


class Canary:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.path,)


def test_the_canary_sings(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def tensors() -> dict[str, torch.Tensor]:
    return {"fc.weight": torch.randn(3, 4), "fc.bias": torch.randn(3), "count": torch.tensor(7)}


def write(path: Path, weights: dict[str, torch.Tensor]) -> None:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in weights.items()})  # type: ignore[arg-type]
    else:
        torch.save(weights, path)


FORMATS = ["w.safetensors", "w.pt", "w.pth", "w.npz"]


@pytest.mark.parametrize("name", FORMATS)
def test_values_are_those_that_were_saved(tmp_path: Path, name: str) -> None:
    weights = tensors() | {"half": torch.randn(2, 3).half(), "none": torch.zeros(0, 3)}
    write(tmp_path / name, weights)
    found = load_weights(tmp_path / name)
    assert found.keys() == weights.keys()
    for key, value in weights.items():
        assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape)
        assert torch.equal(found[key], value)


@pytest.mark.parametrize("old", [True, False], ids=["legacy", "zip"])
@pytest.mark.parametrize(
    "wrap", [lambda w: w, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model_state_dict": w}]
)
def test_wrapped_state_dicts_and_old_files(tmp_path: Path, wrap: Callable[[object], object], old: bool) -> None:
    weights = tensors()
    torch.save(wrap(weights), tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
    found = load_weights(tmp_path / "w.pt")
    assert all(torch.equal(found[key], value) for key, value in weights.items())


@pytest.mark.parametrize("old", [True, False], ids=["legacy", "zip"])
def test_a_pickle_payload_is_refused_and_nothing_runs(tmp_path: Path, old: bool) -> None:
    canary = tmp_path / "canary"
    payload = {"fc.weight": torch.ones(2), "evil": Canary(canary)}
    torch.save(payload, tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(FileError, match="safetensors") as caught:
        load_weights(tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(FileError):
        load_weights(tmp_path / "raw.pth")
    np.savez(tmp_path / "w.npz", a=np.array([Canary(canary)], dtype=object))
    with pytest.raises(FileError, match="pickled objects"):
        load_weights(tmp_path / "w.npz")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(FileError, match="safetensors"):
        load_weights(tmp_path / "module.pt")
    assert not canary.exists()


def test_what_is_no_dict_of_tensors_is_refused(tmp_path: Path) -> None:
    cases = {"list": [torch.ones(1)], "'lr' is a float": {"w": torch.ones(1), "lr": 0.1}, "no tensors": {}}
    for rule, content in cases.items():
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(FileError, match=rule):
            load_weights(tmp_path / "w.pt")
    torch.save({"w": torch.ones(1).expand(1 << 40)}, tmp_path / "w.pt")
    with pytest.raises(FileError, match="claims more numbers"):
        load_weights(tmp_path / "w.pt")
    with pytest.raises(FileError, match=r"weights come as \.safetensors"):
        load_weights(tmp_path / "w.onnx")
    for name in FORMATS:
        with pytest.raises(FileError, match="cannot be opened"):
            load_weights(tmp_path / name.replace("w", "absent"))


def safetensors_file(header: bytes, size: int | None = None, data: bytes = b"\0" * 16) -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def entry(dtype: str = "F32", shape: tuple[int, ...] = (4,), offsets: tuple[int, int] = (0, 16)) -> bytes:
    return json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


def test_hostile_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors_file(entry()))
    assert load_weights(path)["w"].shape == (4,)
    hostile = {
        "header of 2^63": safetensors_file(entry(), 1 << 63),
        "header beyond the end": safetensors_file(entry(), 1000),
        "no JSON": safetensors_file(b"{" * 80),
        "offsets beyond the end": safetensors_file(entry(offsets=(0, 1 << 40))),
        "shape that overflows": safetensors_file(entry(shape=(1 << 62, 4))),
        "shape that lies": safetensors_file(entry(shape=(5,))),
        "unknown type": safetensors_file(entry("PICKLE")),
        "empty": b"",
        "three bytes": b"abc",
    }
    for content in hostile.values():
        path.write_bytes(content)
        start = time.process_time()
        with pytest.raises(FileError, match=r"w\.safetensors"):
            load_weights(path)
        assert time.process_time() - start < 2


def npz(path: Path, content: bytes, **more: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"w": content, **more}.items():
            archive.writestr(f"{name}.npy", data)


def test_hostile_npz(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    npz(path, stream.getvalue() + b"\0" * 64)
    with pytest.raises(FileError, match="claims shape"):
        load_weights(path)
    npz(path, b"\0" * 200_000_000)
    with pytest.raises(FileError, match="declare 200000000 bytes"):
        load_weights(path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("w.npy", b"1")
        archive.writestr("w.npy", b"2")
    with pytest.raises(FileError, match="two members of one name"):
        load_weights(path)
    npz(path, b"no array")
    with pytest.raises(FileError):
        load_weights(path)
    np.savez(path, w=np.zeros(2, [("a", "f4")]))
    with pytest.raises(FileError):
        load_weights(path)


@pytest.mark.parametrize("name", FORMATS)
def test_mutants_give_our_errors_or_tensors(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, tensors())
    whole = path.read_bytes()
    refusals: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and zipfile remark on some damaged files before they refuse them
        for seed in range(MUTANTS):
            draw = random.Random(seed)
            mutant = bytearray(whole)
            if seed % 5 == 0:
                del mutant[draw.randrange(len(mutant)) :]
            for _ in range(draw.choice((1, 4, 16))):
                if mutant:
                    mutant[draw.randrange(len(mutant))] ^= draw.choice((1, 128, 255))
            # memory-mapped tensors of the last file must not change under this one
            place = path.with_stem(f"mutant{seed}")
            place.write_bytes(mutant)
            start = time.process_time()
            try:
                assert all(float(value.double().sum()) is not None for value in load_weights(place).values())
            except NeuroError as error:
                refusals.append(str(error))
            assert time.process_time() - start < 2, seed
    assert refusals
    assert not any("\n" in text for text in refusals)


MODEL = """
from torch import nn
import neighbour

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, neighbour.WIDTH)
        self.drop = nn.Dropout()
    def forward(self, x):
        return self.drop(self.fc(x))

def build(): return Net()
def wrong(): return 3
def broken(): raise KeyError("x")
def quits(): raise SystemExit(5)
def greedy(a): return Net()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("WIDTH = 3\n")
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path / "model.py"


def test_module_of_a_user_with_weights(model: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = nn.ModuleDict({"fc": nn.Linear(4, 3)}).state_dict()
    x = torch.randn(2, 4)
    expected = x @ weights["fc.weight"].T + weights["fc.bias"]
    for prefix in ("", "module.", "_orig_mod.", "module._orig_mod."):
        torch.save({prefix + name: value for name, value in weights.items()}, tmp_path / "w.pt")
        module = load_module(f"{model}:build", tmp_path / "w.pt")
        assert not module.training
        torch.testing.assert_close(module(x), expected)
    assert load_module(f"{model}:build")(x).shape == (2, 3)


def test_weights_that_do_not_fit_are_all_named(model: Path, tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.ones(3, 5), "gc.bias": torch.ones(3)}, tmp_path / "w.pt")
    with pytest.raises(FileError) as caught:
        load_module(f"{model}:build", tmp_path / "w.pt")
    message = str(caught.value)
    assert "missing: fc.bias" in message
    assert "unexpected: gc.bias" in message
    assert "of another shape: fc.weight (3, 5), not (3, 4)" in message
    assert "\n" not in message


def test_modules_that_cannot_be_had(model: Path, tmp_path: Path) -> None:
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "model.txt").write_text("x")
    cases = {
        f"{model}": r"file\.py:function",
        f"{model}:not a name": r"file\.py:function",
        f"{model}:absent": "has no function 'absent'",
        f"{model}:wrong": "returned a int",
        f"{model}:broken": "KeyError: 'x'",
        f"{model}:quits": "SystemExit: 5",
        f"{model}:greedy": "without arguments",
        f"{tmp_path / 'absent.py'}:build": "cannot be opened",
        f"{tmp_path / 'syntax.py'}:f": "SyntaxError",
        f"{tmp_path / 'model.txt'}:f": "no Python file",
    }
    for spec, rule in cases.items():
        with pytest.raises(FileError, match=rule) as caught:
            load_module(spec)
        assert "\n" not in str(caught.value)


class Small(nn.Module):
    """Slicing, padding, a size taken from the shape, a buffer, a constant: what exported networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(16, 3)
        self.offset = torch.arange(3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        y = torch.relu(y + torch.nn.functional.pad(x, (0, 0, 0, 0, 1, 1)))
        y = torch.nn.functional.avg_pool2d(y, y.shape[3] // 2)
        return torch.log_softmax(self.fc(y.reshape(y.shape[0], -1)) + self.offset, 1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    torch.manual_seed(0)
    program = torch.export.export(
        Small().eval(), (torch.randn(2, 2, 8, 8),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, path)
    return path


def test_exported_program_computes_what_was_exported(exported: Path) -> None:
    torch.manual_seed(0)
    module = Small().eval()
    program = load_program(exported)
    for batch in (2, 5):
        x = torch.randn(batch, 2, 8, 8)
        torch.testing.assert_close(program.module()(x), module(x))
    assert [tuple(value.shape) for value in program.example_inputs[0]] == [(2, 2, 8, 8)]
    assert any("conv" in str(node.meta.get("nn_module_stack", "")) for node in program.graph.nodes)


def edited(source: Path, target: Path, change: dict[str, Callable[[bytes], bytes]], **new: bytes) -> Path:
    """A copy of an archive with other members."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as copy:
        root = archive.namelist()[0].partition("/")[0]
        for name in archive.namelist():
            short = name.partition("/")[2]
            copy.writestr(name, change.get(short, lambda content: content)(archive.read(name)))
        for name, content in new.items():
            copy.writestr(f"{root}/{name}", content)
    return target


def in_model(old: str, new: str) -> dict[str, Callable[[bytes], bytes]]:
    def change(content: bytes) -> bytes:
        assert old.encode() in content, f"{old!r} no longer occurs: torch writes another form"
        return content.replace(old.encode(), new.encode())

    return {"models/model.json": change}


def in_config(folder: str, old: str, new: str) -> dict[str, Callable[[bytes], bytes]]:
    (change,) = in_model(old, new).values()
    config = {"weights": "model_weights_config.json", "constants": "model_constants_config.json"}[folder]
    return {f"data/{folder}/{config}": change}


def pickled(path: Path) -> bytes:
    stream = io.BytesIO()
    torch.save(((Canary(path),), {}), stream)
    return stream.getvalue()


def test_programs_that_could_run_code_are_refused(exported: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    call = f"__import__('os').mkdir('{canary}')"
    with zipfile.ZipFile(exported) as archive:
        (model_name,) = (name for name in archive.namelist() if name.endswith("models/model.json"))
        symbol = json.loads(archive.read(model_name))["range_constraints"].popitem()[0]
    symbolic = f"Symbol('{symbol}', positive=True, integer=True)"
    leaf_spec = json.dumps('[1, {"type": null, "context": null, "children_spec": []}]')[1:-1]
    defaultdict = json.dumps(
        json.dumps(
            [
                1,
                {
                    "type": "collections.defaultdict",
                    "context": {"default_factory_module": "neighbour"},
                    "children_spec": [],
                },
            ]
        )
    )[1:-1]
    changes = {
        "expression": in_model(symbolic, call),
        "expression in a call": in_model(symbolic, f"Add({call}, Integer(1))"),
        "expression of attributes": in_model(symbolic, "Symbol.__class__"),
        "expression that fills memory": in_model(symbolic, "Pow(Integer(9), Pow(Integer(9), Integer(9)))"),
        "operation by path": in_model("torch.ops.aten.relu.default", "torch.hub.load"),
        "operation that loads": in_model("torch.ops.aten.relu.default", "torch.ops.load_library"),
        "operation on files": in_model("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"),
        "operation by class": in_model("torch.ops.aten.relu.default", "torch.ops.aten.__class__.mro"),
        "node name": in_model('"name": "relu"', f'"name": "relu = {call}"'),
        "argument name": in_model('"forward_arg_names": ["x"]', f'"forward_arg_names": ["x={call}"]'),
        "buffer name": in_model('"buffer_name": "norm.running_mean"', f'"buffer_name": "a\\"), {call}, (\\""'),
        "source comment": in_model('"stack_trace": "', '"stack_trace": "File \\"a\\", line 1, in f\\n    x\\r' + call),
        "tree spec": in_model(leaf_spec, defaultdict),
        "pickled weight": in_config("weights", '"use_pickle": false', '"use_pickle": true'),
        "object constant": in_config("constants", "tensor_0", "custom_obj_0"),
        "opaque constant": in_config("constants", "tensor_0", "opaque_obj_0"),
        "payload elsewhere": in_config("weights", '"weight_0"', '"../../etc/passwd"'),
        "larger than stored": in_config("weights", '{"as_int": 4}', '{"as_int": 1099511627776}'),
        "other device": in_config("weights", '"type": "cpu"', '"type": "cuda"'),
        "sample inputs": {"data/sample_inputs/model.pt": lambda _: pickled(canary)},
        "raw pickle": {"data/sample_inputs/model.pt": lambda _: pickle.dumps(Canary(canary))},
    }
    for case, change in changes.items():
        path = edited(exported, tmp_path / "net.pt2", change)
        with pytest.raises(FileError) as caught:
            load_program(path)
        assert str(path) in str(caught.value), case
        assert torch.__version__ not in str(caught.value), f"{case}: got as far as torch.export.load"
        assert "\n" not in str(caught.value), case
    for member in ("data/aotinductor/model/evil.so", "serialized_state_dict.pt", "data/constants/custom_obj_0"):
        path = edited(exported, tmp_path / "net.pt2", {}, **{member: b"x"})
        with pytest.raises(FileError, match="has no place"):
            load_program(path)
    assert not canary.exists()


def test_guards_of_a_program_are_dropped_not_run(exported: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    change = in_model('"guards_code": []', f"\"guards_code\": [\"__import__('os').mkdir('{canary}')\"]")
    program = load_program(edited(exported, tmp_path / "net.pt2", change))
    assert program.module()(torch.randn(3, 2, 8, 8)).shape == (3, 3)
    assert not canary.exists()


def test_damaged_programs(exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    path = tmp_path / "net.pt2"
    for content in (b"", b"PK", whole[:-1], whole[: len(whole) // 2], pickle.dumps(Canary(tmp_path / "canary"))):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"net\.pt2"):
            load_program(path)
    with pytest.raises(FileError, match="cannot be opened"):
        load_program(tmp_path / "absent.pt2")
    assert not (tmp_path / "canary").exists()
    refusals: list[str] = []
    for seed in range(MUTANTS):
        draw = random.Random(seed)
        mutant = bytearray(whole)
        mutant[draw.randrange(len(mutant))] ^= draw.choice((1, 128, 255))
        path.write_bytes(mutant)
        start = time.process_time()
        try:
            load_program(path)
        except NeuroError as error:
            refusals.append(str(error))
        assert time.process_time() - start < 2, seed
    assert refusals
    assert not any("\n" in text for text in refusals)


def test_real_weights(shared: Path) -> None:
    weights = load_weights(shared / "weights" / "cnn_mnist" / "mnist_cnn.pt")
    assert weights["conv1.weight"].shape == (6, 1, 3, 3)
    assert len(weights) == 10


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "net"])
def test_checkpoints_hold_the_weights_beside_much_else(model: Path, tmp_path: Path, wrapper: str) -> None:
    """As training loops, Lightning (names below `model.`) and timm write them."""
    weights = nn.ModuleDict({"fc": nn.Linear(4, 3)}).state_dict()
    content = {
        "epoch": 7,
        "optimizer": {"state": {0: {"momentum": torch.ones(12)}}, "param_groups": [{"lr": 0.1}]},
        wrapper: {f"model.module.{name}": value for name, value in weights.items()},
    }
    torch.save(content, tmp_path / "last.pth")
    found = load_module(f"{model}:build", tmp_path / "last.pth").state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    torch.save({"state": {"model": weights}, "epoch": 1}, tmp_path / "odd.pth")
    with pytest.raises(FileError, match="'state' is a dict, not a tensor"):
        load_weights(tmp_path / "odd.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_programs_and_whole_modules_say_how_to_save_weights(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 3), torch.zeros(1, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(FileError, match=r"TorchScript .*torch\.jit\.load\('script\.pt'\)\.state_dict\(\)"):
        load_weights(tmp_path / "script.pt")
    torch.save(nn.Sequential(nn.Linear(2, 3)), tmp_path / "whole.pt")
    with pytest.raises(FileError, match=r"more than tensors \(torch\.nn\.modules\.container\.Sequential\).*state_dict"):
        load_weights(tmp_path / "whole.pt")


HUGGING_FACE = """
import torch
from torch import nn

class Convolution(nn.Module):
    def __init__(self, channels, out, kernel, stride=1):
        super().__init__()
        self.convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(out)
        self.activation = nn.ReLU()
    def forward(self, x):
        return self.activation(self.normalization(self.convolution(x)))

class Layer(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.shortcut = Convolution(channels, out, 1, stride) if stride > 1 else nn.Identity()
        if stride > 1:
            self.shortcut.activation = nn.Identity()
        self.layer = nn.Sequential(Convolution(channels, out, 3, stride), Convolution(out, out, 3))
        self.layer[1].activation = nn.Identity()
        self.activation = nn.ReLU()
    def forward(self, x):
        return self.activation(self.layer(x) + self.shortcut(x))

class Stage(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.layers = nn.Sequential(Layer(channels, out, stride))
    def forward(self, x):
        return self.layers(x)

class ResNet(nn.Module):
    def __init__(self, config):
        super().__init__()
        sizes = [config["embedding_size"], *config["hidden_sizes"]]
        self.resnet = nn.ModuleDict({
            "embedder": nn.ModuleDict({"embedder": Convolution(config["num_channels"], sizes[0], 3, 2)}),
            "encoder": nn.ModuleDict({"stages": nn.ModuleList(
                Stage(a, b, 1 if a == b else 2) for a, b in zip(sizes, sizes[1:]))}),
        })
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(sizes[-1], len(config["id2label"])))
    def forward(self, pixel_values):
        x = self.resnet["embedder"]["embedder"](pixel_values)
        for stage in self.resnet["encoder"]["stages"]:
            x = stage(x)
        return {"loss": None, "logits": self.classifier(x.mean((2, 3), keepdim=True))}

def build(config):
    return ResNet(config)
"""
CONFIG = {
    "architectures": ["ResNetForImageClassification"], "auto_map": {"AutoModel": "modeling_evil.Evil"},
    "embedding_size": 4, "hidden_sizes": [4, 6], "id2label": {"0": "cat", "1": "dog", "2": "owl"}, "num_channels": 3,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The layout and names of microsoft/resnet-*: config.json, an index, two files; and code, which nobody runs."""
    folder = tmp_path / "resnet-small"
    folder.mkdir()
    (tmp_path / "net.py").write_text(HUGGING_FACE)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "modeling_evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n")
    (folder / "config.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n")
    space: dict[str, Any] = {}
    exec(HUGGING_FACE, space)
    torch.manual_seed(2)
    weights = {name: value for name, value in space["build"](CONFIG).state_dict().items()
               if not name.endswith("num_batches_tracked")}  # fmt: skip
    assert "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight" in weights
    names = sorted(weights)
    places = {name: f"model-0000{1 + (at % 2)}-of-00002.safetensors" for at, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: weights[name] for name in names if places[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_folders_of_hugging_face(folder: Path, tmp_path: Path) -> None:
    from converters.read import read
    from neuro.evaluate import evaluate

    net = load_module(f"{tmp_path / 'net.py'}:build", folder)
    x = torch.randn(3, 3, 16, 16)
    graph = read(net, example=x)
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, x), net(x)["logits"], rtol=1e-5, atol=1e-5)
    assert "one tensor in a dict" in [change.was for change in graph.history]
    assert not (tmp_path / "canary").exists()
    whole = load_weights(folder)
    assert len(whole) == len(load_weights(folder / "model.safetensors.index.json")) > 20
    save_file(whole, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    again = load_module(f"{tmp_path / 'net.py'}:build", tmp_path / "model.safetensors")
    assert torch.equal(again.classifier[1].weight, net.classifier[1].weight)


def test_folders_that_lie(folder: Path, tmp_path: Path) -> None:
    index = folder / "model.safetensors.index.json"
    honest = json.loads(index.read_text())
    name = next(iter(honest["weight_map"]))

    def refused(rule: str) -> None:
        with pytest.raises(FileError, match=rule) as caught:
            load_weights(folder)
        assert "\n" not in str(caught.value)

    for place in ("../net.safetensors", "/etc/passwd", "pytorch_model.bin", "C:\\a.safetensors", 3):
        index.write_text(json.dumps({"weight_map": honest["weight_map"] | {name: place}}))
        refused("only .safetensors files beside it|no weight_map")
    index.write_text(json.dumps({"weight_map": honest["weight_map"] | {"more.weight": honest["weight_map"][name]}}))
    refused("'more.weight' is not in")
    index.write_text(
        json.dumps({"weight_map": {key: value for key, value in honest["weight_map"].items() if key != name}})
    )
    refused("which the index does not say")
    for text, rule in (("[" * 100_000, "no JSON"), ("[]", "not an object"), ("", "empty"), ("{}", "no weight_map")):
        index.write_text(text)
        refused(rule)
    index.unlink()
    refused("2 files of weights")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    refused(r"pytorch_model\.bin is a pickle")
    with pytest.raises(FileError, match=r"config\.json"):
        load_module(f"{tmp_path / 'net.py'}:build", tmp_path / "nowhere" / "model.safetensors")
    assert not (tmp_path / "canary").exists()
