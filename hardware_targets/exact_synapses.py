"""Whole-number weights in the synapse formats of a chip, without rounding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hardware_targets.chip import Chip
from hardware_targets.loihi.program import Connection, Sparse
from hardware_targets.lower import Path
from hardware_targets.placement import Violation
from hardware_targets.quantise import listed_synapses, shared_kernel
from neuro.errors import DoesNotFit, UnsupportedNode

WIDE = 7
"""The largest weight exponent."""

BYTE = 255
"""The largest weight of a synapse that only excites."""

TOO_WIDE = "convert with fewer weight bits, or without a sum of layers whose steps differ much"


def excitatory(source: str, sources: int, axon: int, target: str, values: np.ndarray) -> list[Connection]:
    """Synapses from one axon, one of `sources`, that add up to `values` >= 0, (targets,).

    Bytes on exponents 7 and 0, as many as that takes.
    """
    found: list[Connection] = []
    left = values.copy()
    while left.any():
        exponent = WIDE if bool((left > BYTE).any()) else 0
        weights = np.minimum(left >> exponent, BYTE)
        rows = np.flatnonzero(weights)
        left = left - (weights << exponent)
        found.append(
            Sparse(
                source=source, target=target, weights=weights[rows].astype(np.int32), rows=rows.astype(np.int32),
                columns=np.full(rows.size, axon, np.int32), shape=(values.size, sources), weight_exp=exponent,
                sign_mode="excitatory", name=f"{source}.{axon}->{target}.{len(found)}",
            )
        )  # fmt: skip
    return found


def inhibits_itself(name: str, values: np.ndarray) -> list[Connection]:
    """Synapses of every neuron of a population with itself that take `values` >= 0 one tick after its spike."""
    found: list[Connection] = []
    for part in excitatory(name, 1, 0, name, values):
        assert isinstance(part, Sparse)
        found.append(
            replace(
                part, columns=part.rows, shape=(values.size, values.size), weights=-part.weights,
                sign_mode="inhibitory", name=f"{name}->{name}.{len(found)}",
            )
        )  # fmt: skip
    return found


def signed(path: Path, chip: Chip, *, message_bits: int = 0) -> list[Connection]:
    """Connections that add up to a path's whole weights.

    Weights are even in the format and its exponent halves them; those beyond its bits become two synapses of different
    exponents. Raises DoesNotFit where that is not enough.
    """
    if path.conv is not None:
        real = path.conv.weight.detach().double().numpy()
    else:
        matrix = path.as_matrix()
        real = matrix.data
    weights = np.rint(real).astype(np.int64)
    if not np.array_equal(weights, real):
        raise UnsupportedNode(f"{path.source!r} -> {path.target!r}: weights must be whole numbers; quantise first")
    found: list[Connection] = []
    for digits, bits, exponent in _digits(weights, path, chip):
        if path.conv is not None:
            synapses: Connection = shared_kernel(path, path.conv, digits)
        else:
            rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
            part = matrix.copy()
            part.data = digits.astype(np.float64)
            synapses = listed_synapses(path.source, path.target, part, rows, 0)
        name = f"{path.source}->{path.target}" + (f".{len(found)}" if found else "")
        found.append(
            replace(
                synapses, weight_exp=exponent, num_weight_bits=bits, sign_mode="mixed", num_message_bits=message_bits,
                name=name,
            )
        )  # fmt: skip
    return found


def _digits(weights: np.ndarray, path: Path, chip: Chip) -> Iterator[tuple[np.ndarray, int, int]]:
    """Weights of a connection in its format, bits per weight and exponent; their sum is `weights`."""
    widest, shift = max(chip.choices("weight_bits")), 0
    top, base = 2 ** (widest - 1) - 1, widest - 1
    left = weights
    while True:
        fits = int(np.abs(left).max(initial=0)) <= top
        digits = left if fits else left - (((left + (1 << (base - 1))) >> base) << base)
        most = max(1, int(np.abs(digits).max(initial=0)))
        bits = min(b for b in chip.choices("weight_bits") if 2 ** (b - 1) - 1 >= most)
        unused = 9 - bits  # low bits that the format does not store
        if shift - unused > WIDE:
            largest = int(np.abs(weights).max())
            broken = Violation(path.target, None, "weight_bits", largest.bit_length() + 1, base + WIDE + 2, TOO_WIDE)
            raise DoesNotFit(str(broken), (broken,))
        yield digits << unused, bits, shift - unused
        if fits:
            return
        left, shift = (left - digits) >> base, shift + base
