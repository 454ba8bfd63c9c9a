"""From a population of a graph to what cores hold: whole weights, axon types, thresholds. Exact, or refused.

An axon has one of G types, and a neuron one weight per type. So an input needs one axon for every type by which it
reaches the neurons of a core: two where trinary weights of both signs leave it (EEDN's two axons per signed input,
Esser et al. 2016 [recalled]).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from hardware_targets.lower import Layer
from hardware_targets.placement import Violation
from hardware_targets.truenorth.core import CoreShape
from neuro.errors import UnsupportedNode
from neuro.nodes import IF, LIF, Spiking

STEPS_OF_SCALE = 64
NEAR = 1e-4
MOST_TICKS = 256


@dataclass(frozen=True, eq=False)
class Corelet:
    """A population in whole numbers: N neurons, G axon types.

    inputs: (N, signals * G) pattern of synapses; column signal * G + g is an axon of type g that `signal` drives.
    weights: (N, G) the weight of a neuron for each type.  bias: (N,) added every tick.  alpha, v0: (N,) threshold and
    first potential.  subtract: whether a spike takes alpha off the potential; else it sets it to 0.  memory: whether
    the potential outlasts a tick; without, a neuron fires where its sum is at least alpha = 1 and forgets it.
    rule: how weights became types, in words.
    """

    name: str
    shape: tuple[int, ...]
    inputs: sp.csr_array
    weights: NDArray[np.int64]
    bias: NDArray[np.int64]
    alpha: NDArray[np.int64]
    v0: NDArray[np.int64]
    subtract: bool
    memory: bool
    rule: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def forgets(node: Spiking) -> bool:
    """Whether a population keeps nothing from one tick to the next: LIF with beta = 0 from v0 = 0."""
    return isinstance(node, LIF) and not bool(node.beta.any()) and not bool(node.v0.any())


def corelet(
    layer: Layer, synapses: sp.csr_array, shape: CoreShape, *, assume: bool = False
) -> tuple[Corelet, tuple[Violation, ...]]:
    """The population `layer` with real `synapses` (N, signals), and everything that a core cannot hold of it.

    assume: weights that are not few-valued are taken for trinary ones that training has yet to make.
    """
    node = layer.node
    if not isinstance(node, IF | LIF):
        raise UnsupportedNode(f"{layer.name!r}: {node.kind} has no form on a core; use LIF with beta = 0, or IF")
    found: list[Violation] = []
    memory = not forgets(node)
    if memory and isinstance(node, LIF) and not bool((node.beta == 1).all()):
        remedy = "train with IF, or with LIF(beta=0), which forgets"
        beta = f"beta {float(node.beta.min()):g}"
        found.append(Violation(layer.name, None, "decay", beta, "leaks by a constant, or all at once", remedy))
    theta, v0 = (_per_neuron(value, layer.shape) for value in (node.theta, node.v0))
    subtract = memory and node.reset == "subtract"
    rigid = [layer.bias, v0, *([theta] if subtract else [])] if memory else []
    scale, odd = _scales(synapses, np.stack(rigid, 1) if rigid else np.zeros((layer.size, 0)), shape.weight[1])
    if odd.any() and assume:
        signs, rule = _both_signs(synapses)
        return _assumed(layer, signs, shape, memory, subtract, rule), ()
    if odd.any():
        remedy = "train with trinary weights (neuro.trinary)" + (
            "; bias, threshold and v0 must be multiples of the weights' step" if memory else ""
        )
        found.append(Violation(layer.name, None, "weights", _values_of(synapses, odd), "few-valued ones", remedy))
        return _assumed(layer, _both_signs(synapses)[0], shape, memory, subtract, "refused"), tuple(found)
    whole = synapses.copy()
    whole.data = np.rint(synapses.data * np.repeat(scale, np.diff(synapses.indptr))).astype(np.int64)
    typed = _types(whole, shape)
    if typed is None:
        most, remedy = _most_values(whole), "train with trinary weights (neuro.trinary), or with fewer values"
        found.append(Violation(layer.name, None, "axon_types", most, shape.axon_types, remedy))
        return _assumed(layer, _both_signs(synapses)[0], shape, memory, subtract, "refused"), tuple(found)
    inputs, weights, rule = typed
    if memory:
        bias, first = np.rint(layer.bias * scale).astype(np.int64), np.rint(v0 * scale).astype(np.int64)
        alpha = np.ceil(theta * scale - NEAR).astype(np.int64)
    else:
        bias, first = _decisions(whole, (theta - layer.bias) * scale), np.zeros(layer.size, np.int64)
        alpha = np.ones(layer.size, np.int64)
    made = Corelet(layer.name, layer.shape, inputs, weights, bias, alpha, first, subtract, memory, rule)
    return made, (*found, *_out_of_range(made, whole, shape))


def with_clock(made: Corelet, signal: int, shape: CoreShape) -> tuple[Corelet, tuple[Violation, ...]]:
    """The same population with its bias on axons that `signal` drives in the ticks that count, in place of the leak.

    Populations with memory need it: a leak would act before the first input reaches them.
    """
    if not made.bias.any():
        return made, ()
    types = shape.axon_types
    free = np.flatnonzero(~made.weights.any(0))
    if not free.size:
        remedy = "leave biases out, or use weights of fewer values"
        return made, (Violation(made.name, None, "axon_types", types + 1, types, remedy),)
    rows = np.flatnonzero(made.bias)
    column = np.full(rows.size, signal * types + free[0])
    clock = sp.csr_array((np.ones(rows.size, bool), (rows, column)), shape=made.inputs.shape)
    weights = made.weights.copy()
    weights[:, free[0]] = made.bias
    return replace(made, inputs=sp.csr_array(made.inputs + clock), weights=weights, bias=np.zeros_like(made.bias)), ()


def _per_neuron(value: torch.Tensor, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return value.detach().double().expand(shape).flatten().numpy()


def _scales(
    synapses: sp.csr_array, rigid: NDArray[np.float64], largest: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For every neuron the smallest factor that makes its weights (and `rigid`, (N, k)) whole, and which have none."""
    n = synapses.shape[0]
    rows = np.repeat(np.arange(n), np.diff(synapses.indptr))
    size = np.abs(synapses.data)
    least = np.full(n, np.inf)
    np.minimum.at(least, rows, size)
    unit = np.where(np.isfinite(least), 1 / np.where(np.isfinite(least), least, 1), 1.0)
    scale, odd = unit.copy(), np.ones(n, bool)
    for step in range(1, STEPS_OF_SCALE + 1):
        tried = unit * step
        value = synapses.data * tried[rows]
        off = np.zeros(n)
        np.maximum.at(off, rows, np.where(np.abs(value) > largest, np.inf, np.abs(value - np.rint(value))))
        if rigid.size:
            off = np.maximum(off, np.abs(rigid * tried[:, None] - np.rint(rigid * tried[:, None])).max(1))
        found = odd & (off < NEAR)
        scale[found], odd[found] = tried[found], False
        if not odd.any():
            break
        if step >= 16 and odd.all():
            break
    return scale, odd


