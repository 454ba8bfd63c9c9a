"""Data sets by path: IDX, NumPy archives and folders of pictures, whole, broken and hostile."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from neuro import datasets
from neuro.datasets.idx import TYPES, read_idx
from neuro.errors import DataError


def idx_bytes(array: np.ndarray, code: int = 0x08) -> bytes:
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.astype(TYPES[code]).tobytes()
    )


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.RandomState(1).randint(0, 256, (20, 6, 5)).astype(np.uint8)


LABELS = np.arange(20, dtype=np.uint8) % 4


def idx_set(folder: Path, pixels: np.ndarray, suffix: str) -> None:
    for part, chosen in (("train", slice(0, 16)), ("t10k", slice(16, 20))):
        for what, array in (("images-idx3", pixels), ("labels-idx1", LABELS)):
            content = idx_bytes(array[chosen])
            (folder / f"{part}-{what}-ubyte{suffix}").write_bytes(gzip.compress(content) if suffix else content)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    idx_set(tmp_path, pixels, suffix)
    split = datasets.load(tmp_path, validation=0)
    assert np.array_equal(split.train_x.numpy(), (pixels[:16, None] / np.float32(255)).astype(np.float32))
    assert split.test_y.tolist() == LABELS[16:].tolist()
    assert split.classes == ("0", "1", "2", "3")


@given(code=st.sampled_from(sorted(TYPES)), shape=hnp.array_shapes(max_dims=4, max_side=4), data=st.data())
def test_idx_round_trip(
    tmp_path_factory: pytest.TempPathFactory, code: int, shape: tuple[int, ...], data: st.DataObject
) -> None:
    array = data.draw(hnp.arrays(np.dtype(TYPES[code]).newbyteorder("="), shape))
    path = tmp_path_factory.mktemp("idx") / "array-idx"
    path.write_bytes(idx_bytes(array, code))
    np.testing.assert_array_equal(read_idx(path), array)


def test_a_name_means_the_published_content(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "mnist").mkdir()
    idx_set(tmp_path / "mnist", pixels, ".gz")
    with pytest.raises(DataError, match="not the published one"):
        datasets.load("mnist", tmp_path)
    assert len(datasets.load(tmp_path / "mnist").test_y) == 4


def test_idx_folders_that_lack_a_file(tmp_path: Path, pixels: np.ndarray) -> None:
    idx_set(tmp_path, pixels, "")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="has train images only"):
        datasets.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "begins with nothing"),
        (b"\x89PNG\r\n", "not an IDX file"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 10, 6, 5) + bytes(299), "ends early"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 10, 6, 5) + bytes(301), "goes on"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "bomb"),
        (struct.pack(">BBBB", 0, 0, 8, 3) + b"\0\0", "cannot be read"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_broken_idx_files(tmp_path: Path, content: bytes, reason: str, suffix: str) -> None:
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match=reason) as refusal:
        read_idx(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_gzip_bomb_is_refused_unread(tmp_path: Path) -> None:
    side = 2**14
    packed = gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 1, side, side) + bytes(side * 8))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(packed)
    with pytest.raises(DataError, match="bomb"):
        read_idx(path)


def test_npz_with_both_parts_and_class_names(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "set.npz"
    colour = np.stack([pixels] * 3, axis=-1)
    np.savez_compressed(
        path,
        x_train=colour[:16],
        y_train=LABELS[:16, None],
        x_test=colour[16:],
        y_test=LABELS[16:],
        class_names=["a", "b", "c", "d"],
    )
    split = datasets.load(path, validation=4)
    assert split.features == (3, 6, 5)
    assert split.classes == ("a", "b", "c", "d")
    assert torch.equal(split.test_x[:, 1], torch.from_numpy(pixels[16:]) / 255)
    assert split.label_counts("validation") == [1, 1, 1, 1]


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "?", ">u2", "u1"])
def test_npz_types_are_brought_to_the_unit_range(tmp_path: Path, dtype: str) -> None:
    unit = np.tile([[0.0, 1.0]], (10, 3))
    largest = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    np.savez(tmp_path / "set.npz", x=(unit * largest).astype(dtype), y=np.arange(10) % 2)
    split = datasets.load(tmp_path / "set.npz")
    assert [len(y) for _, y in split.parts.values()] == [7, 1, 2]
    assert np.array_equal(split.train_x.numpy(), unit[:7].astype(np.float32))


def npz_with(path: Path, member: bytes, name: str = "x.npy") -> None:
    labels = io.BytesIO()
    np.save(labels, np.zeros(4, np.int64))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, member)
        archive.writestr("y.npy", labels.getvalue())


def npy(header: str, payload: bytes, version: bytes = b"\x01\x00") -> bytes:
    encoded = header.encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(encoded)) + encoded + payload


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_hostile_npz_files(tmp_path: Path) -> None:
    path, canary = tmp_path / "set.npz", tmp_path / "canary"
    header = "{{'descr': '{}', 'fortran_order': False, 'shape': {}}}\n"
    cases = {
        npy(header.format("<f4", (1 << 40, 4)), bytes(64)): "claims",
        npy(header.format("<f4", (4, -1)), bytes(64)): "claims",
        npy(header.format("<f4", (4, 3)), bytes(64)): "claims",
        npy(header.format("|O", (4, 4)), pickle.dumps(Canary(canary))): "pickled",
        npy(header.format("<f4", (4, 4)), bytes(64), b"\x07\x00"): "version",
        npy("{" * 500, b""): "cannot be read",
        b"not an array": "cannot be read",
    }
    for member, reason in cases.items():
        npz_with(path, member)
        with pytest.raises(DataError, match=reason) as refusal:
            datasets.load(path)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert not canary.exists()
    npz_with(path, npy(header.format("<f4", (4, 2**23)), bytes(2**27)))
    with pytest.raises(DataError, match="bomb"):
        datasets.load(path)
    npz_with(path, b"", "pixels.npy")
    with pytest.raises(DataError, match="it has pixels, y"):
        datasets.load(path)


def test_damaged_npz_files_never_raise_anything_else(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, x=pixels, y=LABELS)
    intact = path.read_bytes()
    rng = np.random.RandomState(5)
    refused = 0
    for _ in range(300):
        damaged = bytearray(intact)
        for place in rng.randint(0, len(damaged), 3):
            damaged[place] = rng.randint(256)
        path.write_bytes(damaged[: rng.randint(1, len(damaged))] if rng.rand() < 0.3 else damaged)
        try:
            datasets.load(path)
        except DataError:
            refused += 1
    assert refused > 200


def save_picture(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_pictures_below_train_and_test(tmp_path: Path, pixels: np.ndarray) -> None:
    for k in range(20):
        part = "train" if k < 16 else "test"
        save_picture(tmp_path / part / "abcd"[LABELS[k]] / f"{k:02}.png", pixels[k])
    (tmp_path / "train" / "a" / ".hidden").write_text("ignored")
    split = datasets.load(tmp_path, validation=0)
    assert split.classes == ("a", "b", "c", "d")
    assert split.features == (1, 6, 5)
    expected = {(pixels[k] / np.float32(255)).astype(np.float32).tobytes(): LABELS[k] for k in range(20)}
    for x, y in (split.parts["train"], split.parts["test"]):
        assert [expected[sample.numpy().tobytes()] for sample in x] == y.tolist()


def test_pictures_without_parts_get_a_fixed_split(tmp_path: Path, pixels: np.ndarray) -> None:
    for k in range(20):
        save_picture(tmp_path / "abcd"[LABELS[k]] / f"{k}.ppm", np.stack([pixels[k]] * 3, -1))
    one, other = datasets.load(tmp_path), datasets.load(tmp_path, seed=9)
    assert one.features == (3, 6, 5)
    assert one.label_counts("test") == [1, 1, 1, 1]
    assert torch.equal(one.test_x, other.test_x)


def test_pictures_that_do_not_fit_together(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(DataError, match="no data in it"):
        datasets.load(tmp_path)
    save_picture(tmp_path / "a" / "0.png", pixels[0])
    save_picture(tmp_path / "b" / "0.png", pixels[1][:, :4])
    with pytest.raises(DataError, match=r"b/0\.png: is \(4, 6\) pixels"):
        datasets.load(tmp_path)
    (tmp_path / "b" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match=r"b/0\.png: cannot be read"):
        datasets.load(tmp_path)
    save_picture(tmp_path / "b" / "0.png", np.zeros((6, 5, 4), np.uint8))
    with pytest.raises(DataError, match="without transparency"):
        datasets.load(tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("1,2")
    with pytest.raises(DataError, match="give a folder of IDX files"):
        datasets.load(tmp_path / "set.csv")
