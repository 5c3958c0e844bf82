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
from typing import Any

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """A process that has ended."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found


# These change how things are shown, or keep a library from telling tales.
_UNWANTED = {"CI", "FORCE_COLOR", "NO_COLOR", "ORT_DISABLE_TELEMETRY", "PYTHONPATH"}


def environment(**more: str) -> dict[str, str]:
    """What a command runs in: ours without what would change its behavior."""
    kept = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    return {**kept, "COLUMNS": "80", "PYTHONPATH": str(PROJECT), **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "exporter", *arguments]


def exporter(line: str | Sequence[str], folder: Path, **surroundings: str) -> Done:
    """Run one command in a folder; its temporary files go to another, beside it.

    Args:
        line: as one would type it, without the program's name; or the arguments.
        surroundings: environment variables.
    """
    temporary = folder.parent / f"{folder.name}-tmp"
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        command(*(shlex.split(line) if isinstance(line, str) else line)),
        cwd=folder,
        env=environment(TMPDIR=str(temporary), **surroundings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def left_behind(folder: Path) -> list[str]:
    """What the commands that ran in this folder left among the temporary files."""
    return sorted(path.name for path in (folder.parent / f"{folder.name}-tmp").iterdir())


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, hidden ones too, and its content; folders end in a slash."""
    return {
        str(path.relative_to(folder)) + "/" * path.is_dir(): b""
        if path.is_dir()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