def _types(whole: sp.csr_array, shape: CoreShape) -> tuple[sp.csr_array, NDArray[np.int64], str] | None:
    """Axon types of every synapse by the rule that asks for the fewest axons; None where G types are too few."""
    types = shape.axon_types
    rows = np.repeat(np.arange(whole.shape[0]), np.diff(whole.indptr))
    ways = [way for way in (_by_value(whole, types), _by_rank(whole, rows, types)) if way is not None]
    if ways:
        typed = [(_pattern(whole, rows, kind, types), weights, rule) for kind, weights, rule in ways]
        return min(typed, key=lambda one: np.unique(one[0].indices).size)
    return _by_bits(whole, rows, types)


def _pattern(
    whole: sp.csr_array, rows: NDArray[np.int64], kind: NDArray[np.int64], types: int, columns: NDArray | None = None
) -> sp.csr_array:
    columns = (whole.indices if columns is None else columns).astype(np.int64) * types + kind
    size = (whole.shape[0], whole.shape[1] * types)
    pattern = sp.csr_array((np.ones(columns.size, bool), (rows, columns)), shape=size)
    pattern.sort_indices()
    return pattern


def _by_value(whole: sp.csr_array, types: int) -> tuple[NDArray, NDArray, str] | None:
    """The same weights for all neurons: one type per value."""
    values = np.unique(whole.data)
    if values.size > types:
        return None
    weights = np.zeros((whole.shape[0], types), np.int64)
    weights[:, : values.size] = values
    said = ", ".join(str(value) for value in values) or "none"
    return np.searchsorted(values, whole.data), weights, f"one axon type per weight value: {said}"


