"""What is said on stderr while work goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from exporter.sources import Progress, silent


@contextmanager
def narrating(*, quiet: bool) -> Iterator[Progress]:
    """Give a function that is told each step; a spinner on a terminal, else one line a step."""
    if quiet:
        yield silent
        return
    from rich.console import Console

    console = Console(file=sys.stderr, highlight=False)
    if not console.is_terminal:
        yield lambda message: console.print(f"{message} ...", markup=False, soft_wrap=True)
        return
    with console.status("") as status:
        yield lambda message: status.update(f"{message} ...")
