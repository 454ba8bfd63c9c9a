"""Fused kernels of the neuron equations, and the choice between them."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from neuro.dynamics import State
from neuro.errors import ParameterError
from neuro.kernels import counting, cpu, reference
from neuro.nodes import Neuron

Kernel = Literal["auto", "reference", "numba", "events"]
"""reference: plain torch. numba: populations fused over time. events: synapses follow the spikes too wherever they can.
auto: they do where spikes are few."""


def run_steps(
    node: Neuron, state: State, current: Tensor, steps: int, keep: bool = False, kernel: Kernel = "auto"
) -> tuple[State, Tensor, Tensor | None]:
    """Advance a population by `steps` with the chosen kernel; the contract is `neuro.kernels.reference.run_steps`."""
    if kernel not in ("auto", "reference", "numba", "events"):
        raise ParameterError(f"kernel must be 'auto', 'reference' or 'numba', got {kernel!r}")
    if kernel != "reference" and cpu.supports(node, current):
        return cpu.run_steps(node, state, current, steps, keep)  # type: ignore[arg-type]
    if kernel != "reference" and counting.supports(node, current):
        return counting.run_steps(node, state, current, steps, keep)  # type: ignore[arg-type]
    return reference.run_steps(node, state, current, steps, keep)
