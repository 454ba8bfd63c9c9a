"""Progress on stderr: a bar on a terminal, elsewhere a line now and then; NEURO_PROGRESS=0 asks for silence."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

EVERY = 60.0
"""Seconds between two lines where stderr is no terminal: short work says nothing, long work shows that it lives."""


def shown(wanted: bool) -> bool:
    """Whether progress that is `wanted` may be seen on a terminal."""
    return wanted and sys.stderr.isatty() and os.environ.get("NEURO_PROGRESS") != "0"


def track(items: Iterable[Item], total: int, title: str, wanted: bool) -> Iterable[Item]:
    """The same items, counted up to `total` by a bar that vanishes at the end, or by lines in a log."""
    if not wanted or total < 2 or os.environ.get("NEURO_PROGRESS") == "0":
        return items
    return _with_bar(items, total, title) if shown(wanted) else _with_lines(items, total, title)


def _with_bar(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, description=title, total=total, console=Console(stderr=True), transient=True)


def _with_lines(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    began = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - said >= EVERY:
            print(f"{title}: {done} of {total} after {(now - began) / 60:.0f} min", file=sys.stderr, flush=True)
            said = now
        yield item
