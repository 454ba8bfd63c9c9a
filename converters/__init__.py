"""Networks in, spikes out."""

from converters.convert import convert
from converters.prove import prove
from converters.recipes import Exact, FirstSpike, RateCode
from converters.spiking import activations_replaced

__all__ = ["Exact", "FirstSpike", "RateCode", "activations_replaced", "convert", "prove"]
