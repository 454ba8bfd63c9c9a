"""From populations to the kernels that step them."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import numpy as np

from hardware_targets.loihi import neuron_kernels as kernels
from hardware_targets.loihi.graded import Delta, GradedVector, Product, Sigma, SigmaDelta
from hardware_targets.loihi.populations import DECAY_UNITY, Neurons, Population
from hardware_targets.loihi.resonators import PhaseVector, Resonator


class LoweredNeurons(NamedTuple):
    """A kernel of `neuron_kernels` and its constants."""

    kernel: Callable[..., int]
    constants: tuple[object, ...]


@singledispatch
def lower_neurons(population: Neurons) -> LoweredNeurons:
    """The kernel of one population."""
    raise NotImplementedError(type(population).__name__)


@lower_neurons.register
def _(population: Population) -> LoweredNeurons:
    keep = np.uint32(DECAY_UNITY - population.du - 1), np.uint32(DECAY_UNITY - population.dv)
    subtract = population.reset == "subtract"
    if population.plain:
        return LoweredNeurons(kernels.lif, (*keep, population.bias, population.threshold, subtract))
    periods = population.refractory, population.reset_interval, population.reset_offset
    levels = population.bias, population.threshold, population.low_threshold
    return LoweredNeurons(kernels.lif_in_full, (*keep, *levels, subtract, *periods))


@lower_neurons.register
def _(population: Sigma) -> LoweredNeurons:
    return LoweredNeurons(kernels.sigma, ())


@lower_neurons.register
def _(population: Delta) -> LoweredNeurons:
    constants = population.threshold, population.scale, population.state_exp, population.cum_error
    return LoweredNeurons(kernels.delta, constants)


@lower_neurons.register
def _(population: SigmaDelta) -> LoweredNeurons:
    rectify = population.activation == "relu"
    constants = population.threshold, population.raised_bias, rectify, population.state_exp, population.cum_error
    return LoweredNeurons(kernels.sigma_delta, constants)


@lower_neurons.register
def _(population: GradedVector) -> LoweredNeurons:
    return LoweredNeurons(kernels.graded_vector, (population.vth, population.rectify))


@lower_neurons.register
def _(population: Product) -> LoweredNeurons:
    return LoweredNeurons(kernels.product, (population.vth, population.exp))


@lower_neurons.register
def _(population: Resonator) -> LoweredNeurons:
    constants = (
        population.cosine, population.sine, population.decay_bits, population.state_exp, population.threshold,
        population.fires == "phase",
    )  # fmt: skip
    return LoweredNeurons(kernels.resonator, constants)


@lower_neurons.register
def _(population: PhaseVector) -> LoweredNeurons:
    return LoweredNeurons(kernels.phase_vector, (population.cosine, population.sine, population.vth))
