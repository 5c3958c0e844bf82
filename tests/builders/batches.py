"""What tests of batches share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

from exporter.batches.work import Worker


class InThread:
    """Does tasks in the thread that would wait for a process; starts in no time."""

    pid: int | None = 1

    def __init__(self, _timeout_s: float, module: str) -> None:
        self._worker = Worker(Path())
        self._context = copy_context()  # limits are set in one call and reset in a later one
        assert module == Worker.__module__

    def request(self, method: str, _action: str, **parameters: Any) -> dict[str, Any]:
        """The answer of a worker."""
        request = json.loads(json.dumps({"method": method, "parameters": parameters}))
        answer = self._context.run(self._worker.answer, request)
        found: dict[str, Any] = json.loads(json.dumps(answer))
        return found

    def kill(self) -> None:
        """There is no process."""

    def close(self) -> None:
        """Close the model."""
        self._context.run(self._worker.close)


FAST: dict[str, Any] = {"bench": False, "plots": False, "samples": 2}


def made(out: Path) -> list[str]:
    """The tasks that were done, of all runs."""
    lines = (out / "journal.jsonl").read_text().splitlines()
    return [json.loads(line)["task"] for line in lines]


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the journal, which has the times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
