"""Keras files made to harm: each is refused in one typed line that names the file, or read as what it is."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_fixtures import Spec, description, named, weights_file, write_h5, write_keras

from converters.read.from_keras import from_keras
from neuro.errors import FileError, NeuroError, UnsupportedNode
from neuro.graph import Graph

MUTANTS = int(os.environ.get("NEURO_MUTANTS", "500"))
SHAPE = (4, 4, 2)


def network() -> list[Spec]:
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return rng.normal(0, 1, shape).astype(np.float32)

    return named(
        [
            Spec("Conv2D", {"padding": "same", "strides": [1, 1], "activation": "relu"}, [drawn(3, 3, 2, 3), drawn(3)]),
            Spec("BatchNormalization", {"axis": [3], "epsilon": 1e-3},
                 [drawn(3), drawn(3), drawn(3), 1 + drawn(3) ** 2]),
            Spec("Flatten"),
            Spec("Dense", {"activation": "softmax"}, [drawn(48, 2), drawn(2)]),
        ]
    )  # fmt: skip


def refused(path: Path, rule: str, kind: type[NeuroError] = FileError) -> str:
    start = time.process_time()
    with pytest.raises(kind, match=rule) as caught:
        from_keras(path)
    assert time.process_time() - start < 2, "a refusal takes less than two seconds"
    text = str(caught.value)
    assert path.name in text
    if kind is FileError:
        assert "\n" not in text
    return text


def edited(tmp_path: Path, change: Callable[[h5py.File], None]) -> Path:
    path = write_h5(tmp_path / "hostile.h5", network(), SHAPE)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


KERNEL = "model_weights/dense_3/dense_3/kernel:0"


def _external(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/passwd", "/x")


def _soft(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/model_weights/dense_3/dense_3/bias:0")


def _outside(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (48, 2), "f4", external=[("/etc/passwd", 0, 384)])


def _virtual(file: h5py.File) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((48, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (48, 2))
    file.create_virtual_dataset(KERNEL, layout)


def _terabytes(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))


def _bomb(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, data=np.zeros((1 << 13, 1 << 10), "f4"), compression=9)


def _pickled(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (48, 2), "V16")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_external, "ExternalLink"), (_soft, "SoftLink"), (_outside, "external storage"), (_virtual, "virtual dataset"),
        (_terabytes, "declares"), (_bomb, "declares"), (_pickled, "only plain numbers"),
    ],
)  # fmt: skip
def test_storage_that_points_elsewhere_or_lies(tmp_path: Path, change: Callable[..., None], rule: str) -> None:
    path = edited(tmp_path, change)
    assert "kernel:0" in refused(path, rule)
    inside = write_keras(tmp_path / "hostile.keras", network(), SHAPE, weights=path.read_bytes())
    assert "kernel:0" in refused(inside, rule)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(tmp_path: Path, value: float) -> None:
    specs = network()
    specs[3].weights[0][5, 1] = value
    for path in (write_h5(tmp_path / "a.h5", specs, SHAPE), write_keras(tmp_path / "a.keras", specs, SHAPE)):
        text = refused(path, "NaN or infinite")
        assert "'dense_3'" in text
        assert "weight" in text


@pytest.mark.parametrize(
    ("layer", "key", "value", "rule"),
    [
        (0, "strides", [0, 1], "strides"), (0, "strides", [1, 10**30], "strides"), (0, "strides", "many", "strides"),
        (0, "padding", "sideways", "padding='sideways'"), (0, "groups", -1, "groups"), (0, "groups", 7, "groups"),
        (1, "epsilon", -1e9, "var"), (1, "epsilon", "small", "epsilon"), (1, "axis", [1, 2], "axis"),
        (1, "axis", 99, "axis"), (3, "activation", ["relu"], "activation"), (3, "use_bias", False, "weights"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(tmp_path: Path, layer: int, key: str, value: object, rule: str) -> None:
    specs = network()
    config = json.loads(json.dumps(description(specs, SHAPE)))
    config["config"]["layers"][layer + 1]["config"][key] = value
    path = write_h5(tmp_path / "a.h5", specs, SHAPE, config)
    assert f"'{specs[layer].name}'" in refused(path, rule, NeuroError)


def functional(layers: list[dict[str, Any]], ends: tuple[str, str] = ("input_1", "last")) -> dict[str, Any]:
    start = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 3], "name": "input_1"},
             "name": "input_1", "inbound_nodes": []}  # fmt: skip
    config = {"name": "network", "layers": [start, *layers],
              "input_layers": [[ends[0], 0, 0]], "output_layers": [[ends[1], 0, 0]]}  # fmt: skip
    return {"class_name": "Functional", "config": config}


def relu(name: str, *reads: str) -> dict[str, Any]:
    nodes = [[[source, 0, 0, {}] for source in reads]]
    return {"class_name": "ReLU" if len(reads) == 1 else "Add", "config": {}, "name": name, "inbound_nodes": nodes}


def doubling(depth: int) -> dict[str, Any]:
    """A model that uses a model twice, which uses a model twice, ..."""
    inner: dict[str, Any] = {"class_name": "ReLU", "config": {}}
    for level in range(depth):
        first, second = [[["input_1", 0, 0, {}]], [["inner", 0, 0, {}]]]
        inner = functional([{**inner, "name": "inner", "inbound_nodes": [first, second]}], ("input_1", "inner"))
        inner["config"]["output_layers"] = [["inner", 1, 0]]
        inner["config"]["name"] = f"level_{level}"
    return inner


def deep(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"class_name": "ReLU", "config": {"name": "relu"}}
    for _ in range(depth):
        inner = {"class_name": "Sequential", "config": {"name": "inner", "layers": [inner]}}
    return inner


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (functional([relu("a", "b", "input_1"), relu("b", "a"), relu("last", "b")]), "loops"),
        (functional([relu("last", "last")]), "loops"),
        (functional([relu("last", "ghost")]), "'ghost'"),
        (functional([relu("last", "input_1"), relu("last", "input_1")]), "same name"),
        (functional([relu("last", "input_1")], ("input_1", "ghost")), "ghost"),
        (functional([relu(f"n{i}", "input_1") for i in range(10_001)]), "10002 layers"),
        (doubling(15), "10000 nodes"),
        (deep(40), "deeper than"),
        ({"class_name": "MyModel", "config": {}}, "class of its author"),
        ({"class_name": "Sequential", "config": {"name": "n", "layers": []}}, "no layers"),
        ({"class_name": "Sequential", "config": {"name": "n", "layers": [{"class_name": "ReLU"}]}}, "config"),
        ({"class_name": "Sequential", "config": {"name": "n", "layers": 7}}, "damaged"),
        ({"class_name": "Sequential", "config": None}, "damaged"),
        ({"class_name": [], "config": {}}, "class"),
        ({}, "class_name"),
    ],
)
def test_descriptions_that_are_traps(tmp_path: Path, config: dict[str, Any], rule: str) -> None:
    refused(write_h5(tmp_path / "a.h5", [], (3,), config), rule)
    refused(write_keras(tmp_path / "a.keras", [], (3,), config=config), rule)


@pytest.mark.parametrize("shape", [(None, 3), (0, 3), (10**12, 3), ("3", 3), (1.5,), ()])
def test_input_shapes_that_are_none(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    refused(write_h5(tmp_path / "a.h5", named([Spec("ReLU")]), shape), "fixed input shape")


def test_sizes_that_only_the_settings_claim(tmp_path: Path) -> None:
    for spec in (Spec("UpSampling2D", {"size": [9999, 9999]}), Spec("RepeatVector", {"n": 10**7})):
        shape = (2, 2, 2) if spec.kind == "UpSampling2D" else (2,)
        refused(write_h5(tmp_path / "a.h5", named([spec]), shape), "too", UnsupportedNode)


def test_nested_brackets(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "[" * 200_000)
        archive.writestr("model.weights.h5", weights_file(network()))
    refused(path, "recursion|JSONDecodeError")
    h5 = tmp_path / "a.h5"
    with h5py.File(h5, "w", track_order=False) as file:
        file.attrs["model_config"] = '{"a":' * 10_000
        file.create_group("model_weights")
    refused(h5, "recursion|JSONDecodeError")


def archived(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_archives_that_lie(tmp_path: Path) -> None:
    config = json.dumps(description(network(), SHAPE, keras=3)).encode()
    good = {"config.json": config, "model.weights.h5": weights_file(network())}
    path = tmp_path / "a.keras"
    refused(archived(path, {**good, "../escape": b"x"}), "leaves the archive")
    refused(archived(path, {**good, "/etc/x": b"x"}), "leaves the archive")
    refused(archived(path, {"config.json": config}), "without config.json and model.weights.h5")
    refused(archived(path, {**good, "model.weights.h5": b"no HDF5"}), "not an HDF5 file")
    refused(archived(path, {**good, "config.json": b"\xff\xfe"}), "UnicodeDecodeError")
    refused(archived(path, {**good, "model.weights.h5": b"\0" * (60 << 20)}, zipfile.ZIP_DEFLATED), "expands|declare")
    lying = bytearray(archived(path, good).read_bytes())
    place = lying.rindex(b"PK\x01\x02")  # the size that the directory declares for the last member
    lying[place + 24 : place + 28] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(lying)
    refused(path, "declare")


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content in (("empty.h5", b""), ("text.keras", b"PK but no archive"), ("text.h5", b"\x89HDF\r\n\x1a\n")):
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, name)
    refused(tmp_path, "regular file")
    refused(tmp_path / "absent.h5", "cannot be opened")


def mutants(content: bytes, count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    for number in range(count):
        changed = bytearray(content)
        if number % 5 == 0:
            del changed[int(rng.integers(len(changed))) :]
        else:
            for place in rng.integers(len(changed), size=int(rng.integers(1, 8))):
                changed[place] = int(rng.integers(256))
        yield bytes(changed)


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_mutants_are_read_or_refused(tmp_path: Path, ending: str) -> None:
    """Seeded byte flips and truncations: no crash, no hang, no other exception."""
    write = write_h5 if ending == "h5" else write_keras
    content = write(tmp_path / f"good.{ending}", network(), SHAPE).read_bytes()
    path, read = tmp_path / f"mutant.{ending}", 0
    for mutant in mutants(content, MUTANTS, seed=4):
        path.write_bytes(mutant)
        start, said = time.process_time(), str(path)
        try:
            assert isinstance(from_keras(path), Graph)
            read += 1
        except NeuroError as error:
            said = str(error)
        assert str(path) in said
        assert time.process_time() - start < 2
    assert read < MUTANTS, "truncations are never harmless"
    assert read > 0 or ending == "keras", "bytes of weights may be any; in a zip archive their checksum tells"


CHILD = """
import resource, sys
from converters.read.from_keras import from_keras
from neuro.errors import NeuroError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
opened = []
sys.addaudithook(lambda name, given: opened.append(given[0]) if name == "open" else None)
for path in sys.argv[1:]:
    try:
        from_keras(path)
        print("read")
    except NeuroError:
        print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print([file for file in opened if str(file) not in sys.argv[1:] and not str(file).endswith((".py", ".pyc", ".so"))])
