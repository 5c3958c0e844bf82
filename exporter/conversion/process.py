"""The parent's side of a child process, such as the one that runs TensorFlow.

1. Requests and answers are one JSON object per line, on the child's standard input and output.
2. The child moves these streams to other descriptors before it imports a library, so that messages
   of libraries go to a log file.
3. Arrays cross as `.npy` and `.npz` files in a private folder.
4. One child serves many requests, because importing TensorFlow takes seconds.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import exporter
from exporter import errors
from exporter.errors import ConversionError, ExporterError
from exporter.output.scratch import no_temporary_files

if TYPE_CHECKING:
    import subprocess

_POLL_S = 0.1
_ERRORS: Mapping[str, type[ExporterError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ExporterError)
}


class Child:
    """A context manager for the child, which the first request starts.

    Attributes:
        log: messages of libraries; removed at the end unless something failed.
        folder: private to parent and child, for arrays; removed at the end.
    """

    def __init__(
        self,
        timeout_s: float = 1800.0,
        memory_limit_bytes: int | None = None,
        opening_timeout_s: float | None = None,
        module: str = "exporter.conversion.child",
    ) -> None:
        """Set the limits of each request: time, also to open a model, and memory of the child.

        Args:
            module: that the child runs; it calls `serving.serve`.
        """
        self.timeout_s = timeout_s
        self.opening_timeout_s = opening_timeout_s or timeout_s
        self.memory_limit_bytes = memory_limit_bytes
        self._module = module
        self.log: Path | None = None
        self._folder: Path | None = None
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._to_forget: deque[str] = deque()
        self._keep_log = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        if self._folder is None:
            try:
                self._folder = Path(tempfile.mkdtemp(prefix="exporter-"))
            except OSError as error:
                raise no_temporary_files(error) from error
        return self._folder

    @property
    def pid(self) -> int | None:
        """Of the running child; None if none is running."""
        return self._process.pid if self._process else None

    def request(self, method: str, action: str, **parameters: Any) -> dict[str, Any]:
        """Send a request to the child and wait for its answer.

        Args:
            method: key of `child.METHODS`.
            action: name of the request in messages, such as "opening net.keras".
            parameters: JSON values.

        Raises:
            ExporterError: the child raised it; it has the same class here.
            ConversionError: the child died, was too slow, or needed too much memory. It is ended; a
                later request starts a new child, which has no models.
        """
        return self._request(self.timeout_s, method, action, parameters)

    def _request(
        self, timeout_s: float, method: str, action: str, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        process = self._process or self._start()
        forget = [self._to_forget.popleft() for _ in range(len(self._to_forget))]
        line = json.dumps({"method": method, "forget": forget, "parameters": parameters})
        try:
            with suppress(BrokenPipeError):  # it died: `_wait` finds the cause
                self._send(process, line)
            answer = self._wait(process, action, timeout_s)
        except BaseException:
            self._end()
            raise
        if "error" in answer:
            raise self._decoded(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, kind: str, method: str, action: str, **parameters: Any) -> dict[str, Any]:
        """Let the child load the libraries of a kind, then open a model (as `request` does)."""
        self.request("load", action, kind=kind)
        return self._request(self.opening_timeout_s, method, action, parameters)

    def forget(self, handle: str) -> None:
        """Let the child drop a model with the next request; may be called at any time."""
        self._to_forget.append(handle)

    def kill(self) -> None:
        """Kill the child; also while another thread waits for its answer."""
        process = self._process
        if process is not None:
            _kill_group(process)

    def close(self) -> None:
        """End the child and remove its files; the log stays if something failed."""
        self._end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self.log is not None and not self._keep_log:
            self.log.unlink(missing_ok=True)
            self.log = None

    # --- one request ------------------------------------------------------------------------------

    @staticmethod
    def _send(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None  # noqa: S101 - opened as a pipe
        process.stdin.write(line + "\n")
        process.stdin.flush()

    def _wait(
        self, process: subprocess.Popen[str], action: str, timeout_s: float
    ) -> dict[str, Any]:
        started = time.monotonic()
        while True:
            try:
                line = self._answers.get(timeout=_POLL_S)
            except queue.Empty:
                if time.monotonic() - started > timeout_s:
                    message = f"{action} took longer than {timeout_s:g} s"
                    raise self._failure(message, "raise --timeout") from None
                self._check_memory(process, action)
                continue
            if line is None or not line.endswith("\n"):
                raise self._died(process, action)
            answer: dict[str, Any] = json.loads(line)
            return answer

    def _check_memory(self, process: subprocess.Popen[str], action: str) -> None:
        if self.memory_limit_bytes is None:
            return
        used = _resident_bytes(process.pid)
        if used > self.memory_limit_bytes:
            raise self._failure(
                f"{action} took {used / 1e6:.0f} MB of memory, more than the limit of "
                f"{self.memory_limit_bytes / 1e6:.0f} MB",
                "raise --memory-limit",
            )

    def _died(self, process: subprocess.Popen[str], action: str) -> ConversionError:
        code = process.wait()
        if code >= 0:
            return self._failure(f"{action}: the child process ended with exit status {code}")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return self._failure(f"{action}: the child process was killed by {name}")

    def _failure(self, message: str, hint: str = "") -> ConversionError:
        self._keep_log = True
        log = f"the log is {self.log}"
        return ConversionError(message, f"{hint}; {log}" if hint else log)

    def _decoded(self, error: Mapping[str, str]) -> ExporterError:
        if error["class"] in _ERRORS:
            return _ERRORS[error["class"]](error["message"], error["hint"])
        return self._failure(f"{error['message']} ({error['class']})")

    # --- the process ------------------------------------------------------------------------------

    def _start(self) -> subprocess.Popen[str]:
        if self.log is None:
            try:
                handle, name = tempfile.mkstemp(".log", "exporter-")
            except OSError as error:
                raise no_temporary_files(error) from error
            os.close(handle)
            self.log = Path(name)
        with self.log.open("ab") as log:
            process = start_process(self.folder, log, self._module)
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_pump, args=(process, self._answers), daemon=True).start()
        self._process = process
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _kill_group(process)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def start_process(folder: Path, log: IO[bytes], module: str) -> subprocess.Popen[str]:
    """Start a child that runs a module, with a private folder and a file for messages."""
    import subprocess  # noqa: PLC0415 - most commands start no such process

    return subprocess.Popen(  # noqa: S603 - this interpreter, a module of this package
        [sys.executable, "-P", "-m", module, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment(folder),
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C reaches only the parent, which then ends the child
    )


def _pump(process: subprocess.Popen[str], answers: queue.SimpleQueue[str | None]) -> None:
    """Queue the child's answers, and None after the last one."""
    assert process.stdout is not None  # noqa: S101 - opened as a pipe
    with suppress(ValueError, OSError):  # closed from the other side while it waits
        for line in process.stdout:
            answers.put(line)
    answers.put(None)


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Kill the child, and processes that a converter may have started in its group."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants; 0 if it just ended."""
    import psutil  # noqa: PLC0415 - most commands start no such process

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family)
    except psutil.Error:
        return 0


def environment(folder: Path) -> dict[str, str]:
    """The child's environment: quiet, on the CPU, reproducible, without the user's settings."""
    package = str(Path(exporter.__file__).parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([package, path]) if path else package,
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "default",
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(folder),
        "TMPDIR": str(folder),  # removed by the parent even if the child is killed
        "TF_CPP_MIN_LOG_LEVEL": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
        "ORT_DISABLE_TELEMETRY": "1",  # nothing is sent
    }
