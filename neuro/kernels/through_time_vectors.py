"""Sums of listed rows of a table, kept in vector registers: the inner loop of event-driven training."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from neuro.kernels.synapses import LANES
from neuro.kernels.vectors import data_of, place_of

_VECTOR = ir.VectorType(ir.FloatType(), LANES)


def _summer(vectors: int, scaled: bool) -> Any:
    """target[at:] += sum over k in low..high - 1 of values[k] table[base + stride index[k]:], `vectors` vectors wide.

    Not scaled: all values are 1 and are not read.
    """

    @intrinsic
    def add(typing, target, at, table, base, stride, index, values, low, high):
        def generate(context, builder, signature, args):
            into, rows, indices, factors = (data_of(context, builder, signature.args[k], args[k]) for k in (0, 2, 5, 6))
            steps = [ir.Constant(args[1].type, LANES * k) for k in range(vectors)]
            places = [place_of(builder, into, builder.add(args[1], step)) for step in steps]
            sums = [cgutils.alloca_once(builder, _VECTOR) for _ in steps]
            for held, place in zip(sums, places, strict=True):
                builder.store(builder.load(place, align=4), held)
            count = builder.sub(args[8], args[7])
            with cgutils.for_range(builder, count) as loop:
                k = builder.add(loop.index, args[7])
                row = builder.sext(builder.load(builder.gep(indices, [k])), args[3].type)
                begin = builder.add(args[3], builder.mul(row, args[4]))
                factor = _splat(builder, builder.load(builder.gep(factors, [k]))) if scaled else None
                for held, step in zip(sums, steps, strict=True):
                    here = builder.load(place_of(builder, rows, builder.add(begin, step)), align=4)
                    before = builder.load(held)
                    after = builder.fadd(before, here) if factor is None else _fused(builder, here, factor, before)
                    builder.store(after, held)
            for held, place in zip(sums, places, strict=True):
                builder.store(builder.load(held), place, align=4)
            return context.get_dummy_value()

        given = (target, types.intp, table, types.intp, types.intp, index, values, types.intp, types.intp)
        return types.void(*given), generate

    return add


def _fused(builder, a, b, c):
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32"), [a, b, c])


def _splat(builder, value):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)


sum1, sum2, sum4 = (_summer(vectors, scaled=False) for vectors in (1, 2, 4))
scaled_sum1, scaled_sum2, scaled_sum4 = (_summer(vectors, scaled=True) for vectors in (1, 2, 4))


@intrinsic
def nonzero(typing, values, at):
    """Which of the `LANES` numbers from `at` on are not zero, as the bits of a word."""

    def generate(context, builder, signature, args):
        place = place_of(builder, data_of(context, builder, signature.args[0], args[0]), args[1])
        zeros = ir.Constant(_VECTOR, [0.0] * LANES)
        found = builder.fcmp_unordered("!=", builder.load(place, align=4), zeros)
        return builder.bitcast(found, ir.IntType(LANES))

    return types.uint16(values, types.intp), generate
