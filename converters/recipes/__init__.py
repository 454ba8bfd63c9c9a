"""One recipe per file: how activations become spikes."""

from converters.recipes.exact import Exact
from converters.recipes.first_spike import FirstSpike
from converters.recipes.integer import Integer
from converters.recipes.rate import RateCode

__all__ = ["Exact", "FirstSpike", "Integer", "RateCode"]
