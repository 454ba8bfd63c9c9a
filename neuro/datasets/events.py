"""Recordings of event cameras: `Events`, and frames that hold every one of them exactly once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from neuro.errors import DataError, ParameterError

#: Frames larger than this (bytes) are refused: count on a coarser grid or in fewer steps.
MOST_BYTES = 2**31
BYTES_PER_COUNT = 8


@dataclass(frozen=True, eq=False, repr=False)
class Events:
    """Events of a sensor, in the order of time.

    t: int64 (N,), microseconds, never decreasing. x, y: int32 (N,), column and row; (0, 0) is the upper left corner.
    polarity: bool (N,), True where light grew (ON). size: (height, width) of the sensor. Raises DataError where they do
    not fit together. The arrays are copies if need be, and read-only. 17 bytes per event.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    polarity: np.ndarray
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if len(self.size) != 2 or any(not isinstance(n, int) or not 1 <= n <= 2**15 for n in self.size):
            raise DataError(f"events: size must be (height, width) of 1 to {2**15:,} pixels each, got {self.size}")
        arrays = {name: np.asarray(getattr(self, name)) for name in ("t", "x", "y", "polarity")}
        shapes = {name: array.shape for name, array in arrays.items()}
        if len(set(shapes.values())) != 1 or arrays["t"].ndim != 1:
            raise DataError(f"events: t, x, y and polarity must be of one shape (N,), got {shapes}")
        for name, array in arrays.items():
            if array.dtype.kind not in "iub":
                raise DataError(f"events: {name} must be whole numbers, got {array.dtype}")
        if len(arrays["t"]):
            self._check_ranges(arrays)
        for name, kind in (("t", "i8"), ("x", "i4"), ("y", "i4"), ("polarity", "?")):
            own = arrays[name].astype(kind)
            own.setflags(write=False)
            object.__setattr__(self, name, own)

    def _check_ranges(self, arrays: dict[str, np.ndarray]) -> None:
        height, width = self.size
        for name, end in (("x", width), ("y", height), ("polarity", 2)):
            low, high = int(arrays[name].min()), int(arrays[name].max())
            if low < 0 or high >= end:
                raise DataError(
                    f"events: {name} must lie in 0..{end - 1} on a {height}x{width} sensor, got {low} to {high}"
                )
        t = arrays["t"]
        if int(t.min()) < -(2**62) or int(t.max()) > 2**62:
            raise DataError(f"events: t must lie within 2**62 us of zero, it runs from {t.min()} to {t.max()}")
        late = np.flatnonzero(t[1:] < t[:-1])
        if len(late):
            k = int(late[0]) + 1
            raise DataError(f"events: t must not decrease, event {k:,} at {t[k]} us follows {t[k - 1]} us; sort them")

    def __len__(self) -> int:
        return len(self.t)

    def __repr__(self) -> str:
        span = f"{self.t[0]:,} to {self.t[-1]:,} us" if len(self) else "no time"
        return f"Events({len(self):,} over {span} on {self.size[0]}x{self.size[1]})"

    def between(self, start: int, stop: int) -> Events:
        """The events with start <= t < stop, in microseconds."""
        chosen = slice(*np.searchsorted(self.t, (start, stop)))
        return Events(self.t[chosen], self.x[chosen], self.y[chosen], self.polarity[chosen], self.size)

    def coarser(self, factor: int) -> Events:
        """The same events on pixels of factor x factor: x and y divided, the size rounded up; no event is lost."""
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise ParameterError(f"factor must be a whole number >= 1, got {factor!r}")
        size = (-(-self.size[0] // factor), -(-self.size[1] // factor))
        return Events(self.t, self.x // factor, self.y // factor, self.polarity, size)


def in_order(t: np.ndarray, x: np.ndarray, y: np.ndarray, polarity: np.ndarray, size: tuple[int, int]) -> Events:
    """`Events` of arrays in any order: sorted by time, equal times as they came."""
    if t.ndim == 1 and len(t) > 1 and np.any(t[1:] < t[:-1]):
        order = np.argsort(t, kind="stable")
        t, x, y, polarity = t[order], x[order], y[order], polarity[order]
    return Events(t, x, y, polarity, size)


def from_tonic(recording: np.ndarray, size: tuple[int, int]) -> Events:
    """Events of a recording as tonic's data sets and readers give it: a structured array, fields t, x, y and p or on.

    size: (height, width); tonic's own `sensor_size` is (width, height, polarities). Needs no tonic. A polarity of -1
    counts as OFF, as 0 does.
    """
    names = recording.dtype.names or ()
    polarity = "on" if "on" in names else "p"  # "on" in what it reads of AEDAT 4.0
    absent = [name for name in ("t", "x", "y", polarity) if name not in names]
    if absent:
        raise DataError(f"recording lacks the fields {', '.join(absent)}; it has {', '.join(names) or 'none'}")
    return in_order(recording["t"], recording["x"], recording["y"], recording[polarity] > 0, size)


def frames(
    events: Events, steps: int, by: Literal["time", "count"] = "time", start: int | None = None, span: int | None = None
) -> np.ndarray:
    """Counts of events, int64 (steps, 2, height, width): OFF in channel 0, ON in channel 1; their sum is len(events).

    by="time": `steps` windows of equal length over `span` microseconds from `start`, step = floor((t - start) steps /
    span). None: from the first event until just after the last. DataError where an event lies outside: take the wanted
    ones with `events.between`, so that nothing is dropped unseen. by="count": the k-th of N events goes into step
    floor(k steps / N), so steps differ by at most one event.
    Memory: 8 bytes per count and 16 per event; ParameterError above 2 GiB of counts. Time: linear in both.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ParameterError(f"steps must be a whole number >= 1, got {steps!r}")
    height, width = events.size
    if steps * 2 * height * width * BYTES_PER_COUNT > MOST_BYTES:
        raise ParameterError(
            f"frames of {steps} x 2 x {height} x {width} take more than {MOST_BYTES:,} bytes; "
            "use events.coarser(factor) or fewer steps"
        )
    if by == "time":
        step = _window(events.t, steps, start, span)
    elif by == "count":
        if start is not None or span is not None:
            raise ParameterError("frames by count take neither start nor span; use events.between first")
        step = np.arange(len(events)) * steps // max(len(events), 1)
    else:
        raise ParameterError(f"frames are made by 'time' or 'count', got {by!r}")
    place = ((step * 2 + events.polarity) * height + events.y) * width + events.x
    return np.bincount(place, minlength=steps * 2 * height * width).reshape(steps, 2, height, width)


def _window(t: np.ndarray, steps: int, start: int | None, span: int | None) -> np.ndarray:
    if not len(t):
        return t
    first = int(t[0]) if start is None else start
    length = int(t[-1]) + 1 - first if span is None else span
    if not 1 <= length <= 2**62 // steps:
        raise ParameterError(f"span must be 1 to 2**62 / steps microseconds, got {length}")
    if t[0] < first or t[-1] >= first + length:
        raise DataError(
            f"events from {t[0]} to {t[-1]} us do not lie within {length} us from {first}; "
            "widen the span or take events.between(start, stop)"
        )
    return (t - first) * steps // length
