"""What a quantum circuit did: gates, which no table prices. Importing this teaches `neuro.counts.tally`."""

from __future__ import annotations

from neuro.counts import Tally, Traffic, tally
from neuro.graph import Shape
from neuro.nodes import QuantumCircuit


@tally.register
def _(node: QuantumCircuit, traffic: tuple[Traffic, ...], output: Shape) -> Tally:
    """One run of the circuit for each sample; a real one runs once for each shot. What simulates it is not counted."""
    return Tally(quantum_gates=node.gates * traffic[0].presentations)
