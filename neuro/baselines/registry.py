"""All rivals that need no converter, by name."""

from __future__ import annotations

from collections.abc import Mapping

from neuro.baselines import hyperdimensional, photonic, quantum, rows
from neuro.baselines.rival import Rival

RIVALS: Mapping[str, Rival] = {**rows.ROWS, **hyperdimensional.ROWS, **photonic.ROWS, **quantum.ROWS}
DEVICES: Mapping[str, str] = dict.fromkeys(photonic.ROWS, "photonic")
"""Rivals that no processor runs, and the table of model C that prices them."""
