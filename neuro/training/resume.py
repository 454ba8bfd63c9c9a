"""A training on disk: everything that it needs to go on after an interruption as if there had been none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from neuro.atomic import replacing
from neuro.errors import FileError
from neuro.weights import load_weights

Best = tuple[int, dict[str, Tensor]]
"""The number of an epoch and the state of the network after it."""


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
    """All that changes while a network learns; `write` and `restore` take it to a file and back."""

    module: nn.Module
    updates: torch.optim.Optimizer
    cycle: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    device: torch.device

    def write(self, path: Path | str, training: str, epochs: list[dict], best: Best) -> None:
        """Keep the training named `training` (its fingerprint) as it stands after `epochs`."""
        held = self.updates.state_dict()["state"]
        groups = {
            "module": self.module.state_dict(),
            "best": best[1],
            "moments": {
                f"{place}|{key}": torch.as_tensor(v) for place, kept in held.items() for key, v in kept.items()
            },
            "draws": {"order": self.generator.get_state(), "cpu": torch.random.get_rng_state()},
        }
        if self.device.type == "cuda":
            groups["draws"]["cuda"] = torch.cuda.get_rng_state(self.device)
        flat = {f"{group}|{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}
        rates = [group["lr"] for group in self.updates.param_groups]
        record = {"epochs": epochs, "best": best[0], "steps": self.cycle.last_epoch, "rates": rates}
        write_tensors(path, flat, {"training": training, "record": json.dumps(record)})

    def restore(self, path: Path | str, training: str) -> tuple[list[dict], Best | None]:
        """The epochs done and the best state, everything else set as it was after them; nothing where no file is.

        Raises FileError for other files and for other trainings.
        """
        if Path(path).suffix != ".safetensors":
            raise FileError(f"{path}: a training is kept as .safetensors; give another name")
        if not Path(path).exists():
            return [], None
        record, groups = _read(path, training)
        self.module.load_state_dict(groups["module"])
        held: dict[int, dict[str, Tensor]] = {}
        for key, tensor in groups.get("moments", {}).items():
            place, _, name = key.partition("|")
            held.setdefault(int(place), {})[name] = tensor
        self.updates.load_state_dict({**self.updates.state_dict(), "state": held})
        for group, rate in zip(self.updates.param_groups, record["rates"], strict=True):
            group["lr"] = rate
        steps = record["steps"]
        self.cycle.load_state_dict({"last_epoch": steps, "_step_count": steps + 1, "_last_lr": record["rates"]})
        self.generator.set_state(groups["draws"]["order"])
        torch.random.set_rng_state(groups["draws"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(groups["draws"]["cuda"], self.device)
        return record["epochs"], (record["best"], groups["best"])


def _read(path: Path | str, training: str) -> tuple[dict, dict[str, dict[str, Tensor]]]:
    """The record and the tensors by group, of the training with that fingerprint only."""
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
