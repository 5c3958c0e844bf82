"""exporter inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.progress import show_progress
from exporter.jobs.options import Job


@options.command("inspect", "net.onnx")
@click.argument("model", type=options.PATH)
@options.record_options("inspect", Job)
@options.messages
def command(model: Path, **given: Any) -> int:
    """Show the heads of MODEL: what can be cut, and what is refused and why."""
    from exporter.cli import show
    from exporter.jobs.inspect import inspect_file

    with show_progress(given) as progress:
        inspection = inspect_file(model, options.make_job(given, progress))
    return show.inspection(inspection, given)
