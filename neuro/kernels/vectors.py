"""Vectors of `LANES` numbers inside numba functions, written as LLVM instructions: they run on every processor.

Each function is inlined where it is called. Arrays must be contiguous, indices in range: nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from neuro.kernels.synapses import LANES


def _inlined(generator: Callable[..., Any]) -> Any:
    return intrinsic(generator)


_VECTOR = ir.VectorType(ir.FloatType(), LANES)


def data_of(context, builder, kind, array):
    return make_array(kind)(context, builder, array).data


def place_of(builder, data, index):
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _adder(vectors: int, runs: int = 1) -> Any:
    """A function that keeps runs of `vectors` vectors of the membranes in registers while it adds weights to them.

    It adds `count` rows of weights, at the floats `rows`, to the runs r, r + 1, ..., from their float `done` on. The
    compiler does not find this by itself: it cannot know that membranes and weights do not overlap.
    """

    @_inlined
    def add(typing, v, target, weights, start, r, done, rows, count):
        def generate(context, builder, signature, args):
            membrane, targets, weight, starts, row = (
                data_of(context, builder, signature.args[k], args[k]) for k in (0, 1, 2, 3, 6)
            )
            places, begins, sums = [], [], []
            for run in range(runs):
                at = builder.add(args[4], ir.Constant(args[4].type, run))
                to = builder.add(builder.load(builder.gep(targets, [at])), args[5])
                begin = builder.add(builder.load(builder.gep(starts, [at])), args[5])
                for k in range(vectors):
                    step = ir.Constant(to.type, LANES * k)
                    places.append(place_of(builder, membrane, builder.add(to, step)))
                    begins.append(builder.add(begin, step))
                    sums.append(cgutils.alloca_once(builder, _VECTOR))
            for held, place in zip(sums, places, strict=True):
                builder.store(builder.load(place, align=4), held)
            with cgutils.for_range(builder, args[7]) as loop:
                base = builder.sext(builder.load(builder.gep(row, [loop.index])), args[5].type)
                for held, begin in zip(sums, begins, strict=True):
                    here = place_of(builder, weight, builder.add(base, begin))
                    builder.store(builder.fadd(builder.load(held), builder.load(here, align=4)), held)
            for held, place in zip(sums, places, strict=True):
                builder.store(builder.load(held), place, align=4)
            return context.get_dummy_value()

        return types.void(v, target, weights, start, types.intp, types.intp, rows, types.intp), generate

    return add


add1, add2, add3, add4, add6, add12 = (_adder(vectors) for vectors in (1, 2, 3, 4, 6, 12))
add3_to_three, add6_to_three = _adder(3, 3), _adder(6, 3)


PLACES = np.zeros((256, 8), dtype=np.uint8)
"""Which bits of a byte are set, in order."""
for _byte in range(256):
    _set = [bit for bit in range(8) if _byte >> bit & 1]
    PLACES[_byte, : len(_set)] = _set


@_inlined
def list_spikes(typing, word, row, block, places, rows, count):
    """Append row + block * bit for every bit set in a word; returns how many rows there are now. No branches."""

    def generate(context, builder, signature, args):
        listed, known = (data_of(context, builder, signature.args[k], args[k]) for k in (4, 3))
        short, bytes_ = (ir.VectorType(ir.IntType(size), 8) for size in (32, 8))
        count = args[5]
        for half in (0, 8):
            byte = builder.and_(builder.lshr(args[0], ir.Constant(args[0].type, half)), ir.Constant(args[0].type, 255))
            at = builder.shl(builder.zext(byte, count.type), ir.Constant(count.type, 3))
            bits = builder.load(builder.bitcast(builder.gep(known, [at]), bytes_.as_pointer()), align=1)
            base = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, half)))
            scale, offset = (_splat(builder, builder.trunc(value, ir.IntType(32)), short) for value in (args[2], base))
            found = builder.add(builder.mul(builder.zext(bits, short), scale), offset)
            here = builder.bitcast(builder.gep(listed, [count]), short.as_pointer())
            builder.store(found, here, align=4)
            count = builder.add(count, builder.zext(builder.ctpop(byte), count.type))
        return count

    return types.intp(types.uint16, types.intp, types.intp, places, rows, types.intp), generate


def _splat(builder, value, kind):
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        one, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
    )


@_inlined
def add_own(typing, v, at, weights, start, word):
    """Each spike of a word adds its own weight to its own neuron."""

    def generate(context, builder, signature, args):
        here = place_of(builder, data_of(context, builder, signature.args[0], args[0]), args[1])
        own = builder.load(place_of(builder, data_of(context, builder, signature.args[2], args[2]), args[3]), align=4)
        fired = builder.bitcast(args[4], ir.VectorType(ir.IntType(1), LANES))
        given = builder.select(fired, own, ir.Constant(_VECTOR, [0.0] * LANES))
        builder.store(builder.fadd(builder.load(here, align=4), given), here, align=4)
        return context.get_dummy_value()

    return types.void(v, types.intp, weights, types.intp, types.uint16), generate


@_inlined
def fire(typing, v, at, drive, at_drive, theta, at_theta, subtract):
    """One vector of neurons takes its current, fires and is reset; returns who fired as the bits of a word."""

    def generate(context, builder, signature, args):
        here, current, threshold = (
            place_of(builder, data_of(context, builder, signature.args[k], args[k]), args[k + 1]) for k in (0, 2, 4)
        )
        x = builder.fadd(builder.load(here, align=4), builder.load(current, align=4))
        level = builder.load(threshold, align=4)
        fired = builder.fcmp_ordered(">=", x, level)
        after = builder.select(args[6], builder.fsub(x, level), ir.Constant(_VECTOR, [0.0] * LANES))
        builder.store(builder.select(fired, after, x), here, align=4)
        return builder.bitcast(fired, ir.IntType(LANES))

    return types.uint16(v, types.intp, drive, types.intp, theta, types.intp, types.boolean), generate


@_inlined
def add_bits(typing, counts, at, word):
    """Counts grow by the bits of a word."""

    def generate(context, builder, signature, args):
        kind = ir.VectorType(ir.IntType(32), LANES)
        data = data_of(context, builder, signature.args[0], args[0])
        here = builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer())
        bits = builder.bitcast(args[2], ir.VectorType(ir.IntType(1), LANES))
        builder.store(builder.add(builder.load(here, align=4), builder.zext(bits, kind)), here, align=4)
        return context.get_dummy_value()

    return types.void(counts, types.intp, types.uint16), generate
