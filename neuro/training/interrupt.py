"""Ctrl-C at a good moment: a training stops between two updates, where it can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CAUGHT = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def asked_to_stop(wanted: bool) -> Iterator[Callable[[], int]]:
    """A function that gives the number of the signal that came (SIGINT or SIGTERM), 0 until then.

    A second signal acts at once, as always. Only in the main thread, the only one that gets signals, and if `wanted`.
    """
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in CAUGHT}

    def restore() -> None:
        for number, handler in before.items():
            # None: not set from Python, and so nothing that Python could set again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        restore()

    for number in CAUGHT:
        signal.signal(number, note)
    try:
        yield lambda: came[0] if came else 0
    finally:
        restore()


def stop(number: int) -> None:
    """End as the signal would have ended: KeyboardInterrupt for SIGINT, exit code 128 + number for others."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
