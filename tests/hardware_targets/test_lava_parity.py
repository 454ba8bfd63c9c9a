"""Our simulator against lava-nc 0.10.0's fixed-point models: spikes, u and v equal at every step.

Set NEURO_LAVA_PYTHON to a Python 3.10 that has lava-nc. NEURO_LAVA_PROGRAMS=200 runs that many through Lava's full
runtime (a second each) where the default is a few; the same models stepped by hand always see hundreds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hardware_targets.lava import via_lava
from hardware_targets.lava.via_lava import LavaJob, LavaRun, run_in_lava
from hardware_targets.loihi.program import Conv2d, Dense, Input, Population, Program
from hardware_targets.loihi.random_programs import STEPS, random_program
from hardware_targets.loihi.simulate import simulate_program
from neuro.errors import BackendMissing, UnsupportedNode

ALL = ("spikes", "u", "v")


@pytest.fixture(scope="module")
def lava() -> Path:
    try:
        return via_lava.lava_python()
    except BackendMissing as missing:
        pytest.skip(str(missing))


def assert_equal(job: LavaJob, theirs: LavaRun, label: object) -> None:
    ours = simulate_program(job.program, job.inputs, job.steps, record=ALL)
    for population in job.program.populations:
        for what in ALL:
            a, b = getattr(ours, what)[population.name], getattr(theirs, what)[population.name]
            assert np.array_equal(a, b), f"program {label}, {population.name}, {what}: {np.sum(a != b)} differ"


def lava_jobs(first: int, count: int, engine: via_lava.Engine, lava_only: bool = True) -> list[LavaJob]:
    """Random programs by seed; those with a convolution exponent that Lava lacks are drawn again."""
    jobs: list[LavaJob] = []
    seed = first
    while len(jobs) < count:
        program, inputs = random_program(np.random.default_rng(seed), lava_only)
        if not any(isinstance(c, Conv2d) and c.weight_exp < 0 for c in program.connections):
            jobs.append(LavaJob(program, inputs, STEPS, ALL, engine))
        seed += 1
    return jobs


def test_hundreds_of_random_programs_equal_lavas_models(lava: Path) -> None:
    jobs = lava_jobs(0, 210, "models")
    runs = run_in_lava(jobs, timeout=120)
    fired = [run.spikes[p.name].any() for job, run in zip(jobs, runs, strict=True) for p in job.program.populations]
    wrapped = [np.abs(u).max() >= 2**23 for run in runs for u in run.u.values()]
    assert np.mean(fired) > 0.3, "the programs drawn say too little"
    assert sum(wrapped) > 10, "the programs drawn overflow too rarely"
    for number, (job, run) in enumerate(zip(jobs, runs, strict=True)):
        assert set(run.models.values()) == {"LIF"}
        assert_equal(job, run, number)


def test_random_programs_equal_lavas_runtime(lava: Path) -> None:
    count = int(os.environ.get("NEURO_LAVA_PROGRAMS", 4))
    jobs = lava_jobs(10_000, count, "runtime")
    for number, (job, run) in enumerate(zip(jobs, run_in_lava(jobs, timeout=60 + 5 * count), strict=True)):
        assert_equal(job, run, number)


def test_several_samples_other_resets_and_start_ticks(lava: Path) -> None:
    """What Lava's LIF lacks, on Lava's equations: rest between samples, soft reset, thresholds per neuron."""
    jobs = lava_jobs(20_000, 25, "models", lava_only=False) + lava_jobs(20_000, 1, "runtime", lava_only=False)
    for number, (job, run) in enumerate(zip(jobs, run_in_lava(jobs, timeout=120), strict=True)):
        assert_equal(job, run, number)


def test_a_convolution_exponent_that_lava_lacks_is_refused(lava: Path) -> None:
    connection = Conv2d(
        source="x", target="n", weights=np.ones((1, 1, 1, 1), int), input_shape=(1, 2, 2), weight_exp=-1
    )
    program = Program((Input("x", 4),), (Population("n", 4),), (connection,))
    with pytest.raises(UnsupportedNode, match="weight_exp"):
        run_in_lava([LavaJob(program, {"x": np.ones((1, 1, 4), int)}, 2)])


def test_absence_names_the_command_that_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEURO_LAVA_PYTHON", str(tmp_path / "no-python"))
    with pytest.raises(BackendMissing, match="make lava"):
        run_in_lava([])


def tiny_job() -> LavaJob:
    connection = Dense(source="x", target="n", weights=np.ones((1, 1), int))
    program = Program((Input("x", 1),), (Population("n", 1),), (connection,))
    return LavaJob(program, {"x": np.ones((1, 1, 1), int)}, 2)


def test_time_out_leaves_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "stuck.py"
    script.write_text(
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setenv("NEURO_LAVA_PYTHON", sys.executable)
    monkeypatch.setattr(via_lava, "WORKER", script)
    began = time.monotonic()
    with pytest.raises(BackendMissing, match="not done after 1 s"):
        run_in_lava([tiny_job()], timeout=1)
    assert time.monotonic() - began < 10
    for pid in (tmp_path / "pids").read_text().split():
        assert not alive(int(pid))


def test_failure_shows_the_last_line_of_the_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise RuntimeError('no such chip')\n")
    monkeypatch.setenv("NEURO_LAVA_PYTHON", sys.executable)
    monkeypatch.setattr(via_lava, "WORKER", script)
    with pytest.raises(BackendMissing, match="exit code 1: RuntimeError: no such chip"):
        run_in_lava([tiny_job()], timeout=20)


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
