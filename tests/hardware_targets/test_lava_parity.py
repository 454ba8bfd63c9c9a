"""Our simulator against lava-nc 0.10.0's fixed-point models: spikes, u and v equal at every step.

Set NEURO_LAVA_PYTHON to a Python 3.10 that has lava-nc. NEURO_LAVA_PROGRAMS=200 runs that many through Lava's full
runtime (a second each) where the default is a few; the same models stepped by hand see many more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from converters import RateCode, convert
from hardware_targets import compile
from hardware_targets import run as run_compiled
from hardware_targets.lava import side_by_side, via_lava
from hardware_targets.lava.via_lava import LavaJob, LavaRun, run_in_lava
from hardware_targets.loihi.dynamics import step
from hardware_targets.loihi.program import Dense, Input, Population, Program
from hardware_targets.loihi.random_programs import STEPS, random_program
from hardware_targets.loihi.simulate import recordable, simulate_program
from neuro import trace
from neuro.errors import BackendMissing


@pytest.fixture(scope="module")
def lava() -> Path:
    try:
        return via_lava.lava_python()
    except BackendMissing as missing:
        pytest.skip(str(missing))


def assert_equal(job: LavaJob, theirs: LavaRun, label: object) -> None:
    run = simulate_program(job.program, job.inputs, job.steps, record=job.record)
    ours = {"spikes": run.spikes, **run.traces}
    for name in (p.name for p in job.program.populations):
        assert name in theirs.recorded["spikes"]
    for what, by_name in theirs.recorded.items():
        for name, series in by_name.items():
            differ = int(np.sum(series != ours[what][name]))
            assert not differ, f"program {label}, {name} ({theirs.models[name]}), {what}: {differ} differ"


def lava_jobs(first: int, count: int, engine: via_lava.Engine, lava_only: bool = True) -> list[LavaJob]:
    """Random programs by seed, everything recorded."""
    drawn = [random_program(np.random.default_rng(seed), lava_only) for seed in range(first, first + count)]
    return [LavaJob(program, inputs, STEPS, recordable(program), engine) for program, inputs in drawn]


PROGRAMS = int(os.environ.get("NEURO_LAVA_PROGRAMS", 4))
LAVAS_OWN = {
    "LIF", "LIFReset", "TernaryLIF", "Sigma", "Delta", "SigmaDelta", "GradedVec", "GradedReluVec", "ProdNeuron",
    "IntegerRF", "IntegerRFIZ", "IntegerRFZero",
}  # fmt: skip


def test_many_random_programs_equal_lavas_models(lava: Path) -> None:
    jobs = lava_jobs(0, max(100, PROGRAMS), "models")
    runs = run_in_lava(jobs, timeout=300)
    fired = [events.any() for run in runs for events in run.recorded["spikes"].values()]
    wrapped = [np.abs(u).max() >= 2**23 for run in runs for u in run.recorded.get("u", {}).values()]
    assert np.mean(fired) > 0.3, "the programs drawn say too little"
    assert sum(wrapped) > 10, "the programs drawn overflow too rarely"
    assert {model for run in runs for model in run.models.values()} == LAVAS_OWN
    for number, (job, run) in enumerate(zip(jobs, runs, strict=True)):
        assert_equal(job, run, number)


def test_random_programs_equal_lavas_runtime(lava: Path) -> None:
    jobs = lava_jobs(10_000, PROGRAMS, "runtime")
    for number, (job, run) in enumerate(zip(jobs, run_in_lava(jobs, timeout=60 + 10 * PROGRAMS), strict=True)):
        assert_equal(job, run, number)


def test_several_samples_other_resets_and_start_ticks(lava: Path) -> None:
    """What Lava lacks, on Lava's equations: rest between samples, soft reset, thresholds per neuron, refractoriness."""
    jobs = lava_jobs(20_000, 25, "models", lava_only=False) + lava_jobs(20_000, 1, "runtime", lava_only=False)
    for number, (job, run) in enumerate(zip(jobs, run_in_lava(jobs, timeout=300), strict=True)):
        assert_equal(job, run, number)


FLOAT_REFRACTORY = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np
import lava_worker
from lava_processes import FIXED_POINT_MODELS
from lava.proc.lif.models import PyLifRefractoryModelFloat
from lava.proc.lif.process import LIFRefractory
arriving, bias = np.load(sys.argv[2]), np.load(sys.argv[3])
process = LIFRefractory(shape=bias.shape, du=1, dv=0, vth=100, bias_mant=bias, refractory_period=int(sys.argv[4]))
FIXED_POINT_MODELS[LIFRefractory] = PyLifRefractoryModelFloat
model = lava_worker.process_model(process)
v = []
for step, a in enumerate(arriving):
    model.time_step, model.a_in.value = step + 1, a.astype(float)
    model.run_spk()
    v.append(model.v.copy())
