"""Runs Loihi programs in lava-nc 0.10.0, the reference everyone else can check.

Lava needs Python 3.10, so it lives in an environment of its own and is called as a process that reads and writes HDF5.

Layout of the job file, one group per job: attributes engine, steps, batch, period (steps of one sample with the silent
ones that empty the network after it), record; inputs/<name> (time, batch, size); populations/<name> with the class of
the population as kind and its fields; connections/<name> with the fields of the connection and its kind. Results:
<job>/<population>/spikes, u, v, ..., each (steps, batch, size); attribute model says which Lava process ran it,
attribute step_seconds of the job how long a step took.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import singledispatch
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from hardware_targets.loihi.connections import IntArray
from hardware_targets.loihi.program import Connection, Conv2d, Dense, Program, Sparse
from neuro.errors import BackendMissing, ParameterError, UnsupportedNode

Engine = Literal["runtime", "models", "board"]
ENVIRONMENT_VARIABLE = "NEURO_LAVA_PYTHON"
WORKER = Path(__file__).with_name("lava_worker.py")


@dataclass(frozen=True, eq=False)
class LavaJob:
    """A program with its inputs {name: (time <= steps, batch, size)}, integers, and what to record at every tick.

    engine: 'runtime' runs Lava as its users do, a process per population and connection; 'models' steps the same
    process models by hand in one process, without the messages: quick enough for hundreds of small programs. 'board'
    selects Lava's run configuration for Loihi 2 hardware, one sample after the other, spikes only. It needs Intel's
    lava-loihi and a board, refuses where they are not installed, and has never been tested on one.
    """

    program: Program
    inputs: Mapping[str, NDArray[np.integer]]
    steps: int
    record: tuple[str, ...] = ("spikes",)
    engine: Engine = "runtime"


@dataclass(frozen=True, eq=False)
class LavaRun:
    """What Lava recorded: recorded[what][population], (time, batch, size), int32; which process ran each population.

    models: 'LIF', 'SigmaDelta', ... are Lava's own; 'GeneralLIF', 'Integer...' and 'Timed...' inherit the equations and
    add what those lack (several samples, soft or no reset, thresholds per neuron, a refractory period, a start tick).
    step_seconds: per step, once the network is compiled and its processes run.
    """

    recorded: dict[str, dict[str, IntArray]]
    models: dict[str, str]
    step_seconds: float


def lava_python() -> Path:
    """The Python 3.10 that has lava-nc: $NEURO_LAVA_PYTHON, or .lava-venv beside pyproject.toml or in this folder.

    Raises BackendMissing with the command that makes it.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    project = next((p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file()), Path.cwd())
    candidates = [Path(named)] if named else [folder / ".lava-venv/bin/python" for folder in (project, Path.cwd())]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    looked = ", ".join(map(str, dict.fromkeys(candidates)))
    raise BackendMissing(
        f"Lava is not here (looked for {looked}); make it with `make lava` (needs a Python 3.10),"
        f" or set {ENVIRONMENT_VARIABLE} to a Python 3.10 with lava-nc 0.10.0 and h5py"
    )


def run_in_lava(jobs: Sequence[LavaJob], *, timeout: float = 300.0) -> list[LavaRun]:
    """Runs `jobs` one after the other in one Lava process; spikes, u and v as `simulate_program` returns them.

    timeout: seconds for all of them. Raises BackendMissing if Lava is absent, fails or is not done in time, and
    UnsupportedNode for what Lava's models cannot express. Leaves no process behind.
    """
    python = lava_python()
    parts = [_samples(job) for job in jobs]
    with tempfile.TemporaryDirectory(prefix="neuro-lava-") as folder:
        jobs_path, results_path = Path(folder) / "jobs.h5", Path(folder) / "results.h5"
        with h5py.File(jobs_path, "w") as file:
            for number, job in enumerate(job for samples in parts for job in samples):
                write_job(file.create_group(f"{number:05d}", track_order=True), job)
        _call([str(python), str(WORKER), str(jobs_path), str(results_path), str(os.getpid())], timeout)
        with h5py.File(results_path, "r") as file:
            runs = iter([_read_run(file[name]) for name in sorted(file)])
    return [_joined([next(runs) for _ in samples]) for samples in parts]


def _samples(job: LavaJob) -> list[LavaJob]:
    """The job itself; for a board one job per sample, because nothing there returns the neurons to rest."""
    batch = next(iter(job.inputs.values())).shape[1] if job.inputs else 1
    if job.engine != "board" or batch == 1:
        return [job]
    alone = [{name: x[:, b : b + 1] for name, x in job.inputs.items()} for b in range(batch)]
    return [replace(job, inputs=inputs) for inputs in alone]


