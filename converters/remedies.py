"""What is known of a population beside its losses, and what would help against them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from converters.attribution import Seen, Units, response
from converters.legalise import is_activation
from neuro.graph import Graph
from neuro.nodes import Weighted

MOST_BITS = 8
"""Weights of more bits are not called coarse."""


@dataclass(frozen=True)
class Facts:
    """kind: of the neurons. largest: the largest activation wanted of them. top: the largest value they can send.
    at_limit: share of the active ones that are driven to their limit or beyond. strength: norm of the pre-activations
    received over that with the original weights. gain: how many thresholds a spike is worth (median). reset: what a
    spike leaves behind. rewritten: the weighted nodes before them with coarser weights than the original's, and their
    bits."""

    kind: str
    largest: float = 0.0
    top: float = float("inf")
    at_limit: float = 0.0
    strength: float = 1.0
    gain: float = 1.0
    reset: str = "subtract"
    rewritten: tuple[tuple[str, int], ...] = ()


def facts(plain: Graph, snn: Graph, name: str, units: Units, seen: Seen, steps: int | None) -> Facts:
    """The facts of one population on a batch."""
    node, largest = snn.nodes[name], float(seen.wanted.max())
    coarse = rewritten(plain, snn, plain.sources[name][0])
    found = response(node, units, seen, steps)
    if found is None:
        return Facts(node.kind, largest, rewritten=coarse)
    active = found.drive > 0
    at_limit = float((found.drive >= found.limit)[active].float().mean()) if bool(active.any()) else 0.0
    strength = float(found.z.double().norm() / seen.pre.double().norm().clamp(min=1e-30))
    slope = (found.drive * units.worth)[active] / found.z[active]
    gain = float(slope.median()) if slope.numel() else 1.0
    top = float((units.worth * found.limit).max())
    return Facts(node.kind, largest, top, at_limit, strength, gain, getattr(node, "reset", "subtract"), coarse)


def rewritten(plain: Graph, snn: Graph, start: str) -> tuple[tuple[str, int], ...]:
    """The weighted nodes between `start` and the activations before it that got coarser weights, and their bits."""
    found, waiting = [], [start]
    while waiting:
        name = waiting.pop()
        before, after = plain.nodes[name], snn.nodes.get(name)
        if isinstance(before, Weighted) and isinstance(after, Weighted):
            pairs = zip(_bits(after.weight), _bits(before.weight), strict=True)
            coarse = [now for now, was in pairs if now < was and now <= MOST_BITS]
            if coarse:
                found.append((name, min(coarse)))
        if not is_activation(before):
            waiting.extend(plain.sources[name])
    return tuple(dict.fromkeys(found))


def _bits(weight: Tensor) -> tuple[int, ...]:
    """Bits of signed weights: on one grid, on one for each row, on one for each column (spikes of unlike worth)."""
    rows = weight.double().flatten(1)
    columns = weight.double().transpose(0, 1).flatten(1)
    return tuple(_grid_bits(lines) for lines in (rows.reshape(1, -1), rows, columns))


def _grid_bits(lines: Tensor) -> int:
    """The largest weight of a line over its smallest gap, in bits with a sign; 32 where they stand on no grid."""
    size = torch.cat([lines.abs(), torch.zeros(len(lines), 1)], 1)
    size = size / size.amax(1, keepdim=True).clamp(min=1e-30)
    gaps = size.sort(1).values.diff(dim=1)
    levels = size / gaps.where(gaps > 1e-5, 1.0).amin(1, keepdim=True)
    on_grid = (levels - levels.round()).abs() < 0.02
    return (2 * int(levels.max().round())).bit_length() if float(on_grid.double().mean()) > 0.9 else 32


def remedy(cause: str, known: Facts) -> str:
    """One sentence: what the cause is here, and what to do."""
    if cause == "clipping":
        return (
            f"it can send {known.top:.3g} at most, the largest value is {known.largest:.3g}; "
            "raise its threshold (a higher percentile)"
        )
    if cause == "saturation":
        stuck = f"{100 * known.at_limit:.0f} % of its active neurons are driven to their limit"
        if known.strength > 1.5:
            return (
                f"{stuck}, by {known.strength:.3g} times the current of the original; make the weights before smaller"
            )
        if known.gain > 1.1:
            cost = f"each spike costs {1 / known.gain:.3g} of its worth"
            return f"{stuck}, {cost}; raise its threshold {known.gain:.3g} times"
        return (
            f"{stuck}, {known.top:.3g}, its largest value is {known.largest:.3g}; "
            f"raise its threshold {known.largest / known.top:.3g} times"
        )
    if cause == "threshold":
        move = "lower" if known.gain < 1 else "raise"
        return (
            f"its spikes count {known.gain:.3g} times what they take from the membrane; {move} its threshold "
            f"{max(known.gain, 1 / max(known.gain, 1e-9)):.3g} times, or the weights behind it"
        )
    if cause == "quantisation":
        if known.largest < 0.5 * known.top:
            used = 100 * known.largest / known.top
            return f"its values use {used:.0f} % of the {known.top:.3g} it can send; lower its threshold"
        if known.reset == "zero":
            return "a reset to zero drops what lies above the threshold; reset by subtraction"
        return "its values fall between the counts; more steps or levels"
    if cause == "unevenness":
        return "its input arrives unevenly; more steps, or neurons that integrate before they fire (Exact)"
    if cause == "weights":
        if known.rewritten:
            few = " and ".join(f"{name!r} ({bits} bits)" for name, bits in known.rewritten)
            return f"coarse weights in {few}; give them more bits"
        return f"its pre-activation differs ({known.strength:.3g} times the norm); use the weights of the original"
    return f"losses of {known.kind} neurons are not told apart here; compare with another recipe"
