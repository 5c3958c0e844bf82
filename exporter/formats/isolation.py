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
import ctypes
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn, Self

import numpy as np

from exporter.errors import ConversionError, ExporterError, ModelError, uninterpretable
from exporter.formats.channel import BUFFER_BYTES, DEPTH, Arrays, Channel, aligned, of_error
from exporter.formats.model import Runner
from exporter.graph import Array

if sys.platform == "linux":  # Windows has no such module
    import resource

Work = Callable[[Arrays], Arrays]
Prepared = tuple[Work, Arrays]

READING_BYTES, RUNNING_BYTES = 1 << 28, 1 << 30  # that a library may take for any file
BYTES_PER_BYTE = 16  # of the model and its inputs, in addition
MOST_AT_ONCE = 64  # samples in one request
THREAD_BYTES = 144 << 20  # address space that a thread reserves: its stack, and an arena of malloc
# Processor time: far more than slow machines need, so that only work without an end is stopped.
PROCESSOR_S = 5.0
BYTES_PER_S, MULTIPLY_ADDS_PER_S = 500_000, 100_000_000


@dataclass(frozen=True)
class Limits:
    """The limits of the process that runs a library.

    Attributes:
        timeout_s: for each answer.
        memory_bytes: address space in addition to that of this process. None for 16 times the size
            of the model and its inputs, and 0.25 GiB to read a file, or 1 GiB to run it.
        processor_s: processor time for each answer, in addition to a second for each 500 kB of the
            model and for each 100 million multiply-adds. None for no limit.
    """

    timeout_s: float
    memory_bytes: int | None = None
    processor_s: float | None = None

    def with_work(self, size: int, multiply_adds: int = 0) -> Limits:
        """The limits for work on a model of that size (bytes) and that many multiply-adds."""
        if self.processor_s is None:
            return self
        needed = size / BYTES_PER_S + multiply_adds / MULTIPLY_ADDS_PER_S
        return replace(self, processor_s=self.processor_s + needed)


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
                _Answering(action, room, limits, other).run(prepare)
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
            needed = _size(request)
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
                most = BUFFER_BYTES // max(1, *map(_size, answers))
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


class _Answering:
    """The forked process."""

    def __init__(self, action: str, room: int, limits: Limits, channel: Channel) -> None:
        self._action, self._channel = action, channel
        self._base, self._room, self._limits = _address_space(), room, limits
        self._allowed = 0

    def run(self, prepare: Callable[[], Prepared]) -> NoReturn:
        """Answer until the parent closes the connection. Nothing of the parent is cleaned up."""
        try:
            _die_with_parent()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGBUS):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash writes no file
            self._limit_memory(0)
            self._limit_processor()
            work = self._answer(lambda: _first(prepare()))
            while True:
                samples = self._channel.receive(copy=False)
                self._limit_memory(max(map(_size, samples)))
                self._answer(partial(self._each, work, samples))
        except BaseException:  # noqa: BLE001 - the process ends here in any case
            os._exit(1)

    def _each(self, work: Work, samples: Iterable[Arrays]) -> tuple[Work, list[Arrays]]:
        answers = []
        for sample in samples:
            self._limit_processor()
            answers.append(work(sample))
            self._channel.count_run()
        return work, answers

    def _answer(self, answer_of: Callable[[], tuple[Work, list[Arrays]]]) -> Work:
        """Send answers, or the error instead."""
        try:
            work, answers = answer_of()
            message = self._channel.pack(answers)
        except ExporterError as error:
            message = of_error(error)
        except MemoryError:
            message = of_error(self._too_large())
        except Exception as error:  # noqa: BLE001 - the parent decides
            message = of_error(uninterpretable(self._action, error))
        else:
            self._channel.post(message)
            return work
        self._channel.post(message)
        return _nothing

    def _too_large(self) -> ModelError:
        return ModelError(
            f"{self._action} needs more than {self._allowed / 1e9:.2g} GB of memory",
            "if the lengths in the file are right, raise --memory-limit",
        )

    def _limit_memory(self, input_bytes: int) -> None:
        self._allowed = self._limits.memory_bytes or self._room + BYTES_PER_BYTE * input_bytes
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = min(self._base + self._allowed, sys.maxsize)
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))

    def _limit_processor(self) -> None:
        """Let the kernel end this process if the next answer takes too much processor time."""
        if self._limits.processor_s is None:
            return
        used, hard = resource.getrusage(resource.RUSAGE_SELF), resource.RLIM_INFINITY
        most = math.ceil(used.ru_utime + used.ru_stime + self._limits.processor_s)
        resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def _first(prepared: Prepared) -> tuple[Work, list[Arrays]]:
    work, answer = prepared
    return work, [answer]


def _size(arrays: Arrays) -> int:
    """The bytes that arrays take in a buffer."""
    return sum(aligned(np.asarray(value).nbytes) for value in arrays.values())


def _nothing(_inputs: Arrays) -> Arrays:
    return {}


def _address_space() -> int:
    """The size of this process's address space, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - before any import
        return int(file.read().split()[0]) * resource.getpagesize()


def _die_with_parent() -> None:
    """Let the kernel end this process if the parent is killed."""
    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
