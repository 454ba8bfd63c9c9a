"""From a plain network to a spiking one: legalise, then let the recipe do its part."""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor

from converters.legalise import legalise
from neuro.errors import ParameterError
from neuro.graph import Graph


@singledispatch
def apply(recipe: object, plain: Graph, calibration: Tensor | None) -> Graph:
    """Turn a legalised network into a spiking graph; one implementation per recipe."""
    raise ParameterError(f"{recipe!r} is no recipe; use one of converters.recipes, e.g. RateCode(percentile=99.9)")


def convert(graph: Graph, recipe: object, calibration: Tensor | None = None) -> Graph:
    """A spiking graph with the function of `graph`, made by `recipe`. `result.history` says what became of each node.

    calibration: (samples, *features), a few hundred samples of the training data. Raises UnsupportedNode listing every
    node that cannot be converted, ParameterError for a bad recipe or missing calibration, ShapeError where data do not
    fit.
    """
    if isinstance(recipe, type):
        raise ParameterError(f"pass a recipe value, not its class: {recipe.__name__}()")
    if apply.dispatch(type(recipe)) is apply.dispatch(object):
        apply(recipe, graph, calibration)
    return apply(recipe, legalise(graph, getattr(recipe, "spikes", True)), calibration)
