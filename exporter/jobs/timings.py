"""Where the time of a job went."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter


class Timings:
    """The elapsed time of each step of a job.

    Attributes:
        seconds: step -> seconds, in the order in which the steps ended first.
    """

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        """Start the first step, after others that took so many seconds."""
        self.seconds = dict(seconds or {})
        self._last = perf_counter()

    def end(self, step: str) -> None:
        """Add the time since the end of the step before it to a step."""
        now = perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._last
        self._last = now
