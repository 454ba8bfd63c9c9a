"""The bar of a training: samples per second, the loss, and how much the network fires."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from neuro.progress import shown

EVERY = 0.2
"""Seconds between two looks at the loss: a GPU waits for each."""


class Bar:
    """Counts samples; `loss` and `spike_rate` are what it shows beside them."""

    def __init__(self, draw: Callable[[int, str], None] | None = None) -> None:
        self.draw = draw
        self.looked = 0.0
        self.waiting = 0
        self.spike_rate: float | None = None

    @property
    def visible(self) -> bool:
        return self.draw is not None

    def advance(self, samples: int, text: str, loss: Callable[[], float] | None = None) -> None:
        """So many samples are done; `loss` is asked only when the bar is drawn anew."""
        self.waiting += samples
        if self.draw is None or time.monotonic() - self.looked < EVERY:
            return
        fired = "" if self.spike_rate is None else f"  {self.spike_rate:.3f} spikes per neuron and step"
        self.draw(self.waiting, text + ("" if loss is None else f"  loss {loss():.3f}") + fired)
        self.looked, self.waiting = time.monotonic(), 0


@contextmanager
def bar_of(total: int, wanted: bool) -> Iterator[Bar]:
    """A bar on stderr that counts up to `total` samples and vanishes at the end, if somebody can see it."""
    if not shown(wanted):
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.0f} samples/s")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), Speed(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("train", total=total)
        yield Bar(lambda samples, text: progress.update(task, advance=samples, description=text))
