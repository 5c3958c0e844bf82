"""A process of a batch that does what its task says: `python -m tests.builders.batch_worker`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.conversion.serving import Answer, serve
from exporter.errors import ModelError


class Scripted:
    """Serves tasks with `log`, a file; and `die`, `fail` or `seconds`."""

    def __init__(self, _folder: Path) -> None:
        """Nothing is needed."""

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """Note the start and the end of a task, with the time and the process."""
        task = request["parameters"]["task"]
        self._note(task, "start")
        time.sleep(task.get("seconds", 0))
        if task.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if task.get("fail"):
            raise ModelError("the model is damaged", "save it again")
        self._note(task, "end")
        return {"row": {"status": "passed"}, "pid": os.getpid()}

    @staticmethod
    def _note(task: Mapping[str, Any], what: str) -> None:
        with Path(task["log"]).open("a", encoding="utf-8") as log:
            log.write(f"{what} {task['name']} {os.getpid()}\n")


if __name__ == "__main__":
    serve(Scripted)
