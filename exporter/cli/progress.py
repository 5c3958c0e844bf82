"""Progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from exporter.cli.stderr import say

_LINE_EVERY_S = 10.0  # between two lines about the samples of one step


@dataclass(frozen=True)
class Progress:
    """Shows the steps of a job, and the samples of a step.

    Attributes:
        step: called with one line at each step.
        on_sample: called with the number of samples done and their total.
    """

    step: Callable[[str], None]
    on_sample: Callable[[int, int], None]

    def __call__(self, step: str) -> None:
        self.step(step)


@contextmanager
def show_progress(given: Mapping[str, Any]) -> Iterator[Progress]:
    """Show steps: with a bar on a terminal, else one line a step, and one every 10 s of samples.

    Args:
        given: `quiet` shows nothing; `verbose` shows a line a step on a terminal too, with the
            seconds since the start.
    """
    if given["quiet"] or sys.stderr is None:  # None if the caller closed it
        yield Progress(lambda _step: None, lambda _done, _total: None)
    elif given["verbose"]:
        start = time.monotonic()
        yield _lines(lambda line: say(f"[{time.monotonic() - start:5.1f} s] {line}"))
    elif not sys.stderr.isatty():
        yield _lines(say)
    else:
        with _bar() as progress:
            yield progress


def _lines(write: Callable[[str], None]) -> Progress:
    timing = _Timing()

    def on_sample(done: int, total: int) -> None:
        text = timing.text(done, total)
        if timing.is_due():
            write(text)

    return Progress(lambda step: write(step if _is_result(step) else f"{step} ..."), on_sample)


def _is_result(step: str) -> bool:
    """Is a text a sentence, which stays, and not the name of a step that begins?"""
    return step.endswith(".")


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich import progress as rich
    from rich.console import Console
    from rich.markup import escape

    columns = (
        rich.SpinnerColumn(),
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=20),
        rich.TextColumn("{task.fields[detail]}"),
    )
    timing = _Timing()
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as shown:

        def step(text: str) -> None:
            if _is_result(text):
                shown.console.print(escape(text))
                return
            for task in shown.task_ids:
                shown.remove_task(task)
            shown.add_task(f"{escape(text)} ...", total=None, detail="")

        def on_sample(done: int, total: int) -> None:
            for task in shown.task_ids:
                shown.update(task, completed=done, total=total, detail=timing.text(done, total))

        yield Progress(step, on_sample)


class _Timing:
    """Measures a pass over samples."""

    def __init__(self) -> None:
        self._start = self._line = time.monotonic()

    def text(self, done: int, total: int) -> str:
        """For example "120 of 1000 samples, 35 s, about 257 s left"."""
        now = time.monotonic()
        if not done:
            self._start = self._line = now
        spent = now - self._start
        left = f", about {spent / done * (total - done):.0f} s left" if done else ""
        return f"{done} of {total} samples, {spent:.0f} s{left}"

    def is_due(self) -> bool:
        """Is it time for the next line?"""
        now = time.monotonic()
        if now - self._line < _LINE_EVERY_S:
            return False
        self._line = now
        return True
