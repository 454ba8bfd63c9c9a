"""What a data set becomes: a `Split` of checked tensors, and the one rule by which parts are carved out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuro.errors import DataError, ParameterError

PARTS = ("train", "validation", "test")

#: A data set without a test part of its own gives up a fifth; the choice is fixed, so no seed can leak test into train.
TEST_FRACTION = 0.2
VALIDATION_FRACTION = 0.1
FIXED_SEED = 0
MOST_CLASSES = 65_536

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Arrays:
    """A data set as its source stores it: pairs (x, y) of raw arrays; a part the source does not have is None.

    `timed`: x is (N, time, *features).
    """

    train: Pair | None
    test: Pair | None
    provenance: str
    classes: tuple[str, ...] | None = None
    validation: Pair | None = None
    timed: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A data set ready for use.

    `*_x`: float32 (N, *features) in [0, 1], images as (N, channels, height, width). `*_y`: int64 (N,), an index into
    `classes`. A part may be empty, shape (0, *features). `provenance` says where the samples come from and how they
    were divided. `timed`: the first feature is time, x is (N, time, *features), and a network takes x.transpose(0, 1).
    Raises DataError where shapes, types, labels or values (NaN too) break this.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    validation_x: Tensor
    validation_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]
    provenance: str
    timed: bool = False

    def __post_init__(self) -> None:
        for part, (x, y) in self.parts.items():
            where = f"data set {self.name!r}, {part} part"
            if x.dtype != torch.float32 or y.dtype != torch.int64 or x.ndim < 2 or y.shape != x.shape[:1]:
                raise DataError(
                    f"{where}: needs x float32 (N, *features) and y int64 (N,), "
                    f"got {x.dtype} {tuple(x.shape)} and {y.dtype} {tuple(y.shape)}"
                )
            if x.shape[1:] != self.features:
                raise DataError(f"{where}: samples are {tuple(x.shape[1:])} but {self.features} in another part")
            if not x.numel():
                continue
            low, high = (float(bound) for bound in x.aminmax())
            if not (low >= 0.0 and high <= 1.0):
                raise DataError(
                    f"{where}: values must be finite and in [0, 1], they run from {low:g} to {high:g}; "
                    "rescale them, or store pixels as uint8"
                )
            if int(y.min()) < 0 or int(y.max()) >= len(self.classes):
                raise DataError(
                    f"{where}: labels must be 0..{len(self.classes) - 1}, "
                    f"they run from {int(y.min())} to {int(y.max())}"
                )
        if not sum(x.numel() for x, _ in self.parts.values()):
            raise DataError(f"data set {self.name!r} holds no samples")

    @property
    def parts(self) -> dict[str, tuple[Tensor, Tensor]]:
        """{"train": (x, y), "validation": (x, y), "test": (x, y)}."""
        return {part: (getattr(self, f"{part}_x"), getattr(self, f"{part}_y")) for part in PARTS}

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple((self.test_x if len(self.test_x) else self.train_x).shape[1:])

    def label_counts(self, part: str) -> list[int]:
        """Samples of each class in "train", "validation" or "test"."""
        return torch.bincount(self.parts[part][1], minlength=len(self.classes)).tolist()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part} {len(y):,}" for part, (_, y) in self.parts.items())
        return f"Split({self.name!r}: {sizes}; samples {self.features}, {len(self.classes)} classes)"


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Boolean mask (N,) choosing `count` of the samples, every class by its share (largest remainders get the rest).

    Drawn with numpy's RandomState, the one generator whose stream numpy promises never to change.
    """
    rng = np.random.RandomState(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    share = sizes * (count / len(labels))
    quota = np.floor(share + 1e-9).astype(np.int64)  # 1e-9: 0.1 * 4000 must not lose a sample to rounding
    most_owed = np.argsort(quota - share, kind="stable")
    quota[most_owed[: count - int(quota.sum())]] += 1
    chosen = np.zeros(len(labels), dtype=bool)
    for label, wanted in zip(classes, quota, strict=True):
        members = np.flatnonzero(labels == label)
        chosen[rng.permutation(members)[:wanted]] = True
    return chosen


def assemble(name: str, arrays: Arrays, validation: float | int | None, seed: int) -> Split:
    """Check, order, divide and scale what a source has read.

    Samples stored class by class are put in one fixed shuffled order, so that the head of a part is a fair sample.
    A missing test part is a fixed stratified fifth. Validation is carved out of train by `validation` and `seed`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ParameterError(f"seed must be a whole number in [0, 2**32), got {seed!r}")
    notes = [arrays.provenance]
    found = {
        part: in_fair_order(*checked(pair, f"data set {name!r}, {part} part"))
        for part in PARTS
        if (pair := getattr(arrays, part)) is not None
    }
    if not found:
        raise DataError(f"data set {name!r} holds neither a train nor a test part")
    if "test" not in found:
        x, y = found["train"]
        chosen = stratified(y, round(TEST_FRACTION * len(y)), FIXED_SEED)
        found |= {"test": (x[chosen], y[chosen]), "train": (x[~chosen], y[~chosen])}
        notes.append(f"no test part of its own: a fixed stratified {TEST_FRACTION:.0%} is the test part")
    empty = tuple(array[:0] for array in found["test"])
    train_x, train_y = found.get("train", empty)
    if "validation" in found and validation is None:
        validation_x, validation_y = found["validation"]
    else:
        count = validation_count(validation, len(train_y))
        chosen = stratified(train_y, count, seed) if count else np.zeros(len(train_y), dtype=bool)
        validation_x, validation_y = train_x[chosen], train_y[chosen]
        train_x, train_y = train_x[~chosen], train_y[~chosen]
        if count:
            notes.append(f"validation: {count:,} stratified samples of train, seed {seed}")
    largest = max((int(y.max()) for _, y in found.values() if len(y)), default=-1)
    return Split(
        name,
        in_unit_range(train_x),
        torch.from_numpy(train_y),
        in_unit_range(validation_x),
        torch.from_numpy(validation_y),
        in_unit_range(found["test"][0]),
        torch.from_numpy(found["test"][1]),
        arrays.classes or tuple(str(label) for label in range(largest + 1)),
        "; ".join(notes),
        arrays.timed,
    )


def validation_count(validation: float | int | None, samples: int) -> int:
    """Samples to carve out of `samples`: a fraction in [0, 1), or a whole number below `samples`; None is a tenth."""
    asked = VALIDATION_FRACTION if validation is None else validation
    whole = isinstance(asked, int) and not isinstance(asked, bool)
    fraction = isinstance(asked, float) and 0.0 <= asked < 1.0
    if not fraction and not (whole and 0 <= asked < max(samples, 1)):
        raise ParameterError(
            f"validation must be a fraction in [0, 1) or a whole number below the {samples:,} training samples, "
            f"got {asked!r}"
        )
    return int(asked) if whole else round(asked * samples)


def checked(pair: Pair, where: str) -> Pair:
    """x as (N, *features) with images channels first, y as int64 (N,); DataError where they cannot be that."""
    x, y = pair
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise DataError(f"{where}: labels must be whole numbers of shape (N,), got {y.dtype} {y.shape}")
    if x.ndim < 2 or len(x) != len(y):
        raise DataError(f"{where}: x {x.shape} and y {y.shape} must be (N, *features) and (N,)")
    if x.dtype.kind not in "fb" and not (x.dtype.kind == "u" and x.dtype.itemsize <= 2):
        raise DataError(f"{where}: x must be uint8, uint16, bool or float in [0, 1], got {x.dtype}")
    if len(y) and (y.min() < 0 or y.max() >= MOST_CLASSES):
        raise DataError(f"{where}: labels must be 0..{MOST_CLASSES - 1:,}, they run from {y.min()} to {y.max()}")
    return channels_first(x), y.astype(np.int64)


def channels_first(x: np.ndarray) -> np.ndarray:
    """(N, H, W) pixels (uint8) become (N, 1, H, W); (N, H, W, C) with C of 1, 3 or 4 becomes (N, C, H, W)."""
    if x.ndim == 3 and x.dtype == np.uint8:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        return x.transpose(0, 3, 1, 2)
    return x


def in_fair_order(x: np.ndarray, y: np.ndarray) -> Pair:
    """Shuffle, always the same way, what is sorted by class; leave everything else as it was stored."""
    steps = np.diff(y)
    if np.any(steps < 0) or np.all(steps > 0) or np.all(steps == 0):
        return x, y
    order = np.random.RandomState(FIXED_SEED).permutation(len(y))
    return x[order], y[order]


def in_unit_range(x: np.ndarray) -> Tensor:
    """float32, whole numbers divided by the largest of their type."""
    with np.errstate(over="ignore"):  # what does not fit float32 becomes inf and is refused by Split
        scaled = torch.from_numpy(np.array(x, dtype=np.float32, order="C"))
    return scaled.div_(np.iinfo(x.dtype).max) if x.dtype.kind == "u" else scaled
