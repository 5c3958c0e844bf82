"""exporter convert"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.progress import narrating


@click.command("convert")
@click.argument("model", type=options.PATH)
@click.option("-o", "--output", type=options.PATH, required=True, metavar="FILE")
@options.checks
@options.conversion
@click.option("--verify/--no-verify", default=True, show_default=True, help="Check the file first.")
@options.forms
@options.force
@options.common
def command(model: Path, output: Path, **given: Any) -> int:
    """Convert MODEL, of Keras or a SavedModel folder, uncut, to FILE (.onnx or .tflite).

    The file is checked against the model before it is written; if a check fails, it is not.
    """
    from exporter.cli import show
    from exporter.jobs.convert import convert_file

    with narrating(given) as say:
        report = convert_file(model, output, options.job(given, say))
    return show.converted(report, given)
