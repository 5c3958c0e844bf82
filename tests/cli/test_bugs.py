"""An error that nobody foresaw: the fault of the file while one is interpreted, else a bug."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.builders.commands import Done

# name -> the function that has the bug, exit code, error, end of the hint
BUGS = {
    "while a file is interpreted": (
        "exporter.jobs.inspect.trace",
        3,
        "error: inspecting net.onnx failed: KeyError: 'unit'",
        "report the output with --debug",
    ),
    "after it": (
        "exporter.cli.show_inspection.inspection",
        70,
        "error: this is a bug in exporter",
        "please report the lines above",
    ),
}


@pytest.mark.parametrize("name", BUGS)
@pytest.mark.parametrize("is_debugging", [False, True])
def test_a_bug_of_ours(
    name: str,
    is_debugging: bool,
    shelf: Path,
    command_here: Callable[[str, Path], Done],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug outside of the region always shows its traceback."""
    place, code, error, hint = BUGS[name]

    def bug(*_arguments: Any, **_options: Any) -> None:
        raise KeyError("unit")

    monkeypatch.setattr(place, bug)
    done = command_here(f"inspect net.onnx{' --debug' * is_debugging}", shelf)
    assert done.code == code
    assert error in done.err.splitlines()
    assert done.err.splitlines()[-1].endswith(hint)
    assert ("Traceback" in done.err) == (is_debugging or code == 70)
