"""Networks inside a network, of which only some work on a sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuro.errors import ParameterError, ShapeError
from neuro.graph import Graph, Shape, Stateless


@dataclass(frozen=True, eq=False)
class Experts(Stateless):
    """y = sum over the top k of p_e(x) E_e(x), with p = softmax(router(x)).

    Unselected experts do no work. With k = 1 this is Switch routing: Fedus et al. 2021 (arXiv 2101.03961), eq. 1-2; the
    gate is not renormalised over the selected experts.
    """

    router: Graph
    experts: tuple[Graph, ...]
    k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= len(self.experts):
            raise ParameterError(f"Experts: k must lie in 1..{len(self.experts)}, got {self.k}")
        if self.router.shapes[self.router.output] != (len(self.experts),):
            raise ShapeError(
                f"Experts: the router gives {self.router.shapes[self.router.output]} scores "
                f"for {len(self.experts)} experts"
            )
        if len({graph.shapes[graph.output] for graph in self.experts}) != 1:
            raise ShapeError("Experts: all experts must have one output shape")

    @property
    def parameters(self) -> int:
        return self.router.parameters + sum(graph.parameters for graph in self.experts)

    def output_shape(self, *shapes: Shape) -> Shape:
        for graph in (self.router, *self.experts):
            (entry,) = graph.inputs
            if graph.shapes[entry] != shapes[0]:
                raise ShapeError(f"Experts: {graph.name!r} takes {graph.shapes[entry]}, not features of {shapes[0]}")
        first = self.experts[0]
        return first.shapes[first.output]

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gate values and expert numbers of each sample, both (batch, k)."""
        from neuro.evaluate import evaluate

        gates, chosen = torch.softmax(evaluate(self.router, x), dim=1).topk(self.k, dim=1)
        return gates, chosen

    def forward(self, *inputs: Tensor) -> Tensor:
        from neuro.evaluate import evaluate

        (x,) = inputs
        gates, chosen = self.route(x)
        y = x.new_zeros(x.shape[0], *self.output_shape(tuple(x.shape[1:])))
        for number, expert in enumerate(self.experts):
            rows, slot = (chosen == number).nonzero(as_tuple=True)
            if rows.numel():
                gate = gates[rows, slot].reshape(-1, *(1,) * (y.ndim - 1))
                y = y.index_add(0, rows, gate * evaluate(expert, x[rows]))
        return y
