"""Run the program, and the child that converts, as forks of processes that have imported them.

A command then starts in 20 ms, and a child in 50 ms instead of the 4 s that TensorFlow takes.
A fork has its own session, folder, environment, arguments and standard streams. It shares its hash
seed and its addresses with all others: a test of equal bytes needs a process of its own.

Each process of the tests has two servers, which start when they are first needed. Each server forks
twice for a request: the fork of the fork runs the module, and its parent waits for it.
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
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import IO

from exporter.conversion import process

AVAILABLE = hasattr(os, "fork")
PROJECT = Path(__file__).parents[2]
_LONGEST = 1 << 20  # bytes of a message
_COMMAND = "exporter"
_CHILD = "exporter.conversion.child"
_IMPORTED = {
    _COMMAND: (
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
    ),
    _CHILD: (
        "exporter.conversion.digits_network",
        "exporter.conversion.to_onnx",
        "exporter.conversion.to_tflite",
        "exporter.formats.keras.large_head_model",
        "exporter.formats.savedmodel.model",
        "exporter.quantization.remote",
        "tf2onnx",
    ),
}
start_from_nothing = process.start_process


@cache
def _server(module: str) -> socket.socket:
    """A connection to the server of a module, which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    passed = [theirs.fileno(), *([_server(_CHILD).fileno()] if module == _COMMAND else [])]
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    environment = process.environment(Path(folder.name)) if module == _CHILD else os.environ
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.builders.fork_server", module, *map(str, passed)],
            cwd=PROJECT,
            env={**environment, "PYTHONPATH": str(PROJECT)},
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
        )
    atexit.register(_stop, ours, server, folder)
    return ours


def _stop(
    connection: socket.socket,
    server: subprocess.Popen[bytes],
    folder: tempfile.TemporaryDirectory[str],
) -> None:
    connection.close()
    server.terminate()
    server.wait()
    folder.cleanup()


# --- requests ------------------------------------------------------------------------------------


class Fork:
    """A process that runs a module in a fork of a server."""

    def __init__(
        self,
        server: socket.socket,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        streams: Sequence[int],
    ) -> None:
        """Start it, with descriptors for its standard input, output and error."""
        self._answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        message = json.dumps([list(arguments), str(folder), dict(environment)]).encode()
        with theirs:
            socket.send_fds(server, [message], [theirs.fileno(), *streams])
        self.pid = self._answer()
        self._code: int | None = None

    def _answer(self) -> int:
        return int(json.loads(self._answers.recv(_LONGEST)))

    def wait(self, timeout_s: float | None = None) -> int:
        """Return its exit code; negative if a signal ended it. Kill it if it takes too long."""
        if self._code is None:
            self._answers.settimeout(timeout_s)
            try:
                self._code = self._answer()
            except BaseException:
                os.kill(self.pid, signal.SIGKILL)
                raise
            finally:
                self._answers.close()
        return self._code


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
    with Path(os.devnull).open() as nothing:
        numbers = [nothing.fileno(), *(stream.fileno() for stream in streams)]
        command = Fork(_server(_COMMAND), arguments, folder, environment, numbers)
    return command.wait(timeout_s)


class ForkedChild(Fork):
    """Has the attributes of `subprocess.Popen` that `exporter.conversion.process` uses."""

    def __init__(self, server: socket.socket, folder: Path, log: IO[bytes]) -> None:
        requests, stdin = os.pipe()
        stdout, answers = os.pipe()
        streams = (requests, answers, log.fileno())
        environment = process.environment(folder)
        super().__init__(server, [str(folder)], Path.cwd(), environment, streams)
        os.close(requests)
        os.close(answers)
        self.stdin = os.fdopen(stdin, "w", encoding="utf-8")
        self.stdout = os.fdopen(stdout, encoding="utf-8")


def start_child(folder: Path, log: IO[bytes]) -> ForkedChild:
    """Take the place of `exporter.conversion.process.start_process`."""
    return ForkedChild(_server(_CHILD), folder, log)


# --- the server ----------------------------------------------------------------------------------


def serve(module: str, connection: socket.socket) -> None:
    """Fork for each request until the connection ends; in a fork, run the module."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the first fork
    imported = False
    while True:
        message, files, _, _ = socket.recv_fds(connection, _LONGEST, 4)
        if not message:
            return
        if not imported:
            for name in _IMPORTED[module]:
                with suppress(ImportError):  # a minimal environment has no optional libraries
                    import_module(name)
            gc.freeze()  # else each fork copies all pages when it collects
            imported = True
        if not os.fork():
            break
        for file in files:
            os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.close()
    answers, *streams = files
    forked = os.fork()
    if not forked:
        os.close(answers)
        _become(module, json.loads(message), streams)
        return
    for file in streams:
        os.close(file)
    with socket.socket(fileno=answers) as asker, suppress(BrokenPipeError):
        asker.send(json.dumps(forked).encode())
        _, status = os.waitpid(forked, 0)
        asker.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(
    module: str, request: tuple[list[str], str, dict[str, str]], streams: Sequence[int]
) -> None:
    arguments, folder, environment = request
    os.setsid()
    for target, file in enumerate(streams):
        os.dup2(file, target)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None
    sys.argv[1:] = arguments
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        atexit._run_exitfuncs()  # the rest of an exit takes 2 s
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    module, connection, *children = sys.argv[1:]
    if children:
        server = socket.socket(fileno=int(children[0]))
        process.start_process = partial(ForkedChild, server)  # type: ignore[assignment] # see there
    serve(module, socket.socket(fileno=int(connection)))
