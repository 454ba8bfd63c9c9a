"""A small variational quantum classifier, its twin without entanglement, and a classical network on the same inputs.

Principal components become angles, a circuit of strongly entangling layers turns them, and a linear read-out takes <Z>
of every qubit. Both controls are asked for by Bowles et al. 2024 (arXiv 2403.07059 [recalled]). The circuit is
simulated, here and while it learns, so its energy is unknown. Training runs through our own state vectors, which torch
differentiates: a step of PennyLane's TorchLayer on default.qubit takes about four times as long (8 qubits, 3 layers,
100 samples). PennyLane is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor, nn

from neuro.baselines.class_vectors import chain
from neuro.baselines.rival import Build, Plan, Rival, Trained
from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.evaluate import evaluate
from neuro.graph import Graph, Node
from neuro.nodes import Affine, QuantumCircuit, Tanh
from neuro.nodes.quantum import expectations, measured, probabilities
from neuro.training import accuracy, fit

QUBITS = 8
LAYERS = 3
SHOTS = 1000
SAMPLES = 4000
"""Training samples that are used at most: a simulated circuit is slow."""

SPREAD = 0.3
"""Deviation of the angles, in radians: wider ones learn worse on MNIST's validation part."""

RATE = 0.06
"""Learning rate of AdamW, for circuits and control alike."""


def principal_angles(x: Tensor, count: int) -> Affine:
    """The first principal components of x (N, features), each with deviation `SPREAD` on x: angles in radians.

    Raises ParameterError for more components than features or samples.
    """
    if not 1 <= count <= min(x.shape):
        raise ParameterError(f"principal_angles: {count} components of {len(x)} samples with {x.shape[1]} features")
    mean = x.double().mean(0)
    _, scale, directions = torch.linalg.svd(x.double() - mean, full_matrices=False)
    deviation = (scale[:count] / len(x) ** 0.5).clamp(min=1e-9)
    weight = SPREAD * directions[:count] / deviation[:, None]
    weight *= weight.gather(1, weight.abs().argmax(1, keepdim=True)).sign()  # a direction has no sign of its own
    return Affine(weight.float(), -(weight @ mean).float())


class Circuit(nn.Module):
    """Angles (batch, qubits) -> <Z> (batch, qubits)."""

    def __init__(self, layers: int, qubits: int, entangle: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(2 * torch.pi * torch.rand(layers, qubits, 3))
        self.entangle = entangle
        self.outputs = qubits

    def forward(self, x: Tensor) -> Tensor:
        return expectations(probabilities(x, self.weight, self.entangle))

    def nodes(self) -> dict[str, Node]:
        return {"circuit": QuantumCircuit(self.weight.detach().clone(), self.entangle)}


class Hidden(nn.Module):
    """A layer of tanh that stores about as many numbers as a circuit, its read-out included."""

    def __init__(self, inputs: int, classes: int, layers: int) -> None:
        super().__init__()
        self.outputs = max(1, round((3 * layers * inputs + inputs * classes) / (inputs + 1 + classes)))
        self.linear = nn.Linear(inputs, self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).tanh()

    def nodes(self) -> dict[str, Node]:
        return {
            "hidden": Affine(self.linear.weight.detach().clone(), self.linear.bias.detach().clone()),
            "tanh": Tanh(),
        }


def _quantum(title: str, middle: Callable[[int, int], Circuit | Hidden]) -> Build:
    def build(data: Split, seed: int, plan: Plan) -> Trained:
        classes, count = len(data.classes), min(QUBITS, prod(data.features))
        generator = torch.Generator().manual_seed(seed)
        few = torch.randperm(len(data.train_x), generator=generator)[:SAMPLES]
        angles = principal_angles(data.train_x[few].flatten(1), count)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            part = middle(count, classes)
            readout = nn.Linear(part.outputs, classes)
            module = nn.Sequential(part, readout)
        settings = {**plan.training(seed), "optimizer": "adamw", "learning_rate": RATE, "augment": None}
        entering = [angles.forward(x.flatten(1)) for x in (data.train_x[few], data.validation_x)]
        validation = (entering[1], data.validation_y)
        fit(module, (entering[0], data.train_y[few]), validation=validation, **settings)
        scores = Affine(readout.weight.detach().clone(), readout.bias.detach().clone())
        graph = chain(title, data.features, {"angles": angles, **part.nodes(), "scores": scores})
        right = accuracy(graph, data.validation_x, data.validation_y)
        learnt = sum(tensor.numel() for tensor in module.parameters())
        facts: dict[str, float] = {"parameters_trained": learnt}
        note = f"{count} principal components; {learnt} trained numbers."
        if isinstance(part, Hidden):
            return Trained(graph, right, (note,), facts)
        shots = with_shots(graph, data.validation_x, SHOTS, generator).argmax(1) == data.validation_y
        facts |= {f"validation_{SHOTS}_shots": float(shots.double().mean()), "gates": _circuit(graph)[1].gates}
        read = f"With {SHOTS:,} shots {100 * facts[f'validation_{SHOTS}_shots']:.1f} % on validation."
        return Trained(graph, right, (note, read), facts)

    return build


def _circuit(graph: Graph) -> tuple[str, QuantumCircuit]:
    """The one circuit of a graph, and its name; ParameterError where there is not one."""
    found = [(name, node) for name, node in graph.nodes.items() if isinstance(node, QuantumCircuit)]
    if len(found) != 1:
        raise ParameterError(f"with_shots: {graph.name!r} has {len(found)} circuits; exactly one is measured")
    return found[0]


@torch.no_grad()
def with_shots(graph: Graph, x: Tensor, shots: int, generator: torch.Generator) -> Tensor:
    """Scores (batch, classes) of a graph with one circuit whose <Z> are means of `shots` measurements.

    x (batch, *features). Raises ParameterError where the graph has no circuit.
    """
    place, circuit = _circuit(graph)
    (before,) = graph.sources[place]
    seen: dict[str, Tensor] = {}
    evaluate(graph, x, observe=lambda name, value: seen.update({name: value}) if name == before else None)
    z = torch.cat(
        [
            measured(probabilities(part, circuit.weight.double(), circuit.entangle), shots, generator).float()
            for part in seen[before].double().split(200)
        ]
    )
    later = list(graph.nodes)[list(graph.nodes).index(place) + 1 :]
    return evaluate(chain(graph.name, (circuit.qubits,), {name: graph.nodes[name] for name in later}), z)


ROWS: Mapping[str, Rival] = {
    name: Rival(title, _quantum(title, middle), family=family)
    for name, family, title, middle in (
        ("quantum", "quantum", "quantum circuit", lambda count, classes: Circuit(LAYERS, count, True)),
        ("quantum-plain", "quantum", "quantum, not entangled", lambda count, classes: Circuit(LAYERS, count, False)),
        ("quantum-control", "dense", "quantum, classical control", lambda count, out: Hidden(count, out, LAYERS)),
    )
}
