"""Run commands whose file calls fail, or that are killed: `python fault_server.py`, a process.

Each command runs in a fork of this process, which has imported everything: a command then takes a
tenth of a second instead of one. The shim (shim.c) makes the file calls fail. It is loaded below
Python, because C++ libraries write files too.

One request per line on stdin: a list of commands that start together, each with `arguments`,
`folder`, `nth`, `error`, `log` (see `shim_arm`) and `kill_after_s` (null: not killed). The answer
is a list of [exit code, or minus the signal; stderr; seconds].
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from typing import Any

from exporter.cli.exit_codes import run_command, unwind_on_signals
from exporter.cli.main import cli
from tests.builders.warm import import_commands


def start(command: dict[str, Any], stderr: int) -> int:
    """Start a command in a fork; returns its process id."""
    process = os.fork()
    if process:
        return process
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, stream in ((null, 0), (null, 1), (stderr, 2)):
            os.dup2(descriptor, stream)
        os.chdir(command["folder"])
        unwind_on_signals()
        ctypes.CDLL(None).shim_arm(
            command["folder"].encode(),
            ctypes.c_long(command["nth"]),
            command["error"],
            command["log"].encode(),
        )
        code = run_command(cli, command["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 70
    except BaseException:  # noqa: BLE001 - the fork must not return to the loop
        code = 70
    os._exit(code)


def finish(process: int, kill_after_s: float | None) -> int:
    """Wait for a process; kill it after a time."""
    timer = None
    if kill_after_s is not None:
        timer = threading.Timer(kill_after_s, os.kill, (process, signal.SIGKILL))
        timer.start()
    _, status = os.waitpid(process, 0)
    if timer is not None:
        timer.cancel()
        timer.join()
    return os.waitstatus_to_exitcode(status)


def serve(commands: list[dict[str, Any]]) -> list[tuple[int, str, float]]:
    answers = []
    started = time.monotonic()
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in commands]
        processes = [start(c, file.fileno()) for c, file in zip(commands, files, strict=True)]
        for command, process, file in zip(commands, processes, files, strict=True):
            code = finish(process, command["kill_after_s"])
            file.seek(0)
            answers.append((code, file.read(), time.monotonic() - started))
    return answers


def main() -> None:
    import_commands()
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
