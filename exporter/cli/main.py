"""The command line. A command is a module of its name, which reads arguments, runs a job and shows
the result.

A module is imported when its command is used, so that `exporter --help` imports only Click.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from exporter.cli.exit_codes import (
    USAGE,
    refuse_missing_folder,
    run_command,
    unwind_on_signals,
    use_open_streams,
)
from exporter.cli.stderr import say
from exporter.errors import UsageError, nearest

COMMANDS = {
    "inspect": "Show the heads of a model: what can be cut, and what is refused and why.",
    "select": "Choose units by data: quality, class distribution, redundancy.",
    "prune": "Cut a model into a file of the same kind.",
    "trim": "Remove inner channels: a smaller and faster network for the kept units.",
    "convert": "Convert a Keras model or a SavedModel, uncut, to .onnx or .tflite.",
    "quantize": "Quantize a float .onnx or .tflite file: fp16, int8, int4, ...",
    "run": "All steps: convert, cut, verify, quantize, measure, report.",
    "batch": "Run a plan: many models, selections, precisions and formats.",
    "unshare": "Give models that share a body all their constants back.",
    "verify": "Prove that a pruned model matches its original.",
    "bench": "Measure latency and memory of a pruned model and its original.",
    "history": "Show the timings that bench saved, and their changes.",
    "report": "Draw the pages of a result folder again from its records.",
    "demo": "Train a small network on images of digits, and run every step on it.",
}


class _LazyGroup(click.Group):
    """A group that imports the module of a command when the command is used."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            similar = nearest(name, COMMANDS)
            hint = f"did you mean `exporter {similar}`? " if similar else ""
            raise UsageError(f"there is no command {name!r}", f"{hint}exporter --help lists them")
        command: click.Command = import_module(f"exporter.cli.{name}").command
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    epilog="Example: exporter demo",
)
@click.version_option(package_name="unit-exporter", prog_name="exporter")
@click.pass_context
def cli(context: click.Context) -> int:
    """Keep the output units that a device needs, remove the others, and prove the result.

    MODEL is a Keras (.keras, .h5), ONNX (.onnx) or TFLite (.tflite) file, or a SavedModel folder.
    """
    if context.invoked_subcommand is None:
        say(context.get_help())
    else:
        refuse_missing_folder()
    return USAGE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the exit code."""
    use_open_streams()
    unwind_on_signals()
    sys.exit(run_command(cli, list(sys.argv[1:] if arguments is None else arguments)))
