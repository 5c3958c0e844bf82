"""The forked process in which a library runs (see `exporter.formats.isolation`), and its limits."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn

import numpy as np

from exporter.errors import ExporterError, ModelError, uninterpretable
from exporter.formats.channel import Arrays, Channel, aligned, of_error

if sys.platform == "linux":  # Windows has no such module
    import resource

Work = Callable[[Arrays], Arrays]
Prepared = tuple[Work, Arrays]

BYTES_PER_BYTE = 16  # memory that a library may take for each byte of the model and its inputs
BYTES_PER_S, MULTIPLY_ADDS_PER_S = 500_000, 100_000_000  # that slow machines read and compute


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


class Answering:
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
                self._limit_memory(max(map(size_of, samples)))
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


def size_of(arrays: Arrays) -> int:
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