def _by_rank(whole: sp.csr_array, rows: NDArray[np.int64], types: int) -> tuple[NDArray, NDArray, str] | None:
    """Every neuron has weights of its own: its first, second, ... positive value, then its negative ones."""
    pairs = np.stack([rows, (whole.data < 0).astype(np.int64), np.abs(whole.data)], 1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    block = unique[:, 0] * 2 + unique[:, 1]
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    rank = np.arange(block.size) - np.repeat(starts, np.diff(np.append(starts, block.size)))
    negative = unique[:, 1] == 1
    positives = int(rank[~negative].max(initial=-1)) + 1
    kind = np.where(negative, rank + positives, rank)
    if kind.max(initial=0) >= types:
        return None
    weights = np.zeros((whole.shape[0], types), np.int64)
    weights[unique[:, 0], kind] = np.where(negative, -unique[:, 2], unique[:, 2])
    return kind[inverse.reshape(-1)], weights, "one axon type per weight value of a neuron"


def _by_bits(whole: sp.csr_array, rows: NDArray[np.int64], types: int) -> tuple[sp.csr_array, NDArray, str] | None:
    """Numbers of G bits in two's complement: an input has an axon for every bit, of weight 1, 2, 4, ..., -2^(G-1)."""
    half = 1 << (types - 1)
    if np.any((whole.data < -half) | (whole.data >= half)):
        return None
    at, kinds, columns = [], [], []
    for bit in range(types):
        here = np.flatnonzero(whole.data & (1 << bit))
        at.append(rows[here])
        columns.append(whole.indices[here])
        kinds.append(np.full(here.size, bit))
    weights = np.tile(np.array([*(1 << np.arange(types - 1)), -half], np.int64), (whole.shape[0], 1))
    kind = np.concatenate(kinds)
    pattern = _pattern(whole, np.concatenate(at), kind, types, np.concatenate(columns))
    rule = f"split: {np.unique(whole.data).size} weight values as {types} bits, an axon for every bit of an input"
    return pattern, weights, rule


def _decisions(whole: sp.csr_array, least: NDArray[np.float64]) -> NDArray[np.int64]:
    """1 - m for the least whole sum m that fires; m no further away than sums reach, so that it fits the leak."""
    m = np.ceil(least - 1e-6 * (1 + np.abs(least))).clip(-(1 << 40), 1 << 40).astype(np.int64)
    low = np.asarray(whole.minimum(0).sum(1)).astype(np.int64).reshape(-1)
    high = np.asarray(whole.maximum(0).sum(1)).astype(np.int64).reshape(-1)
    return 1 - np.clip(m, low, high + 1)


def _out_of_range(made: Corelet, whole: sp.csr_array, shape: CoreShape) -> list[Violation]:
    found = []
    biased = made.bias if not made.memory else np.zeros(1, np.int64)
    checks = [("leak", biased, shape.leak, "use fewer inputs or smaller weights")]
    if made.memory:
        drive = np.asarray(np.abs(whole).sum(1)).reshape(-1).astype(np.int64) + np.abs(made.bias)
        room = min(shape.beta[1], -shape.potential[0] if shape.overflow != "none" else shape.beta[1])
        checks += [
            ("weight", made.bias, shape.weight, "use smaller biases"),
            ("alpha", made.alpha, (max(1, shape.alpha[0]), shape.alpha[1]), "use smaller thresholds"),
            ("beta", drive * MOST_TICKS, (0, room), "use smaller weights, or neurons that forget, LIF(beta=0)"),
        ]
    for name, values, (low, high), remedy in checks:
        least, most = int(values.min(initial=0)), int(values.max(initial=0))
        if least < min(low, 0) or most > high:
            wide = most if most > high else least
            found.append(Violation(made.name, None, name, wide, f"{low}..{high}", remedy))
    if made.memory and bool((made.v0 >= made.alpha).any()):
        first = int(np.flatnonzero(made.v0 >= made.alpha)[0])
        remedy = "start below the threshold: a neuron would fire before its first input arrives"
        found.append(Violation(made.name, None, "v0", int(made.v0[first]), int(made.alpha[first]) - 1, remedy))
    return found


def _both_signs(synapses: sp.csr_array) -> tuple[sp.csr_array, str]:
    pattern = synapses.copy()
    pattern.data = np.ones(synapses.data.size, np.int64)
    return pattern, "taken for trinary weights yet to be trained, two axons per input"


def _assumed(layer: Layer, signs: sp.csr_array, shape: CoreShape, memory: bool, subtract: bool, rule: str) -> Corelet:
    rows = np.repeat(np.arange(layer.size), np.diff(signs.indptr))
    both, columns = np.tile(rows, 2), np.tile(signs.indices, 2)
    kind = np.repeat(np.arange(2), rows.size)
    inputs = _pattern(signs, both, kind, shape.axon_types, columns)
    weights = np.zeros((layer.size, shape.axon_types), np.int64)
    weights[:, :2] = 1, -1
    nothing = np.zeros(layer.size, np.int64)
    return Corelet(layer.name, layer.shape, inputs, weights, nothing, nothing + 1, nothing, subtract, memory, rule)


def _most_values(whole: sp.csr_array) -> int:
    """The most different weights of a neuron."""
    return max(np.unique(whole.data[a:b]).size for a, b in zip(whole.indptr, whole.indptr[1:], strict=False))


def _values_of(synapses: sp.csr_array, odd: NDArray[np.bool_]) -> str:
    row = int(np.flatnonzero(odd)[0])
    values = np.unique(synapses.data[synapses.indptr[row] : synapses.indptr[row + 1]])
    return f"{values.size} values that are no multiples of one step"
