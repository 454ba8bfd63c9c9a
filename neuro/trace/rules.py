"""One short function per ATen operation: its arguments, signals as Value and constants as Tensor, become nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neuro.graph import Shape
from neuro.nodes import (
    Add,
    Affine,
    BatchNorm,
    Conv,
    ConvTranspose,
    Pad,
    Permute,
    Reshape,
    Scale,
)
from neuro.trace.site import Refusal, Site, Value

Result = Value | tuple[Value | None, ...] | Tensor
Rule = Callable[..., Result]
Operand = Value | Tensor | float


def entering(table: dict[str, Rule]) -> Callable[..., Callable[[Rule], Rule]]:
    """A decorator that enters a rule in `table` under ATen names, with their overload where overloads differ.

    In-place operations are looked up without their underscore.
    """

    def rule(*names: str) -> Callable[[Rule], Rule]:
        def enter(function: Rule) -> Rule:
            table.update(dict.fromkeys(names, function))
            return function

        return enter

    return rule


RULES: dict[str, Rule] = {}
rule = entering(RULES)


def signal(x: object, what: str = "the input") -> Value:
    if not isinstance(x, Value):
        raise Refusal(f"{what} must be a signal, not a constant")
    return x


def constant(x: object, what: str) -> Tensor:
    """A detached 32-bit copy of a parameter, buffer or number."""
    if isinstance(x, Value):
        raise Refusal(f"{what} must be a constant, not a signal; products of two signals have no node")
    if isinstance(x, Tensor):
        return x.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if isinstance(x, (int, float)):
        return torch.tensor(float(x))
    raise Refusal(f"{what} depends on the data or on the batch size")


def number(x: object, what: str) -> float:
    value = constant(x, what)
    if value.numel() != 1:
        raise Refusal(f"{what} must be one number")
    return x if isinstance(x, (int, float)) else value.item()


def sizes(value: int | Sequence[int], count: int) -> Shape:
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * count if len(given) == 1 else given


def feature_dim(x: Value, dim: int) -> int:
    """Dimension of a batched tensor, perhaps negative, as feature dimension."""
    place = dim % (len(x.shape) + 1)
    if place == 0:
        raise Refusal("works along the batch; samples must stay apart")
    return place - 1


def beside(x: Value, c: object, what: str) -> Tensor:
    """A constant as it broadcasts against the features of x, without the batch."""
    value = constant(c, what)
    if value.ndim == len(x.shape) + 1:
        if not bool((value == value[:1]).all()):
            raise Refusal(f"{what} differs from sample to sample")
        value = value[0]
    try:
        grown = torch.broadcast_shapes(value.shape, x.shape) != torch.Size(x.shape)
    except RuntimeError:
        grown = True
    if grown:
        raise Refusal(
            f"{what} of shape {tuple(value.shape)} does not fit features of {x.shape}; it may not make them larger"
        )
    return value.contiguous()


# Weighted sums


@rule("linear")
def linear(site: Site, x: Value, weight: Tensor, bias: Tensor | None = None) -> Result:
    offset = None if bias is None else constant(bias, "the bias")
    return site.add(Affine(constant(weight, "the weight"), offset), signal(x))


@rule("matmul", "mm")
def matmul(site: Site, x: Value, matrix: Tensor) -> Result:
    """x @ M: an Affine along the last dimension; x @ v leaves that dimension out; M @ x goes along the last but one."""
    if not isinstance(x, Value):
        return _matmul_from_left(site, x, matrix)
    weight = constant(matrix, "the second factor")
    while 2 < weight.ndim <= len(x.shape) + 1 and weight.shape[0] == 1:
        weight = weight[0]
    if weight.ndim == 1:
        product = site.add(Affine(weight[None].contiguous()), x, part="product")
        return site.add(Reshape(x.shape[:-1]), product)
    if weight.ndim != 2:
        raise Refusal("only signal @ matrix of constants has a node")
    return site.add(Affine(weight.T.contiguous()), x)


def _matmul_from_left(site: Site, matrix: Tensor, x: Value) -> Value:
    weight, count = constant(matrix, "the first factor"), len(signal(x).shape)
    if weight.ndim != 2 or count < 2:
        raise Refusal("only signal @ matrix of constants, or the same from the left, has a node")
    swapped = (*range(count - 2), count - 1, count - 2)
    turned = site.add(Permute(swapped), x, part="turn")
    product = site.add(Affine(weight), turned, part="product")
    return site.add(Permute(swapped), product)


@rule("addmm")
def addmm(site: Site, bias: Tensor, x: Value, matrix: Tensor, *, beta: float = 1, alpha: float = 1) -> Result:
    weight = constant(matrix, "the second factor").T.contiguous() * alpha
    offset = (constant(bias, "the bias") * beta).expand(weight.shape[0]).contiguous()
    return site.add(Affine(weight, offset), signal(x))


@rule("conv1d", "conv2d", "conv3d")
def conv(
    site: Site,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Result:
    kernel = constant(weight, "the weight")
    offset = None if bias is None else constant(bias, "the bias")
    count = kernel.ndim - 2
    if len(signal(x).shape) != count + 1:
        raise Refusal(f"a convolution of {count} dimensions needs (batch, channels and {count} sizes)")
    around = (0,) * count
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(sizes(dilation, count), kernel.shape[2:], strict=True)]
        around = tuple(total // 2 for total in reach)
        if any(total % 2 for total in reach):
            # An odd total puts one more zero behind than before, which Conv's own padding cannot say.
            amounts = ((0, 0), *((total // 2, total - total // 2) for total in reach))
            x, around = site.add(Pad(amounts), x, part="pad"), (0,) * count
    elif not isinstance(padding, str):
        around = sizes(padding, count)
    return site.add(Conv(kernel, offset, sizes(stride, count), around, sizes(dilation, count), groups), x)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(
    site: Site,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Result:
    kernel = constant(weight, "the weight")
    offset = None if bias is None else constant(bias, "the bias")
    count = kernel.ndim - 2
    if len(signal(x).shape) != count + 1:
        raise Refusal(f"a convolution of {count} dimensions needs (batch, channels and {count} sizes)")
    step, around, more, apart = (sizes(value, count) for value in (stride, padding, output_padding, dilation))
    return site.add(ConvTranspose(kernel, offset, step, around, more, apart, groups), x)


@rule("convolution")
def convolution(site, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups) -> Result:  # type: ignore[no-untyped-def]
    if transposed:
        return conv_transpose(site, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(site, x, weight, bias, stride, padding, dilation, groups)


@rule("batch_norm")
def batch_norm(
    site: Site,
    x: Value,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool = True,
) -> Result:
    if training or mean is None or var is None:
        raise Refusal(
            "batch norm without running statistics depends on the batch; use track_running_stats=True and eval mode"
        )
    centre, spread = constant(mean, "the mean"), constant(var, "the variance")
    gain = torch.ones_like(centre) if weight is None else constant(weight, "the weight")
    shift = torch.zeros_like(centre) if bias is None else constant(bias, "the bias")
    return site.add(BatchNorm(centre, spread, gain, shift, eps), signal(x))


@rule("_native_batch_norm_legit_no_training")
def functional_batch_norm(site, x, weight, bias, mean, var, momentum, eps) -> Result:  # type: ignore[no-untyped-def]
    return (batch_norm(site, x, weight, bias, mean, var, False, momentum, eps), None, None)  # type: ignore[return-value]


# Arithmetic with constants, and sums of signals


def scaled(site: Site, x: Value, factor: Operand, offset: Operand | None = None, part: str = "") -> Value:
    if (
        isinstance(factor, (int, float))
        and factor == 1
        and (offset is None or (isinstance(offset, (int, float)) and offset == 0))
    ):
        return x
    shift = None if offset is None else beside(x, offset, "the summand")
    return site.add(Scale(beside(x, factor, "the factor"), shift), x, part=part)


@rule("add.Tensor", "add.Scalar")
def add(site: Site, a: Operand, b: Operand, alpha: float = 1) -> Result:
    """a + alpha b."""
    if isinstance(a, Value) and isinstance(b, Value):
        if a.shape != b.shape:
            raise Refusal(f"signals of shapes {a.shape} and {b.shape} do not add; make both one shape")
        return site.add(Add(), a, scaled(site, b, alpha, part="scale"))
    if isinstance(a, Value):
        return scaled(
            site, a, 1, b if isinstance(b, (int, float)) and alpha == 1 else constant(b, "the summand") * alpha
        )
    return scaled(site, signal(b), alpha, a)


@rule("sub.Tensor", "sub.Scalar", "subtract.Tensor")
def sub(site: Site, a: Operand, b: Operand, alpha: float = 1) -> Result:
    return add(site, a, b, -alpha)


@rule("rsub.Tensor", "rsub.Scalar")
def rsub(site: Site, a: Operand, b: Operand, alpha: float = 1) -> Result:
    return add(site, b, a, -alpha)


@rule("neg")
def neg(site: Site, x: Value) -> Result:
    return scaled(site, x, -1)


@rule("mul.Tensor", "mul.Scalar", "multiply.Tensor")
def mul(site: Site, a: Operand, b: Operand) -> Result:
    return scaled(site, a, b) if isinstance(a, Value) else scaled(site, signal(b), a)


@rule("div.Tensor", "div.Scalar", "true_divide.Tensor")
def div(site: Site, a: Operand, b: Operand) -> Result:
    divisor = constant(b, "the divisor")
    if bool((divisor == 0).any()):
        raise Refusal("divides by zero")
    return scaled(site, signal(a, "the dividend"), 1 / divisor)
