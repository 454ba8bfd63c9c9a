"""The command line as a function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from neuro import cli

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def neuro_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs `neuro` with the words given, in an empty folder: exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["neuro", *map(str, words)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        return code, *capfd.readouterr()

    return command
