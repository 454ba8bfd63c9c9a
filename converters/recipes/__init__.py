"""One recipe per file: how activations become spikes."""

from converters.recipes.integer import Integer
from converters.recipes.rate import RateCode

__all__ = ["Integer", "RateCode"]
