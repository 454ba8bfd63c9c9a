"""From plain integrate-and-fire populations to those that correct their run for every sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from converters.convert import apply
from neuro.errors import ParameterError
from neuro.flow import lead
from neuro.graph import Graph
from neuro.nodes import IF, Corrected, MaxCount, MaxCountAgain, Neuron, Readout
from neuro.rewrite import Builder, rebuild


def with_corrections(
    base: object, plain: Graph, calibration: Tensor | None, corrected: Callable[[IF], Corrected], why: str
) -> Graph:
    """The spiking network of the recipe `base` with `corrected(population)` in the place of every IF population.

    Where the whole network has a warm-up, counts of max-pools begin anew after it and the read-out begins then. Raises
    ParameterError where `base` gives other neurons than IF with reset "subtract".
    """
    snn = apply(base, plain, calibration)
    others = sorted(
        {
            node.kind if not isinstance(node, IF) else f"IF with reset {node.reset!r}"
            for node in snn.nodes.values()
            if isinstance(node, Neuron)
            and not isinstance(node, Readout | MaxCount)
            and not (isinstance(node, IF) and node.reset == "subtract")
        }
    )
    if others or not any(isinstance(node, IF) for node in snn.nodes.values()):
        found = ", ".join(others) or "no neurons"
        raise ParameterError(
            f"base={base!r} gives {found}; corrections need IF with reset 'subtract', e.g. of RateCode()"
        )

    def rule(builder: Builder, name: str) -> object:
        node = snn.nodes[name]
        if not isinstance(node, IF):
            return builder.keep(name)
        new = corrected(node)
        builder.note(name, "IF", new.kind, why)
        return builder.keep(name, new)

    return _after_warmup(rebuild(snn, rule))


def _after_warmup(snn: Graph) -> Graph:
    """Max-pools and read-out as the warm-up of the whole network asks for."""
    warmup = lead(snn)
    if not warmup:
        return snn

    def rule(builder: Builder, name: str) -> object:
        node = snn.nodes[name]
        if isinstance(node, MaxCount):
            node = MaxCountAgain(node.kernel, node.stride, node.padding, node.ceil, warmup)
        elif isinstance(node, Readout):
            node = replace(node, start=node.start + warmup)
        return builder.keep(name, node)

    return rebuild(snn, rule)
