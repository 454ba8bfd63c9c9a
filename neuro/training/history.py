"""What a training leaves behind besides a network: numbers for every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data. Losses are means per sample; accuracies lie in [0, 1].

    spike_rates: spikes per neuron and step of every population, and spike_rate that of all of them together, on the
    validation data; None and empty where nothing fires. seconds: wall-clock time, of no meaning for equality.
    """

    number: int
    train_loss: float
    learning_rate: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    spike_rate: float | None = None
    spike_rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class History:
    """How a training went: every epoch, the number of the one whose state was kept, and the wall-clock seconds."""

    epochs: tuple[Epoch, ...]
    kept: int
    seconds: float = field(compare=False)

    @property
    def best(self) -> Epoch:
        """The epoch whose state the network has now."""
        return self.epochs[self.kept - 1]
