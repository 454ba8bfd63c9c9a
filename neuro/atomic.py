"""Files are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuro.errors import FileError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and vanishes when it does not."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.part")
    try:
        if target.is_dir():
            raise FileError(f"{path}: is a folder; give a file name")
        yield temporary
        _synchronise(temporary)
        os.replace(temporary, target)
        _synchronise(target.parent)
    except OSError as error:
        text = error.strerror or " ".join(str(error).split())
        raise FileError(
            f"{path}: cannot be written ({text}); check the folder, its rights and its free space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _synchronise(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
