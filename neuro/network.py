"""The torch.nn.Module of a Graph: the same nodes, with weights that learn."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.errors import UnsupportedNode
from neuro.evaluate import evaluate
from neuro.graph import Graph, Input, Node, Stateless
from neuro.nodes import BatchNorm, Dropout, Scale, Weighted

STATISTICS = ("mean", "var")
"""Fields of BatchNorm that are measured, not learnt."""


class Network(nn.Module):
    """A module with the function of `graph`: `network(x)` takes (batch, *features) and gives (batch, *outputs).

    Parameters are all floating-point tensors of the nodes; the statistics of batch norms are buffers; integers stay as
    they are. In training mode, batch norms use and follow the statistics of the batch (momentum 0.1) and dropout drops,
    as in torch. `torch.autocast` around a call lets weighted nodes and scales compute in its precision. Raises
    UnsupportedNode for graphs with neurons: training through time is not there yet.

    A tensor is called as its node, with "/" for ".", then "/" and the field: "layer1/0/conv1/weight".
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        foreign = [f"{n.kind} {name!r}" for name, n in graph.nodes.items() if not isinstance(n, Stateless | Input)]
        if foreign:
            raise UnsupportedNode(
                f"{graph.name!r} holds neurons ({', '.join(foreign[:3])}); Network trains graphs without: "
                "train before the conversion, e.g. with converters.QCFS"
            )
        _ = graph.output, graph.targets  # known before the first copy, so that every copy has them
        self._frozen = graph
        self._places: dict[str, tuple[tuple[str, str], ...]] = {}
        for name, node in graph.nodes.items():
            learnt = [(item, tensor) for item, tensor in node.tensors() if tensor.is_floating_point()]
            self._places[name] = tuple((item, self._key(name, item)) for item, _ in learnt)
            for (item, key), (_, tensor) in zip(self._places[name], learnt, strict=True):
                own = tensor.detach().clone()
                if isinstance(node, BatchNorm) and item in STATISTICS:
                    self.register_buffer(key, own)
                else:
                    self.register_parameter(key, nn.Parameter(own))

    def _key(self, name: str, item: str) -> str:
        """A name that torch allows: no dots, and no attribute of the module, which "/" rules out."""
        key, number = f"{name.replace('.', '/')}/{item}", 2
        while key in self._parameters or key in self._buffers:
            key, number = f"{name.replace('.', '/')}_{number}/{item}", number + 1
        return key

    @property
    def graph(self) -> Graph:
        """The graph with the weights of this moment, on their own; ParameterError where they left their domain."""

        def own(name: str) -> dict[str, Tensor]:
            return {item: t.detach().clone(memory_format=torch.contiguous_format) for item, t in self._tensors(name)}

        return self._frozen.edit(nodes={name: replace(node, **own(name)) for name, node in self._frozen.nodes.items()})

    def live(self) -> Graph:
        """The graph whose tensors are the parameters themselves: gradients flow through it into this module.

        In training mode and under autocast its nodes are those of that mode. Not checked: checks read all weights back.
        """
        graph = copy.copy(self._frozen)
        nodes = {name: self._live(name, node) for name, node in self._frozen.nodes.items()}
        graph.__dict__["nodes"] = MappingProxyType(nodes)
        return graph

    def forward(self, x: Tensor) -> Tensor:
        return evaluate(self.live(), x)

    def _tensors(self, name: str) -> list[tuple[str, Tensor]]:
        return [(item, getattr(self, key)) for item, key in self._places[name]]

    def _live(self, name: str, node: Node) -> Node:
        """The node with the tensors that learn in place of its own."""
        if self.training and isinstance(node, Dropout):
            return _Dropping(node.p)
        tensors = self._tensors(name)
        if not tensors:
            return node
        kind = _Normalising if self.training and isinstance(node, BatchNorm) else type(node)
        if isinstance(node, Weighted | Scale) and torch.is_autocast_enabled(tensors[0][1].device.type):
            # Weighted nodes take their input to the type of the weights.
            narrow = torch.get_autocast_dtype(tensors[0][1].device.type)
            tensors = [(item, tensor.to(narrow)) for item, tensor in tensors]
        live = object.__new__(kind)
        live.__dict__.update(node.__dict__ | dict(tensors))
        return live

    def extra_repr(self) -> str:
        return "\n".join(f"{name}: {_described(node)}" for name, node in self._frozen.nodes.items())


class _Normalising(BatchNorm):
    """Batch norm with the statistics of the batch; its own follow them."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.batch_norm(inputs[0], self.mean, self.var, self.weight, self.bias, training=True, eps=self.eps)


class _Dropping(Dropout):
    def forward(self, *inputs: Tensor) -> Tensor:
        return F.dropout(inputs[0], self.p, training=True)


def _described(node: Node) -> str:
    values = {item.name: getattr(node, item.name) for item in fields(node)}
    shown = {name: tuple(v.shape) if isinstance(v, Tensor) else v for name, v in values.items()}
    return f"{node.kind}({', '.join(f'{name}={value}' for name, value in shown.items())})"
