"""Run the command line as a process, as a user would."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tests.builders import fork_server

PROJECT = Path(__file__).parents[2]
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Done:
    """A process that has ended."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The JSON object on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found


# Variables that change the display, or switch a library's telemetry.
_UNSET = {"CI", "FORCE_COLOR", "NO_COLOR", "ORT_DISABLE_TELEMETRY", "PYTHONPATH"}


def environment(**more: str) -> dict[str, str]:
    """Environment of a command: ours, without variables that change its behavior."""
    kept = {name: value for name, value in os.environ.items() if name not in _UNSET}
    return {**kept, "COLUMNS": "80", "PYTHONPATH": str(PROJECT), **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "exporter", *arguments]


def exporter(line: str | Sequence[str], folder: Path, **surroundings: str) -> Done:
    """Run one command in a folder; its temporary files go to a second folder next to it.

    Args:
        line: arguments without the program's name, as text or as a sequence.
        surroundings: environment variables. With some, the command starts from nothing; else it is
            a fork of a process that has imported the program.
    """
    temporary = folder.parent / f"{folder.name}-tmp"
    temporary.mkdir(exist_ok=True)
    arguments = shlex.split(line) if isinstance(line, str) else line
    variables = environment(TMPDIR=str(temporary), **surroundings)
    if not surroundings and fork_server.AVAILABLE:
        with TemporaryFile() as out, TemporaryFile() as err:
            line = ["exporter", *arguments]
            code = fork_server.run(line, folder, variables, (out, err), _TIMEOUT_S)
            for file in (out, err):
                file.seek(0)
            return Done(code, out.read().decode(), err.read().decode())
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=_TIMEOUT_S,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def leftover_files(folder: Path) -> list[str]:
    """Temporary files that the commands run in this folder did not remove."""
    return sorted(path.name for path in (folder.parent / f"{folder.name}-tmp").iterdir())


def listing(folder: Path) -> dict[str, bytes]:
    """Every file in the folder, hidden ones included -> its content; folders end with a slash."""
    return {
        str(path.relative_to(folder)) + "/" * path.is_dir(): b""
        if path.is_dir()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
