"""Run the program, and the processes that it starts, as forks of processes that have imported them.

A command then starts in 20 ms, a child that converts in 50 ms instead of the 4 s that TensorFlow
takes, and a measurement of memory in 20 ms.
A fork has its own session, folder, environment, arguments and standard streams. It shares its hash
seed and its addresses with all others: a test of equal bytes needs a process of its own.

Each process of the tests has two servers, and each imports its libraries when it is first asked.
A server forks twice for a request: the fork of the fork runs a module or a script, and its parent
waits for it.
"""

from __future__ import annotations

import atexit
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
from pathlib import Path
from typing import IO, Any

from exporter.conversion import process
from exporter.performance import memory
from tests.builders.fork_client import LONGEST, SERVERS, Fork
from tests.builders.in_process import run_libraries_here
from tests.builders.warm import import_commands, import_modules

AVAILABLE = hasattr(os, "fork")
PROJECT = Path(__file__).parents[2]
_COMMANDS, _CHILDREN = "commands", "children"
_CHILDREN_IMPORT = (
    "exporter.conversion.digits_network",
    "exporter.conversion.to_onnx",
    "exporter.conversion.to_tflite",
    "exporter.formats.keras.large_head_model",
    "exporter.formats.savedmodel.model",
    "exporter.ondevice.runtimes",
    "ai_edge_litert.interpreter",
    "exporter.quantization.remote",
    "tf2onnx",
)
start_from_nothing = process.start_process


@cache
def _server(name: str) -> socket.socket:
    """A connection to a server, which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    environment = process.environment(Path(folder.name)) if name == _CHILDREN else os.environ
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.builders.fork_server", name, str(theirs.fileno())],
            cwd=PROJECT,
            env={**environment, "PYTHONPATH": str(PROJECT)},
            pass_fds=[theirs.fileno()],
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


# --- requests -------------------------------------------------------------------------------------


def run(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    streams: tuple[IO[bytes], IO[bytes]],
    timeout_s: float,
) -> int:
    """Run a module or a script and return its exit code; negative if a signal ended it.

    Args:
        arguments: "exporter" or the path of a script, which may import TensorFlow; its arguments.
        streams: files for its stdout and stderr.
    """
    children = _server(_CHILDREN)
    server = children if arguments[0].endswith(".py") else _server(_COMMANDS)
    with Path(os.devnull).open() as nothing:
        numbers = [nothing.fileno(), *(stream.fileno() for stream in streams)]
        fork = Fork((server, children), arguments, folder, environment, numbers)
    return fork.wait(timeout_s)


def shim(folder: Path) -> tuple[dict[str, str], list[int]]:
    """Write a program `exporter` that runs in forks: into a folder for PATH.

    Returns:
        the variables and the descriptors that a process which starts it needs.
    """
    path = folder / "exporter"
    client = Path(__file__).with_name("fork_client.py")
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{client}" "$@"\n', "utf-8")
    path.chmod(0o755)
    numbers = [_server(name).fileno() for name in (_COMMANDS, _CHILDREN)]
    return {SERVERS: " ".join(map(str, numbers))}, numbers


class ForkedChild(Fork):
    """Has the attributes of `subprocess.Popen` that `exporter.conversion.process` uses."""

    def __init__(self, server: socket.socket, folder: Path, log: IO[bytes], module: str) -> None:
        requests, stdin = os.pipe()
        stdout, answers = os.pipe()
        arguments = [module, str(folder)]
        streams = (requests, answers, log.fileno())
        super().__init__(
            (server, server), arguments, Path.cwd(), process.environment(folder), streams
        )
        os.close(requests)
        os.close(answers)
        self.stdin = os.fdopen(stdin, "w", encoding="utf-8")
        self.stdout = os.fdopen(stdout, encoding="utf-8")


def start_child(folder: Path, log: IO[bytes], module: str) -> Any:
    """Take the place of `exporter.conversion.process.start_process`."""
    if not module.startswith("exporter."):  # of a test
        return start_from_nothing(folder, log, module)
    return ForkedChild(_server(_CHILDREN), folder, log, module)


# --- the server -----------------------------------------------------------------------------------


def serve(name: str, connection: socket.socket) -> None:
    """Fork for each request until the connection ends; in a fork, run what it asks for."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the first fork
    imported = False
    while True:
        message, files, _, _ = socket.recv_fds(connection, LONGEST, 5)
        if not message:
            return
        if not imported:
            import_modules(_CHILDREN_IMPORT) if name == _CHILDREN else import_commands()
            imported = True
        if not os.fork():
            break
        for file in files:
            os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.close()
    answers, children, *streams = files
    forked = os.fork()
    if not forked:
        os.close(answers)
        _become(json.loads(message), socket.socket(fileno=children), streams)
        return
    for file in (children, *streams):
        os.close(file)
    with socket.socket(fileno=answers) as asker, suppress(BrokenPipeError):
        asker.send(json.dumps(forked).encode())
        _, status = os.waitpid(forked, 0)
        asker.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(
    request: tuple[list[str], str, dict[str, str]], children: socket.socket, streams: Sequence[int]
) -> None:
    (what, *arguments), folder, environment = request
    os.setsid()
    for target, file in enumerate(streams):
        os.dup2(file, target)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None

    def start(folder: Path, log: IO[bytes], module: str) -> ForkedChild:
        return ForkedChild(children, folder, log, module)

    def probe(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        words = [memory.PROBE, *arguments]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            numbers = (0, out.fileno(), err.fileno())
            fork = Fork((children, children), words, Path.cwd(), os.environ, numbers)
            code = fork.wait(memory.TIMEOUT_S)
            return subprocess.CompletedProcess(words, code, *(_text(each) for each in (out, err)))

    process.start_process = start  # type: ignore[assignment]  # it has what is used of a Popen
    memory.run_probe = probe
    run_libraries_here()
    sys.argv[1:] = arguments
    try:
        if what.endswith(".py"):
            runpy.run_path(what, run_name="__main__")
        else:
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        raise SystemExit(0)  # noqa: TRY301 - all end in the same way
    except SystemExit as end:
        atexit._run_exitfuncs()  # the rest of an exit takes 2 s
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


if __name__ == "__main__":
    serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
