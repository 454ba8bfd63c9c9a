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
    Sigmoid,
    Softmax,
    Staircase,
    Tanh,
)
from neuro.nodes.corrected import Corrected, MaxCountAgain, OffsetIF, ResidualIF
from neuro.nodes.diffractive import Diffractive
from neuro.nodes.euler import IAF, BoxLIF, CurrentLI, CurrentLIF, Euler
from neuro.nodes.experts import Experts
from neuro.nodes.first_spike import RampFirstSpike
from neuro.nodes.graded import Delta, Differences, GradedIF, GradedSpiking, Sigma, SigmaDeltaReLU
from neuro.nodes.hyperdimensional import IDLevel, Sign, Sine
from neuro.nodes.linear import Affine, BatchNorm, Conv, ConvTranspose, Scale, Weighted
from neuro.nodes.merging import Add, Concat
from neuro.nodes.neurons import (
    IF,
    LI,
    LIF,
    Accumulate,
    AdaptiveLIF,
    CountThenFire,
    MaxCount,
    Neuron,
    Pulse,
    Readout,
    Spiking,
)
from neuro.nodes.photonic import MeshAffine, ScatteredIntensity
from neuro.nodes.pooling import AvgPool, MaxPool
from neuro.nodes.quantum import QuantumCircuit
from neuro.nodes.recurrent import Delay, Recurrent
from neuro.nodes.reshaping import Pad, Permute, Reshape, Slice
from neuro.nodes.synaptic import Alpha, Decaying, Leaky, Synaptic
from neuro.nodes.timed import EarliestWins, LatencyCode, TimedLIF, TimeToFirstSpike

__all__ = [
    "IAF", "IF", "LI", "LIF", "Accumulate", "AdaptiveLIF", "Add", "Affine", "Alpha", "AvgPool", "BatchNorm",
    "BoxLIF", "Clamp", "Concat", "Conv", "ConvTranspose", "Corrected", "CountThenFire", "CurrentLI", "CurrentLIF",
    "Decaying", "Delay", "Delta", "Dequantise", "Differences", "Diffractive", "Dropout", "EarliestWins",
    "Elementwise", "Euler", "Experts", "GradedIF", "GradedSpiking", "IDLevel", "Input", "LatencyCode", "Leaky",
    "LeakyReLU", "MaxCount", "MaxCountAgain", "MaxPool", "MeshAffine", "Neuron", "Node", "OffsetIF", "Pad",
    "Permute", "Pulse", "Quantise", "QuantumCircuit", "RampFirstSpike", "ReLU", "Readout", "Recurrent", "Requantise",
    "Reshape", "ResidualIF", "Scale", "ScatteredIntensity", "Sigma", "SigmaDeltaReLU", "Sigmoid", "Sign", "Sine",
    "Slice", "Softmax", "Spiking", "Staircase", "Stateless", "Synaptic", "Tanh", "TimeToFirstSpike", "TimedLIF",
    "Weighted",
]  # fmt: skip
