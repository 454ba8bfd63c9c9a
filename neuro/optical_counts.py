"""What light did, and what converters and digital logic did around it. Importing this teaches `neuro.counts.tally`.

Not counted, because no symbol causes it: keeping a laser on between inputs, and writing the phases.
"""

from __future__ import annotations

import math

from neuro.counts import Tally, Traffic, tally
from neuro.graph import Shape
from neuro.nodes import Diffractive, MeshAffine, ScatteredIntensity


def _photons(per_mac: float | None, macs: int) -> int:
    """Light without shot noise has no number of photons and counts none."""
    return 0 if per_mac is None else round(per_mac * macs)


@tally.register
def _(node: MeshAffine, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    """Every input enters each row of tiles, every tile's outputs are read; partial sums, offset and bias are digital.

    With shot noise, W~ is W without its offset: min(W) sum(x) is added to every output, and counts are scaled.
    """
    symbols = traffic[0].presentations * math.prod(output[:-1])
    rows, columns = node.gain.shape
    macs = node.inputs * node.outputs * symbols
    additions = node.outputs * (columns - 1 + (node.bias is not None))
    noisy = node.photons is not None
    return Tally(
        additions=symbols * (additions + (node.inputs - 1 + node.outputs if noisy else 0)),
        multiplications=symbols * (node.outputs + 1 if noisy else 0),
        activation_words=symbols * (node.inputs + node.outputs),
        optical_macs=macs,
        photons=_photons(node.photons, macs),
        modulations=symbols * rows * node.inputs,
        detections=symbols * columns * node.outputs,
        phase_symbols=symbols * (node.phases.numel() + node.input_phases.numel()),
    )


@tally.register
def _(node: ScatteredIntensity, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    """The medium holds itself: no phase needs power."""
    symbols = traffic[0].presentations
    macs = node.inputs * node.outputs * symbols
    return Tally(
        activation_words=symbols * (node.inputs + node.outputs),
        optical_macs=macs,
        photons=_photons(node.photons, macs),
        modulations=symbols * node.inputs,
        detections=symbols * node.outputs,
    )


@tally.register
def _(node: Diffractive, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    """Layers are printed and need no power; each of their points multiplies once. Diffraction itself is not counted."""
    symbols = traffic[0].presentations
    pixels = math.prod(traffic[0].shape)
    return Tally(
        activation_words=symbols * (pixels + node.classes),
        optical_macs=symbols * node.phase.numel(),
        photons=_photons(node.photons, symbols * pixels),
        modulations=symbols * pixels,
        detections=symbols * node.classes,
    )
