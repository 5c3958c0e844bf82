"""Does tasks on one host, each in a process of its own.

Every scheduler calls `do`: a thread of this process, or of a worker of a cluster, waits until the
task fits into the memory of the host, and hands it to a process that no other thread uses. A
process that dies takes no other task with it, and its task is tried once more.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.batches.cells import LOST, empty_row, error_row
from exporter.conversion.process import Child
from exporter.errors import ExporterError, OutputError

MOST_TRIES = 2
SHARE = 0.8  # of the memory that is free at the start
_IDLE_S = 60.0  # after which a process without a task ends
_MODULE = "exporter.batches.work"

Answer = dict[str, Any]


def do(task: Mapping[str, Any]) -> Answer:
    """Do one task of a batch.

    Args:
        task: with "batch", its identity; "id" and "cell" of the task; "file", a name of its own;
            "method" and "parameters" for `work`; "memory_bytes" that it needs, and "exclusive" if
            nothing may run next to it; "affinity", equal for tasks with the same model; "attempts",
            a folder that all hosts see; and "host_bytes", the memory of each host, or None.

    Returns:
        What `work` answers, and "tries". An error of the task is a row, and no exception.
    """
    with _LOCK:
        host = _HOSTS.get(task["batch"])
        if host is None:
            host = _HOSTS[task["batch"]] = Host(task["host_bytes"] or free_bytes())
    try:
        return host.do(task)
    except Exception as error:  # noqa: BLE001 - any bug
        # Dask loses an error whose traceback is too deep to be sent, and the batch would wait
        raise error.with_traceback(None) from None


def close(batch: str) -> None:
    """End the processes of a batch on this host."""
    with _LOCK:
        host = _HOSTS.pop(batch, None)
    if host is not None:
        host.close()


_HOSTS: dict[str, Host] = {}
_LOCK = threading.Lock()


def free_bytes() -> int:
    """The memory that tasks may take on this host."""
    import psutil  # noqa: PLC0415 - `exporter batch --help` needs no psutil

    return int(psutil.virtual_memory().available * SHARE)


class Host:
    """The processes of one batch on one host, and the memory that they share."""

    def __init__(self, memory_bytes: int) -> None:
        self._total, self._used, self._running = memory_bytes, 0, 0
        self._is_exclusive = self._is_closed = False
        self._turns: deque[object] = deque()  # threads that wait, in their order
        self._changed = threading.Condition()
        self._idle: list[tuple[str, Child, float]] = []  # affinity, process, since when
        self._children: set[Child] = set()
        self._timer: threading.Timer | None = None

    def do(self, task: Mapping[str, Any]) -> Answer:
        """See `do`."""
        try:
            return self._try(task)
        except ExporterError as error:
            return {"row": error_row(task["cell"], error), "tries": 1}

    def close(self) -> None:
        """End every process. Tasks that run fail, and are not tried again."""
        with self._changed:
            self._is_closed = True
            children = list(self._children)
            if self._timer is not None:
                self._timer.cancel()
            self._changed.notify_all()
            idle = [child for _, child, _ in self._idle]
        for child in children:
            child.kill()
        for child in idle:  # others are closed by the thread that waits for them
            self._forget(child)

    # --- tries ------------------------------------------------------------------------------------

    def _try(self, task: Mapping[str, Any]) -> Answer:
        """Try a task until its process survives, at most twice on all hosts together."""
        reason = "the worker was lost"
        for number in range(1, MOST_TRIES + 1):
            if not _claim(Path(task["attempts"]), f"{task['file']}.{number}"):
                continue  # on a host that was lost
            alone = task["exclusive"] or number > 1  # it may have died for lack of memory
            with self._admitted(task["memory_bytes"], alone=alone):
                child = self._child(task["affinity"])
                try:
                    answer = child.request(task["method"], task["id"], task=task["parameters"])
                except ExporterError as error:
                    if child.pid is not None:
                        self._put_back(task["affinity"], child)
                        raise
                    self._forget(child)
                    if self._is_closed:
                        raise
                    reason = error.message
                    continue
                except BaseException:
                    self._forget(child)
                    raise
                self._put_back(task["affinity"], child)
                return {**answer, "tries": number}
        message = f"its process died {MOST_TRIES} times; last: {reason}"
        return {"row": empty_row(task["cell"], LOST, message), "tries": MOST_TRIES}

    # --- memory -----------------------------------------------------------------------------------

    @contextmanager
    def _admitted(self, memory_bytes: int, *, alone: bool) -> Iterator[None]:
        """Wait until a task fits next to those that run; a task that runs alone always fits."""
        turn = object()
        with self._changed:
            self._turns.append(turn)
            while not self._is_closed and not (
                self._turns[0] is turn and self._fits(memory_bytes, alone=alone)
            ):
                self._changed.wait()
            self._turns.remove(turn)
            self._used += memory_bytes
            self._running += 1
            self._is_exclusive = alone
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= memory_bytes
                self._running -= 1
                self._is_exclusive = False
                self._changed.notify_all()

    def _fits(self, memory_bytes: int, *, alone: bool) -> bool:
        if not self._running:
            return True
        room = self._used + memory_bytes <= self._total
        return room and not (alone or self._is_exclusive)

    # --- processes --------------------------------------------------------------------------------

    def _child(self, affinity: str) -> Child:
        """A process, if possible one that has the model open."""
        with self._changed:
            if self._is_closed:
                raise OutputError("the batch was ended")
            self._idle.sort(key=lambda each: each[0] == affinity)
            if self._idle:
                return self._idle.pop()[1]
            child = Child(math.inf, module=_MODULE)
            self._children.add(child)
            return child

    def _put_back(self, affinity: str, child: Child) -> None:
        with self._changed:
            if not self._is_closed:
                self._idle.append((affinity, child, time.monotonic()))
                self._watch_idle()
                return
        self._forget(child)

    def _watch_idle(self) -> None:
        """Let a timer look for processes without a task: the batch may have been killed."""
        if self._idle and self._timer is None:
            self._timer = threading.Timer(_IDLE_S, self._end_idle)
            self._timer.daemon = True
            self._timer.start()

    def _end_idle(self) -> None:
        with self._changed:
            self._timer = None
            old = [each for each in self._idle if time.monotonic() - each[2] >= _IDLE_S]
            self._idle = [each for each in self._idle if each not in old]
            self._watch_idle()
        for _, child, _ in old:
            self._forget(child)

    def _forget(self, child: Child) -> None:
        with self._changed:
            self._children.discard(child)
        child.close()


def _claim(folder: Path, name: str) -> bool:
    """Make the file of one try; False if there is one already.

    Raises:
        OutputError: this host does not see the folder of the batch.
    """
    try:
        os.close(os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(
            f"this worker cannot write in {folder}: {error.strerror}",
            "all workers need the folders of the plan and of the output under the same paths",
        ) from error
    return True
