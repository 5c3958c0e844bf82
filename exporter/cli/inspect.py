"""exporter inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.progress import show_progress


@options.command("inspect", "net.onnx")
def command(model: Path, **given: Any) -> int:
    """Show the heads of MODEL: what can be cut, and what is refused and why."""
    from exporter.cli import show
    from exporter.jobs.inspect import inspect_file

    with show_progress(given) as progress:
        inspection = inspect_file(model, options.make_job(given, progress))
    return show.inspection(inspection, given)
