"""A TrueNorth-like chip, bit for bit in its deterministic modes, and RANC's reduced cores with the same code."""

from .activity import Activity, activity, counts_of
from .core import Cores, CoreShape, make_cores, shape_from
from .network import NO_TARGET, OFF_GRID, OUTPUT, Network, Targets, make_network
from .picture import picture, write_picture
from .replay import Replay, replay
from .simulate import ChipRun, Events, State, rest, run

__all__ = [
    "NO_TARGET",
    "OFF_GRID",
    "OUTPUT",
    "Activity",
    "ChipRun",
    "CoreShape",
    "Cores",
    "Events",
    "Network",
    "Replay",
    "State",
    "Targets",
    "activity",
    "counts_of",
    "make_cores",
    "make_network",
    "picture",
    "replay",
    "rest",
    "run",
    "shape_from",
    "write_picture",
]
