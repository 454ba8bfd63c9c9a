"""The same integer program in Lava and in our simulator, compared value by value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hardware_targets.lava.via_lava import Engine, LavaJob, LavaRun, run_in_lava
from hardware_targets.loihi.connections import IntArray
from hardware_targets.loihi.program import Program
from hardware_targets.loihi.simulate import LoihiRun, recordable, simulate_program


@dataclass(frozen=True)
class Agreement:
    """What was compared between Lava and our simulator, and what differed.

    models: populations by the Lava process that ran them. compared, different: numbers by kind of value ("spikes",
    "u", "v", ...), over samples, steps and neurons. events: spikes that Lava counted.
    """

    engine: Engine
    samples: int
    steps: int
    models: Mapping[str, int]
    compared: Mapping[str, int]
    different: Mapping[str, int]
    events: int

    @property
    def exact(self) -> bool:
        """Whether nothing differed."""
        return not any(self.different.values())

    def __add__(self, other: Agreement) -> Agreement:
        return replace(
            self,
            samples=self.samples + other.samples,
            compared={what: count + other.compared[what] for what, count in self.compared.items()},
            different={what: count + other.different[what] for what, count in self.different.items()},
            events=self.events + other.events,
        )

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {model}" for model, count in self.models.items())
        values = ", ".join(
            f"{self.different.get(what, 0):,} of {count:,} {what}" for what, count in self.compared.items()
        )
        place = "a Loihi board (untested path)" if self.engine == "board" else "lava-nc"
        return (
            f"{place} beside our simulator: {sum(self.models.values())} populations ({kinds}), {self.samples:,} samples"
            f" x {self.steps} steps, {self.events:,} spikes; values that differ: {values}"
        )


def run_side_by_side(
    program: Program,
    inputs: Mapping[str, IntArray],
    steps: int,
    *,
    engine: Engine = "runtime",
    timeout: float = 600.0,
) -> tuple[LoihiRun, Agreement]:
    """Runs `program` in Lava and in our simulator; the run as Lava gives it, and how far the two agree.

    inputs: {name: (time <= steps, batch, size)}. timeout: seconds for Lava. In the result spikes, their counts, traces
    and the last u and v are Lava's; events and updates are counted by our simulator. On a board only spikes are read.
    Raises BackendMissing if Lava is absent, fails or is late, UnsupportedNode for what it cannot express.
    """
    record = recordable(program) if engine != "board" else ("spikes",)
    ours = simulate_program(program, inputs, steps, record=record)
    (theirs,) = run_in_lava([LavaJob(program, inputs, steps, record, engine)], timeout=timeout)
    mine = {"spikes": ours.spikes, **ours.traces}
    compared = {what: sum(series.size for series in by_name.values()) for what, by_name in theirs.recorded.items()}
    different = {
        what: sum(int(np.count_nonzero(series != mine[what][name])) for name, series in by_name.items())
        for what, by_name in theirs.recorded.items()
    }
    events = sum(int(np.count_nonzero(spikes)) for spikes in theirs.recorded["spikes"].values())
    models = dict(Counter(theirs.models.values()))
    agreement = Agreement(engine, ours.counts.samples, steps, models, compared, different, events)
    return _as_run(ours, theirs), agreement


def _as_run(ours: LoihiRun, theirs: LavaRun) -> LoihiRun:
    """`ours` with everything that Lava recorded in its place."""
    spikes = theirs.recorded["spikes"]
    traces = {what: by_name for what, by_name in theirs.recorded.items() if what != "spikes"}
    counted = {name: np.count_nonzero(series, axis=0).astype(np.int32) for name, series in spikes.items()}
    variables = {
        name: {what: _last(traces, what, name, x) for what, x in state.items()}
        for name, state in ours.state.variables.items()
    }
    return replace(
        ours,
        spike_counts={**ours.spike_counts, **counted},
        state=ours.state._replace(variables=variables),
        spikes=spikes,
        traces=traces,
    )


def _last(traces: Mapping[str, Mapping[str, NDArray]], what: str, name: str, otherwise: IntArray) -> IntArray:
    return traces[what][name][-1] if name in traces.get(what, {}) else otherwise


__all__: Sequence[str] = ("Agreement", "run_side_by_side")
