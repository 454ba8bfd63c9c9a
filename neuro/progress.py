"""Progress on stderr, where somebody looks: on a terminal, and unless NEURO_PROGRESS=0 asks for silence."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def shown(wanted: bool) -> bool:
    """Whether progress that is `wanted` has somebody to see it."""
    return wanted and sys.stderr.isatty() and os.environ.get("NEURO_PROGRESS") != "0"


def track(items: Iterable[Item], total: int, title: str, wanted: bool) -> Iterable[Item]:
    """The same items, with a bar that counts them up to `total` and vanishes at the end."""
    return _with_bar(items, total, title) if shown(wanted) and total > 1 else items


def _with_bar(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, description=title, total=total, console=Console(stderr=True), transient=True)
