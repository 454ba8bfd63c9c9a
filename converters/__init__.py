"""Networks in, spikes out."""

from converters.convert import convert
from converters.recipes import RateCode
from converters.spiking import activations_replaced

__all__ = ["RateCode", "activations_replaced", "convert"]
