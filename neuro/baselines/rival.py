"""What every rival of a comparison is: built by one plan, on one split, with one seed, into a Graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

from neuro.datasets import Split
from neuro.errors import ParameterError
from neuro.graph import Graph
from neuro.training import Cosine, ShiftFlip


@dataclass(frozen=True)
class Plan:
    """What all rivals share: the dense network that they are measured against, and the budget of training.

    `hidden` widths of the multilayer perceptron, or of one expert; `density` of sparse networks; `experts` of a
    mixture; `steps`: T of a spiking network, and the rate code whose bits the quantised one has; `dimensions` of
    hypervectors; `phase_bits` and `photons` (per multiply-accumulate) of an optical network; `chip` a name, or the path
    of a .toml.
    """

    hidden: tuple[int, ...] = (300, 100)
    density: float = 0.05
    experts: int = 8
    steps: int = 15
    dimensions: int = 1024
    phase_bits: int = 8
    photons: float = 100.0
    chip: str = "loihi2"
    epochs: int = 40
    augment: ShiftFlip = field(default_factory=ShiftFlip)
    batch_size: int = 100
    optimizer: Literal["sgd", "adamw"] = "sgd"
    threads: int | None = 1
    progress: bool = False

    def __post_init__(self) -> None:
        if not self.hidden or self.epochs < 2:
            raise ParameterError(f"Plan: needs a hidden layer and 2 epochs or more, got {self.hidden}, {self.epochs}")
        if not 0 < self.density < 1 or self.experts < 2:
            raise ParameterError(f"Plan: density in (0, 1) and experts >= 2, got {self.density}, {self.experts}")
        if self.optimizer not in ("sgd", "adamw"):
            raise ParameterError(f"Plan: optimizer must be 'sgd' or 'adamw', got {self.optimizer!r}")

    def sizes(self, data: Split) -> tuple[int, ...]:
        """Widths from the input to the classes."""
        return (prod(data.features), *self.hidden, len(data.classes))

    def training(self, seed: int, epochs: int | None = None) -> dict[str, Any]:
        """Settings of `neuro.training.fit`, the same for every rival.

        SGD as Dettmers and Zettlemoyer 2019 train LeNet-300-100 (0.1, Nesterov, decay 5e-4, standardised input), but
        along a cosine.
        """
        rates = {"sgd": (0.1, 5e-4), "adamw": (3e-3, 5e-2)}
        learning_rate, weight_decay = rates[self.optimizer]
        return {
            "epochs": self.epochs if epochs is None else epochs, "batch_size": self.batch_size, "seed": seed,
            "optimizer": self.optimizer, "learning_rate": learning_rate, "weight_decay": weight_decay,
            "schedule": Cosine(), "augment": self.augment if self.augment.shift or self.augment.flip else None,
            "threads": self.threads, "progress": self.progress,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trained:
    """A rival that is ready: its Graph, its accuracy on the validation part (to choose by), and what to know of it."""

    graph: Graph
    validation_accuracy: float
    notes: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)


Build = Callable[[Split, int, Plan], Trained]


def no_size(data: Split, plan: Plan) -> Plan | None:
    return None


def itself(data: Split, plan: Plan) -> Plan:
    return plan


def single(data: Split, plan: Plan) -> tuple[Plan, ...]:
    return (plan,)


@dataclass(frozen=True)
class Rival:
    """How a row is called, and `build(data, seed, plan) -> Trained`.

    `ladder(data, plan)`: plans along what makes this rival larger, cheapest first, among which a comparison at equal
    accuracy chooses. `equal(data, plan)`: the plan that stores about as many numbers as the dense network, None where
    the rival has no such size.
    """

    title: str
    build: Build
    ladder: Callable[[Split, Plan], tuple[Plan, ...]] = single
    equal: Callable[[Split, Plan], Plan | None] = no_size
    family: str = "dense"


def along(field_name: str, *values: Any) -> Callable[[Split, Plan], tuple[Plan, ...]]:
    """A ladder of plans that differ in one field."""
    return lambda data, plan: tuple(replace(plan, **{field_name: value}) for value in values)
