"""Save and restore the whole state of a chip, tied to the network that it belongs to."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from neuro.atomic import replacing
from neuro.errors import FileError

from .network import Network
from .simulate import State

VERSION = 1


def save_state(path: str | Path, network: Network, state: State) -> None:
    """Write tick, potentials and spikes under way to an .npz file, atomically. Resuming from it equals never having
    stopped.
    """
    arrays = {
        "version": np.array(VERSION),
        "network": np.array(network.digest()),
        "tick": np.array(state.tick),
        "v": state.v,
        "pending": state.pending,
    }
    with replacing(path) as part, part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load_state(path: str | Path, network: Network) -> State:
    """Read a state saved by `save_state`. Raises FileError if the file is not one, or belongs to another network."""
    source = Path(path)
    try:
        with source.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            version, owner, tick = int(file["version"]), str(file["network"]), int(file["tick"])
            v, pending = file["v"], file["pending"]
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FileError(f"{source}: not a chip state ({type(error).__name__}: {error})") from error
    if version != VERSION:
        raise FileError(f"{source}: version {version} of the chip state, this program reads {VERSION}")
    if owner != network.digest():
        raise FileError(f"{source}: belongs to another network; load it with the network that it was saved with")
    want = (network.count, network.shape.neurons), (network.slots, network.pending_words)
    if (v.shape, pending.shape) != want or v.dtype != np.int32 or pending.dtype != np.uint64 or tick < 0:
        raise FileError(
            f"{source}: damaged chip state: v {v.dtype} {v.shape}, pending {pending.dtype} {pending.shape}, tick {tick}"
        )
    return State(tick, v, pending)
