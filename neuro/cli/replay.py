"""`neuro replay`: run a folder of golden vectors on the simulated cores and say how many ticks are spike-exact."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated

import typer

from hardware_targets.truenorth.ranc import Format
from hardware_targets.truenorth.replay import replay as run_replay
from neuro.errors import ParameterError


def replay(
    folder: Annotated[Path, typer.Argument(help="Folder with csram_NNN.mem, tc_NNN.mem and tb_*.txt.")],
    grid: Annotated[str, typer.Option(help="Cores in x and y, as 4x3.")],
    bus: Annotated[str, typer.Option(help="Position of the output bus, as 0,2.")],
    outputs: Annotated[int, typer.Option(help="Lines of the output bus.")],
    offset: Annotated[int, typer.Option(help="Ticks from an input to its output.")] = 0,
    axons: Annotated[int, typer.Option(help="Axons per core.")] = 256,
    neurons: Annotated[int | None, typer.Option(help="Neurons per core; as many as axons if not given.")] = None,
    bits: Annotated[int, typer.Option(help="Bits of potential, weight, leak and threshold fields.")] = 9,
    reset_field: Annotated[str, typer.Option(help="Whether neurons have a reset mode field: yes or no.")] = "yes",
    reset_mode: Annotated[int, typer.Option(help="Reset mode of neurons without the field.")] = 0,
    overflow: Annotated[str, typer.Option(help="Potential register: none (simulator) or wrap (Verilog).")] = "none",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Replay golden vectors of a TrueNorth-like core; exit code 0 if every tick is spike-exact, else 1."""
    if reset_field.lower() not in ("yes", "no"):
        raise ParameterError(f"--reset-field must be yes or no, got {reset_field!r}")
    if overflow not in ("none", "wrap"):
        raise ParameterError(f"--overflow must be none or wrap, got {overflow!r}")
    result = run_replay(
        folder,
        grid=_pair(grid, "x", "--grid"),
        bus=_pair(bus, ",", "--bus"),
        outputs=outputs,
        offset=offset,
        form=Format(
            axons=axons,
            neurons=axons if neurons is None else neurons,
            bits=bits,
            reset_bits=int(reset_field.lower() == "yes"),
            reset_mode=reset_mode,
        ),
        overflow="wrap" if overflow == "wrap" else "none",
    )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result)))
    else:
        typer.echo(f"{result.exact}/{result.ticks} ticks spike-exact")
        events = f"{result.spikes} spikes, {result.synaptic_events} synaptic events, {result.lost} lost"
        typer.echo(f"{result.cores} cores, {events}")
        if result.first_difference is not None:
            typer.echo(
                f"first difference in tick {result.first_difference}: missing {list(result.missing)}, "
                f"surplus {list(result.surplus)}"
            )
    if result.exact != result.ticks:
        raise typer.Exit(1)


def _pair(text: str, separator: str, option: str) -> tuple[int, int]:
    match = re.fullmatch(rf"\s*(\d{{1,6}})\s*{re.escape(separator)}\s*(\d{{1,6}})\s*", text)
    if match is None:
        raise ParameterError(f"{option} must be two numbers joined by {separator!r}, got {text!r}")
    return int(match[1]), int(match[2])
