"""Run the command line as a process, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent


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


def environment(**more: str) -> dict[str, str]:
    """Ours, without what changes how things are shown or whether libraries tell tales."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in {"FORCE_COLOR", "NO_COLOR", "PYTHONPATH", "ORT_DISABLE_TELEMETRY", "CI"}
    }
    return {**kept, "COLUMNS": "80", "PYTHONPATH": str(PROJECT), **more}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "exporter", *map(str, arguments)]


def exporter(
    *arguments: str | Path, folder: Path, surroundings: Mapping[str, str] | None = None
) -> Done:
    """Run one command in a folder; its temporary files go to `tmp` there."""
    temporary = folder.parent / f"{folder.name}-tmp"
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(TMPDIR=str(temporary), **(surroundings or {})),
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
