"""Progress: items pass unchanged, logs get a line now and then, nothing is said where nobody asked."""

from __future__ import annotations

import pytest

from neuro import progress


@pytest.mark.parametrize(("wanted", "asked", "lines"), [(True, "", 3), (False, "", 0), (True, "0", 0)])
def test_a_log_gets_lines(
    wanted: bool, asked: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 61))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setenv("NEURO_PROGRESS", asked)
    assert list(progress.track("abc", 3, "letters", wanted)) == ["a", "b", "c"]
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == lines
    if lines:
        assert said.err.splitlines()[-1] == "letters: 2 of 3 after 3 min"


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(5), 5, "numbers", True)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""
