"""exporter convert"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.progress import show_progress


@options.command(
    "convert", ("net.keras -o net.tflite", "saved_model -o net.onnx --opset 18"), options.output()
)
def command(model: Path, output: Path, **given: Any) -> int:
    """Convert MODEL (Keras or a SavedModel folder), uncut, to FILE (.onnx or .tflite).

    The file is compared with the model first. If a check fails, no file is written.
    """
    from exporter.cli import show
    from exporter.jobs.convert import convert_file

    with show_progress(given) as progress:
        report = convert_file(model, output, options.make_job(given, progress))
    return show.written_file(report, given)
