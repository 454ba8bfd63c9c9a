"""Time to first spike: closed-form spike times of whole layers and their exact gradients."""

from neuro.first_spike.membrane import MEMBRANES, Kind, Membrane, membrane_of
from neuro.first_spike.times import first_spike_times, gradient_limit

__all__ = ["MEMBRANES", "Kind", "Membrane", "first_spike_times", "gradient_limit", "membrane_of"]
