"""exporter bench"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.progress import show_progress


@options.command(
    "bench",
    ("net.onnx small.onnx", "net.onnx small.onnx --max-latency 5ms"),
    arguments=("original", "pruned"),
)
def command(original: Path, pruned: Path, **given: Any) -> int:
    """Measure latency and memory of PRUNED next to ORIGINAL: two .onnx or two .tflite files."""
    from exporter.cli import show
    from exporter.jobs.compare import bench_files

    with show_progress(given) as progress:
        report = bench_files(original, pruned, options.make_job(given, progress))
    return show.reports({"": report}, given)
