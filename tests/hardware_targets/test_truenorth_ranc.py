"""RANC's file formats: written and read back bit for bit, broken ones refused, golden vectors spike-exact."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from hardware_targets.truenorth import Replay, replay, rest, run
from hardware_targets.truenorth.ranc import (
    Format,
    Packets,
    RancCore,
    read_cores,
    read_inputs,
    read_outputs,
    write_cores,
    write_inputs,
    write_outputs,
)
from hardware_targets.truenorth.ranc_json import RancProject, output_text, read_project, write_project
from neuro.cli.replay import replay as command
from neuro.errors import FileError, NeuroError, ParameterError

FORMATS = [
    Format(axons=16, neurons=16),
    Format(axons=32, neurons=8, bits=8, reset_bits=0),
    Format(axons=20, neurons=70, bits=6, coordinate_bits=4),
    Format(axons=512, neurons=512, reset_bits=0),
    Format(axons=256, neurons=256, bits=8, reset_bits=0, reset_mode=1),
]
GRID, BUS, OUTPUTS, OFFSET = (3, 2), (2, 1), 13, 2


def random_core(rng: np.random.Generator, form: Format, x: int, y: int) -> RancCore:
    n, high = form.neurons, (1 << form.bits - 1) - 1

    def some(low: int, top: int, *shape: int) -> Any:
        return rng.integers(low, top + 1, shape or n)

    return RancCore(
        connections=rng.integers(0, 2, (form.axons, n)),
        types=some(0, form.weights - 1, form.axons),
        v=some(-high - 1, high),
        reset=some(-3, 3),
        weights=some(-4, 6, n, form.weights),
        leak=some(-1, 2),
        positive=some(1, 20),
        negative=some(-20, 0),
        mode=some(0, 1) if form.reset_bits else np.full(n, form.reset_mode),
        dx=some(0, GRID[0] - 1) - x,
        dy=some(0, GRID[1] - 1) - y,
        axon=some(0, min(form.axons, OUTPUTS) - 1),
        tick=some(0, (1 << form.tick_bits) - 1),
    )


def slow_replay(cores: dict[int, RancCore], packets: Packets, ticks: int) -> list[list[int]]:
    """The README of the vectors in plain Python: outputs on the bus, tick by tick."""
    bus, nx = BUS[0] + GRID[0] * BUS[1], GRID[0]
    arriving: dict[int, set[tuple[int, int]]] = {}
    p = packets.fields
    for t, x, y, axon, tick in zip(packets.ticks(), p["x"], p["y"], p["axon"], p["tick"], strict=True):
        arriving.setdefault(int(t + tick), set()).add((int(x + nx * y), int(axon)))
    v = {i: core.v.tolist() for i, core in cores.items()}
    result = []
    for t in range(ticks):
        lines = set()
        for i, core in cores.items():
            active = [a for place, a in arriving.get(t, ()) if place == i]
            for j in range(len(v[i])):
                x = v[i][j] + int(core.leak[j])
                x += sum(int(core.weights[j, core.types[a]]) for a in active if core.connections[a, j])
                up, down, hard = int(core.positive[j]), int(core.negative[j]), core.mode[j] == 0
                if x >= up:
                    x = int(core.reset[j]) if hard else x - up
                    target = i % nx + int(core.dx[j]), i // nx + int(core.dy[j])
                    if target == BUS:
                        lines.add(int(core.axon[j]))
                    else:
                        spike = (target[0] + nx * target[1], int(core.axon[j]))
                        arriving.setdefault(t + 1 + int(core.tick[j]), set()).add(spike)
                elif x < down:
                    x = -int(core.reset[j]) if hard else x - down
                v[i][j] = x
        result.append(sorted(lines))
    assert bus not in cores
    return result


def project(form: Format, seed: int = 0, ticks: int = 30) -> tuple[dict[int, RancCore], Packets, list[list[int]]]:
    rng = np.random.default_rng(seed)
    places = [(x, y) for y in range(GRID[1]) for x in range(GRID[0]) if (x, y) != BUS]
    cores = {x + GRID[0] * y: random_core(rng, form, x, y) for x, y in places}
    number = rng.integers(0, 12, ticks)
    many = int(number.sum())
    place = rng.integers(0, len(places), many)
    xy = np.array(places)[place]
    inputs = {"x": xy[:, 0], "y": xy[:, 1], "axon": rng.integers(0, form.axons, many), "tick": rng.integers(0, 4, many)}
    packets = Packets(np.cumsum(number), {k: np.asarray(v, np.int64) for k, v in inputs.items()})
    return cores, packets, slow_replay(cores, packets, ticks + OFFSET)[OFFSET:]


def write_all(folder: Path, form: Format, seed: int = 0) -> dict[int, RancCore]:
    cores, packets, expected = project(form, seed)
    write_cores(folder, cores, form)
    write_inputs(folder, packets, form)
    lines = Packets(
        np.cumsum([len(x) for x in expected]), {"line": np.array([i for x in expected for i in x], np.int64)}
    )
    write_outputs(folder, lines, OUTPUTS)
    assert lines.ends[-1] > 50, "the random network must say something"
    return cores


def play(folder: Path, form: Format) -> Replay:
    return replay(folder, grid=GRID, bus=BUS, outputs=OUTPUTS, offset=OFFSET, form=form)


@pytest.mark.parametrize(
    "form", FORMATS, ids=lambda f: f"{f.axons}x{f.neurons}, {f.bits} bits, reset field {f.reset_bits}"
)
def test_written_folders_replay_exactly_and_read_back_bit_for_bit(form: Format, tmp_path: Path) -> None:
    cores = write_all(tmp_path, form)
    back = read_cores(tmp_path, 6, form)
    for index, core in cores.items():
        for field in fields(core):
            np.testing.assert_array_equal(getattr(back[index], field.name), getattr(core, field.name), field.name)
    result = play(tmp_path, form)
    assert (result.exact, result.ticks, result.cores, result.first_difference) == (30, 30, 5, None)
    again = tmp_path / "again"
    write_cores(again, back, form)
    for file in again.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_comments_blank_lines_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    form = FORMATS[0]
    write_all(tmp_path, form)
    for name in ("csram_000.mem", "tc_001.mem", "tb_input.txt"):
        text = (tmp_path / name).read_text().rstrip("\n").replace("\n", "\r\n")
        (tmp_path / name).write_text(f"/* word 010\n [ 9 bits ] 0101 */ // 11\n\n{text}")
    assert play(tmp_path, form).exact == 30


def test_a_wrong_bit_is_found_and_named(tmp_path: Path) -> None:
    form = FORMATS[0]
    write_all(tmp_path, form)
    golden = read_outputs(tmp_path, OUTPUTS)
    tick, line = int(golden.ticks()[5]), golden.fields["line"].copy()
    others = set(range(OUTPUTS)) - set(golden.fields["line"][golden.ticks() == tick].tolist())
    was, line[5] = int(line[5]), min(others)
    write_outputs(tmp_path, replace(golden, fields={"line": line}), OUTPUTS)
    result = play(tmp_path, form)
    assert (result.exact, result.first_difference) == (29, tick)
    assert (result.missing, result.surplus) == ((min(others),), (was,))


def spoil(file: str, change: Any) -> Any:
    def apply(folder: Path) -> None:
        path = folder / file
        path.write_bytes(change(path.read_bytes()))

    return apply


BROKEN = {
    "truncated core": (spoil("csram_000.mem", lambda b: b[: len(b) // 2]), "truncated"),
    "missing line": (spoil("csram_000.mem", lambda b: b.split(b"\n", 1)[1]), "15 neurons, expected 16"),
    "not binary": (spoil("csram_001.mem", lambda b: b.replace(b"1", b"7", 1)), "not binary"),
    "binary rubbish": (spoil("csram_001.mem", lambda b: bytes(range(256)) * 9), "truncated|not binary|neurons"),
    "empty core": (spoil("csram_001.mem", lambda b: b""), "0 neurons"),
    "short axon types": (spoil("tc_000.mem", lambda b: b[:6]), "axon types, expected 16"),
    "packets lost": (spoil("tb_input.txt", lambda b: b[: b.index(b"\n") * 3 + 3]), "truncated"),
    "counts lost": (spoil("tb_num_inputs.txt", lambda b: b[:4]), "truncated"),
    "negative count": (spoil("tb_num_outputs.txt", lambda b: b"-1\n" + b), "not a count"),
    "huge count": (spoil("tb_num_outputs.txt", lambda b: b"9" * 400), "not a count"),
    "no axon types": (lambda folder: (folder / "tc_000.mem").unlink(), "missing"),
    "no expectation": (lambda folder: (folder / "tb_correct.txt").unlink(), "missing"),
    "core off the grid": (lambda f: (f / "csram_000.mem").rename(f / "csram_777.mem"), "outside the grid"),
    "core twice": (lambda f: (f / "csram_0.mem").write_text("0"), "two files"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    write_all(tmp_path, FORMATS[0])
    change, words = BROKEN[name]
    change(tmp_path)
    with pytest.raises(FileError, match=words) as caught:
        play(tmp_path, FORMATS[0])
    assert "\n" not in str(caught.value)


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    write_all(tmp_path, FORMATS[0])
    with pytest.raises(FileError, match="--reset-field"):
        play(tmp_path, replace(FORMATS[0], reset_bits=0))
    with pytest.raises(FileError, match="--axons"):
        play(tmp_path, replace(FORMATS[0], axons=400))
    with pytest.raises(ParameterError, match="bus"):
        replay(tmp_path, grid=GRID, bus=(9, 9), outputs=3, offset=0)
    with pytest.raises(FileError, match="not a folder"):
        play(tmp_path / "nowhere", FORMATS[0])
    core = read_cores(tmp_path, 6, FORMATS[0])[0]
    with pytest.raises(ParameterError, match="weight 0"):
        write_cores(tmp_path, {0: replace(core, weights=core.weights + 300)}, FORMATS[0])


def test_json_projects_are_written_read_and_run_as_the_memory_files(tmp_path: Path) -> None:
    form = Format(axons=16, neurons=16)
    cores, packets, expected = project(form)
    made = RancProject(form, GRID, BUS, OUTPUTS, cores, packets)
    write_project(tmp_path / "input.json", made, tmp_path / "config.json")
    back = read_project(tmp_path / "input.json", tmp_path / "config.json")
    assert (back.form, back.grid, back.bus, back.outputs, back.inclusive) == (form, GRID, BUS, OUTPUTS, False)
    np.testing.assert_array_equal(back.packets.ends, packets.ends)
    network, events = back.network()
    done = run(network, rest(network), 30 + OFFSET, events.__class__(*(e[events.tick < 32] for e in events)))
    text = output_text(done.output_tick, done.output_line, 30 + OFFSET, OUTPUTS).splitlines()[OFFSET:]
    assert text == ["".join(f"{int(i in lines)} " for i in range(OUTPUTS)) for lines in expected]


def test_the_symmetric_reset_of_the_simulator_crosses_at_equality(tmp_path: Path) -> None:
    """v = -2 against a negative threshold of -2, linear reset: kept when asymmetric, back to 0 when symmetric."""
    neuron = {
        "weights": [0, 0, 0, 0],
        "leak": -2,
        "positive_threshold": 9,
        "negative_threshold": -2,
        "current_potential": 0,
    }
    neuron |= {"reset_potential": 0, "reset_mode": 1, "destination_core_offset": [1, 0], "destination_axon": 0}
    core = {"axons": [0], "neurons": [neuron | {"destination_tick": 0}], "connections": [[1]], "coordinates": [0, 0]}
    data = {"packets": [[]], "output_bus": {"coordinates": [1, 0], "num_outputs": 1}, "cores": [core]}
    (tmp_path / "input.json").write_text(json.dumps(data))
    sizes = {
        "num_neurons": 1,
        "num_axons": 1,
        "num_cores_x": 2,
        "num_cores_y": 1,
        "num_weights": 4,
        "max_tick_offset": 16,
    }
    for kind, want in ((0, -2), (1, 0)):
        (tmp_path / "config.json").write_text(json.dumps(sizes | {"neuron_reset_type": kind}))
        network, _ = read_project(tmp_path / "input.json", tmp_path / "config.json").network()
        assert int(run(network, rest(network), 1).state.v[0, 0]) == want
    neuron["leak"] = "two"
    (tmp_path / "input.json").write_text(json.dumps(data | {"cores": [core | {"neurons": [neuron]}]}))
    with pytest.raises(FileError, match="leak must be an integer"):
        read_project(tmp_path / "input.json")
    (tmp_path / "input.json").write_text('{"cores": [')
    with pytest.raises(FileError, match="not JSON"):
        read_project(tmp_path / "input.json")


def test_the_simulators_own_json_test_runs(shared: Path) -> None:
    """test.json: neurons 0 and 1 see +1 -1 cancelled only by an open crossbar: packets on axons 0..3, thresholds 0 and
    -1.
    """
    made = read_project(shared / "vectors/ranc/simulator/test.json")
    network, events = made.network()
    done = run(network, rest(network), 1, events)
    # neuron 0: axons 0, 2 (type 0, +1): v = 2; neuron 1: axons 1, 3 (type 1, -1): v = -2; neuron 2: v = 0 >= 0.
    assert done.output_line.tolist() == [0, 2]


GOLDEN = [
    ("tea_256", "4x3", "0,2", 250, 1, 256, 10),
    ("tea_128", "8x4", "0,3", 120, 2, 128, 10),
    ("vmm", "3x3", "2,2", 256, 3, 256, 107),
]


@pytest.mark.parametrize(
    ("name", "grid", "bus", "outputs", "offset", "size", "ticks"), GOLDEN, ids=[g[0] for g in GOLDEN]
)
def test_golden_vectors_from_the_command_line(
    shared: Path, name: str, grid: str, bus: str, outputs: int, offset: int, size: int, ticks: int
) -> None:
    app = Typer()
    app.command()(command)
    words = [str(shared / "vectors/ranc" / name), "--grid", grid, "--bus", bus, "--outputs", str(outputs)]
    words += ["--offset", str(offset), "--axons", str(size), "--neurons", str(size)]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    assert (json.loads(result.stdout)["exact"], json.loads(result.stdout)["ticks"]) == (ticks, ticks)
    assert f"{ticks}/{ticks} ticks spike-exact" in CliRunner().invoke(app, words).stdout
    wrong = CliRunner().invoke(app, [*words[:-6], "--offset", str(offset + 1), *words[-4:]])
    assert wrong.exit_code == 1
    assert "first difference" in wrong.stdout


def test_the_output_bus_of_tea_256_classifies_its_ten_digits(shared: Path) -> None:
    golden = read_outputs(shared / "vectors/ranc/tea_256", 250)
    votes = [np.bincount(x % 10, minlength=10) for x in np.split(golden.fields["line"], golden.ends[:-1])]
    assert [int(v.argmax()) for v in votes][:5] == [7, 2, 1, 0, 4]
    assert read_inputs(shared / "vectors/ranc/tea_256", Format()).ends.size == 10


def test_command_line_refuses_bad_options() -> None:
    app = Typer()
    app.command()(command)
    for words in (
        ["--grid", "4by3"],
        ["--grid", "4x3", "--reset-field", "maybe"],
        ["--grid", "4x3", "--overflow", "x"],
    ):
        result = CliRunner().invoke(app, [".", *words, "--bus", "0,0", "--outputs", "1"])
        assert isinstance(result.exception, NeuroError)
