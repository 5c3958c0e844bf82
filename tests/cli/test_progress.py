"""Progress: a bar on a terminal, else lines, and few of them."""

from __future__ import annotations

import io
import sys

import pytest

from exporter.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def run(clock: Clock, **given: bool) -> None:
    """100 samples, one each second."""
    with progress.show_progress({"quiet": False, "verbose": False} | given) as shown:
        shown("running net on 100 samples")
        for done in range(101):
            clock.now = done
            shown.on_sample(done, 100)


def test_lines_without_a_terminal(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "running net on 100 samples ..."
    assert lines[1] == "10 of 100 samples, 10 s, about 90 s left"
    assert lines[-1] == "100 of 100 samples, 100 s, about 0 s left"
    assert len(lines) == 11


def test_verbose_and_quiet(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, verbose=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[  0.0 s] running net on 100 samples ..."
    assert lines[2] == "[ 20.0 s] 20 of 100 samples, 20 s, about 80 s left"
    run(clock, quiet=True)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("COLUMNS", "120")
    run(clock)
    shown = stderr.getvalue()
    assert "running net on 100 samples ..." in shown
    assert "100 of 100 samples, 100 s, about 0 s left" in shown


def test_files_are_counted_with_the_time_that_is_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.show_progress({"quiet": False, "verbose": False}) as shown:
        shown("converting to ONNX")
        clock.now = 100
        for number in range(1, 5):
            shown.on_file(number, 4)
            shown(f"cutting {number}")
            clock.now += 20
            shown(f"checking {number}")
            clock.now += 40
        shown("a sentence.")
        shown.on_file(1, 1)
        shown("only one")
    assert capsys.readouterr().err.splitlines() == [
        "converting to ONNX ...",
        "[1 of 4, 100 s] cutting 1 ...",
        "[1 of 4, 2 min] checking 1 ...",
        "[2 of 4, 3 min, about 3 min left] cutting 2 ...",
        "[2 of 4, 3 min, about 3 min left] checking 2 ...",
        "[3 of 4, 4 min, about 2 min left] cutting 3 ...",
        "[3 of 4, 4 min, about 100 s left] checking 3 ...",
        "[4 of 4, 5 min, about 60 s left] cutting 4 ...",
        "[4 of 4, 5 min, about 40 s left] checking 4 ...",
        "a sentence.",
        "only one ...",
    ]
