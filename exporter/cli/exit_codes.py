"""Turn every error into a message, a hint and an exit code."""

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


def run_command(command: click.Command, arguments: list[str]) -> int:
    """Run a Click command and return its exit code. Only a bug shows a traceback."""
    try:
        code = command.main(arguments, prog_name="exporter", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - the last place that can report it
        try:
            return _failure(error, arguments)
        except _StdoutError as unwritten:
            return _failure(unwritten, arguments)
    except KeyboardInterrupt:
        return _failure(click.Abort(), arguments)
    except SystemExit as end:
        if end.code == 1:  # Click ends so in this mode if the reader of `--help` closed the pipe
            return 0
        raise
    return code if isinstance(code, int) else 0


@contextmanager
def printing() -> Iterator[None]:
    """Write results to stdout; a reader that closed the pipe (`| head`) changes no exit code.

    Raises:
        OutputError: stdout cannot be written.
    """
    try:
        yield
        if sys.stdout is not None:  # None if the caller closed it
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        raise _StdoutError(f"cannot write the results to stdout: {error.strerror}") from error


def _discard_stdout() -> None:
    """Discard the buffered output, so that Python does not report it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unwind_on_signals() -> None:
    """Turn signals that end the process into exceptions, so that temporary files are removed."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, lambda number, _frame: sys.exit(128 + number))


# --- errors -------------------------------------------------------------------------------------


def _failure(error: Exception, arguments: list[str]) -> int:
    as_json = "--json" in arguments and not isinstance(error, _StdoutError)
    if isinstance(error, ImportError):
        error = missing_library(error) or error
    if isinstance(error, ExporterError):
        message, hint = error.message, error.hint
        if "--debug" in arguments:
            error.hint = ""  # it is printed below
            traceback.print_exception(error)
        return _print_error(message, hint, error.exit_code, as_json=as_json)
    if isinstance(error, click.ClickException):
        message = " ".join(error.format_message().split())  # Click writes a line for each choice
        return _print_error(message, _usage_hint(error), USAGE, as_json=as_json)
    if isinstance(error, click.Abort):
        return _print_error("interrupted", "", INTERRUPTED, as_json=as_json)
    traceback.print_exception(error)
    return _print_error(
        "this is a bug in exporter", "please report the lines above", BUG, as_json=as_json
    )


def _print_error(message: str, hint: str, code: int, *, as_json: bool) -> int:
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
    """Escape characters that would move the cursor: names come from files and users."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{context.command_path} --help shows the arguments" if context else ""
