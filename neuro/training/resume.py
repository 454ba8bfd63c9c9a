"""A training on disk: everything that it needs to go on after an interruption as if there had been none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from neuro.atomic import replacing
from neuro.errors import FileError
from neuro.training.devices import gathered
from neuro.training.history import Epoch
from neuro.weights import load_weights

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Best = tuple[int, dict[str, Tensor]]
"""The number of an epoch and the state of the network after it."""


@runtime_checkable
class Stateful(Protocol):
    """Something that remembers from step to step, as tensors."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor], /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Position:
    """How far a training is: the epochs that are over, and the batches of the present one that are.

    order: the samples in the order of the present epoch, None between two epochs. loss: the sum of the losses in the
    present epoch over the samples of this process.
    """

    epochs: tuple[Epoch, ...] = ()
    best: Best | None = None
    order: Tensor | None = None
    steps: int = 0
    loss: float = 0.0


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], notes: dict[str, str] | None = None) -> None:
    """Tensors and text as one safetensors file, written whole or not at all; FileError where it cannot be."""
    # safetensors refuses tensors that share memory, as tied weights do
    separate = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        partial.write_bytes(save(separate, notes))


def fingerprint(*parts: object) -> str:
    """One text for tensors (their bytes), mappings of them, and anything whose repr says what it is."""
    digest = hashlib.sha256()
    for part in parts:
        named = part if isinstance(part, Mapping) else {"": part}
        for name, value in named.items():
            digest.update(f"{name}:".encode())
            if isinstance(value, Tensor):
                digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
                flat = value.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().data)
            else:
                digest.update(repr(value).encode())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Course:
    """All that changes while a network learns; `write` and `restore` take it to a file and back.

    Both are called by every process; the first one alone touches the file. generators: by name, each on its device.
    """

    module: nn.Module
    updates: torch.optim.Optimizer
    generators: Mapping[str, torch.Generator]
    fabric: Fabric
    after_step: object = None

    def write(self, path: Path | str, training: str, position: Position) -> None:
        """Keep the training named `training` (its fingerprint) as it stands at `position`."""
        held = self.updates.state_dict()["state"]
        groups: dict[str, Mapping[str, Tensor]] = {
            "module": self.module.state_dict(),
            "best": position.best[1] if position.best else {},
            "moments": {
                f"{place}|{key}": torch.as_tensor(v) for place, kept in held.items() for key, v in kept.items()
            },
            "draws": {name: gathered(self.fabric, state) for name, state in self._draws().items()},
            "sums": {"loss": gathered(self.fabric, torch.tensor(position.loss, dtype=torch.float64))},
            "order": {} if position.order is None else {"samples": position.order},
            "after_step": self.after_step.state_dict() if isinstance(self.after_step, Stateful) else {},
        }
        if not self.fabric.is_global_zero:
            return
        record = {
            "epochs": [asdict(epoch) for epoch in position.epochs],
            "best": position.best[0] if position.best else 0,
            "steps": position.steps,
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        flat = {f"{group}|{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}
        write_tensors(path, flat, {"training": training, "record": json.dumps(record)})

    def restore(self, path: Path | str, training: str) -> Position:
        """Everything set as it was when the file was written; the start where there is no file.

        Raises FileError for other files and for other trainings.
        """
        found: tuple[dict, dict[str, dict[str, Tensor]]] | FileError | None = None
        if self.fabric.is_global_zero:
            try:
                found = _read(path, training)
            except FileError as error:
                found = error
        found = self.fabric.broadcast(found)
        if isinstance(found, FileError):
            raise found
        if found is None:
            return Position()
        record, groups = found
        self.module.load_state_dict(groups["module"])
        held: dict[int, dict[str, Tensor]] = {}
        for key, tensor in groups.get("moments", {}).items():
            place, _, name = key.partition("|")
            held.setdefault(int(place), {})[name] = tensor
        self.updates.load_state_dict({**self.updates.state_dict(), "state": held})
        rank = self.fabric.global_rank
        # cloned: torch crashes when a generator is given a state that is part of a larger tensor
        self._set_draws({name: states[rank].clone() for name, states in groups["draws"].items()})
        if isinstance(self.after_step, Stateful):
            self.after_step.load_state_dict(groups.get("after_step", {}))
        self.fabric.strategy.precision.load_state_dict(record["precision"])
        return Position(
            tuple(Epoch(**epoch) for epoch in record["epochs"]),
            (record["best"], groups["best"]) if record["best"] else None,
            groups["order"]["samples"] if "order" in groups else None,
            record["steps"],
            float(groups["sums"]["loss"][rank]),
        )

    def _draws(self) -> dict[str, Tensor]:
        """The state of every source of random numbers in this process."""
        states = {name: generator.get_state() for name, generator in self.generators.items()}
        states["torch on the CPU"] = torch.random.get_rng_state()
        if self.fabric.device.type == "cuda":
            states["torch on the GPU"] = torch.cuda.get_rng_state(self.fabric.device)
        return states

    def _set_draws(self, states: Mapping[str, Tensor]) -> None:
        for name, generator in self.generators.items():
            generator.set_state(states[name])
        torch.random.set_rng_state(states["torch on the CPU"])
        if self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(states["torch on the GPU"], self.fabric.device)


def check_resume(path: Path | str) -> None:
    """Refuse the name of a file that cannot hold a training."""
    if Path(path).suffix != ".safetensors":
        raise FileError(f"{path}: a training is kept as .safetensors; give another name")


def _read(path: Path | str, training: str) -> tuple[dict, dict[str, dict[str, Tensor]]] | None:
    """The record and the tensors by group, of the training with that fingerprint only; None where no file is."""
    if not Path(path).exists():
        return None
    tensors = load_weights(path)
    with safe_open(path, "pt") as file:
        notes = file.metadata() or {}
    if "training" not in notes:
        raise FileError(f"{path}: holds no training to resume, but something else; give another name")
    if notes["training"] != training:
        raise FileError(
            f"{path}: holds a training of another network, data or settings; "
            "delete it to start afresh, or give another name"
        )
    groups: dict[str, dict[str, Tensor]] = {}
    for flat, tensor in tensors.items():
        group, _, name = flat.partition("|")
        groups.setdefault(group, {})[name] = tensor
    return json.loads(notes["record"]), groups
