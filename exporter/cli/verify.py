"""exporter verify"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.progress import show_progress


@options.command("verify", "net.onnx small.onnx", arguments=("original", "pruned"))
def command(original: Path, pruned: Path, **given: Any) -> int:
    """Prove that PRUNED matches ORIGINAL for the kept units."""
    from exporter.cli import show
    from exporter.jobs.compare import verify_files

    with show_progress(given) as progress:
        report = verify_files(original, pruned, options.make_job(given, progress))
    return show.reports({"": report}, given)
