"""Run commands in forks of a process that has imported the program: a command then starts in 20 ms.

A fork has its own folder, environment, arguments and standard streams. Only its hash seed is that
of all others: a test of equal bytes needs processes of their own.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

PROJECT = Path(__file__).parents[2]
_LONGEST = 1 << 20  # bytes of a message
_IMPORTED = (
    "exporter.api",
    "exporter.cli.show",
    "exporter.formats.onnx.model",
    "exporter.formats.tflite.model",
    "exporter.report.plots",
    "matplotlib.figure",
    "onnxruntime",
    "onnxruntime.quantization",
    "ai_edge_litert.interpreter",
    "scipy.stats",
    "sklearn.metrics",
)


@cache
def _server(project: Path) -> socket.socket:
    """A connection to the server of this process, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.builders.fork_server", str(theirs.fileno())],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(project)},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    atexit.register(_stop, ours, process)
    return ours


def _stop(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    process.wait()


def run(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    streams: tuple[IO[bytes], IO[bytes]],
    timeout_s: float,
) -> int:
    """Run one command and return its exit code; negative if a signal ended it.

    Args:
        streams: files for its stdout and stderr.
    """
    server = _server(PROJECT)
    message = json.dumps([list(arguments), str(folder), dict(environment)]).encode()
    socket.send_fds(server, [message], [stream.fileno() for stream in streams])
    server.settimeout(timeout_s)
    (process,) = json.loads(server.recv(_LONGEST))
    try:
        (code,) = json.loads(server.recv(_LONGEST))
    except TimeoutError:
        os.kill(process, signal.SIGKILL)
        server.recv(_LONGEST)
        raise
    return int(code)


def serve(connection: socket.socket) -> None:
    """Fork for each message until the connection ends; in a fork, run the command."""
    for name in _IMPORTED:
        with suppress(ImportError):  # a minimal environment has no optional libraries
            import_module(name)
    gc.freeze()  # else each fork copies all pages when it collects
    while True:
        message, files, _, _ = socket.recv_fds(connection, _LONGEST, 2)
        if not message:
            return
        process = os.fork()
        if not process:
            break
        for file in files:
            os.close(file)
        connection.send(json.dumps([process]).encode())
        _, status = os.waitpid(process, 0)
        connection.send(json.dumps([os.waitstatus_to_exitcode(status)]).encode())
    connection.close()
    arguments, folder, environment = json.loads(message)
    for target, file in enumerate(files, start=1):
        os.dup2(file, target)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None
    sys.argv[1:] = arguments
    try:
        runpy.run_module("exporter", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        atexit._run_exitfuncs()  # the rest of an exit takes 2 s
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
