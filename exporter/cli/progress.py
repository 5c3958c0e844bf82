"""Progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.cli.stderr import say

if TYPE_CHECKING:
    from exporter.batches.run import Progress as Cells

_LINE_EVERY_S = 10.0  # between two lines about the samples of one step


@dataclass(frozen=True)
class Progress:
    """Shows the steps of a job, and the samples of a step.

    Attributes:
        step: called with one line at each step.
        on_sample: called with the number of samples done and their total.
        on_file: called with the number of the file that is made next, from 1, and their count.
    """

    step: Callable[[str], None]
    on_sample: Callable[[int, int], None]
    on_file: Callable[[int, int], None]

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
        yield Progress(lambda _step: None, lambda _done, _total: None, lambda _next, _count: None)
    elif given["verbose"]:
        start = time.monotonic()
        yield _lines(lambda line: say(f"[{time.monotonic() - start:5.1f} s] {line}"))
    elif not sys.stderr.isatty():
        yield _lines(say)
    else:
        with _bar() as progress:
            yield progress


class _Files:
    """Which of several files is made, and how long the others will take."""

    def __init__(self) -> None:
        self._start = self._first = self._begin = time.monotonic()
        self._next, self._count = 1, 1

    def on_file(self, number: int, total: int) -> None:
        """Note that a file begins."""
        self._next, self._count = number, total
        self._begin = time.monotonic()
        if number == 1:
            self._first = self._begin

    def text(self) -> str:
        """For example "[3 of 8, 35 s, about 58 s left] "; "" for a single file.

        The files that are left are taken to need as long as those before. During the first file
        there is no estimate.
        """
        if self._count <= 1:
            return ""
        now, done = time.monotonic(), self._next - 1
        left = ""
        if done:
            each = (self._begin - self._first) / done
            seconds = max(0.0, each * (self._count - done) - (now - self._begin))
            left = f", about {_time(seconds)} left"
        return f"[{self._next} of {self._count}, {_time(now - self._start)}{left}] "


def _lines(write: Callable[[str], None]) -> Progress:
    timing, files = _Timing(), _Files()

    def on_sample(done: int, total: int) -> None:
        text = timing.text(done, total)
        if timing.is_due():
            write(text)

    def step(text: str) -> None:
        write(text if _is_result(text) else f"{files.text()}{text} ...")

    return Progress(step, on_sample, files.on_file)


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
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.fields[detail]}"),
    )
    timing, files = _Timing(), _Files()
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as shown:

        def step(text: str) -> None:
            if _is_result(text):
                shown.console.print(escape(text))
                return
            for task in shown.task_ids:
                shown.remove_task(task)
            shown.add_task(f"{escape(files.text() + text)} ...", total=None, detail="")

        def on_sample(done: int, total: int) -> None:
            for task in shown.task_ids:
                shown.update(task, completed=done, total=total, detail=timing.text(done, total))

        yield Progress(step, on_sample, files.on_file)


@contextmanager
def show_cells(given: Mapping[str, Any]) -> Iterator[Callable[[Cells], None]]:
    """Show how many cells of a batch are done: a bar on a terminal, else a line now and then.

    Args:
        given: `quiet` shows nothing; `verbose` shows a line for each cell.
    """
    if given["quiet"] or sys.stderr is None:
        yield lambda _cells: None
    elif given["verbose"] or not sys.stderr.isatty():
        last = [-_LINE_EVERY_S]

        def line(cells: Cells) -> None:
            now = time.monotonic()
            is_end = cells.done == cells.total
            if given["verbose"] or is_end or now - last[0] >= _LINE_EVERY_S:
                last[0] = now
                say(_cells_text(cells))

        yield line
    else:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)

            def draw(cells: Cells) -> None:
                from rich.markup import escape

                text = escape(_cells_text(cells))
                bar.update(task, completed=cells.done, total=cells.total, description=text)

            yield draw


def _cells_text(cells: Cells) -> str:
    """For example "12 of 150 cells done, 1 failed, about 90 s left: digits/small"."""
    from exporter.report.formatting import printable

    failed = f", {cells.failed} failed" if cells.failed else ""
    left = cells.left_s
    time_left = "" if left is None or cells.done == cells.total else f", about {_time(left)} left"
    name = f": {printable(cells.name)}" if cells.name else ""
    return f"{cells.done} of {cells.total} cells done{failed}{time_left}{name}"


def _time(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004 - below two minutes, seconds are easier to read
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"  # noqa: PLR2004


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
