"""Progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from exporter.cli.stderr import say


@contextmanager
def show_progress(given: Mapping[str, Any]) -> Iterator[Callable[[str], None]]:
    """Give a function that shows a step: with a spinner on a terminal, else one line a step.

    Args:
        given: `quiet` shows nothing; `verbose` shows a line a step on a terminal too, with the
            seconds since the start.
    """
    if given["quiet"] or sys.stderr is None:  # None if the caller closed it
        yield lambda _step: None
        return
    if given["verbose"]:
        start = time.monotonic()
        yield lambda step: say(f"[{time.monotonic() - start:5.1f} s] {step} ...")
        return
    if not sys.stderr.isatty():
        yield lambda step: say(f"{step} ...")
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("") as status:
        yield lambda step: status.update(f"{escape(step)} ...")
