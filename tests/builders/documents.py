"""Read the code blocks of a Markdown document, and run them."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import NamedTuple

from tests.builders import fork_server

PROJECT = Path(__file__).parents[2]
_TIMEOUT_S = 600.0


class Block(NamedTuple):
    """A fenced block of a document."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    found = re.findall(r"^```(\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [Block(*pair) for pair in found]


def run_shell(line: str, folder: Path) -> str:
    """Run a command line, in which `exporter` is a fork; returns its output, errors included."""
    with TemporaryDirectory() as programs:
        more, passed = fork_server.shim(Path(programs))
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", line],  # noqa: S607 - as a user types it
            cwd=folder,
            env={**_environment(), "PATH": path, **more},
            pass_fds=passed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 0, f"{line}\n{done.stdout}"
    return done.stdout


def run_python(text: str, folder: Path) -> str:
    """Run a program in a fork of a process that has imported TensorFlow; returns its output."""
    script = folder / "block_of_a_document.py"
    script.write_text(text, "utf-8")
    with TemporaryFile() as out, TemporaryFile() as err:
        code = fork_server.run([str(script)], folder, _environment(), (out, err), _TIMEOUT_S)
        for file in (out, err):
            file.seek(0)
        assert code == 0, f"{text}\n{err.read().decode()}"
        return out.read().decode()


def _environment() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(PROJECT)}


def looks_like(shown: str, got: str) -> bool:
    """Does an output match a document, in which "..." matches any text?"""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(shown, got, flags)