np.save(sys.argv[5], np.array(v))
"""


@pytest.mark.parametrize("refractory", [1, 4])
def test_refractory_period_is_that_of_lavas_own_model(lava: Path, tmp_path: Path, refractory: int) -> None:
    """Lava has it in floating point only: equal where nothing rounds, without leak or memory of the current."""
    rng = np.random.default_rng(refractory)
    arriving, bias = rng.integers(-20, 60, (50, 8)), rng.integers(0, 20, 8)
    np.save(tmp_path / "a.npy", arriving)
    np.save(tmp_path / "bias.npy", bias.astype(float))
    files = [str(tmp_path / name) for name in ("a.npy", "bias.npy")]
    command = [str(lava), "-c", FLOAT_REFRACTORY, str(via_lava.WORKER.parent), *files, str(refractory)]
    subprocess.run([*command, str(tmp_path / "v.npy")], check=True, capture_output=True, timeout=60)
    population = Population("n", 8, vth=100, bias_mant=bias, bias_exp=6, refractory=refractory)
    state = {what: x[None] for what, x in population.rest.items()}
    ours = []
    for tick, a in enumerate(arriving):
        _, state = step(population, tick, state, [a[None].astype(np.int32)])
        ours.append(state["v"][0])
    theirs = np.load(tmp_path / "v.npy")
    assert np.array_equal(np.array(ours), 64 * theirs)
    assert (theirs == 0).sum() > 20 * refractory


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


ENDLESS_PARENT = """
import os, subprocess, sys
worker = subprocess.Popen([sys.executable, *sys.argv[1:], str(os.getpid())], start_new_session=True)
print(worker.pid, flush=True)
worker.wait()
"""


def test_death_of_the_parent_ends_lava(lava: Path, tmp_path: Path) -> None:
    endless = replace(tiny_job(), steps=10**6)
    with h5py.File(tmp_path / "jobs.h5", "w") as file:
        via_lava.write_job(file.create_group("0", track_order=True), endless)
    files = [str(tmp_path / "jobs.h5"), str(tmp_path / "results.h5")]
    parent = subprocess.Popen(
        [str(lava), "-c", ENDLESS_PARENT, str(via_lava.WORKER), *files], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline())
        wait_until(lambda: members(group) > 3, 60)  # Lava's own processes have started
        parent.kill()
        wait_until(lambda: members(group) == 0, 30)


def members(group: int) -> int:
    """Processes of a group that are not zombies."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True).stdout.splitlines()
    return sum(int(line.split()[0]) == group and line.split()[1][0] != "Z" for line in listed)


def wait_until(happened: Callable[[], bool], seconds: float) -> None:
    late = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < late, "it did not happen"
        time.sleep(0.1)


def test_a_compiled_network_runs_in_lava_and_agrees(lava: Path) -> None:
    """Padded, strided convolution of graded input, soft reset, a read-out and several samples, as compile has them."""
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(1, 3, 3, stride=2, padding=1), torch.nn.ReLU(), torch.nn.Flatten())
    net = torch.nn.Sequential(*layers, torch.nn.Linear(3 * 4 * 4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    x = torch.rand(3, 1, 8, 8)
    program = compile(convert(trace(net, x), RateCode(), calibration=x), "loihi2")
    ours = run_compiled(program, x, steps=6, record=["spikes", "v"])
    theirs = run_compiled(program, x, steps=6, record=["spikes", "v"], backend="lava")
    agreement = theirs.agreement
    assert agreement is not None
    assert agreement.exact
    assert (agreement.samples, sum(agreement.models.values())) == (3, 3)
    assert agreement.compared["spikes"] == agreement.compared["v"] == 3 * agreement.steps * (3 * 4 * 4 + 8 + 3)
    assert agreement.events > 0
    assert "0 of" in str(agreement)
    assert torch.equal(ours.outputs, theirs.outputs)
    for what in ("spikes", "v"):
        for name, series in ours.recordings[what].items():
            assert torch.equal(series, theirs.recordings[what][name].to(series.dtype))


def test_a_difference_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    job = tiny_job()
    spikes, silent = np.ones((2, 1, 1), np.int32), np.zeros((2, 1, 1), np.int32)
    told = LavaRun({"spikes": {"n": spikes}, "u": {"n": silent}, "v": {"n": silent}}, {"n": "LIF"}, 0.0)
    monkeypatch.setattr(side_by_side, "run_in_lava", lambda jobs, timeout: [told])
    result, agreement = side_by_side.run_side_by_side(job.program, job.inputs, job.steps)
    assert not agreement.exact
    assert agreement.different["spikes"] == 2  # one step of input is not enough to fire
    assert agreement.different["u"] == 1  # 64 at the second step
    assert result.spike_counts["n"].tolist() == [[2]]


def test_a_board_is_refused_where_there_is_none(lava: Path) -> None:
    with pytest.raises(BackendMissing, match="lava-loihi"):
        run_in_lava([replace(tiny_job(), engine="board")])


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
