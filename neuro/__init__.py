"""Describe, simulate, train and count spiking and other networks."""

from neuro import modules, report
from neuro.files import load, save
from neuro.graph import Graph, Node
from neuro.network import Network
from neuro.simulate import Run, simulate
from neuro.trace import trace

__all__ = ["Graph", "Network", "Node", "Run", "load", "modules", "report", "save", "simulate", "trace"]
