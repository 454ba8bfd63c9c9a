"""What a slice of a population takes of one core: axons, synapse memory, formats.

Rules of the Loihi family (Davies 2018, IEEE Micro 38(1), p. 89; memory layout as in nengo-loihi). A core pays one input
axon per source neuron that reaches it, and one output axon per pair of its neuron and a core that the neuron reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hardware_targets.chip import Chip
from hardware_targets.demand import Demand, Kernel, Link, Population
from hardware_targets.placement import Slice


def list_bits(synapses: NDArray[np.int64], bits: int, chip: Chip) -> int:
    """Memory of one synapse list per source: blocks of synapses, each with a header and rounded up to words.

    nengo-loihi 1.1, SynapseConfig.bits_per_axon.
    """
    block, header, word = (chip.limit(name) for name in ("block_synapses", "block_header_bits", "word_bits"))
    full, rest = np.divmod(synapses, block)
    whole = -(-(block * bits + header) // word) * word
    part = -(-(rest * bits + header) // word) * word
    return int((full * whole + np.where(rest > 0, part, 0)).sum())


def link_bits(link: Link, synapses: NDArray[np.int64], targets: NDArray[np.int64], chip: Chip) -> int:
    """Synapse memory of a link's part into `targets`, given the synapses there of every source.

    The cheaper of two lists per source: every target in order, or the existing ones with an index. Where the chip
    shares kernels, a convolution stores its kernel once per core and one word per source.
    """
    weight = min((bits for bits in chip.choices("weight_bits") if bits >= link.weight_bits), default=link.weight_bits)
    bits = weight + link.delay.bit_length()
    reached = synapses[synapses > 0]
    if isinstance(link.reach, Kernel) and chip.limits["shared_kernels"].value:
        return link.reach.stored_weights(targets) * bits + reached.size * chip.limit("word_bits")
    needed = max(len(targets) - 1, 1).bit_length()
    index = min((b for b in chip.limits["index_bits"].items if b >= needed), default=needed)
    indexed = list_bits(reached, bits + index, chip)
    ordered = list_bits(np.full(reached.size, len(targets)), bits, chip)
    return min(indexed, ordered)


@dataclass(frozen=True, eq=False)
class CoreNeeds:
    """What a slice of one population takes of a core; `copies` (size,): cores that each neuron's spikes go to."""

    demand: Demand
    population: Population
    chip: Chip
    copies: NDArray[np.int64] | None = None

    def of(self, neurons: NDArray[np.int64]) -> dict[str, int]:
        used = {"neurons": len(neurons), "memory_bits": len(neurons) * self.chip.limit("neuron_memory_bits")}
        used["synapse_formats"] = 0
        sources: dict[str, NDArray[np.bool_]] = {}
        for link in self.demand.into(self.population.name):
            synapses = link.reach.synapses(neurons)
            if synapses.any():
                used["synapse_formats"] += 1
                used["memory_bits"] += link_bits(link, synapses, neurons, self.chip)
                sources[link.source] = sources.get(link.source, False) | (synapses > 0)
        used["in_axons"] = sum(int(mask.sum()) for mask in sources.values())
        used["out_axons"] = 0 if self.copies is None else int(self.copies[neurons].sum())
        used["threshold_formats"] = len(np.unique(self.population.thresholds[neurons]))
        used["neuron_formats"] = 1
        return used


def reached_sources(demand: Demand, piece: Slice) -> dict[str, NDArray[np.bool_]]:
    """Which neurons of which parts send to a slice."""
    found: dict[str, NDArray[np.bool_]] = {}
    for link in demand.into(piece.population):
        mask = link.reach.synapses(piece.neurons) > 0
        found[link.source] = found[link.source] | mask if link.source in found else mask
    return found
