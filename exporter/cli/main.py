"""The command line: each command picks its arguments, calls the pipeline and shows the result.

A command's module is imported when the command is used, and what it calls when it runs, so that
`exporter --help` loads Click and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from exporter.cli.exit_codes import USAGE, guarded, unwind_on_signals

COMMANDS = {
    "inspect": "Show the heads of a model: what can be cut, and what is refused and why.",
    "prune": "Cut a model; the same kind of file in and out.",
    "convert": "Convert a Keras model or a SavedModel, uncut, to .onnx or .tflite.",
    "quantize": "Bring a float .onnx or .tflite file to float16, int8, int4, ...",
    "run": "The whole job: convert, prune, verify, quantize, bench, report.",
    "verify": "Prove that a pruned model answers as its original did.",
    "bench": "Time a pruned model beside its original.",
    "demo": "Train a small network on real digits, then do the whole job on it.",
}


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
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
)
@click.version_option(package_name="unit-exporter", prog_name="exporter")
@click.pass_context
def cli(context: click.Context) -> int:
    """Keep the output units that a device needs, remove the others, and prove the result.

    MODEL is a Keras (.keras, .h5), ONNX (.onnx) or TFLite (.tflite) file, or a SavedModel folder.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
    return USAGE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with the exit code of the contract."""
    unwind_on_signals()
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(guarded(cli, given))
