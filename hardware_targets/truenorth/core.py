"""What a core is: its size and field widths (`CoreShape`, values of a chip file) and its contents (`Cores`, arrays)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuro.errors import ParameterError, ShapeError

Overflow = Literal["saturate", "wrap", "none"]
INT16 = (-(1 << 15), (1 << 15) - 1)
WORKING = (-(1 << 29), (1 << 29) - 1)  # leaves room for one tick of input in 32 bits


@dataclass(frozen=True)
class CoreShape:
    """Sizes and ranges of one core; every number comes from a chip file. Ranges are inclusive (low, high).

    Fields: numbers of axons, neurons, axon types; ranges of weights, leak, alpha, beta, reset value, potential; what a
    potential
    outside its range does; range of the delay in ticks (1 = next tick); reset modes; width of the threshold mask M in
    bits
    (0: no stochastic modes); whether kappa (floor) and epsilon (leak reversal) exist; whether the negative threshold
    is crossed
    at equality; cores per chip (x, y).
    """

    axons: int = 256
    neurons: int = 256
    axon_types: int = 4
    weight: tuple[int, int] = (-255, 255)
    leak: tuple[int, int] = (-255, 255)
    alpha: tuple[int, int] = (0, (1 << 18) - 1)
    beta: tuple[int, int] = (0, (1 << 18) - 1)
    reset: tuple[int, int] = (-((1 << 18) - 1), (1 << 18) - 1)
    potential: tuple[int, int] = (-(1 << 19), (1 << 19) - 1)
    overflow: Overflow = "saturate"
    delay: tuple[int, int] = (1, 15)
    reset_modes: int = 3
    mask_bits: int = 18
    floor: bool = True
    reversal: bool = True
    inclusive: bool = False
    chip: tuple[int, int] = (64, 64)

    def __post_init__(self) -> None:
        for name in ("axons", "neurons", "axon_types"):
            value = getattr(self, name)
            if not 1 <= value <= 4096:
                raise ParameterError(f"CoreShape: {name} must be 1..4096, got {value}")
        if self.axon_types > 255:
            raise ParameterError(f"CoreShape: axon_types must be at most 255, got {self.axon_types}")
        limits = {"weight": INT16, "leak": INT16, "delay": (1, 255)}
        for name in ("weight", "leak", "alpha", "beta", "reset", "potential", "delay"):
            low, high = getattr(self, name)
            least, most = limits.get(name, WORKING)
            if not least <= low <= high <= most:
                raise ParameterError(f"CoreShape: {name} must lie in {least}..{most}, got {low}..{high}")
        if self.overflow not in ("saturate", "wrap", "none"):
            raise ParameterError(f"CoreShape: overflow must be saturate, wrap or none, got {self.overflow!r}")
        if self.overflow == "wrap":
            low, high = self.potential
            if low != -(high + 1) or (high + 1) & high:
                raise ParameterError(f"CoreShape: wrap needs a two's complement range, got {low}..{high}")
        if not 0 <= self.mask_bits <= 24 or not 1 <= self.reset_modes <= 3:
            raise ParameterError(
                f"CoreShape: mask_bits must be 0..24 and reset_modes 1..3, got {self.mask_bits}, {self.reset_modes}"
            )

    @property
    def stochastic(self) -> bool:
        """Whether synapses, leak and thresholds may be drawn."""
        return self.mask_bits > 0


# CoreShape field -> entries of a chip file that give it: one entry, or a (low, high) or (x, y) pair of entries
ENTRIES: dict[str, tuple[str, ...]] = {
    "axons": ("axons_per_core",),
    "neurons": ("neurons_per_core",),
    "axon_types": ("axon_types",),
    "chip": ("mesh_width", "mesh_height"),
    "delay": ("delay_min", "delay_max"),
    **{name: (f"{name}_min", f"{name}_max") for name in ("weight", "leak", "alpha", "beta", "reset", "potential")},
    **{name: (name,) for name in ("overflow", "reset_modes", "mask_bits", "floor", "reversal", "inclusive")},
}


def shape_from(chip: Mapping[str, Any]) -> CoreShape:
    """The tables `limits` and `arithmetic` of a parsed chip file -> CoreShape. Raises ParameterError naming what is
    missing.

    Entries are plain values, or tables or objects with a `value`; `reset_modes` lists the modes that exist.
    """
    entries = {**chip.get("limits", {}), **chip.get("arithmetic", {})}
    missing = [name for names in ENTRIES.values() for name in names if name not in entries]
    if missing:
        raise ParameterError(f"chip file: a TrueNorth-like core needs {', '.join(missing)}; see chips/truenorth.toml")

    def value(name: str) -> Any:
        entry = entries[name]
        return entry["value"] if isinstance(entry, Mapping) else getattr(entry, "value", entry)

    values: dict[str, Any] = {
        name: value(at[0]) if len(at) == 1 else (value(at[0]), value(at[1])) for name, at in ENTRIES.items()
    }
    values["reset_modes"] = len(values["reset_modes"])
    return CoreShape(**values)


@dataclass(frozen=True, eq=False)
class Cores:
    """Contents of C cores of one shape (A axons, N neurons, G axon types). Arrays may broadcast along C and N (size 1).

    crossbar: (C, A, N) bool, or (C, A, ceil(N / 64)) uint64 with neuron j at bit j % 64 of word j // 64
    axon_types: (C, A) in 0..G-1;  weights: (C, N, G);  leak, alpha, beta, reset: (C, N) [weight units]
    mode: (C, N) reset mode gamma;  floor: (C, N) kappa;  reversal: (C, N) epsilon;  v: (C, N) initial potential
    stochastic_weights: (C, N, G) b;  stochastic_leak: (C, N) c;  mask: (C, N) M = 2^TM - 1, 0 for a fixed threshold
    """

    crossbar: NDArray[Any]
    axon_types: NDArray[Any]
    weights: NDArray[Any]
    leak: NDArray[Any]
    alpha: NDArray[Any]
    beta: NDArray[Any]
    reset: NDArray[Any]
    mode: NDArray[Any]
    floor: NDArray[Any]
    v: NDArray[Any]
    reversal: NDArray[Any]
    stochastic_weights: NDArray[Any]
    stochastic_leak: NDArray[Any]
    mask: NDArray[Any]

    @property
    def count(self) -> int:
        """Number of cores C."""
        return int(self.crossbar.shape[0])


def make_cores(
    shape: CoreShape,
    crossbar: Any,
    axon_types: Any,
    weights: Any,
    *,
    alpha: Any,
    leak: Any = 0,
    beta: Any = 0,
    reset: Any = 0,
    mode: Any = 0,
    floor: Any = False,
    v: Any = 0,
    reversal: Any = False,
    stochastic_weights: Any = False,
    stochastic_leak: Any = False,
    mask: Any = 0,
) -> Cores:
    """Check every value against the shape and make `Cores`. Scalars and arrays that broadcast are accepted (see
    `Cores`).

    Raises ParameterError (value outside its field) or ShapeError (array of the wrong size), naming the field.
    """
    bars = np.asarray(crossbar)
    words = -(-shape.neurons // 64)
    last = words if bars.dtype == np.uint64 else shape.neurons
    if bars.ndim != 3 or bars.shape[1:] != (shape.axons, last):
        raise ShapeError(f"cores: crossbar must be (cores, {shape.axons}, {last}), got {bars.shape}")
    count = bars.shape[0]

    def field(name: str, value: Any, dims: tuple[int, ...], low: int, high: int) -> NDArray[Any]:
        array = np.asarray(value)
        if array.dtype.kind not in "biu":
            raise ParameterError(f"cores: {name} must be integers, got {array.dtype}")
        while array.ndim < len(dims):
            array = array[None]
        if array.ndim > len(dims) or any(have not in (1, want) for have, want in zip(array.shape, dims, strict=True)):
            raise ShapeError(f"cores: {name} must broadcast to {dims}, got {array.shape}")
        if array.size and not (low <= int(array.min()) and int(array.max()) <= high):
            raise ParameterError(f"cores: {name} must lie in {low}..{high}, got {int(array.min())}..{int(array.max())}")
        return array

    per_neuron, per_weight = (count, shape.neurons), (count, shape.neurons, shape.axon_types)
    stochastic = int(shape.stochastic)
    made = Cores(
        crossbar=bars if bars.dtype == np.uint64 else field("crossbar", bars, bars.shape, 0, 1).astype(bool),
        axon_types=field("axon_types", axon_types, (count, shape.axons), 0, shape.axon_types - 1),
        weights=field("weights", weights, per_weight, *shape.weight),
        leak=field("leak", leak, per_neuron, *shape.leak),
        alpha=field("alpha", alpha, per_neuron, *shape.alpha),
        beta=field("beta", beta, per_neuron, *shape.beta),
        reset=field("reset", reset, per_neuron, *shape.reset),
        mode=field("reset mode", mode, per_neuron, 0, shape.reset_modes - 1),
        floor=field("floor", floor, per_neuron, 0, int(shape.floor)),
        v=field("initial potential", v, per_neuron, *(WORKING if shape.overflow == "none" else shape.potential)),
        reversal=field("leak reversal", reversal, per_neuron, 0, int(shape.reversal)),
        stochastic_weights=field("stochastic weights", stochastic_weights, per_weight, 0, stochastic),
        stochastic_leak=field("stochastic leak", stochastic_leak, per_neuron, 0, stochastic),
        mask=field("threshold mask", mask, per_neuron, 0, (1 << shape.mask_bits) - 1),
    )
    if np.any(made.mask & (made.mask + 1)):
        raise ParameterError("cores: threshold mask must be 2^TM - 1 (0, 1, 3, 7, ...)")
    if np.any(made.floor.astype(bool) & (made.alpha < -made.beta)):
        raise ParameterError("cores: a neuron with a floor needs alpha >= -beta")
    return made
