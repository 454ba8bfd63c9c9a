"""NIR networks drawn at random, beside a simulation that writes out each primitive's equation in loops and float64."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from converters.read.from_nir import from_nir
from neuro.simulate import simulate

nir = pytest.importorskip("nir", reason="the nir package is needed to write what from_nir reads")

DT, STEPS, BATCH = 1e-4, 30, 2
CLOSE = 2e-4
"""Networks in which a membrane comes so near its threshold are left out: float32 may see it on the other side."""

Step = Callable[[np.ndarray], np.ndarray]


class Literal:
    """What a primitive does in one step, with its state; `near` remembers how near the threshold it ever came.

    Where the paper is silent as in `nir_units`: membranes start at v_leak, those of IF at v_reset, and a synaptic
    current drives the membrane in the step in which it changes.
    """

    def __init__(self, node: Any, features: tuple[int, ...]) -> None:
        self.node, self.features, self.near = node, features, np.inf
        self.state: dict[str, Any] = {}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return getattr(self, type(self.node).__name__.lower())(x)

    def field(self, name: str) -> np.ndarray:
        return np.broadcast_to(np.asarray(getattr(self.node, name), float), self.features)

    def held(self, name: str, start: np.ndarray) -> np.ndarray:
        return self.state.setdefault(name, np.broadcast_to(start, (BATCH, *self.features)).copy())

    def fired(self, v: np.ndarray) -> np.ndarray:
        theta = self.field("v_threshold")
        self.near = min(self.near, np.abs(v - theta).min())
        z = v > theta
        self.state["v"] = np.where(z, self.field("v_reset"), v)
        return z.astype(float)

    def membrane(self, x: np.ndarray, tau: str = "tau") -> np.ndarray:
        """tau dv/dt = (v_leak - v) + r x, by Euler."""
        v = self.held("v", self.field("v_leak"))
        return v + DT / self.field(tau) * (self.field("v_leak") - v + self.field("r") * x)

    def synapse(self, x: np.ndarray) -> np.ndarray:
        current = self.held("i", np.zeros(()))
        self.state["i"] = current + DT / self.field("tau_syn") * (self.field("w_in") * x - current)
        return self.state["i"]

    def lif(self, x: np.ndarray) -> np.ndarray:
        return self.fired(self.membrane(x))

    def li(self, x: np.ndarray) -> np.ndarray:
        self.state["v"] = self.membrane(x)
        return self.state["v"]

    def cubalif(self, x: np.ndarray) -> np.ndarray:
        return self.fired(self.membrane(self.synapse(x), "tau_mem"))

    def cubali(self, x: np.ndarray) -> np.ndarray:
        self.state["v"] = self.membrane(self.synapse(x), "tau_mem")
        return self.state["v"]

    def if_(self, x: np.ndarray) -> np.ndarray:
        return self.fired(self.held("v", self.field("v_reset")) + self.field("r") * x)

    def i(self, x: np.ndarray) -> np.ndarray:
        self.state["v"] = self.held("v", np.zeros(())) + self.field("r") * x
        return self.state["v"]

    def threshold(self, x: np.ndarray) -> np.ndarray:
        self.near = min(self.near, np.abs(x - self.field("threshold")).min())
        return (x > self.field("threshold")).astype(float)

    def delay(self, x: np.ndarray) -> np.ndarray:
        past = self.state.setdefault("past", [])
        past.append(x)
        late = np.round(self.field("delay") / DT).astype(int)
        found = np.zeros_like(x)
        for place in np.ndindex(self.features):
            if late[place] < len(past):
                found[(slice(None), *place)] = past[-1 - late[place]][(slice(None), *place)]
        return found

    def scale(self, x: np.ndarray) -> np.ndarray:
        return x * self.node.scale

    def linear(self, x: np.ndarray) -> np.ndarray:
        return x @ np.asarray(self.node.weight, float).T

    def affine(self, x: np.ndarray) -> np.ndarray:
        return self.linear(x) + self.node.bias

    def flatten(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(BATCH, -1)

    def windows(self, x: np.ndarray, kernel: tuple, stride: tuple, around: list, apart: tuple) -> Any:
        """(place, window of x) for every place of the kernel; x is padded by zeros."""
        padded = np.pad(x, ((0, 0), (0, 0), *around))
        counts = [
            (size - step_in * (k - 1) - 1) // step + 1
            for size, k, step, step_in in zip(padded.shape[2:], kernel, stride, apart, strict=True)
        ]
        for place in itertools.product(*map(range, counts)):
            cut = tuple(
                slice(at * step, at * step + step_in * (k - 1) + 1, step_in)
                for at, k, step, step_in in zip(place, kernel, stride, apart, strict=True)
            )
            yield place, counts, padded[(slice(None), slice(None), *cut)]

    def conv2d(self, x: np.ndarray) -> np.ndarray:
        weight, groups = np.asarray(self.node.weight, float), int(self.node.groups)
        kernel, count = weight.shape[2:], weight.ndim - 2
        each = lambda value: tuple(np.broadcast_to(value, count).tolist())
        stride, apart, pads = each(self.node.stride), each(self.node.dilation), self.node.padding
        if isinstance(pads, str):
            totals = [(k - 1) * step if pads == "same" else 0 for k, step in zip(kernel, apart, strict=True)]
            around = [(total // 2, total - total // 2) for total in totals]
        else:
            around = [(pad, pad) for pad in each(pads)]
        found = None
        per_in, per_out = weight.shape[1], weight.shape[0] // groups
        for place, counts, window in self.windows(x, kernel, stride, around, apart):
            if found is None:
                found = np.zeros((BATCH, weight.shape[0], *counts))
            for group in range(groups):
                into = slice(group * per_out, (group + 1) * per_out)
                part = window[:, group * per_in : (group + 1) * per_in].reshape(BATCH, -1)
                found[(slice(None), into, *place)] = part @ weight[into].reshape(per_out, -1).T + self.node.bias[into]
        return found

    conv1d = conv2d

    def sumpool2d(self, x: np.ndarray) -> np.ndarray:
        sizes = [tuple(int(value) for value in getattr(self.node, name)) for name in ("kernel_size", "stride")]
        around = [(int(pad), int(pad)) for pad in self.node.padding]
        found = None
        for place, counts, window in self.windows(x, *sizes, around, (1, 1)):
            if found is None:
                found = np.zeros((BATCH, x.shape[1], *counts))
            found[(slice(None), slice(None), *place)] = window.reshape(*x.shape[:2], -1).sum(-1)
        return found

    def avgpool2d(self, x: np.ndarray) -> np.ndarray:
        return self.sumpool2d(x) / np.prod(self.node.kernel_size)


class Drawer:
    def __init__(self, seed: int) -> None:
        self.draw, self.numbers = random.Random(seed), np.random.default_rng(seed)

    def some(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        return self.numbers.uniform(low, high, shape).astype(np.float32)

    def neuron(self, shape: tuple[int, ...], last: bool = False) -> Any:
        one = {
            "r": self.some(0.5, 12, shape), "v_leak": self.draw.choice((0, 1)) * self.some(-0.2, 0.2, shape),
        }  # fmt: skip
        fires = {
            "v_threshold": self.some(0.3, 1.2, shape),
            "v_reset": self.draw.choice((0, 1)) * self.some(-0.3, 0.2, shape),
        }
        tau, synapse = (
            self.some(4e-4, 3e-3, shape),
            {"tau_syn": self.some(3e-4, 2e-3, shape), "w_in": self.some(0.5, 6, shape)},
        )
        kind = self.draw.choice(("LIF", "CubaLIF", "IF", "LI", "CubaLI", "Threshold", "I"))
        match kind:
            case "LIF":
                return nir.LIF(tau=tau, **one, **fires)
            case "CubaLIF":
                return nir.CubaLIF(tau_mem=tau, **synapse, **one, **fires)
            case "IF":
                return nir.IF(r=self.some(0.2, 1, shape), **fires)
            case "LI":
                return nir.LI(tau=tau, **one)
            case "CubaLI":
                return nir.CubaLI(tau_mem=tau, **synapse, **one)
            case "Threshold":
                return nir.Threshold(self.some(0.1, 0.6, shape))
        return nir.I(r=self.some(0.05, 0.2, shape))

    def stateless(self, shape: tuple[int, ...]) -> Any:
        kinds = ["Scale", "Delay"]
        kinds += {1: ["Linear", "Affine"] * 2, 2: ["Conv1d"] * 3, 3: ["Conv2d", "SumPool2d", "AvgPool2d"] * 2}[
            len(shape)
        ]
        kind = self.draw.choice(kinds)
        if kind == "Scale":
            return nir.Scale(self.some(-1, 2, shape))
        if kind == "Delay":
            return nir.Delay(self.numbers.integers(0, 5, shape) * DT)
        if kind in ("Linear", "Affine"):
            weight = self.some(-0.5, 0.8, (4, shape[0]))
            return nir.Linear(weight) if kind == "Linear" else nir.Affine(weight, self.some(-0.1, 0.2, (4,)))
        if kind.endswith("Pool2d"):
            kernel = np.array([self.draw.randint(1, min(3, size)) for size in shape[1:]])
            stride, padding = self.numbers.integers(1, 3, 2), np.array([self.draw.randint(0, k // 2) for k in kernel])
            return getattr(nir, kind)(kernel, stride, padding)
        count = len(shape) - 1
        groups = self.draw.choice([size for size in (1, 2) if shape[0] % size == 0])
        kernel = tuple(self.draw.randint(1, min(3, size)) for size in shape[1:])
        stride: Any = tuple(self.draw.randint(1, 2) for _ in kernel)
        apart: Any = tuple(1 if k == size else self.draw.randint(1, max(1, (size - 1) // max(k - 1, 1)))
                           for k, size in zip(kernel, shape[1:], strict=True))  # fmt: skip
        apart = tuple(min(2, step) for step in apart)
        padding: Any = self.draw.choice((tuple(self.draw.randint(0, 2) for _ in kernel), "same", "valid"))
        stride = (1,) * count if padding == "same" else stride
        one = lambda value: value[0] if count == 1 and isinstance(value, tuple) else value
        weight = self.some(-0.4, 0.6, (4, shape[0] // groups, *kernel))
        make = nir.Conv1d if count == 1 else nir.Conv2d
        return make(None, weight, one(stride), one(padding), one(apart), groups, self.some(-0.1, 0.1, (4,)))


def drawn(seed: int) -> tuple[Any, list[Literal], tuple[int, ...], np.ndarray]:
    """A network, the same as literal steps, and what comes out for spikes that are drawn too."""
    made = Drawer(seed)
    shape = features = made.draw.choice(((5,), (2, 9), (2, 6, 5), (1, 5, 7)))
    x = (made.numbers.random((STEPS, BATCH, *shape)) < 0.4).astype(float)
    steps: list[Literal] = []
    for number in range(made.draw.randint(2, 5)):
        node = made.neuron(shape) if number % 2 else made.stateless(shape)
        steps.append(Literal(node, shape))
        shape = Literal(node, shape)(np.zeros((BATCH, *shape))).shape[1:]
    if len(shape) > 1 and made.draw.random() < 0.5:
        steps.append(Literal(nir.Flatten(np.array(shape), 0, -1), shape))
    outputs = []
    for value in x:
        for step in steps:
            value = step(value)
        outputs.append(value)
    names = [f"n{number}" for number in range(len(steps))]
    nodes = dict(zip(names, (step.node for step in steps), strict=True))
    edges = list(itertools.pairwise(["input", *names, "output"]))
    ends = {"input": nir.Input(np.array(features)), "output": nir.Output(np.array([], dtype=int))}
    if len(names) > 2 and made.draw.random() < 0.3:  # the middle as a graph of its own
        inner, middle = names[1:-1], {name: nodes.pop(name) for name in names[1:-1]}
        sub = nir.NIRGraph({**middle, **ends}, list(itertools.pairwise(["input", *inner, "output"])), type_check=False)
        nodes["inner"] = sub
        edges = list(itertools.pairwise(["input", names[0], "inner", names[-1], "output"]))
    return nir.NIRGraph({**nodes, **ends}, edges, type_check=False), steps, x.shape, np.stack(outputs)


# `if` is a word of Python, so its equation has another name.
setattr(Literal, "if", Literal.if_)


def test_random_networks_follow_their_equations() -> None:
    compared = fired = 0
    for seed in range(100):
        network, steps, shape, expected = drawn(seed)
        if min(step.near for step in steps) < CLOSE:
            continue
        graph = from_nir(network, dt=DT)
        made = Drawer(seed)
        made.draw.choice(((5,), (2, 9), (2, 6, 5), (1, 5, 7)))
        x = torch.from_numpy((made.numbers.random(shape) < 0.4).astype(np.float32))
        found = simulate(graph, x, record=["outputs"]).recordings["outputs"][graph.output].double().numpy()
        kinds = [type(step.node).__name__ for step in steps]
        assert found.shape == expected.shape, (seed, kinds)
        assert np.abs(found - expected).max() <= 1e-3 * max(1.0, np.abs(expected).max()), (seed, kinds)
        compared += 1
        fired += any(kind in ("LIF", "IF", "CubaLIF") for kind in kinds)
    assert compared > 30
    assert fired > 10
