"""Run library code on an untrusted model file in a process of its own.

A damaged or hostile file can crash a library, keep it busy for ever, or make it take all memory.
`isolated` lets a job set limits; `call` and `serve` then run the library in a forked copy of this
process, and a crash there becomes an error here. Without limits, or on a system that is not Linux,
both work in this process.

A fork takes about 3 ms, and needs no second import of the library. Samples cross in shared memory,
several at a time, and are prepared while the copy runs those before (`exporter.formats.channel`).
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Self

import numpy as np

from exporter.errors import ConversionError, ExporterError, ModelError
from exporter.formats.channel import BUFFER_BYTES, DEPTH, Arrays, Channel
from exporter.formats.isolated_process import BYTES_PER_BYTE, Answering, Limits, Prepared, size_of
from exporter.formats.model import Runner
from exporter.graph import Array

READING_BYTES, RUNNING_BYTES = 1 << 28, 1 << 30  # that a library may take for any file
MOST_AT_ONCE = 64  # samples in one request
THREAD_BYTES = 144 << 20  # address space that a thread reserves: its stack, and an arena of malloc
# Processor time: far more than slow machines need, so that only work without an end is stopped.
PROCESSOR_S = 5.0

_limits: ContextVar[Limits | None] = ContextVar("limits", default=None)


@contextmanager
def isolated(limits: Limits | None) -> Iterator[None]:
    """Apply limits to the libraries that the block calls; None runs them in this process."""
    token = _limits.set(limits)
    try:
        yield
    finally:
        _limits.reset(token)


def is_isolated() -> bool:
    """Do libraries run in a process of their own?"""
    return _limits.get() is not None and sys.platform == "linux"


def call(action: str, size: int, work: Callable[[], Arrays], most_s: float = math.inf) -> Arrays:
    """The result of `work`, which calls a library.

    Args:
        action: for messages, such as "LiteRT reading net.tflite".
        size: of the model, in bytes.
        most_s: a time limit for work that is known to be short, if it is below that of the job.

    Raises:
        ExporterError: `work` raised it.
        ModelError: the process was killed by a signal, or another exception was raised.
        ModelError, ConversionError: it took longer than `most_s`, or than the job allows.
    """
    if not is_isolated():
        return work()
    room = READING_BYTES + BYTES_PER_BYTE * size
    limits = _active_limits().with_work(size)
    try:
        with (
            isolated(replace(limits, timeout_s=min(most_s, limits.timeout_s))),
            _Server(action, room, lambda: (dict, work())) as server,
        ):
            return server.prepared
    except ConversionError as error:
        if most_s < limits.timeout_s:
            raise ModelError(error.message, "the file is probably damaged") from error
        raise


def _active_limits() -> Limits:
    limits = _limits.get()
    assert limits is not None  # noqa: S101 - callers ask `is_isolated` first
    return limits


def runner_of(
    action: str,
    size: int,
    load: Callable[[], Runner],
    threads: int = 1,
    multiply_adds: Callable[[], int | None] = lambda: None,
) -> Runner:
    """A model that `load` loads into its runtime, there (raises as `call` does).

    Args:
        threads: of the runtime.
        multiply_adds: for one run; None if they are not known.
    """
    if not is_isolated():
        return load()
    room = RUNNING_BYTES + BYTES_PER_BYTE * size + THREAD_BYTES * (threads - 1)
    with isolated(_active_limits().with_work(size, multiply_adds() or 0)):
        return _IsolatedRunner(action, room, load)


class _IsolatedRunner:
    """See `exporter.formats.model.Runner`."""

    def __init__(self, action: str, room: int, load: Callable[[], Runner]) -> None:
        def prepare() -> Prepared:
            runner = load()
            return runner, {"engine": np.array(runner.engine, object)}

        self._server = _Server(action, room, prepare)
        self.engine = str(self._server.prepared["engine"])

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        (answer,) = self._server.answers([inputs])
        return answer

    def run_each(self, inputs: Iterable[Arrays]) -> Iterator[dict[str, Array]]:
        return self._server.answers(inputs)


class _Server:
    """A forked process that prepares something, then answers requests.

    Attributes:
        prepared: the answer to the preparation.
    """

    def __init__(self, action: str, room: int, prepare: Callable[[], Prepared]) -> None:
        """Start the process (raises as `call` does).

        Args:
            action: for messages.
            room: memory that the process may take without a limit by the user, in bytes.
            prepare: called in the new process; returns the function that answers each request.
        """
        self._pid = 0
        _reap_ending()
        limits = _active_limits()
        self._action, self._limits, self._status = action, limits, 0
        self._channel, other = Channel.pair()
        self._waiting, self._at_once = 0, 1
        with _blocked_signals():  # the new process must not raise what a handler of this one raises
            self._pid = os.fork()
            if not self._pid:
                Answering(action, room, limits, other).run(prepare)
        other.close()
        self._channel.keep()
        try:
            (self.prepared,) = self._receive()
        except BaseException:
            self.close()
            raise

    def answers(self, requests: Iterable[Arrays]) -> Iterator[dict[str, Array]]:
        """The answer to each request, in their order; later requests are read ahead.

        Raises:
            ExporterError: as `call` does, perhaps before the answers to earlier requests.
        """
        while self._waiting:  # a pass that was left early
            with suppress(ExporterError):
                self._receive()
        for batch in self._batches(requests):
            if self._waiting == DEPTH:
                yield from self._receive()
            message = self._channel.pack(batch)
            while self._waiting and not message.is_small:  # the process may be sending as well
                yield from self._receive()
            with suppress(OSError):  # it died: `_receive` finds the cause
                self._channel.post(message)
            self._waiting += 1
        while self._waiting:
            yield from self._receive()

    def _batches(self, requests: Iterable[Arrays]) -> Iterator[list[Arrays]]:
        """As many requests at once as fit into a buffer, as their answers probably do."""
        batch: list[Arrays] = []
        size = 0
        for request in requests:
            needed = size_of(request)
            if batch and (size + needed > BUFFER_BYTES or len(batch) >= self._at_once):
                yield batch
                batch, size = [], 0
            batch.append(request)
            size += needed
        if batch:
            yield batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._reap()
        self._channel.close()

    def __del__(self) -> None:
        """End the process without waiting for it: an interruption in here would be lost."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            _ENDING.append(self._pid)

    def _receive(self) -> list[dict[str, Array]]:
        """The next answers. The time limit starts anew with each sample."""
        self._waiting = max(0, self._waiting - 1)
        try:
            runs = self._channel.runs
            while not (arrived := self._channel.poll(self._limits.timeout_s)):
                runs, before = self._channel.runs, runs
                if runs == before:
                    break
            if arrived:
                answers = self._channel.receive()
                most = BUFFER_BYTES // max(1, *map(size_of, answers))
                self._at_once = max(1, min(MOST_AT_ONCE, most))
                return answers
        except (EOFError, OSError):
            raise self._died() from None
        except ExporterError:
            raise
        except BaseException:
            self.close()
            raise
        self.close()
        raise ConversionError(
            f"{self._action} took longer than {self._limits.timeout_s:g} s", "raise --timeout"
        )

    def _died(self) -> ExporterError:
        status = self._reap()
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGXCPU:
                return ConversionError(
                    f"{self._action} took more than {self._limits.processor_s:.0f} s of processor "
                    "time",
                    "if the model is that slow, raise --timeout",
                )
            reason = f"was killed by {signal.Signals(number).name}"
        else:
            reason = f"ended with exit status {os.WEXITSTATUS(status)}"
        return ModelError(
            f"{self._action}: the process {reason}",
            "the file is probably damaged; if its runtime runs it, raise --memory-limit",
        )

    def _reap(self) -> int:
        """The exit status of the process, which has ended or was killed."""
        if self._pid:
            with suppress(ChildProcessError):
                self._status = os.waitpid(self._pid, 0)[1]
            self._pid = 0
        return self._status


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Deliver the signals that arrive in the block after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_ENDING: list[int] = []  # killed processes that nobody has waited for


def _reap_ending() -> None:
    while _ENDING:
        with suppress(ChildProcessError):
            os.waitpid(_ENDING.pop(), 0)


atexit.register(_reap_ending)  # so that the time they took counts as this process's
