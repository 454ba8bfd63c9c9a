"""All recipes beside each other: what a spike says, how long an answer takes, what is given up."""

from __future__ import annotations

from dataclasses import dataclass

from converters.recipes.calibrated import Calibrated
from converters.recipes.exact import Exact
from converters.recipes.first_spike import FirstSpike
from converters.recipes.graded import Graded
from converters.recipes.local_threshold import LocalThreshold
from converters.recipes.offset_spikes import OffsetSpikes
from converters.recipes.qcfs import QCFS
from converters.recipes.rate import RateCode
from converters.recipes.residual_potential import ResidualPotential
from converters.recipes.sigma_delta import SigmaDelta
from neuro.shown import Sheet, Shown


@dataclass(frozen=True)
class Entry:
    """name: on the command line; code: what spikes say; ticks: end to end, with T steps, depth D and L levels."""

    name: str
    recipe: type
    code: str
    ticks: str
    gives_up: str


OVERVIEW = (
    Entry("rate", RateCode, "mean firing rate", "T + D", "accuracy at few steps: rates are coarse and arrive unevenly"),
    Entry("local", LocalThreshold, "mean firing rate", "T + D", "as rate; thresholds fitted to the clipping error"),
    Entry("calibrated", Calibrated, "mean firing rate", "T + D", "made for one T; converting takes longer"),
    Entry("qcfs", QCFS, "mean firing rate", "T + D", "needs training, minutes to hours, on the training samples"),
    Entry(
        "offset", OffsetSpikes, "mean firing rate", "T + D + warm-up of every layer",
        "a warm-up in every layer, and a memory of its input",
    ),
    Entry(
        "residual", ResidualPotential, "mean firing rate", "warm-up + T + D",
        "a warm-up of the whole network, which silences neurons for good",
    ),
    Entry(
        "exact", Exact, "spike count, in integers", "(D + 1) L",
        "latency: layers work one after the other; nothing else, against its quantised network",
    ),
    Entry(
        "first-spike", FirstSpike, "time of one spike", "(D + 1) 2^bits; D + 1 windows in continuous time",
        "fine clocks; values beyond the window are clipped",
    ),
    Entry("graded", Graded, "spikes with a value", "T + D", "one-bit spikes: an event carries bits and is multiplied"),
    Entry(
        "sigma-delta", SigmaDelta, "changes of activations, graded", "one frame + D",
        "one-bit spikes; pays off on streams of frames that change little",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Overview(Shown):
    """The recipes as a table."""

    entries: tuple[Entry, ...] = OVERVIEW

    def sheet(self) -> Sheet:
        rows = [(entry.name, entry.recipe.__name__, entry.code, entry.ticks, entry.gives_up) for entry in self.entries]
        notes = (
            "T steps, D layers of neurons on the longest path, L levels. Every result reports its ticks end to end.",
            "auto tries those that need no training and send single bits: the fewest ticks within --max-loss.",
        )
        return (
            "Recipes",
            ("--recipe", "in Python", "what spikes say", "ticks end to end", "what it gives up"),
            rows,
            notes,
        )
