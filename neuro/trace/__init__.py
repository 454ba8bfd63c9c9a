"""A torch module becomes a Graph: exported (torch.export, else torch.fx), translated by rules, checked."""

from neuro.trace.leaves import register
from neuro.trace.tracer import trace

__all__ = ["register", "trace"]
