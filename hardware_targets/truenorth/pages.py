"""Large arrays on large pages: a chip is read a cache line here and a cache line there, and with pages of 4 KB looking
up where they are costs more than fetching them.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

PAGE = 1 << 21
WORTH_IT = PAGE // 8  # bytes


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Zeros, on pages of 2 MB where the system has them and the array is large; as `np.zeros` otherwise."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < WORTH_IT or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.zeros(shape, dtype)
    memory = mmap.mmap(-1, size + PAGE)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without them
        return np.zeros(shape, dtype)
    raw = np.frombuffer(memory, np.uint8)  # keeps `memory` alive
    first = -raw.ctypes.data % PAGE
    return raw[first : first + size].view(dtype).reshape(shape)


def settled(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous copy in an array of `zeros`."""
    copy = zeros(array.shape, array.dtype)
    copy[...] = array
    return copy
