"""Rules for operations that only move elements."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from neuro.nodes import Concat, Pad, Permute, Reshape, Scale, Slice
from neuro.trace.rules import Result, Rule, constant, entering, feature_dim, number, signal
from neuro.trace.site import Refusal, Site, Value

RULES: dict[str, Rule] = {}
rule = entering(RULES)


@rule(
    "view",
    "_unsafe_view",
    "reshape",
    "flatten.using_ints",
    "unflatten",
    "squeeze",
    "unsqueeze",
    "view_as",
    "reshape_as",
)
def reshape(site: Site, x: Value, *_: object, **__: object) -> Result:
    return x if site.shape == x.shape else site.add(Reshape(site.shape), x)


@rule("expand", "expand_as", "broadcast_to")
def expand(site: Site, x: Value, *_: object, **__: object) -> Result:
    if site.shape != x.shape:
        raise Refusal("copies of a signal have no node; concatenate it with itself instead")
    return x


@rule(
    "contiguous", "clone", "detach", "alias", "_to_copy", "to", "lift_fresh_copy", "lift_fresh", "type_as", "positive"
)
def identity(site: Site, x: Value, *_: object, **__: object) -> Result:
    return signal(x)


def _permuted(site: Site, x: Value, order: Sequence[int]) -> Value:
    """`order` of the batched tensor, the batch included."""
    count = len(x.shape) + 1
    places = [dim % count for dim in order]
    if places[0] != 0:
        raise Refusal("moves the batch dimension; keep it first (batch_first=True)")
    features = tuple(dim - 1 for dim in places[1:])
    return x if features == tuple(range(count - 1)) else site.add(Permute(features), x)


@rule("permute")
def permute(site: Site, x: Value, order: Sequence[int]) -> Result:
    return _permuted(site, x, order)


@rule("transpose.int", "swapaxes", "swapdims")
def transpose(site: Site, x: Value, a: int, b: int) -> Result:
    order = list(range(len(x.shape) + 1))
    order[a], order[b] = order[b], order[a]
    return _permuted(site, x, order)


@rule("movedim.int", "moveaxis.int")
def movedim(site: Site, x: Value, source: int, target: int) -> Result:
    order = list(range(len(x.shape) + 1))
    order.insert(target % len(order), order.pop(source))
    return _permuted(site, x, order)


@rule("channel_shuffle")
def channel_shuffle(site: Site, x: Value, groups: int) -> Result:
    channels, *space = x.shape
    split = site.add(Reshape((groups, channels // groups, *space)), x, part="groups")
    swapped = site.add(Permute((1, 0, *range(2, len(space) + 2))), split, part="permute")
    return site.add(Reshape(x.shape), swapped)


def _sliced(site: Site, x: Value, place: int, start: int, stop: int, step: int = 1, part: str = "") -> Value:
    if (start, stop, step) == (0, x.shape[place], 1):
        return x
    if start >= stop:
        raise Refusal("an empty slice leaves no signal")
    return site.add(Slice(place, start, stop, step), x, part=part)


@rule("slice.Tensor", "narrow")
def cut(site: Site, x: Value, dim: int = 0, start: int | None = None, stop: int | None = None, step: int = 1) -> Result:
    if dim % (len(x.shape) + 1) == 0:
        if start in (None, 0) and step == 1 and (stop is None or site.is_batch(stop) or stop == 2**63 - 1):
            return x
        raise Refusal("takes some samples out of the batch; samples must stay together")
    if any(isinstance(bound, torch.SymInt) for bound in (start, stop)):
        raise Refusal("slice bounds must not depend on the batch size")
    place = feature_dim(x, dim)
    if site.operation == "narrow":
        stop = (start or 0) + (stop or 0)
    first, last, _ = slice(start, stop).indices(x.shape[place])
    return _sliced(site, x, place, first, last, step)


@rule("select.int")
def select(site: Site, x: Value, dim: int, index: int) -> Result:
    place = feature_dim(x, dim)
    if isinstance(index, torch.SymInt):
        raise Refusal("an index must not depend on the batch size")
    index %= x.shape[place]
    shape = (*x.shape[:place], *x.shape[place + 1 :])
    return site.add(Reshape(shape), _sliced(site, x, place, index, index + 1), part="reshape")


@rule(
    "chunk",
    "split.Tensor",
    "split.sizes",
    "split_with_sizes",
    "tensor_split.sections",
    "tensor_split.indices",
    "unsafe_chunk",
)
def split(site: Site, x: Value, _: object, dim: int = 0) -> Result:
    place = feature_dim(x, dim)
    ends = list(accumulate((int(piece.shape[place + 1]) for piece in site.node.meta["val"]), initial=0))
    return tuple(_sliced(site, x, place, start, stop) for start, stop in pairwise(ends))


@rule("unbind.int")
def unbind(site: Site, x: Value, dim: int = 0) -> Result:
    count = x.shape[feature_dim(x, dim)]
    return tuple(select(site, x, dim, index) for index in range(count))  # type: ignore[misc]


@rule("pad", "constant_pad_nd")
def pad(
    site: Site, x: Value, flat: Sequence[int], mode: str | float = "constant", value: float | None = None
) -> Result:
    if site.operation == "constant_pad_nd":
        mode, value = "constant", number(mode if mode != "constant" else 0, "the padding")
    if any(isinstance(amount, torch.SymInt) for amount in flat):
        raise Refusal("padding must not depend on the batch size")
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if len(pairs) > len(x.shape):
        if any(pairs[-1]):
            raise Refusal("pads the batch; samples must stay as many as they are")
        pairs = pairs[:-1]
    amounts = ((0, 0),) * (len(x.shape) - len(pairs)) + tuple(reversed(pairs))
    if mode != "constant":
        return _bordered(site, x, amounts, str(mode))
    return x if not any(map(any, amounts)) else site.add(Pad(amounts, float(value or 0)), x)


def _bordered(site: Site, x: Value, amounts: Sequence[tuple[int, int]], mode: str) -> Value:
    """Borders that repeat the features themselves: slices of x before and behind x."""
    for dim, (before, after) in enumerate(amounts):
        size, places = x.shape[dim], range(-before, x.shape[dim] + after)
        if mode == "circular":
            wanted = [place % size for place in places]
        elif mode == "reflect":
            wanted = [size - 1 - abs(size - 1 - abs(place)) for place in places]
        else:
            wanted = [min(max(place, 0), size - 1) for place in places]
        if before or after:
            x = _gathered(site, x, dim, wanted)
    return x


def _gathered(site: Site, x: Value, dim: int, places: Sequence[int]) -> Value:
    """The elements at `places` of one dimension: a slice for each run of neighbours, one behind the other."""
    starts = [0, *(at for at in range(1, len(places)) if places[at] != places[at - 1] + 1), len(places)]
    runs = [_sliced(site, x, dim, places[first], places[end - 1] + 1, part="run") for first, end in pairwise(starts)]
    return site.add(Concat(dim), *runs) if len(runs) > 1 else runs[0]


@rule(
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
)
def border_pad(site: Site, x: Value, flat: Sequence[int]) -> Result:
    return pad(site, x, flat, "reflect" if site.operation.startswith("reflect") else "replicate")


@rule("cat", "concat", "concatenate")
def cat(site: Site, parts: Sequence[Value | Tensor], dim: int = 0) -> Result:
    """Constants among the parts become padding of the signal beside them, and what is added to it."""
    first = next(part for part in parts if isinstance(part, Value))
    place = feature_dim(first, dim)
    joined: list[Value] = []
    leading: list[Tensor] = []
    for part in parts:
        if isinstance(part, Value):
            for block in reversed(leading):
                part = _extended(site, part, block, place, before=True)
            leading = []
            joined.append(part)
        elif joined:
            joined[-1] = _extended(site, joined[-1], part, place, before=False)
        else:
            leading.append(part)
    return joined[0] if len(joined) == 1 else site.add(Concat(place), *joined)


def _extended(site: Site, x: Value, block: Tensor, place: int, before: bool) -> Value:
    values = constant(block, "a part")
    extent = values.shape[place + 1] if values.ndim == len(x.shape) + 1 else 0
    if extent == 0 or values[0].shape != (*x.shape[:place], extent, *x.shape[place + 1 :]):
        raise Refusal(f"a constant of shape {tuple(values.shape)} does not join features of {x.shape}")
    if not bool((values == values[:1]).all()):
        raise Refusal("a concatenated constant differs from sample to sample")
    amounts = [(0, 0)] * len(x.shape)
    amounts[place] = (extent, 0) if before else (0, extent)
    if values.unique().numel() == 1:
        return site.add(Pad(tuple(amounts), values.max().item()), x, part="pad")
    wider = site.add(Pad(tuple(amounts)), x, part="pad")
    offset = torch.zeros(wider.shape)
    offset.narrow(place, 0 if before else x.shape[place], extent).copy_(values[0])
    return site.add(Scale(torch.ones(()), offset), wider, part="constant")


@rule("stack")
def stack(site: Site, parts: Sequence[Value], dim: int = 0) -> Result:
    first = signal(parts[0], "every part")
    place = dim % (len(first.shape) + 2) - 1
    if place < 0:
        raise Refusal("works along the batch; samples must stay apart")
    shape = (*first.shape[:place], 1, *first.shape[place:])
    lifted = [site.add(Reshape(shape), signal(part, "every part"), part="reshape") for part in parts]
    return lifted[0] if len(lifted) == 1 else site.add(Concat(place), *lifted)


@rule("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
def filled_like(site: Site, x: Value, *arguments: object, **_: object) -> Result:
    """A constant of the result's shape; its batch, where it has one, is written as 1."""
    fill = 0.0 if "zeros" in site.operation else 1.0
    if site.operation.endswith(("full_like", "full")):
        fill = number(arguments[-1], "the fill value")
    extent = list(site.node.meta["val"].shape)
    shape = [1, *extent[1:]] if extent and site.is_batch(extent[0]) else extent
    if any(isinstance(size, torch.SymInt) for size in shape):
        raise Refusal("feature sizes must not depend on the batch size")
    return torch.full(shape, fill)
