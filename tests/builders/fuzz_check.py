"""Run a reader on a damaged file in a forked process, and find what must not happen."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from exporter.errors import ExporterError

SLOW_S, LARGE_BYTES = 20.0, 10**9


@dataclass
class Tally:
    """A row of the table in docs/guarantees.md.

    Attributes:
        refused: files that were read no further than an ExporterError.
        slowest_s: processor time of the slowest file: other programs do not change it.
        largest_bytes: resident memory.
    """

    reader: str
    files: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    largest_bytes: int = 0

    def row(self) -> str:
        megabytes = f"{self.largest_bytes / 1e6:.0f}" if self.largest_bytes else ""
        return (
            f"| {self.reader} | {self.files:,} | {self.refused:,} | {self.slowest_s:.1f} "
            f"| {megabytes} |"
        )

    def check(self, work: Callable[[], object]) -> None:
        """Assert that `work` returns or raises an ExporterError, within time and memory."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            with os.fdopen(writing, "w") as report, suppress(BaseException):
                _run(work, report.write)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as report:
            found = report.read()
        _, status, used = os.wait4(child, 0)
        refused = found == _REFUSED
        assert refused or not found, found
        assert not os.WIFSIGNALED(status), signal.Signals(os.WTERMSIG(status)).name
        seconds, size = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
        assert seconds < SLOW_S
        assert size < LARGE_BYTES
        self.files += 1
        self.refused += refused
        self.slowest_s = max(self.slowest_s, seconds)
        self.largest_bytes = max(self.largest_bytes, size)


_REFUSED = "refused"


def _run(work: Callable[[], object], report: Callable[[str], object]) -> None:
    try:
        work()
    except ExporterError as error:
        # an error that no code of ours foresaw has its traceback as a note
        report(_REFUSED if error.message else "an error without a message")
    except BaseException:  # noqa: BLE001 - the finding
        report(traceback.format_exc())
