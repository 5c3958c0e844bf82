"""exporter bench"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.narrator import narrating


@click.command("bench")
@click.argument("original", type=options.PATH)
@click.argument("pruned", type=options.PATH)
@options.inputs
@options.common
def command(original: Path, pruned: Path, **given: Any) -> int:
    """Time PRUNED beside ORIGINAL: two .onnx files, or two .tflite files."""
    from exporter import against
    from exporter.cli import show

    with narrating(given) as say:
        report = against.bench_files(original, pruned, options.job(given, say))
    return show.reports({"": report}, given)
