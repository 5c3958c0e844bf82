"""The child's side of the protocol in `process`: reads requests, writes answers.

The streams are moved before a request is served, so that no library can write into the answers.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol, TextIO

from exporter.errors import ExporterError, first_line, missing_library
from exporter.output.scratch import is_full, no_temporary_files

Answer = dict[str, Any]


class Server(Protocol):
    """Serves the requests of one parent."""

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """The result of one request. Whatever it raises is answered too."""
        ...


def serve(make: Callable[[Path], Server]) -> NoReturn:
    """Serve requests until the parent ends.

    Args:
        make: makes the server, from the folder that parent and child share.
    """
    requests, answers = _claim_streams()
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, waiting), daemon=True).start()
    folder = Path(sys.argv[1])
    server = make(folder)
    while True:
        answer = _answer(server, json.loads(waiting.get()), folder)
        with suppress(OSError):
            sys.stdout.flush()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(server: Server, request: Mapping[str, Any], folder: Path) -> Answer:
    """Serve one request. An unexpected exception is answered too; its traceback is logged."""
    try:
        return {"result": server.answer(request)}
    except ExporterError as error:
        return {"error": _encoded(error)}
    except Exception as error:  # noqa: BLE001 - the edge of the process: the parent decides
        with suppress(OSError):  # the disk of the log is full
            traceback.print_exc()
        if isinstance(error, ImportError) and (missing := missing_library(error)):
            return {"error": _encoded(missing)}
        if is_full(error):
            return {"error": _encoded(no_temporary_files(error, folder.parent))}
        line = first_line(error) or "no message"
        return {"error": {"class": type(error).__qualname__, "message": line, "hint": ""}}


def _encoded(error: ExporterError) -> Mapping[str, str]:
    return {"class": type(error).__name__, "message": error.message, "hint": error.hint}


def _claim_streams() -> tuple[TextIO, TextIO]:
    """Move the parent's pipes to new descriptors; libraries get no input, and the log as output."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _read(requests: TextIO, waiting: queue.SimpleQueue[str]) -> None:
    """Queue the requests; if the parent ends, end at once, even during a request."""
    for line in requests:
        waiting.put(line)
    os._exit(0)
