"""MNIST-DVS (Serrano-Gotarredona and Linares-Barranco 2015, Front. Neurosci. 9:481): moving digits seen by a DVS128.

Here: 100 recordings of 200 ms, ten of each digit, as x, y, t_us, p, offset, label in one .npz file.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from neuro.datasets.events import Events, frames
from neuro.datasets.guard import named
from neuro.datasets.npz import read_npz
from neuro.datasets.split import Arrays, Pair, Split, assemble
from neuro.errors import DataError, ParameterError

FILE = "mnist_dvs_100.npz"
SIZE = (128, 128)
SPAN_US = 200_000
PER_DIGIT = 10
DIGITS = tuple("0123456789")
#: What `load` gives: 20 steps of 10 ms on pixels of 4x4.
STEPS, FACTOR = 20, 4
#: x is the count as a part of this number: in [0, 1], and exact in binary. The busiest bin of the data set has 45.
MOST_PER_BIN = 64


def holds_mnist_dvs(folder: Path) -> bool:
    return (folder / FILE).is_file()


def read_recordings(path: str | Path) -> tuple[list[Events], np.ndarray]:
    """All recordings of the .npz file in its order, and their digits int64 (N,). DataError where it is damaged."""
    path = Path(path)
    data = read_npz(path, ("x", "y", "t_us", "p", "offset", "label"))
    offset, label = data["offset"], data["label"]
    t, x, y, p = (data[name] for name in ("t_us", "x", "y", "p"))
    if (
        offset.ndim != 1
        or offset.dtype.kind not in "iu"
        or len(offset) < 2
        or offset[0] != 0
        or np.any(offset[1:] < offset[:-1])
        or any(column.shape != (offset[-1],) for column in (t, x, y, p))
        or label.shape != (len(offset) - 1,)
        or label.dtype.kind not in "iu"
    ):
        raise DataError(f"{path}: x, y, t_us, p, offset and label do not describe one sequence of recordings")
    with named(path):
        recordings = [
            Events(t[low:high], x[low:high], y[low:high], p[low:high], SIZE) for low, high in pairwise(offset)
        ]
    return recordings, label.astype(np.int64)


def read_mnist_dvs(folder: Path, fold: int = 0) -> Arrays:
    """One of ten folds that each leave one recording of every digit out.

    With k the place of a recording among the ten of its digit: k = `fold` is test (10), k = `fold` + 1 modulo 10 is
    validation (10), the others train (80). Over the ten folds every recording is test once. `load("mnist-dvs")` is fold
    0; a figure for the data set is the mean over `mnist_dvs_fold(0..9)`. x (N, 20, 2, 32, 32), float32: 10 ms a step,
    pixels of 4x4, channel 0 OFF and 1 ON, 64 x is the count of events and none is lost. 16 MB.
    """
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < PER_DIGIT:
        raise ParameterError(f"fold must be a whole number in 0..{PER_DIGIT - 1}, got {fold!r}")
    path = folder / FILE
    recordings, label = read_recordings(path)
    if not np.array_equal(np.sort(label), np.repeat(np.arange(len(DIGITS)), PER_DIGIT)):
        raise DataError(f"{path}: holds other than {PER_DIGIT} recordings of each digit; get an intact copy")
    with named(path):
        counts = np.stack([frames(r.coarser(FACTOR), STEPS, start=0, span=SPAN_US) for r in recordings])
    if counts.max() > MOST_PER_BIN:
        raise DataError(f"{path}: has {counts.max()} events in one bin, more than {MOST_PER_BIN}; get an intact copy")
    x = (counts / MOST_PER_BIN).astype(np.float32)
    place = np.empty(len(label), dtype=np.int64)
    for digit in range(len(DIGITS)):
        place[label == digit] = np.arange(PER_DIGIT)

    def pair(chosen: np.ndarray) -> Pair:
        return x[chosen], label[chosen]

    test, validation = place == fold, place == (fold + 1) % PER_DIGIT
    provenance = (
        f"100 recordings of MNIST-DVS (Serrano-Gotarredona and Linares-Barranco 2015) in {folder}; one recording left "
        f"out: of each digit the {_ordinal(fold)} is test, the {_ordinal((fold + 1) % PER_DIGIT)} validation "
        f"(fold {fold} of {PER_DIGIT}); {STEPS} steps of {SPAN_US // STEPS // 1000} ms, "
        f"{MOST_PER_BIN} x is the count of events"
    )
    return Arrays(pair(~test & ~validation), pair(test), provenance, DIGITS, pair(validation), timed=True)


def mnist_dvs_fold(fold: int, folder: str | Path) -> Split:
    """The `Split` of one fold, 0..9; see `read_mnist_dvs`. `folder` holds mnist_dvs_100.npz."""
    return assemble("mnist-dvs", read_mnist_dvs(Path(folder), fold), None, 0)


def _ordinal(place: int) -> str:
    return ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")[place]
