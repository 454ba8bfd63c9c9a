"""Values of 64 lanes for Numba: what a core does to 64 neurons at once, held in vector registers.

`Lanes` is a vector of integers that compiled functions pass around; a mask of 64 lanes is one uint64, so that words of
the crossbar are masks as they are. LLVM lowers everything to whatever the processor has. All indices are flat, into
contiguous arrays.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, overload, register_model

LANES = 64
intrinsic: Any = numba_intrinsic  # its type hints do not know that the typing context is not passed


class Lanes(types.Type):
    """`count` integers of `bits` bits each."""

    def __init__(self, bits: int, count: int = LANES) -> None:
        self.bits, self.count = bits, count
        super().__init__(name=f"Lanes({bits}, {count})")

    @property
    def vector(self) -> ir.VectorType:
        """The type of LLVM that holds them."""
        return ir.VectorType(ir.IntType(self.bits), self.count)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, kind.vector)


def _splat(builder: Any, number: Any, kind: Lanes) -> Any:
    one = builder.insert_element(ir.Constant(kind.vector, ir.Undefined), number, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind.vector, ir.Undefined), lanes)


def _binary(build: Callable[[ir.IRBuilder, Any, Any], Any]) -> Any:
    """An instruction on two vectors of one type, or on a vector and one number for all lanes."""

    @intrinsic
    def instruction(typing: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return build(builder, args[0], args[1] if isinstance(b, Lanes) else _splat(builder, args[1], a))

        return a(a, b), codegen

    return instruction


def _comparison(symbol: str) -> Any:
    """A comparison of two vectors: the uint64 whose bit j says whether it holds in lane j."""

    @intrinsic
    def instruction(typing: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(builder.icmp_signed(symbol, *args), ir.IntType(64))

        return types.uint64(a, b), codegen

    return instruction


add, subtract, multiply = _binary(ir.IRBuilder.add), _binary(ir.IRBuilder.sub), _binary(ir.IRBuilder.mul)
both, differing = _binary(ir.IRBuilder.and_), _binary(ir.IRBuilder.xor)
shifted_right = _binary(ir.IRBuilder.lshr)
at_least, below, unequal = _comparison(">="), _comparison("<"), _comparison("!=")
maximum = _binary(lambda builder, a, b: builder.select(builder.icmp_signed(">", a, b), a, b))
minimum = _binary(lambda builder, a, b: builder.select(builder.icmp_signed("<", a, b), a, b))


def _spell(symbol: Any, instruction: Any) -> None:
    """Let a symbol stand for an instruction in compiled code."""

    @overload(symbol, inline="always")
    def spelled(a, b):  # Numba compares signatures: no annotations here
        fits = a == b or getattr(b, "bitwidth", 0) == getattr(a, "bits", -1)  # lanes, or one number of their width
        return (lambda a, b: instruction(a, b)) if isinstance(a, Lanes) and fits else None


_spell(operator.add, add)
_spell(operator.iadd, add)
_spell(operator.sub, subtract)
_spell(operator.mul, multiply)
_spell(operator.and_, both)
_spell(operator.xor, differing)
_spell(operator.rshift, shifted_right)


def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Address of element args[1] of the contiguous array args[0]."""
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


def _loader(bits: int) -> Any:
    @intrinsic
    def instruction(typing: Any, array: Any, i: Any) -> Any:
        stored, kind = Lanes(array.dtype.bitwidth), Lanes(bits)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            address = builder.bitcast(_pointer(context, builder, signature, args), stored.vector.as_pointer())
            value = builder.load(address, align=stored.bits // 8)
            if stored.bits == bits:
                return value
            return (builder.sext if array.dtype.signed else builder.zext)(value, kind.vector)

        return kind(array, i), codegen

    return instruction


load16, load32 = _loader(16), _loader(32)


@intrinsic
def store(typing: Any, array: Any, i: Any, value: Any) -> Any:
    """array[i + j] = lane j."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = builder.bitcast(_pointer(context, builder, signature, args), value.vector.as_pointer())
        builder.store(args[2], address, align=value.bits // 8)
        return context.get_dummy_value()

    return types.void(array, i, value), codegen


@intrinsic
def spread(typing: Any, x: Any) -> Any:
    """The same number in all lanes, of the width of x."""
    kind = Lanes(x.bitwidth)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], kind)

    return kind(x), codegen


@intrinsic
def choose(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the bit of the mask (uint64) is set, else b."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.bitcast(args[0], ir.VectorType(ir.IntType(1), LANES)), args[1], args[2])

    return a(mask, a, b), codegen


@intrinsic
def bytes_of(typing: Any, words: Any) -> Any:
    """The bytes of 16 lanes of 32 bits, lowest first, as 64 lanes of 16 bits."""
    kind = Lanes(16)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.bitcast(args[0], ir.VectorType(ir.IntType(8), LANES)), kind.vector)

    return kind(words), codegen


def _ramp(count: int) -> Any:
    @intrinsic
    def instruction(typing: Any, first: Any) -> Any:
        kind = Lanes(32, count)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.add(_splat(builder, args[0], kind), ir.Constant(kind.vector, list(range(count))))

        return kind(first), codegen

    return instruction


ramp16, ramp64 = _ramp(16), _ramp(64)
"""first + j in lane j of 16 or 64 lanes of 32 bits."""


@intrinsic
def wide(typing: Any, value: Any) -> Any:
    """16 bits to 32, with sign."""
    kind = Lanes(32, value.count)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sext(args[0], kind.vector)

    return kind(value), codegen


@intrinsic
def popcount(typing: Any, word: Any) -> Any:
    """Number of set bits of a uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic
def trailing_zeros(typing: Any, word: Any) -> Any:
    """Index of the lowest set bit of a uint64; 64 if there is none."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


def _prefetcher(to_write: int) -> Any:
    @intrinsic
    def instruction(typing: Any, array: Any, i: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            byte, word = ir.IntType(8), ir.IntType(32)
            address = builder.bitcast(_pointer(context, builder, signature, args), byte.as_pointer())
            call = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), word, word, word])
            names = ("llvm.prefetch.p0i8", "llvm.prefetch.p0")
            function = next((f for name in names if (f := builder.module.globals.get(name))), None)
            function = function or ir.Function(builder.module, call, names[0])
            builder.call(function, [address, word(to_write), word(3), word(1)])
            return context.get_dummy_value()

        return types.void(array, i), codegen

    return instruction


prefetch, prefetch_to_write = _prefetcher(0), _prefetcher(1)
"""Ask for the cache line of array[i]; changes no value."""


@intrinsic
def atomic_add(typing: Any, array: Any, i: Any, value: Any) -> Any:
    """array[i] += value as one indivisible step; returns what was there before.   array: int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(context, builder, signature, args), args[2], "seq_cst")

    return types.int64(array, i, types.int64), codegen
