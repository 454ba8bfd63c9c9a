"""MNIST (LeCun, Cortes, Burges), Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): 60,000 + 10,000, 28x28 grey."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from neuro.datasets.download import Remote, RemoteFile
from neuro.datasets.idx import find_idx, idx_folder
from neuro.datasets.split import Arrays
from neuro.errors import DataError

# SHA-256 and size of the unpacked files: they hold however a copy was gzipped.
MNIST_FILES = {
    ("train", "images"): RemoteFile(
        "train-images-idx3-ubyte", 47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    ("train", "labels"): RemoteFile(
        "train-labels-idx1-ubyte", 60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    ("test", "images"): RemoteFile(
        "t10k-images-idx3-ubyte", 7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    ("test", "labels"): RemoteFile(
        "t10k-labels-idx1-ubyte", 10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}
FASHION_FILES = {
    ("train", "images"): RemoteFile(
        "train-images-idx3-ubyte", 47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    ("train", "labels"): RemoteFile(
        "train-labels-idx1-ubyte", 60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    ("test", "images"): RemoteFile(
        "t10k-images-idx3-ubyte", 7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    ("test", "labels"): RemoteFile(
        "t10k-labels-idx1-ubyte", 10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}
FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

MNIST_MIRRORS = Remote(
    files=tuple(MNIST_FILES.values()),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)
FASHION_MIRRORS = Remote(
    files=tuple(FASHION_FILES.values()),
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
)


def holds_mnist(folder: Path) -> bool:
    return bool(find_idx(folder))


def read_mnist(folder: Path) -> Arrays:
    return _published(folder, MNIST_FILES, tuple("0123456789"), "MNIST (LeCun, Cortes, Burges)")


def read_fashion(folder: Path) -> Arrays:
    return _published(folder, FASHION_FILES, FASHION_CLASSES, "Fashion-MNIST (Xiao et al. 2017, MIT licence)")


def _published(folder: Path, files: dict[tuple[str, str], RemoteFile], classes: tuple[str, ...], title: str) -> Arrays:
    missing = [file.name for key, file in files.items() if key not in find_idx(folder)]
    if missing:
        raise DataError(f"{folder}: of {title} it lacks {', '.join(missing)} (each also as .gz); put them there")
    arrays = idx_folder(folder, {key: file.sha256 for key, file in files.items()})
    return replace(arrays, classes=classes, provenance=f"{title}, SHA-256 of every file verified, in {folder}")
