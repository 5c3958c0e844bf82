"""Where tasks run: in threads of this process, or on a Dask cluster. Both call `host.do`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from exporter.batches import host
from exporter.errors import ConversionError, UsageError, first_line

_CONNECT_S = 10.0
_LOST_S = 15.0  # without the scheduler, after which a batch ends
_REFRESH_S = 5.0  # between two looks at the workers


class Scheduler(Protocol):
    """Runs tasks."""

    def capacity(self) -> int:
        """How many tasks can run at the same time."""
        ...

    def submit(self, task: Mapping[str, Any]) -> Future[host.Answer]:
        """Let `host.do` do a task."""
        ...

    def check(self) -> None:
        """Raise ConversionError if the scheduler is lost."""
        ...

    def close(self, batch: str) -> None:
        """End what runs."""
        ...


class Local:
    """Processes of this machine; each has a thread here that waits for it."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "batch")

    def capacity(self) -> int:
        return self._workers

    def submit(self, task: Mapping[str, Any]) -> Future[host.Answer]:
        return self._pool.submit(host.do, task)

    def check(self) -> None:
        """Threads of this process are not lost."""

    def close(self, batch: str) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        host.close(batch)
        self._pool.shutdown(wait=True)


class Cluster:
    """The workers of a Dask Distributed cluster that runs already."""

    def __init__(self, address: str) -> None:
        """Connect to the scheduler at an address such as tcp://host:8786.

        Raises:
            UsageError: Dask is not installed, nothing answers, or there are no workers.
        """
        from distributed import Client  # noqa: PLC0415 - an extra

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # `check` reports what matters
        self._address = address
        try:
            self._client = Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no Dask scheduler answers at {address}: {first_line(error)}",
                "start one with `dask scheduler`, or leave out --scheduler",
            ) from error
        self._executor = self._client.get_executor(pure=False, retries=0)
        self._workers, self._looked, self._seen = 0, -_REFRESH_S, time.monotonic()
        if not self.capacity():
            self._client.close()
            raise UsageError(
                f"the scheduler at {address} has no workers",
                f"start some with `dask worker {address}`",
            )

    def capacity(self) -> int:
        if time.monotonic() - self._looked > _REFRESH_S:
            with suppress(OSError, ValueError, TimeoutError):  # `check` sees a lost scheduler
                self._workers = sum(self._client.nthreads().values())
            self._looked = time.monotonic()
        return self._workers

    def submit(self, task: Mapping[str, Any]) -> Future[host.Answer]:
        future: Future[host.Answer] = self._executor.submit(host.do, task)
        return future

    def check(self) -> None:
        now = time.monotonic()
        if self._client.status == "running":
            self._seen = now
        elif now - self._seen > _LOST_S:
            raise ConversionError(
                f"the scheduler at {self._address} does not answer any more",
                "start it and repeat the command: finished cells are kept",
            )

    def close(self, batch: str) -> None:
        if self._client.status == "running":
            with suppress(OSError, ValueError, TimeoutError):
                self._client.run(host.close, batch, on_error="ignore")
        self._client.close(timeout=1)


def scheduler_at(address: str | None, workers: int | None) -> Scheduler:
    """The scheduler that the user asks for.

    Args:
        address: of a Dask scheduler; None for this machine.
        workers: processes on this machine; None for one on each core.
    """
    if address is None:
        return Local(workers or _cores())
    if workers is not None:
        raise UsageError(
            "workers is the number of processes on this machine, and the cluster has its own",
            "leave out one of --workers and --scheduler",
        )
    return Cluster(address)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may use fewer than exist
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
