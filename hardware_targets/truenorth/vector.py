"""A few vector and atomic instructions that Numba cannot express by itself; LLVM lowers them to whatever the processor
has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic as numba_intrinsic

LANES = 64
intrinsic: Any = numba_intrinsic  # its type hints do not know that the typing context is not passed


def _pointer(context: Any, builder: Any, signature: Any, args: Any, k: int) -> Any:
    """Address of element args[k + 1] of the contiguous array args[k]."""
    kind = signature.args[k]
    data = context.make_array(kind)(context, builder, args[k]).data
    return builder.gep(data, [args[k + 1]])


@intrinsic
def add_where(typing: Any, acc: Any, i: Any, weight: Any, k: Any, bits: Any, b: Any) -> Any:
    """acc[i + j] += weight[k + j] where bit j of bits[b] is set, j = 0..63.   acc, weight: int16; bits: uint64; flat
    indices.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(16), LANES)
        to = builder.bitcast(_pointer(context, builder, signature, args, 0), vector.as_pointer())
        source = builder.bitcast(_pointer(context, builder, signature, args, 2), vector.as_pointer())
        word = builder.load(_pointer(context, builder, signature, args, 4), align=8)
        mask = builder.bitcast(word, ir.VectorType(ir.IntType(1), LANES))
        chosen = builder.select(mask, builder.load(source, align=2), ir.Constant(vector, [0] * LANES))
        builder.store(builder.add(builder.load(to, align=2), chosen), to, align=2)
        return context.get_dummy_value()

    return types.void(acc, i, weight, k, bits, b), codegen


@intrinsic
def nonzero(typing: Any, flags: Any, i: Any) -> Any:
    """uint64 whose bit j says whether flags[i + j] is not 0, j = 0..63.   flags: uint8; flat index."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), LANES)
        source = builder.bitcast(_pointer(context, builder, signature, args, 0), vector.as_pointer())
        set_ = builder.icmp_unsigned("!=", builder.load(source, align=1), ir.Constant(vector, [0] * LANES))
        return builder.bitcast(set_, ir.IntType(64))

    return types.uint64(flags, i), codegen


@intrinsic
def popcount(typing: Any, word: Any) -> Any:
    """Number of set bits of a uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic
def trailing_zeros(typing: Any, word: Any) -> Any:
    """Index of the lowest set bit of a nonzero uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


@intrinsic
def prefetch(typing: Any, array: Any, i: Any) -> Any:
    """Ask for the cache line of array[i] (flat index); changes no value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, word = ir.IntType(8), ir.IntType(32)
        address = builder.bitcast(_pointer(context, builder, signature, args, 0), byte.as_pointer())
        call = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), word, word, word])
        function = builder.module.globals.get("llvm.prefetch.p0i8") or builder.module.globals.get("llvm.prefetch.p0")
        if function is None:
            function = ir.Function(builder.module, call, "llvm.prefetch.p0i8")
        builder.call(function, [address, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, i), codegen


@intrinsic
def atomic_add(typing: Any, array: Any, i: Any, value: Any) -> Any:
    """array[i] += value as one indivisible step; returns what was there before.   array: int64; flat index."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(context, builder, signature, args, 0), args[2], "seq_cst")

    return types.int64(array, i, types.int64), codegen
