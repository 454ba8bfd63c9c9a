"""A variational quantum circuit, simulated exactly: all amplitudes are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Shape, Stateless

MOST_QUBITS = 12
AMPLITUDE_BYTES = 16
_AT_ONCE = 1 << 21
"""Amplitudes of all samples that are simulated together."""


@dataclass(frozen=True, eq=False)
class QuantumCircuit(Stateless):
    """y_i = <Z_i> after the circuit on |0...0>: RX(x_i) on qubit i, then layers of rotations and of CNOTs.

    weight (layers, qubits, 3) holds phi, theta and omega of Rot = RZ(omega) RY(theta) RZ(phi), in radians, as x; y in
    [-1, 1]. With `entangle`, CNOTs follow in layer l: from every qubit i, in order, to i + (l mod (qubits - 1)) + 1
    (modulo qubits). Schuld et al. 2020 (PRA 101, 032308), fig. 4 [recalled]; AngleEmbedding and
    StronglyEntanglingLayers of PennyLane. At most 12 qubits; the state takes 16 bytes for each of 2^qubits amplitudes.
    """

    weight: Tensor
    entangle: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = tuple(self.weight.shape)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or not self.weight.is_floating_point():
            raise ParameterError(f"QuantumCircuit: weight must be real of shape (layers, qubits, 3), got {shape}")
        if self.qubits > MOST_QUBITS:
            raise ParameterError(f"QuantumCircuit: at most {MOST_QUBITS} qubits can be simulated, got {self.qubits}")

    @property
    def layers(self) -> int:
        return self.weight.shape[0]

    @property
    def qubits(self) -> int:
        return self.weight.shape[1]

    @property
    def state_bytes(self) -> int:
        """Memory of the state of one sample, in complex numbers of twice 64 bits."""
        return AMPLITUDE_BYTES * 2**self.qubits

    @property
    def gates(self) -> int:
        """Gates that one run of the circuit applies: embedding, rotations, CNOTs."""
        cnots = self.layers * self.qubits if self.entangle and self.qubits > 1 else 0
        return self.qubits + self.layers * self.qubits + cnots

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if shape != (self.qubits,):
            raise ShapeError(f"QuantumCircuit: {self.qubits} qubits cannot take features of shape {shape}")
        return shape

    def output_dtype(self, *dtypes: torch.dtype) -> torch.dtype:
        if not dtypes[0].is_floating_point:
            raise ShapeError("QuantumCircuit: angles are real numbers; put a Dequantise node before it")
        return dtypes[0]

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        parts = x.double().split(max(1, _AT_ONCE >> self.qubits))
        found = [expectations(probabilities(part, self.weight.double(), self.entangle)) for part in parts]
        return torch.cat(found).to(x.dtype)


def probabilities(x: Tensor, weight: Tensor, entangle: bool) -> Tensor:
    """Probabilities (batch, 2^qubits) of the outcomes, qubit 0 the highest bit; x (batch, qubits), see QuantumCircuit.

    Differentiable in x and weight.
    """
    state = _embedded(x)
    for layer, angles in enumerate(weight):
        for qubit, gate in enumerate(_rotations(angles)):
            parts = state.unflatten(1, (2**qubit, 2, -1))
            state = torch.einsum("ij,bajc->baic", gate, parts).flatten(1)
        if entangle and len(angles) > 1:
            state = state[:, _entangled(len(angles), layer % (len(angles) - 1) + 1)]
    return state.real.square() + state.imag.square()


def _embedded(x: Tensor) -> Tensor:
    """The product state of RX(x_i)|0> = cos(x_i / 2)|0> - i sin(x_i / 2)|1>, (batch, 2^qubits)."""
    single = torch.stack([torch.complex(c := (x / 2).cos(), torch.zeros_like(c)), -1j * (x / 2).sin()], -1)
    state = single[:, 0]
    for qubit in range(1, x.shape[1]):
        state = (state[:, :, None] * single[:, qubit, None]).flatten(1)
    return state


def _rotations(angles: Tensor) -> Tensor:
    """RZ(omega) RY(theta) RZ(phi) of every qubit, (qubits, 2, 2); angles (qubits, 3)."""
    phi, theta, omega = angles.unbind(-1)
    cos, sin = (theta / 2).cos(), (theta / 2).sin()
    half, rest = torch.exp(0.5j * (phi + omega)), torch.exp(0.5j * (phi - omega))
    rows = [cos * half.conj(), -sin * rest, sin * rest.conj(), cos * half]
    return torch.stack(rows, -1).unflatten(-1, (2, 2))


def _entangled(qubits: int, reach: int) -> Tensor:
    """For every basis state after CNOTs from each qubit i to (i + reach) mod qubits, in order, the one it came from."""
    source = torch.arange(2**qubits)
    for control in reversed(range(qubits)):
        target = (control + reach) % qubits
        source = source ^ ((source >> (qubits - 1 - control) & 1) << (qubits - 1 - target))
    return source


def expectations(outcomes: Tensor) -> Tensor:
    """<Z> of each qubit (batch, qubits) from the probabilities (batch, 2^qubits)."""
    qubits = outcomes.shape[1].bit_length() - 1
    return outcomes @ _signs(qubits).to(outcomes.dtype)


def _signs(qubits: int) -> Tensor:
    """Z of every qubit in every basis state: 1 for |0>, -1 for |1>; (2^qubits, qubits)."""
    bits = torch.arange(2**qubits)[:, None] >> torch.arange(qubits - 1, -1, -1) & 1
    return 1 - 2 * bits


def measured(outcomes: Tensor, shots: int, generator: torch.Generator) -> Tensor:
    """<Z> of each qubit as the mean of `shots` measurements of all qubits together, (batch, qubits)."""
    if shots < 1:
        raise ParameterError(f"measured: needs a shot or more, got {shots}")
    seen = torch.multinomial(outcomes, shots, replacement=True, generator=generator)
    qubits = outcomes.shape[1].bit_length() - 1
    return _signs(qubits).to(outcomes.dtype)[seen].mean(1)
