"""Run a command that must fail, and read its error."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.builders.commands import Done, exporter, listing


@dataclass(frozen=True)
class Refusal:
    """A command line that is refused.

    Attributes:
        line: arguments without the program's name; a string is split at blanks.
        error, hint: the two lines on stderr.
    """

    line: str | tuple[str, ...]
    code: int
    error: str
    hint: str = ""

    @property
    def arguments(self) -> Sequence[str]:
        return self.line.split() if isinstance(self.line, str) else self.line


def assert_refused(
    case: Refusal, folder: Path, run: Callable[[Sequence[str], Path], Done] = exporter
) -> None:
    """Run the command; it must print the error and the hint, and write no file."""
    before = listing(folder)
    done = run(case.arguments, folder)
    assert done.code == case.code, done.err
    assert done.out == ""
    steps, _, message = done.err.rpartition("error: ")
    assert all(line.endswith(" ...") for line in steps.splitlines()), "only steps precede the error"
    error, *hint = message.replace(f"{folder}{os.sep}", "").splitlines()
    assert error.startswith(case.error)
    assert len(hint) <= 1
    assert "".join(hint).startswith(f"hint: {case.hint}" if case.hint else "")
    assert listing(folder) == before
