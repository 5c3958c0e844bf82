"""Turn every error into a message, a hint and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from exporter.cli.stderr import say, say_traceback
from exporter.errors import (
    ExporterError,
    ModelError,
    OutputError,
    UsageError,
    missing_library,
    nearest,
    system_error,
)

INTERRUPTED = 130
BUG = 70
USAGE = 2
DAMAGED = ModelError.exit_code


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
    hint = "the job is done: redirect stdout to a file, or to /dev/null"
    if sys.stdout is None:
        raise _StdoutError("cannot write the results to stdout: it is closed", hint)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        reason = f"cannot write the results to stdout: {error.strerror}"
        raise _StdoutError(reason, hint) from error


def _discard_stdout() -> None:
    """Discard the buffered output, so that Python does not report it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def use_open_streams() -> None:
    """Open the null device for each standard stream that the caller closed.

    Else the next file that is opened gets the stream's number, and messages are written into it.
    """
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def refuse_missing_folder() -> None:
    """Raise a UsageError if the current folder was removed: relative paths have no meaning."""
    try:
        os.getcwd()  # noqa: PTH109 - `exporter --help` needs no pathlib
    except OSError as error:
        raise UsageError(
            f"the current folder cannot be used: {error.strerror}", "change to another folder"
        ) from error


def unwind_on_signals() -> None:
    """Turn signals that end the process into exceptions, so that temporary files are removed."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, lambda number, _frame: sys.exit(128 + number))


_handlers: list[object] = []  # the kernel calls them: Python must not collect them


def report_shortened_files(*, as_json: bool) -> None:
    """End with one line if another program shortens a file that this process has mapped.

    The kernel sends SIGBUS at the next read of a byte that the file no longer has. Python calls a
    handler only after that read, which is repeated for ever; so the kernel calls this one. It
    cannot return, and temporary files stay, as after a kill.
    """
    if not hasattr(signal, "SIGBUS"):  # Windows
        return
    import ctypes

    def end(_number: int) -> None:
        message = "another program shortened a file while it was read"
        hint = "run the command again when the file is complete"
        os._exit(_print_error(message, hint, DAMAGED, as_json=as_json))

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
    _handlers.append(handler)
    ctypes.CDLL(None).signal(int(signal.SIGBUS), handler)


# --- errors -------------------------------------------------------------------------------------


def _failure(error: Exception, arguments: list[str]) -> int:
    as_json = "--json" in arguments and not isinstance(error, _StdoutError)
    if isinstance(error, ImportError):
        error = missing_library(error) or error
    if isinstance(error, OSError):
        error = system_error(error) or error
    if isinstance(error, ExporterError):
        message, hint = error.message, error.hint
        if "--debug" in arguments:
            error.hint = ""  # it is printed below
            say_traceback(error)
        return _print_error(message, hint, error.exit_code, as_json=as_json)
    if isinstance(error, click.ClickException):
        message = " ".join(error.format_message().split())  # Click writes a line for each choice
        if isinstance(error, click.NoSuchOption):
            message = f"there is no option {error.option_name!r}"
        return _print_error(message, _usage_hint(error), USAGE, as_json=as_json)
    if isinstance(error, click.Abort):
        return _print_error("interrupted", "", INTERRUPTED, as_json=as_json)
    say_traceback(error)
    return _print_error(
        "this is a bug in exporter", "please report the lines above", BUG, as_json=as_json
    )


def _print_error(message: str, hint: str, code: int, *, as_json: bool) -> int:
    if as_json:
        import json

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
    say(f"error: {_one_line(message)}")
    if hint:
        say(f"hint: {_one_line(hint)}")
    return code


def _one_line(text: str) -> str:
    """Escape characters that would move the cursor: names come from files and users."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return ""
    hint = f"{context.command_path} --help shows the arguments"
    if isinstance(error, click.NoSuchOption):
        known = {name for each in context.command.params for name in each.opts}
        similar = nearest(error.option_name, sorted(known), 0.75)
        return f"did you mean {similar}? {hint}" if similar else hint
    return hint
