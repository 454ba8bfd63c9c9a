"""Where every neuron lives on a chip, what every core spends, and which limits are broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hardware_targets.chip import Chip
from neuro.errors import ParameterError, ShapeError
from neuro.shown import Sheet, Shown

NETWORK = "(whole network)"
RESOURCES = {
    "neurons": "neurons_per_core",
    "in_axons": "in_axons_per_core",
    "out_axons": "out_axons_per_core",
    "memory_bits": "synapse_memory_bits",
    "synapse_formats": "synapse_formats",
    "threshold_formats": "threshold_formats",
    "neuron_formats": "neuron_formats",
}
"""What a core spends, and the limit of the chip that bounds it; the last three only where the chip says so."""
REMEDIES = {
    "neurons": "use a chip whose cores hold a neuron",
    "in_axons": "give the neurons fewer sources: smaller kernels, groups, or a pruned layer",
    "out_axons": "let the neurons reach fewer cores: fewer channels or neurons in the next layer",
    "memory_bits": "use fewer bits per weight, prune the layer, or give its neurons fewer sources",
    "synapse_formats": "let fewer connections end at the layer",
    "threshold_formats": "let neurons share thresholds",
    "neuron_formats": "let neurons share decays",
    "fan_in": "give the neurons fewer sources: smaller kernels, groups, or a pruned layer",
    "cores": "use fewer neurons or weights, fewer bits per weight, or more chips (limits.chips)",
    "weight_bits": "quantise to fewer bits",
    "weight_exp": "rescale the weights",
    "delay": "shorten the path that waits, or add a layer to it",
    "graded_spike_bits": "send binary spikes, or use a chip with graded spikes",
    "reset": "convert with a reset that the chip has: --reset zero, RateCode(reset='zero')",
}


@dataclass(frozen=True)
class Violation:
    """One broken limit: the layer (and core, where known), what it needs, what there is, and what may help."""

    layer: str
    core: int | None
    resource: str
    needed: float | str
    available: float | str
    remedy: str

    def __str__(self) -> str:
        where = self.layer if self.core is None else f"{self.layer} on core {self.core}"
        needed, available = (f"{x:,}" if isinstance(x, int | float) else x for x in (self.needed, self.available))
        return f"{where}: {self.resource} {needed} needed, {available} available; {self.remedy}"


@dataclass(frozen=True, eq=False)
class Slice:
    """Neurons (indices, ascending) of a population on one core. `bound_by` names the resource that allowed no more."""

    population: str
    neurons: NDArray[np.int64]
    bound_by: str = ""

    def __str__(self) -> str:
        first, last = int(self.neurons[0]), int(self.neurons[-1])
        whole = last - first + 1 == len(self.neurons)
        return f"{self.population}[{first}:{last + 1}]" if whole else f"{len(self.neurons)} of {self.population}"


@dataclass(frozen=True, eq=False)
class Core:
    """A core in use: its number on the chip, its slices, and how much of every resource they take."""

    number: int
    slices: tuple[Slice, ...]
    used: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Placement(Shown):
    """Where every neuron lives. `reach[part]` (size, cores in use) is True where a spike of a neuron or input goes.

    The cores of a chip are numbered row by row over the tiles of the mesh (`cores_per_tile` on each), chips side by
    side. Inputs enter at tile (0, 0) of the first.
    """

    chip: Chip
    cores: tuple[Core, ...]
    reach: Mapping[str, NDArray[np.bool_]] = field(repr=False)

    @cached_property
    def homes(self) -> Mapping[str, NDArray[np.int64]]:
        """The number of the core of every neuron by population, (size,); -1 for inputs."""
        homes = {name: np.full(len(reach), -1) for name, reach in self.reach.items()}
        for core in self.cores:
            for piece in core.slices:
                homes[piece.population][piece.neurons] = core.number
        return homes

    @cached_property
    def tiles(self) -> NDArray[np.int64]:
        """Column and row of the tile of every core in use, (cores, 2)."""
        return tiles_of(self.chip, np.array([core.number for core in self.cores], np.int64))

    @cached_property
    def distances(self) -> Mapping[str, NDArray[np.int64]]:
        """Tile hops east-west plus north-south that one spike of each neuron causes, over all cores it goes to."""
        found = {}
        for name, reach in self.reach.items():
            home = self.homes[name]
            found[name] = np.zeros(len(reach), np.int64)
            for number in np.unique(home):
                start = tiles_of(self.chip, np.array([max(number, 0)]))
                away = np.abs(self.tiles - start).sum(1)
                found[name][home == number] = reach[home == number] @ away
        return found

    def packets(self, spikes: Mapping[str, ArrayLike]) -> int:
        """Packets that `spikes` cause, {part: spikes of every neuron (size,)}: one per spike and core it goes to."""
        return sum(int(self._per_neuron(name, fired) @ self.reach[name].sum(1)) for name, fired in spikes.items())

    def hops(self, spikes: Mapping[str, ArrayLike]) -> int:
        """Tile hops of those packets, dimension-ordered and without multicast."""
        return sum(int(self._per_neuron(name, fired) @ self.distances[name]) for name, fired in spikes.items())

    def _per_neuron(self, name: str, fired: ArrayLike) -> NDArray[np.int64]:
        if name not in self.reach:
            raise ParameterError(f"the placement has no {name!r}; it has {', '.join(self.reach)}")
        counts = np.asarray(fired)
        if counts.shape != (len(self.reach[name]),):
            raise ShapeError(f"spikes of {name!r} must be ({len(self.reach[name])},), got {counts.shape}")
        return counts.astype(np.int64)

    def rows(self) -> list[tuple[str, ...]]:
        """Core, its slices, and used / available of every limited resource."""
        limits = core_limits(self.chip)
        return [
            (
                str(core.number),
                ", ".join(map(str, core.slices)),
                *(f"{core.used[name]:,} / {limit:,}" for name, limit in limits.items()),
            )
            for core in self.cores
        ]

    @property
    def title(self) -> str:
        total = self.chip.limit("cores") * self.chip.limit("chips")
        return f"{len(self.cores)} of {total} cores of {self.chip.title}"

    def sheet(self) -> Sheet:
        note = "Inputs enter at tile (0, 0); a spike is one packet for every core that it goes to."
        return self.title, ("core", "neurons of", *core_limits(self.chip)), self.rows(), (note,)


def tiles_of(chip: Chip, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Column and row of the tiles of cores, (cores, 2); columns run on from chip to chip."""
    width, height = chip.limit("mesh_width"), chip.limit("mesh_height")
    which, core = np.divmod(numbers, chip.limit("cores"))
    row, column = np.divmod(core // chip.limit("cores_per_tile"), width)
    if row.size and row.max() >= height:
        raise ParameterError(f"chip {chip.name!r}: its mesh of {width} x {height} tiles does not hold its cores")
    return np.stack([column + which * width, row], 1)


def core_limits(chip: Chip) -> dict[str, int]:
    """What one core offers of every resource that the chip bounds."""
    optional = ("synapse_formats", "threshold_formats", "neuron_formats")
    return {
        name: chip.limit(limit) for name, limit in RESOURCES.items() if name not in optional or limit in chip.limits
    }
