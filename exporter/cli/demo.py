"""exporter demo"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.progress import show_progress


@options.command(
    "demo",
    ("", "-o my-demo --force"),
    options.output("DIR", default=Path("exporter-demo"), show_default=True),
    arguments=(),
)
def command(output: Path, **given: Any) -> int:
    """Train a small network on images of digits, choose digits by data, and run every step on it.

    The package contains the 1,797 images; nothing is downloaded.
    """
    from exporter.cli import show
    from exporter.jobs.demo import run_demo
    from exporter.output.folder import check_output_folder

    check_output_folder(output, force=given["force"])  # before the training
    with show_progress(given) as progress:
        demo = run_demo(output, options.make_job(given, progress))
    return show.demo(demo, output, given)
