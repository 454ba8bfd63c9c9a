"""Every kind of node, by family."""

from neuro.graph import Input, Node, Stateless
from neuro.nodes.activations import (
    Clamp,
    Dequantise,
    Dropout,
    Elementwise,
    LeakyReLU,
    Quantise,
    ReLU,
    Requantise,
    Softmax,
    Staircase,
)
from neuro.nodes.experts import Experts
from neuro.nodes.first_spike import RampFirstSpike
from neuro.nodes.linear import Affine, BatchNorm, Conv, Scale, Weighted
from neuro.nodes.merging import Add, Concat
from neuro.nodes.neurons import (
    IF,
    LI,
    LIF,
    Accumulate,
    CountThenFire,
    MaxCount,
    Neuron,
    Pulse,
    Readout,
    Spiking,
)
from neuro.nodes.pooling import AvgPool, MaxPool
from neuro.nodes.reshaping import Pad, Permute, Reshape, Slice

__all__ = [
    "IF", "LI", "LIF", "Accumulate", "Add", "Affine", "AvgPool", "BatchNorm", "Clamp", "Concat", "Conv",
    "CountThenFire", "Dequantise", "Dropout", "Elementwise", "Experts", "Input", "LeakyReLU", "MaxCount", "MaxPool",
    "Neuron", "Node", "Pad", "Permute", "Pulse", "Quantise", "RampFirstSpike", "ReLU", "Readout", "Requantise",
    "Reshape", "Scale", "Slice", "Softmax", "Spiking", "Staircase", "Stateless", "Weighted",
]  # fmt: skip
