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

    Unselected experts do no work. With k = 1 this is Switch routing: Fedus et al. 2021 (arXiv 2101.03961), eq. 1-2.
    `renormalise`: the p of the selected are divided by their sum, which makes the softmax over the top k of Shazeer et
    al. 2017 (arXiv 1701.06538), eq. 3. `selection_bias` (experts,): selected are the top k of p + bias, still weighed
    by p: routing balanced without a loss, Wang et al. 2024 (arXiv 2408.15664) [recalled].
    """

    router: Graph
    experts: tuple[Graph, ...]
    k: int = 1
    renormalise: bool = False
    selection_bias: Tensor | None = None

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
        bias = self.selection_bias
        if bias is not None and bias.shape != (len(self.experts),):
            raise ParameterError(
                f"Experts: selection_bias must have shape ({len(self.experts)},), got {tuple(bias.shape)}"
            )

    @property
    def parameters(self) -> int:
        stored = sum(graph.parameters for graph in self.experts)
        return stored + self.router.parameters + sum(tensor.numel() for _, tensor in self.tensors())

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

        probabilities = torch.softmax(evaluate(self.router, x), dim=1)
        wanted = probabilities if self.selection_bias is None else probabilities + self.selection_bias
        chosen = wanted.topk(self.k, dim=1).indices
        gates = probabilities.gather(1, chosen)
        return gates / gates.sum(1, keepdim=True) if self.renormalise else gates, chosen

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
