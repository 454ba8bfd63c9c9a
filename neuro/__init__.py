"""Describe, simulate, train and count spiking and other networks."""

from neuro import report
from neuro.files import load, save
from neuro.graph import Graph, Node
from neuro.network import Network
from neuro.simulate import Run, simulate
from neuro.trace import trace

__all__ = ["Graph", "Network", "Node", "Run", "load", "report", "save", "simulate", "trace"]
