"""The one place where an error becomes a message, a hint and an exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from exporter.errors import ExporterError, OutputError, missing_library

INTERRUPTED = 130
BUG = 70
USAGE = 2


class _StdoutError(OutputError):
    """Results cannot be written to stdout, and an error record cannot either."""


def guarded(command: click.Command, arguments: list[str]) -> int:
    """Run a Click command; the exit code. Nothing but a bug shows a traceback."""
    try:
        code = command.main(arguments, prog_name="exporter", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - the edge of the process: whatever it is, it is told
        try:
            return _failure(error, arguments)
        except _StdoutError as unwritten:
            return _failure(unwritten, arguments)
    except KeyboardInterrupt:
        return _failure(click.Abort(), arguments)
    except SystemExit as end:
        if end.code == 1:  # so Click ends, in this mode, where the reader of `--help` has gone
            return 0
        raise
    return code if isinstance(code, int) else 0


@contextmanager
def printing() -> Iterator[None]:
    """Around results on stdout: a reader that has gone (`| head`) does not change what was found.

    Raises:
        OutputError: stdout cannot be written.
    """
    try:
        yield
        if sys.stdout is not None:  # it is None where the caller closed it
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        raise _StdoutError(f"cannot write the results to stdout: {error.strerror}") from error


def _discard_stdout() -> None:
    """What is still buffered goes nowhere, so that Python has nothing to complain about."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unwind_on_signals() -> None:
    """Let signals that end the process unwind it, so that nothing half-written stays behind."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, lambda number, _frame: sys.exit(128 + number))


# --- what is told -------------------------------------------------------------------------------


def _failure(error: Exception, arguments: list[str]) -> int:
    as_json = "--json" in arguments and not isinstance(error, _StdoutError)
    if isinstance(error, ImportError):
        error = missing_library(error) or error
    if isinstance(error, ExporterError):
        if "--debug" in arguments:
            traceback.print_exception(error)
        return _tell(error.message, error.hint, error.exit_code, as_json=as_json)
    if isinstance(error, click.ClickException):
        message = " ".join(error.format_message().split())  # choices come a line each
        return _tell(message, _usage_hint(error), USAGE, as_json=as_json)
    if isinstance(error, click.Abort):
        return _tell("interrupted", "", INTERRUPTED, as_json=as_json)
    traceback.print_exception(error)
    return _tell("this is a bug in exporter", "please report the lines above", BUG, as_json=as_json)


def _tell(message: str, hint: str, code: int, *, as_json: bool) -> int:
    if as_json:
        record = {
            "schema": "exporter/error/1",
            "ok": False,
            "exit": code,
            "error": message,
            "hint": hint,
        }
        with printing():
            click.echo(json.dumps(record))
        return code
    click.echo(f"error: {_one_line(message)}", err=True)
    if hint:
        click.echo(f"hint: {_one_line(hint)}", err=True)
    return code


def _one_line(text: str) -> str:
    """Names come from files and users: what would move the cursor is shown escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{context.command_path} --help shows the arguments" if context else ""
