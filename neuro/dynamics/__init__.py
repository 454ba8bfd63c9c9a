"""Every neuron equation, once: `rest` gives the state before the first step, `step` advances it by one.

One file per family of `neuro.nodes`.
"""

from neuro.dynamics import corrected, euler, graded, neurons, recurrent, synaptic
from neuro.dynamics.state import Fire, State, hard, rest, step

__all__ = [
    "Fire", "State", "corrected", "euler", "graded", "hard", "neurons", "recurrent", "rest", "step", "synaptic",
]  # fmt: skip
