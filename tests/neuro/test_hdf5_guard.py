"""Each rule of the guard has a file that breaks only it; each refusal is quick, small and says where."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from neuro.errors import FileError, NeuroError
from neuro.hdf5_guard import Limits, guard, open_guarded, read_strings

STRINGS = Limits(strings=1000)


@contextmanager
def cheap() -> Iterator[None]:
    """Less than 2 s, and far less than 300 MB of what Python and numpy allocate."""
    tracemalloc.start()
    start = time.perf_counter()
    yield
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 2
    assert peak < 100e6


def honest(path: Path, libver: str = "earliest") -> None:
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs["model_config"] = "{}" * 50
        layer = file.create_group("model_weights/dense")
        layer.attrs["weight_names"] = np.array([b"kernel", b"bias"])
        layer["kernel"] = np.random.default_rng(0).standard_normal((40, 40)).astype("f4")
        layer.create_dataset("packed", data=np.zeros((100, 10)), compression="gzip", shuffle=True, fletcher32=True)
        layer["trained"] = True
        file["type"] = ["Linear", "LIF"]


def soft(file: h5py.File) -> None:
    file["evil"] = h5py.SoftLink("/kernel")


def external(file: h5py.File) -> None:
    file["evil"] = h5py.ExternalLink("/etc/passwd", "/x")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("evil", (11,), "u1", external=[("/etc/passwd", 0, 11)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("evil", layout)


def compressed_bomb(file: h5py.File) -> None:
    file.create_dataset("evil", data=np.zeros(8_000_000, "u1"), compression="gzip", compression_opts=9)


def late_bomb(file: h5py.File) -> None:
    file.create_dataset("evil", (1 << 40,), "f4")


def overflowing_bomb(file: h5py.File) -> None:
    file.create_dataset("evil", (1 << 31, 1 << 31, 1 << 31), "f8", chunks=(1, 1, 64))


def many_small_bombs(file: h5py.File) -> None:
    for index in range(200):
        file.create_dataset(f"evil{index}", (200_000,), "f4")


def chunk_bomb(file: h5py.File) -> None:
    file.create_dataset("evil", (4,), "f4", chunks=(1 << 28,), maxshape=(None,))


def attribute_bomb(file: h5py.File) -> None:
    space = h5s.create_simple((1 << 20,))
    kind = h5t.C_S1.copy()
    kind.set_size(1 << 20)
    group = file.create_group("evil")
    for index in range(12):
        h5py.h5a.create(group.id, b"a%d" % index, h5t.STD_I8LE, h5s.create_simple((60_000,)))
    dataset = h5d.create(group.id, b"x", kind, space, h5p.create(h5p.DATASET_CREATE))
    dataset.close()


def deep(file: h5py.File) -> None:
    file.create_group("/".join("evil" for _ in range(60)))


def cyclic(file: h5py.File) -> None:
    group = file.create_group("outer/evil")
    group["again"] = file["outer"]


def self_root(file: h5py.File) -> None:
    file["evil"] = file["/"]


def laughs(file: h5py.File) -> None:
    """Ten groups, each linked ten times from the one above: 10^10 paths."""
    below = file.create_group("evil")
    for level in range(10):
        group = file.create_group(f"level{level}")
        for index in range(10):
            group[str(index)] = below
        below = group


def reference(file: h5py.File) -> None:
    file.create_dataset("evil", data=np.array([file.ref]), dtype=h5py.ref_dtype)


def opaque(file: h5py.File) -> None:
    file.create_dataset("evil", data=np.array([b"abc"], "V3"))


def compound(file: h5py.File) -> None:
    file.create_dataset("evil", data=np.zeros(3, [("a", "f4"), ("b", "i4")]))


def vlen(file: h5py.File) -> None:
    file.create_dataset("evil", (3,), h5py.vlen_dtype("i4"))


def named_type(file: h5py.File) -> None:
    file["evil"] = np.dtype("f4")


def plug_in(file: h5py.File) -> None:
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((4,))
    properties.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL)
    h5d.create(file.id, b"evil", h5t.IEEE_F32LE, h5s.create_simple((4,)), properties).close()


RULES: dict[Callable[[h5py.File], None], str] = {
    soft: "SoftLink; only hard links",
    external: "ExternalLink; only hard links",
    external_storage: "external storage",
    virtual: "virtual dataset",
    compressed_bomb: "declares 8000000 bytes but stores",
    late_bomb: "the file declares more than",
    overflowing_bomb: "the file declares more than",
    many_small_bombs: "has only",
    chunk_bomb: "chunks of",
    attribute_bomb: "the file declares more than",
    deep: "nested deeper than 32",
    cyclic: "linked twice or contains itself",
    self_root: "linked twice or contains itself",
    laughs: "linked twice or contains itself",
    reference: "objects, references, opaque",
    opaque: "objects, references, opaque",
    compound: "objects, references, opaque",
    vlen: "objects, references, opaque",
    named_type: "neither a group nor a dataset",
    plug_in: "needs filter 32000",
}


@pytest.mark.parametrize("break_rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_is_kept(tmp_path: Path, break_rule: Callable[[h5py.File], None]) -> None:
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w") as file:
        file["kernel"] = np.ones((100, 100))
        break_rule(file)
    with cheap(), pytest.raises(FileError, match=RULES[break_rule]) as caught:
        guard(path)
    message = str(caught.value)
    assert str(path) in message
    assert "evil" in message or break_rule in (cyclic, laughs)
    assert "\n" not in message


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_honest_files_pass_and_open(tmp_path: Path, libver: str) -> None:
    path = tmp_path / "model.h5"
    honest(path, libver)
    guard(path, limits=STRINGS)
    with open_guarded(path, limits=STRINGS) as file:
        assert file["model_weights/dense/kernel"].shape == (40, 40)
        assert read_strings(file["type"]) == ["Linear", "LIF"]
    with pytest.raises(FileError, match="variable-length strings"):
        guard(path)


def test_strings_that_share_one_text_are_counted_each(tmp_path: Path) -> None:
    path = tmp_path / "strings.h5"
    with h5py.File(path, "w") as file:
        file["texts"] = ["x" * 1000] * 50
    with open_guarded(path, limits=STRINGS) as file, pytest.raises(FileError, match="too long together"):
        read_strings(file["texts"], budget=20_000)


def test_too_many_objects(tmp_path: Path) -> None:
    path = tmp_path / "crowd.h5"
    with h5py.File(path, "w") as file:
        for index in range(300):
            file.create_group(str(index))
    guard(path)
    with pytest.raises(FileError, match="more than 200 objects"):
        guard(path, limits=Limits(objects=200))


def test_missing_empty_folder_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty.h5").touch()
    (tmp_path / "text.h5").write_text("no HDF5 at all" * 100)
    for name, rule in {
        "absent.h5": "cannot be opened",
        "empty.h5": "empty",
        "text.h5": "not an HDF5",
        ".": "regular",
    }.items():
        with cheap(), pytest.raises(FileError, match=rule):
            guard(tmp_path / name)
    with pytest.raises(FileError, match="regular"):
        guard("/dev/zero")


def test_errors_inside_the_block_are_translated_but_ours_pass(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    honest(path)
    with pytest.raises(FileError, match="damaged"), open_guarded(path, limits=STRINGS) as file:
        file["no such thing"]
    ours = NeuroError("ours")
    with pytest.raises(NeuroError) as caught, open_guarded(path, limits=STRINGS):
        raise ours
    assert caught.value is ours


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_mutants_are_refused_or_readable(tmp_path: Path, libver: str) -> None:
    path = tmp_path / "model.h5"
    honest(path, libver)
    whole = path.read_bytes()
    refused = 0
    for seed in range(100):
        draw = random.Random(seed)
        mutant = bytearray(whole)
        if seed % 5 == 0:
            del mutant[draw.randrange(len(mutant)) :]
        for _ in range(draw.choice((1, 4, 16))):
            if mutant:
                mutant[draw.randrange(len(mutant))] = draw.choice((0, 255, draw.randrange(256)))
        path.write_bytes(mutant)
        start = time.perf_counter()
        try:
            with open_guarded(path, limits=STRINGS) as file:
                file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)
        except FileError:
            refused += 1
        assert time.perf_counter() - start < 2, seed
    assert 20 <= refused < 100


def test_real_keras_files_pass(shared: Path) -> None:
    found = sorted((shared / "weights").rglob("*.h5"))
    assert found
    for path in found:
        guard(path, limits=STRINGS)
