"""What an input does to a vector of neurons that wait for their first spike, and they to its weights, in LLVM.

Arrays are contiguous and go on for at least LANES from `at`: nothing is checked here.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic as numba_intrinsic

from neuro.kernels.vectors import data_of

intrinsic: Any = numba_intrinsic  # its type hints do not know that the typing context is not passed

LANES = 16
"""Neurons of a vector; columns of weights come in multiples of it."""

_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)


def _place(context, builder, signature, args, k, at):
    """Where the vector of argument k begins that lies from argument `at` on."""
    data = data_of(context, builder, signature.args[k], args[k])
    kind = ir.VectorType(data.type.pointee, LANES)
    return builder.bitcast(builder.gep(data, [args[at]]), kind.as_pointer())


def _load(builder, place):
    return builder.load(place, align=4)


def _splat(builder, value, kind):
    if value.type != kind.element:
        value = builder.fptrunc(value, kind.element)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


def _fused(builder, a, b, c):
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _receive(builder, potential, current, weights, to_v, to_i):
    w = _load(builder, weights)
    if w.type != _DOUBLES:
        w = builder.fpext(w, _DOUBLES)
    v = _fused(builder, builder.fneg(_splat(builder, to_v, _DOUBLES)), w, _load(builder, potential))
    i = _fused(builder, _splat(builder, to_i, _DOUBLES), w, _load(builder, current))
    builder.store(v, potential, align=4)
    builder.store(i, current, align=4)
    return v, i


@intrinsic
def receive(typing, v, i, at, row, to_v, to_i):
    """i += to_i w, v -= to_v w for the neurons `at`, at + 1, ...; v, i float64, row float32 or float64."""

    def generate(context, builder, signature, args):
        potential, current, weights = (_place(context, builder, signature, args, k, 2) for k in (0, 1, 3))
        _receive(builder, potential, current, weights, args[4], args[5])
        return context.get_dummy_value()

    return types.void(v, i, types.intp, row, types.float64, types.float64), generate


@intrinsic
def receive_and_watch(typing, v, i, level, at, row, to_v, to_i, of_v, of_i):
    """As `receive`; gives whose of_v v + of_i i >= level, as bits."""

    def generate(context, builder, signature, args):
        potential, current, threshold, weights = (_place(context, builder, signature, args, k, 3) for k in (0, 1, 2, 4))
        next_v, next_i = _receive(builder, potential, current, weights, args[5], args[6])
        take_v, take_i = (_splat(builder, factor, _DOUBLES) for factor in args[7:])
        ahead = _fused(builder, take_v, next_v, builder.fmul(take_i, next_i))
        near = builder.fcmp_ordered(">=", ahead, _load(builder, threshold))
        return builder.zext(builder.bitcast(near, ir.IntType(LANES)), ir.IntType(64))

    return types.uint64(v, i, level, types.intp, row, *(types.float64,) * 4), generate


@intrinsic
def learn(typing, of_row, of_v, of_i, at, to_v, to_i):
    """of_row += to_i of_i - to_v of_v for the neurons `at`, at + 1, ...; all of one type, float32 or float64."""

    def generate(context, builder, signature, args):
        into, potential, current = (_place(context, builder, signature, args, k, 3) for k in (0, 1, 2))
        kind = into.type.pointee
        take_v, take_i = (_splat(builder, factor, kind) for factor in args[4:])
        moved = _fused(builder, take_i, _load(builder, current), _load(builder, into))
        builder.store(_fused(builder, builder.fneg(take_v), _load(builder, potential), moved), into, align=4)
        return context.get_dummy_value()

    return types.void(of_row, of_v, of_i, types.intp, types.float64, types.float64), generate


@intrinsic
def trailing_zeros(typing, word):
    """The place of the lowest bit that is set."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.uint64), generate
