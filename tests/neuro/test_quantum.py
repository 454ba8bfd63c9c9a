"""The variational circuit: PennyLane's numbers from our state vectors, shots, no price, and the three rivals."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuro import datasets
from neuro.baselines.quantum import LAYERS, QUBITS, ROWS, SPREAD, principal_angles, with_shots
from neuro.baselines.rival import Plan, Trained
from neuro.datasets import Split
from neuro.errors import MissingPrice, ParameterError, ShapeError
from neuro.evaluate import evaluate
from neuro.files import load, save
from neuro.graph import Graph, Input
from neuro.nodes import Quantise, QuantumCircuit
from neuro.nodes.quantum import expectations, measured, probabilities
from neuro.simulate import simulate
from neuro.training import accuracy

PLAN = Plan(epochs=6)


@pytest.fixture(scope="module")
def digits() -> Split:
    return datasets.load("digits")


@pytest.fixture(scope="module")
def trained(digits: Split) -> dict[str, Trained]:
    return {name: row.build(digits, 0, PLAN) for name, row in ROWS.items()}


@pytest.fixture(scope="module")
def pennylane() -> ModuleType:
    return pytest.importorskip("pennylane", reason="PennyLane is not installed: pip install 'neuro-snn[quantum]'")


def random_circuit(layers: int, qubits: int, entangle: bool, seed: int) -> tuple[QuantumCircuit, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = 2 * math.pi * torch.rand(layers, qubits, 3, generator=generator, dtype=torch.float64)
    x = 3 * torch.randn(4, qubits, generator=generator, dtype=torch.float64)
    return QuantumCircuit(weight, entangle), x


@pytest.mark.parametrize(("layers", "qubits"), [(1, 1), (2, 2), (4, 3), (3, 5)])
def test_the_circuit_is_pennylanes(pennylane: ModuleType, layers: int, qubits: int) -> None:
    node, x = random_circuit(layers, qubits, True, qubits)

    @pennylane.qnode(pennylane.device("default.qubit", wires=qubits))
    def peer(angles: Tensor) -> list[object]:
        pennylane.AngleEmbedding(angles, wires=range(qubits))
        pennylane.StronglyEntanglingLayers(node.weight, wires=range(qubits))
        return [pennylane.expval(pennylane.PauliZ(wire)) for wire in range(qubits)]

    expected = torch.stack([torch.stack([torch.as_tensor(value) for value in peer(angles)]) for angles in x])
    assert float((node.forward(x) - expected).abs().max()) < 1e-6


def test_gradients_are_pennylanes(pennylane: ModuleType) -> None:
    node, x = random_circuit(2, 3, True, 9)
    mine, theirs = (node.weight.clone().requires_grad_() for _ in range(2))

    @pennylane.qnode(pennylane.device("default.qubit", wires=3), diff_method="backprop")
    def peer(weight: Tensor) -> object:
        pennylane.AngleEmbedding(x[0], wires=range(3))
        pennylane.StronglyEntanglingLayers(weight, wires=range(3))
        return pennylane.expval(pennylane.PauliZ(1))

    peer(theirs).backward()
    expectations(probabilities(x[:1], mine, True))[0, 1].backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-6)


@given(st.integers(1, 3), st.integers(1, 6), st.booleans(), st.integers(0, 1000))
def test_the_state_stays_normalised(layers: int, qubits: int, entangle: bool, seed: int) -> None:
    node, x = random_circuit(layers, qubits, entangle, seed)
    outcomes = probabilities(x, node.weight, entangle)
    assert outcomes.shape == (4, 2**qubits)
    assert torch.allclose(outcomes.sum(1), torch.ones(4, dtype=torch.float64))
    assert float(expectations(outcomes).abs().max()) <= 1 + 1e-9
    assert torch.allclose(node.forward(x), torch.cat([node.forward(row[None]) for row in x]), atol=1e-12)


@given(st.integers(2, 6), st.integers(0, 1000))
def test_without_entanglement_qubits_do_not_know_each_other(qubits: int, seed: int) -> None:
    """RX(x) and then any Rot give <Z> = cos(theta) cos(x) - sin(theta) sin(phi) sin(x), qubit by qubit."""
    node, x = random_circuit(1, qubits, False, seed)
    phi, theta, _ = node.weight[0].unbind(-1)
    expected = theta.cos() * x.cos() - theta.sin() * phi.sin() * x.sin()
    assert torch.allclose(node.forward(x), expected, atol=1e-10)
    other = x.clone()
    other[:, 1:] += 1
    assert torch.allclose(node.forward(other)[:, 0], node.forward(x)[:, 0], atol=1e-10)
    joined = replace(node, entangle=True)
    assert not torch.allclose(joined.forward(other)[:, 0], joined.forward(x)[:, 0], atol=1e-4)


def test_what_ten_qubits_take() -> None:
    """Check 12: 16,384 bytes of complex128, 60 parameters at two layers."""
    node = QuantumCircuit(torch.zeros(2, 10, 3))
    assert node.state_bytes == 16_384
    assert node.parameters == 60
    assert node.gates == 10 + 2 * 10 + 2 * 10
    state = torch.zeros(2**10, dtype=torch.complex128)
    assert state.numel() * state.element_size() == node.state_bytes
    assert torch.allclose(node.forward(torch.zeros(1, 10)), torch.ones(1, 10)), "nothing turns: all stay |0>"


def test_shots_are_binomial() -> None:
    """The mean of n shots has deviation sqrt((1 - <Z>^2) / n)."""
    node, x = random_circuit(2, 3, True, 4)
    outcomes = probabilities(x[:1], node.weight, True)
    exact = expectations(outcomes)
    generator = torch.Generator().manual_seed(0)
    seen = measured(outcomes.expand(2000, -1), 100, generator)
    expected = ((1 - exact.square()) / 100).sqrt()
    assert torch.allclose(seen.mean(0), exact[0], atol=0.01)
    assert torch.allclose(seen.std(0), expected[0], rtol=0.06)
    assert set((100 * seen + 100).round().long().flatten().tolist()) <= set(range(0, 201, 2))


def test_every_row_learns_on_the_same_inputs(trained: dict[str, Trained], digits: Split) -> None:
    graphs = {name: found.graph for name, found in trained.items()}
    for name, found in trained.items():
        assert found.validation_accuracy == accuracy(found.graph, digits.validation_x, digits.validation_y) > 0.5, name
        angles = found.graph.nodes["angles"]
        assert torch.equal(angles.weight, graphs["quantum"].nodes["angles"].weight)
    circuit = graphs["quantum"].nodes["circuit"]
    assert isinstance(circuit, QuantumCircuit)
    assert (circuit.layers, circuit.qubits, circuit.entangle) == (LAYERS, QUBITS, True)
    assert not graphs["quantum-plain"].nodes["circuit"].entangle
    sizes = [found.facts["parameters_trained"] for found in trained.values()]
    assert max(sizes) < 1.1 * min(sizes)


def test_circuits_have_no_price(trained: dict[str, Trained], digits: Split, tmp_path: Path) -> None:
    from hardware_targets import price
    from hardware_targets.price import tables
    from neuro.baselines.compressed import stored_words

    x = digits.test_x[:20]
    for name in ("quantum", "quantum-plain"):
        found = trained[name]
        save(found.graph, tmp_path / "graph.h5")
        assert torch.allclose(evaluate(load(tmp_path / "graph.h5"), x), evaluate(found.graph, x), atol=1e-5)
        counts = simulate(found.graph, x).counts
        assert counts.per_sample("quantum_gates") == found.facts["gates"]
        assert ROWS[name].family == "quantum", "of which the report says that it is simulated"
        for table in ("45nm", "h100"):
            with pytest.raises(MissingPrice, match="quantum_gates"):
                price(counts, table)
        for table in tables():  # chips refuse the sums first, a processor of integers all real numbers
            with pytest.raises((MissingPrice, ParameterError), match=r"quantum_gates|macs|precision"):
                price(counts, table, stored_words=stored_words(found.graph))
    counts = simulate(trained["quantum-control"].graph, x).counts
    assert price(counts, "45nm").per_sample > 0


def test_many_shots_decide_as_the_exact_circuit(trained: dict[str, Trained], digits: Split) -> None:
    graph, x = trained["quantum"].graph, digits.validation_x[:60]
    exact = evaluate(graph, x)
    found = [with_shots(graph, x, shots, torch.Generator().manual_seed(1)) for shots in (30, 3000)]
    few, many = ((scores - exact).square().mean().sqrt() for scores in found)
    assert 6 < few / many < 16, "ten times closer with a hundred times the shots"
    assert float((found[1].argmax(1) == exact.argmax(1)).double().mean()) > 0.85


def test_the_rows_learn_without_pennylane(monkeypatch: pytest.MonkeyPatch, trained: dict, digits: Split) -> None:
    monkeypatch.setitem(sys.modules, "pennylane", None)
    again = ROWS["quantum-plain"].build(digits, 0, PLAN)
    assert torch.equal(evaluate(again.graph, digits.test_x), evaluate(trained["quantum-plain"].graph, digits.test_x))


def test_principal_angles_have_one_deviation(digits: Split) -> None:
    x = digits.train_x.flatten(1)
    y = principal_angles(x, 5).forward(x)
    assert torch.allclose(y.mean(0), torch.zeros(5), atol=1e-4)
    assert torch.allclose(y.T @ y / len(y), SPREAD**2 * torch.eye(5), atol=1e-3)
    with pytest.raises(ParameterError, match="components"):
        principal_angles(x, 65)


def test_refusals() -> None:
    for shape in ((2, 3), (2, 3, 2), (0, 3, 3)):
        with pytest.raises(ParameterError, match="layers, qubits, 3"):
            QuantumCircuit(torch.zeros(shape))
    with pytest.raises(ParameterError, match="at most 12 qubits"):
        QuantumCircuit(torch.zeros(1, 13, 3))
    with pytest.raises(ShapeError, match="3 qubits"):
        Graph({"x": Input((4,)), "q": QuantumCircuit(torch.zeros(1, 3, 3))}, {"q": ("x",)})
    whole = {"x": Input((3,)), "i": Quantise(1.0, 0, 9), "q": QuantumCircuit(torch.zeros(1, 3, 3))}
    with pytest.raises(ShapeError, match="real numbers"):
        Graph(whole, {"i": ("x",), "q": ("i",)})
    with pytest.raises(ParameterError, match="a shot or more"):
        measured(torch.ones(1, 2), 0, torch.Generator())
    with pytest.raises(ParameterError, match="0 circuits"):
        with_shots(Graph({"x": Input((4,))}, {}), torch.zeros(1, 4), 10, torch.Generator())
