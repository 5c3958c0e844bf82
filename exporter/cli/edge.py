"""The one place where an error becomes a message, a hint and an exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback

import click

from exporter.errors import ExporterError

INTERRUPTED = 130
BUG = 70
USAGE = 2


def guarded(command: click.Command, arguments: list[str]) -> int:
    """Run a Click command; the exit code. Nothing but a bug shows a traceback."""
    as_json = "--json" in arguments
    try:
        code = command.main(arguments, prog_name="exporter", standalone_mode=False)
        sys.stdout.flush()
    except ExporterError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _tell(error.message, error.hint, error.exit_code, as_json=as_json)
    except click.ClickException as error:
        return _tell(error.format_message(), _usage_hint(error), USAGE, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        return _tell("interrupted", "", INTERRUPTED, as_json=as_json)
    except BrokenPipeError:  # the reader of our output has gone: `exporter ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # noqa: BLE001 - the edge of the process: whatever it is, it is a bug
        traceback.print_exc()
        return _tell(
            "this is a bug in exporter", "please report the lines above", BUG, as_json=as_json
        )
    return code if isinstance(code, int) else 0


def _tell(message: str, hint: str, code: int, *, as_json: bool) -> int:
    if as_json:
        record = {
            "schema": "exporter/error/1",
            "ok": False,
            "exit": code,
            "error": message,
            "hint": hint,
        }
        click.echo(json.dumps(record))
    else:
        click.echo(f"error: {message}", err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)
    return code


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{context.command_path} --help shows the arguments" if context else ""
