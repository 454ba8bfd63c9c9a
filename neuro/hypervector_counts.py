"""What encoders of hypervectors did. Importing this teaches `neuro.counts.tally`.

A bind of -1 and 1 is an exclusive-or of two bits that chooses the sign with which a bundle adds: one addition for each
place and dimension, as wide as the sum. The exclusive-or itself is not counted. Bits are read a byte at a time.
"""

from __future__ import annotations

import math

from neuro.counts import Tally, Traffic, tally
from neuro.graph import Shape
from neuro.nodes import IDLevel, Sign, Sine
from neuro.nodes.hyperdimensional import BIPOLAR_BITS


@tally.register
def _(node: IDLevel, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    """Every feature is multiplied once to find its level; its id and level are read, and bound sums stay in place."""
    presented = traffic[0].presentations
    features, dimensions = node.ids.shape
    bytes_read = math.ceil(2 * features * dimensions / BIPOLAR_BITS)
    return Tally(
        additions=features * dimensions * presented,
        multiplications=features * presented,
        weight_words=bytes_read * presented,
        activation_words=(features + dimensions) * presented,
    )


@tally.register
def _(node: Sign, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    return Tally(comparisons=math.prod(output) * traffic[0].presentations)


@tally.register
def _(node: Sine, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    return Tally(exponentials=math.prod(output) * traffic[0].presentations)
