"""Write to stderr. If it is full or closed, messages are lost, and the exit code stays."""

from __future__ import annotations

import os
import sys

import click


def say(text: str) -> None:
    """Write a line; it is lost if stderr cannot be written."""
    try:
        click.echo(text, err=True)
    except (OSError, ValueError):
        _discard()


def say_traceback(error: BaseException) -> None:
    """Write a traceback; it is lost if stderr cannot be written."""
    import traceback

    say("".join(traceback.format_exception(error)).rstrip())


def _discard() -> None:
    """Write what follows to the null device, so that Python does not fail at its end."""
    if sys.stderr is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