def _joined(runs: Sequence[LavaRun]) -> LavaRun:
    """Runs of single samples as one of them all."""
    if len(runs) == 1:
        return runs[0]
    recorded = {
        what: {name: np.concatenate([run.recorded[what][name] for run in runs], axis=1) for name in by_name}
        for what, by_name in runs[0].recorded.items()
    }
    return replace(runs[0], recorded=recorded)


def write_job(group: h5py.Group, job: LavaJob) -> None:
    """Writes one job in the layout of this module's docstring."""
    program = job.program
    if job.engine == "board" and set(job.record) - {"spikes"}:
        raise ParameterError("Lava job: from a board only spikes are read; record=('spikes',)")
    expected = {part.name: part.size for part in program.inputs}
    if {name: x.shape[2:] for name, x in job.inputs.items()} != {name: (size,) for name, size in expected.items()}:
        raise ParameterError(f"Lava job: inputs must be (time, batch, size) for {expected}")
    batch = next(iter(job.inputs.values())).shape[1] if job.inputs else 1
    longest = max((c.max_delay for c in program.connections), default=0)
    group.attrs.update(steps=job.steps, batch=batch, period=job.steps + longest + 2, engine=job.engine)
    group.attrs["record"] = list(job.record)
    for section in ("inputs", "populations", "connections"):
        group.create_group(section, track_order=True)
    for name, x in job.inputs.items():
        group["inputs"].create_dataset(name, data=np.asarray(x, np.int32), compression="lzf")
    for population in program.populations:
        node = group["populations"].create_group(population.name)
        node.attrs["kind"] = type(population).__name__
        for field in fields(population):
            value = getattr(population, field.name)
            if isinstance(value, np.ndarray):
                node[field.name] = value
            elif value is not None:
                node.attrs[field.name] = value
    for connection in program.connections:
        node = group["connections"].create_group(connection.name)
        for name in ("source", "target", "port", "weight_exp", "num_weight_bits", "num_message_bits"):
            node.attrs[name] = getattr(connection, name)
        node.attrs["sign_mode"] = connection.sign_mode or ""
        node["weights"] = connection.weights
        _write_geometry(connection, node)


@singledispatch
def _write_geometry(connection: Connection, node: h5py.Group) -> None:
    raise UnsupportedNode(f"{connection.place}: Lava has no {type(connection).__name__}")


@_write_geometry.register
def _(connection: Dense, node: h5py.Group) -> None:
    node.attrs["kind"] = "dense"
    if connection.delays is not None:
        node["delays"] = connection.delays


@_write_geometry.register
def _(connection: Sparse, node: h5py.Group) -> None:
    node.attrs.update(kind="sparse", shape=connection.shape)
    node["rows"], node["columns"] = connection.rows, connection.columns
    if connection.delays is not None:
        node["delays"] = connection.delays


@_write_geometry.register
def _(connection: Conv2d, node: h5py.Group) -> None:
    node.attrs["kind"] = "conv2d"
    for field in ("input_shape", "stride", "padding", "dilation", "groups"):
        node.attrs[field] = getattr(connection, field)


def _read_run(group: h5py.Group) -> LavaRun:
    recorded: dict[str, dict[str, IntArray]] = {}
    for name, node in group.items():
        for what, dataset in node.items():
            recorded.setdefault(what, {})[name] = dataset[:]
    models = {name: str(node.attrs["model"]) for name, node in group.items()}
    return LavaRun(recorded, models, float(group.attrs["step_seconds"]))


def _call(command: list[str], timeout: float) -> None:
    """Runs the worker in a process group of its own and ends the whole group, whatever happens."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for inherited in ("PYTHONPATH", "PYTHONHOME"):
        environment.pop(inherited, None)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise BackendMissing(
            f"Lava was not done after {timeout:g} s and was stopped; fewer samples or a longer timeout may help"
        ) from None
    finally:
        _end_group(process)
    if process.returncode:
        lines = output.strip().splitlines() or ["no output"]
        error = BackendMissing(f"Lava failed with exit code {process.returncode}: {lines[-1]}")
        error.add_note("\n".join(lines[-30:]))
        raise error


def _end_group(process: subprocess.Popen[str]) -> None:
    # SIGTERM first: Python's resource tracker ignores it and removes shared memory once the others are gone
    for kill, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 2.0)):
        late = time.monotonic() + patience
        try:
            os.killpg(process.pid, kill)
            while time.monotonic() < late:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.02)
        except ProcessLookupError:
            break
    if process.stdout is not None:
        process.stdout.close()
