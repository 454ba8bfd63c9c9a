"""The command line: the same verbs as the library. Results go to stdout, progress and refusals to stderr.

Exit codes: 0 success, 1 failure, 2 wrong use or refused input, 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from neuro.cli.chips import chips
from neuro.cli.compare import compare, demo
from neuro.cli.convert import convert
from neuro.cli.cost import cost
from neuro.cli.data import data
from neuro.cli.deploy import check, deploy
from neuro.cli.diagnose import diagnose
from neuro.cli.inspect import inspect
from neuro.cli.recipes import recipes
from neuro.cli.replay import replay
from neuro.cli.simulate import simulate
from neuro.cli.train import train
from neuro.cli.tune import tune
from neuro.errors import NeuroError

app = typer.Typer(
    help="Takes a trained network to a spiking one and on to a neuromorphic chip, and tells what it costs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for command in (
    demo,
    train,
    convert,
    tune,
    diagnose,
    recipes,
    simulate,
    check,
    deploy,
    compare,
    inspect,
    replay,
    cost,
    chips,
    data,
):
    app.command()(command)


def main() -> None:
    """Entry point of the console command `neuro`."""
    try:
        app()
    except NeuroError as error:
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        print(f"neuro: {error}{notes}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"neuro: {error}", file=sys.stderr)
        sys.exit(1)