"""


def test_memory_and_other_files(tmp_path: Path) -> None:
    """Refusals stay below 300 MB, and nothing but the argument is opened."""
    config = json.dumps(description(network(), SHAPE, keras=3)).encode()
    bomb = {"config.json": config, "model.weights.h5": b"\0" * (320 << 20)}
    paths = [
        write_keras(tmp_path / "good.keras", network(), SHAPE),
        edited(tmp_path, _terabytes),
        archived(tmp_path / "bomb.keras", bomb, zipfile.ZIP_DEFLATED),
    ]
    command = [sys.executable, "-c", CHILD, *map(str, paths)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=limit)
    first, second, third, more, others = done.stdout.split("\n")[:5]
    assert (first, second, third) == ("read", "refused", "refused")
    assert int(more) < 300_000
    assert others == "[]"


def test_text_shared_by_many_names_is_not_read(tmp_path: Path) -> None:
    """Keras 3 writes names as variable-length strings, of which many can share one long text: nobody needs them."""
    path = write_h5(tmp_path / "a.h5", network(), SHAPE)
    with h5py.File(path, "r+") as file:
        file["model_weights"].attrs["layer_names"] = np.array(["x" * 1000] * 60, dtype=object)
    assert isinstance(from_keras(path), Graph)


def test_a_description_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    """HDF5 makes room for what the four bytes before a text claim, here 2 GiB, before it looks for the text."""
    path = write_h5(tmp_path / "a.h5", network(), SHAPE)
    with h5py.File(path, "r+") as file:
        told = file.attrs["model_config"]
        file.attrs["model_config"] = text = told if isinstance(told, str) else told.decode()
    assert isinstance(from_keras(path), Graph)
    whole, head = path.read_bytes(), struct.pack("<I", len(text.encode()))
    places = [at for at in range(len(whole) - 4) if whole[at : at + 4] == head]
    told = []
    for place in places:  # one is the text's own length, others may count the same number
        path.write_bytes(whole[:place] + struct.pack("<I", 1 << 31) + whole[place + 4 :])
        start = time.process_time()
        try:
            from_keras(path)
        except FileError as error:
            told.append(str(error))
        assert time.process_time() - start < 2
    assert any("longer than the file" in line and str(path) in line for line in told)


def test_later_headers_of_hdf5_are_read_too(tmp_path: Path) -> None:
    path, copy = write_h5(tmp_path / "a.h5", network(), SHAPE), tmp_path / "copy.h5"
    with h5py.File(path) as file, h5py.File(copy, "w", libver="latest") as other:
        told = file.attrs["model_config"]
        other.attrs["model_config"] = told if isinstance(told, str) else told.decode()
        file.copy("model_weights", other)
    assert len(from_keras(copy).nodes) == len(from_keras(path).nodes)
