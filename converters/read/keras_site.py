"""Where one layer of a Keras network is read: its settings, its weights, and the nodes made for it.

Keras keeps channels last, the Graph first. A `Signal` therefore says which dimension of the Keras tensor each dimension
of its value is, and a layer asks for the order that it needs; a Permute node appears only where elements must move.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from converters.read.keras_model import Layer
from neuro.errors import FileError
from neuro.graph import Change, Node, Shape
from neuro.nodes import Permute, Reshape
from neuro.trace.site import Refusal, Sketch, Value

MOST_NODES = 10_000
"""A layer used often is drawn often; models inside models could otherwise grow without end."""

LARGEST_SIZE = 1 << 24
"""Of one dimension, kernel or stride."""


@dataclass(frozen=True)
class Signal:
    """What leaves a layer. Dimension i of the value is dimension `order[i]` of the Keras tensor, batch left out."""

    value: Value
    order: Shape

    @property
    def shape(self) -> Shape:
        """Sizes as Keras orders them."""
        return tuple(self.value.shape[self.order.index(dim)] for dim in range(len(self.order)))


def moves(signal: Signal, order: Shape) -> bool:
    """Whether elements move when the dimensions come in another order; those of size 1 do not count."""
    places = [signal.order.index(dim) for dim in order]
    large = [place for place in places if signal.value.shape[place] > 1]
    return large != sorted(large)


@dataclass
class Reading:
    """What the layers of one file share."""

    major: int
    """version of Keras"""
    sketch: Sketch = field(default_factory=Sketch)
    refusals: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    inputs: list[Signal] = field(default_factory=list)
    uses: Counter[str] = field(default_factory=Counter)
    """of each name"""
    weights: dict[tuple[object, ...], Any] = field(default_factory=dict)
    """made once for each layer, however often it is used"""


@dataclass(frozen=True)
class Site:
    """One use of a layer, as a rule sees it."""

    reading: Reading
    layer: Layer
    name: str

    @property
    def config(self) -> Mapping[str, Any]:
        return self.layer.config

    def add(self, node: Node, *inputs: Signal, part: str = "", order: Shape | None = None) -> Signal:
        """The layer's own node, or a `part` of it. The order of dimensions stays unless another is given."""
        if len(self.reading.sketch.nodes) >= MOST_NODES:
            raise FileError(f"the network unfolds to more than {MOST_NODES} nodes; do not use this file")
        name = f"{self.name}.{part}" if part else self.name
        self.reading.uses[name] += 1
        if (number := self.reading.uses[name]) > 1:
            name = f"{name}_{number}"
        value = self.reading.sketch.add(name, node, *(signal.value for signal in inputs))
        return Signal(value, inputs[0].order if order is None else order)

    def refuse(self, reason: str) -> None:
        """Note what cannot be read and go on, so that all of it comes in one message."""
        self.reading.refusals.append(f"{self.name!r} ({self.layer.kind}): {reason}")

    def weights(self, make: Callable[..., Any], *roles: str) -> Any:
        """`make(tensors...)` of the layer's weights in these roles."""
        key = (self.layer, *roles)
        if key not in self.reading.weights:
            self.reading.weights[key] = make(*self.layer.tensors.take(*roles))
        return self.reading.weights[key]

    def arranged(self, signal: Signal, order: Shape) -> Signal:
        """The signal with its dimensions in another order."""
        if signal.order == order:
            return signal
        places = tuple(signal.order.index(dim) for dim in order)
        shape = tuple(signal.value.shape[place] for place in places)
        node = Permute(places) if moves(signal, order) else Reshape(shape)
        return self.add(node, signal, part="permute", order=order)

    def reshaped(self, signal: Signal, order: Shape, shape: Shape) -> Signal:
        """The elements, taken in the order of dimensions given, as features of a shape that Keras would write."""
        signal = self.arranged(signal, order) if moves(signal, order) else signal
        return self.add(Reshape(shape), signal, order=tuple(range(len(shape))))

    def as_keras(self, signal: Signal) -> Signal:
        return self.arranged(signal, tuple(range(len(signal.order))))

    def channels_first(self, signal: Signal) -> Signal:
        return self.arranged(signal, (self.channel(signal), *self.space(signal)))

    def channel(self, signal: Signal) -> int:
        """Keras dimension of the channels."""
        return 0 if self.choice("data_format", "channels_last", "channels_first") else len(signal.order) - 1

    def space(self, signal: Signal) -> Shape:
        """Keras dimensions of the space."""
        return tuple(dim for dim in range(len(signal.order)) if dim != self.channel(signal))

    def axis(self, value: object, signal: Signal) -> int:
        """Keras dimension without the batch, from an `axis` that counts it."""
        count = len(signal.order) + 1
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if type(value) is not int or not -count < value < count or value == 0:
            raise Refusal(f"axis {value!r} is not one feature dimension of {count - 1}; only one axis can be read")
        return value % count - 1

    def choice(self, key: str, *allowed: str) -> int:
        """Which of the `allowed` words stands in the setting; the first is the default."""
        found = self.config.get(key) or allowed[0]
        if found not in allowed:
            raise Refusal(f"{key}={found!r} has no node; use {' or '.join(allowed)}")
        return allowed.index(found)

    def sizes(self, key: str, count: int, default: int = 1) -> Shape:
        """`count` positive integers, given as one or as a list."""
        found = self.config.get(key)
        values = [default if found is None else found] * count if not isinstance(found, list) else found
        if len(values) != count or any(type(size) is not int or not 0 < size < LARGEST_SIZE for size in values):
            raise FileError(f"{key} must be {count} positive integer(s), got {found!r:.60}; the file is damaged")
        return tuple(values)

    def number(self, key: str, default: float) -> float:
        """A finite number; what is left out or None counts as the default."""
        return as_number(self.config.get(key), key, default)


def as_number(value: object, key: str, default: float) -> float:
    if isinstance(value, dict):
        value = (value.get("config") or {}).get("value")
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FileError(f"{key} must be a finite number, got {value!r:.60}; the file is damaged")
    return float(value)


Rule = Callable[..., Signal]
"""`rule(site, *inputs)`: nodes for one layer."""


def entering(rules: dict[str, Rule]) -> Callable[..., Callable[[Rule], Rule]]:
    """A decorator that enters a rule in a table under the names of the classes it reads."""

    def named(*kinds: str) -> Callable[[Rule], Rule]:
        def enter(rule: Rule) -> Rule:
            rules.update(dict.fromkeys(kinds, rule))
            return rule

        return enter

    return named


def contiguous(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    return tensor.permute(order).contiguous()
