"""exporter bench"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.progress import narrating


@click.command("bench")
@click.argument("original", type=options.PATH)
@click.argument("pruned", type=options.PATH)
@options.inputs
@options.common
def command(original: Path, pruned: Path, **given: Any) -> int:
    """Time PRUNED beside ORIGINAL: two .onnx files, or two .tflite files."""
    from exporter.cli import show
    from exporter.jobs.compare import bench_files

    with narrating(given) as say:
        report = bench_files(original, pruned, options.job(given, say))
    return show.reports({"": report}, given)
