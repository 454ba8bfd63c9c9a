"""CIFAR-10 (Krizhevsky 2009), 32x32 RGB, ten classes: original binary files, a JPEG copy in an .npz, or 1,000 tests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from neuro.datasets.guard import reading
from neuro.datasets.npz import read_npz
from neuro.datasets.split import Arrays, Pair
from neuro.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
BATCHES = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}
JPEG_FILE = "cifar10_jpeg_bytes.npz"
THOUSAND_FILE = "cifar10_test_1000.npz"


def holds_cifar10(folder: Path) -> bool:
    return (folder / BATCHES["test"][0]).is_file() or (folder / JPEG_FILE).is_file()


def read_cifar10(folder: Path) -> Arrays:
    """The original pixels where the binary version lies in `folder`, else the JPEG copy."""
    return read_binary(folder) if (folder / BATCHES["test"][0]).is_file() else read_jpeg(folder / JPEG_FILE)


def read_binary(folder: Path) -> Arrays:
    """cifar-10-batches-bin: records of one label byte and 3,072 pixel bytes, red, green, blue planes, row by row."""

    def pair(part: str) -> Pair:
        records = []
        for path in (folder / name for name in BATCHES[part]):
            with reading(path):
                data = path.read_bytes()
            if not data or len(data) % 3073:
                raise DataError(
                    f"{path}: {len(data):,} bytes are no whole number of 3,073-byte records; get an intact copy"
                )
            records.append(np.frombuffer(data, np.uint8).reshape(-1, 3073))
        table = np.concatenate(records)
        return table[:, 1:].reshape(-1, *SHAPE), table[:, 0]

    return Arrays(pair("train"), pair("test"), f"CIFAR-10 (Krizhevsky 2009), original pixels, in {folder}", CLASSES)


def read_jpeg(path: Path) -> Arrays:
    """JPEG files laid end to end in `bytes`; file k is bytes[offset[k]:offset[k + 1]], with label[k] and is_test[k]."""
    data = read_npz(path, ("bytes", "offset", "label", "is_test", "class_names"))
    stream, offset, is_test = data["bytes"], data["offset"], data["is_test"]
    samples = len(offset) - 1 if offset.ndim == 1 else -1
    if (
        stream.dtype != np.uint8
        or stream.ndim != 1
        or samples < 1
        or offset.dtype.kind not in "iu"
        or offset[0] != 0
        or offset[-1] != len(stream)
        or np.any(offset[1:] <= offset[:-1])
        or data["label"].shape != (samples,)
        or is_test.shape != (samples,)
        or is_test.dtype != np.bool_
    ):
        raise DataError(f"{path}: bytes, offset, label and is_test do not describe one sequence of JPEG files")
    images = np.empty((samples, *SHAPE), dtype=np.uint8)
    with reading(path):
        for k in range(samples):
            images[k] = _decode(stream[offset[k] : offset[k + 1]].tobytes(), f"{path}: picture {k}")
    return Arrays(
        (images[~is_test], data["label"][~is_test]) if not is_test.all() else None,
        (images[is_test], data["label"][is_test]) if is_test.any() else None,
        f"CIFAR-10 (Krizhevsky 2009) as JPEG, lossy, not the original pixels, in {path}",
        tuple(str(name) for name in data["class_names"].ravel()),
    )


def holds_thousand(folder: Path) -> bool:
    return (folder / THOUSAND_FILE).is_file()


def read_thousand(folder: Path) -> Arrays:
    """1,000 of the test pictures with their original pixels; there is no train part."""
    path = folder / THOUSAND_FILE
    data = read_npz(path, ("images", "labels"))
    provenance = f"1,000 CIFAR-10 test pictures (Krizhevsky 2009), original pixels, no train part, in {path}"
    return Arrays(None, (data["images"], data["labels"]), provenance, CLASSES)


def _decode(jpeg: bytes, where: str) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        if image.size != (32, 32):
            raise DataError(f"{where} is {image.size} pixels, not 32x32; get an intact copy")
        return np.asarray(image.convert("RGB"), dtype=np.uint8).transpose(2, 0, 1)
