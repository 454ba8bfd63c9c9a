"""Magnitude pruning: the smallest weights of a trained network become zero and stay zero while the rest is tuned."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from neuro.datasets.split import Split
from neuro.errors import ParameterError
from neuro.training import History, Samples, fit

Network = TypeVar("Network", bound=nn.Module)
Masks = Mapping[str, Tensor]
"""For every pruned weight, by its name in the module, which of its elements stay (True)."""


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """What pruning acts on: trained parameters of two or more dimensions. Biases and norms are spared."""
    return {name: tensor for name, tensor in module.named_parameters() if tensor.ndim > 1 and tensor.requires_grad}


def sparsity(module: nn.Module) -> float:
    """Share of the weights (see `weights_of`) that are exactly zero."""
    weights = weights_of(module).values()
    return sum(int((weight == 0).sum()) for weight in weights) / max(sum(weight.numel() for weight in weights), 1)


def magnitude_masks(module: nn.Module, fraction: float = 0.9, *, scope: Literal["global", "layer"] = "global") -> Masks:
    """Masks that drop exactly round(fraction * n) of the n weights, those of smallest absolute value.

    "global" ranks all weights together, "layer" those of each layer; of equal magnitudes the first stored fall first.
    Han et al. 2015 (arXiv 1506.02626), sec. 3; the two scopes: Blalock et al. 2020 (arXiv 2003.03033). Raises
    ParameterError for a fraction outside [0, 1), a network without weights, or a layer that would lose all of them.
    """
    if not 0 <= fraction < 1:
        raise ParameterError(f"magnitude_masks: fraction must lie in [0, 1), got {fraction}")
    if scope not in ("global", "layer"):
        raise ParameterError(f"magnitude_masks: scope must be 'global' or 'layer', got {scope!r}")
    weights = {name: weight.detach().abs() for name, weight in weights_of(module).items()}
    if not weights:
        raise ParameterError(f"magnitude_masks: {type(module).__name__} has no weights that can be pruned")
    if scope == "layer":
        masks = {name: _largest(size.flatten(), fraction).view_as(size) for name, size in weights.items()}
    else:
        kept = _largest(torch.cat([size.flatten() for size in weights.values()]), fraction)
        pieces = kept.split([size.numel() for size in weights.values()])
        masks = {name: piece.view_as(size) for piece, (name, size) in zip(pieces, weights.items(), strict=True)}
    emptied = [name for name, mask in masks.items() if not bool(mask.any())]
    if emptied:
        raise ParameterError(f"magnitude_masks: {', '.join(emptied)} would lose all weights; prune less")
    return masks


def _largest(magnitudes: Tensor, fraction: float) -> Tensor:
    kept = torch.ones_like(magnitudes, dtype=torch.bool)
    kept[magnitudes.argsort(stable=True)[: round(fraction * magnitudes.numel())]] = False
    return kept


def nm_masks(module: nn.Module, n: int = 2, m: int = 4) -> Masks:
    """Masks that keep the n largest of every m neighbouring inputs of an output: n / m of the MACs, and an index of
    ceil(log2 m) bits with each weight. Mishra et al. 2021 (arXiv 2104.08378), sec. 2.1 [recalled]: 2:4.

    Neighbours lie along the second dimension; a weight whose size there is no multiple of m stays dense, and is not
    among the masks. Raises ParameterError unless 1 <= n < m, or where no weight can be masked.
    """
    if not 1 <= n < m:
        raise ParameterError(f"nm_masks: 1 <= n < m is needed, got {n}:{m}")
    masks = {}
    for name, weight in weights_of(module).items():
        if weight.shape[1] % m == 0:
            groups = weight.detach().abs().movedim(1, -1).unflatten(-1, (-1, m))
            rank = groups.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
            masks[name] = (rank < n).flatten(-2).movedim(-1, 1)
    if not masks:
        raise ParameterError(f"nm_masks: no weight of {type(module).__name__} has a multiple of {m} inputs")
    return masks


def apply_masks(module: nn.Module, masks: Masks) -> None:
    """Set the dropped weights to exactly zero, in place."""
    weights = weights_of(module)
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].masked_fill_(~mask, 0.0)


def prune(
    module: Network,
    data: Split | Samples,
    *,
    fraction: float = 0.9,
    scope: Literal["global", "layer"] = "global",
    **training: Any,
) -> tuple[Network, History]:
    """A pruned and fine-tuned copy of a trained `module`, and how the tuning went. The module itself is untouched.

    Its weights hold exactly round(fraction * n) zeros or more. `training` are the arguments of `neuro.training.fit`.
    """
    return tuned(module, data, magnitude_masks(module, fraction, scope=scope), **training)


def tuned(module: Network, data: Split | Samples, masks: Masks, **training: Any) -> tuple[Network, History]:
    """A copy of a trained `module`, masked and fine-tuned; `training` as for `neuro.training.fit`."""
    masked = copy.deepcopy(module)
    apply_masks(masked, masks)
    history = fit(masked, data, after_step=functools.partial(apply_masks, masks=masks), **training)
    return masked, history
