"""exporter quantize"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options, values
from exporter.cli.progress import show_progress
from exporter.quantization import FLOAT, PRECISIONS


@options.command(
    "quantize",
    (
        "net.onnx -o net.int8.onnx --precision int8 --data inputs.npz",
        "net.tflite -o half.tflite --precision fp16 --max-size 300kB",
    ),
    options.output(),
    options.option(
        "--precision",
        type=values.OneOf([name for name in PRECISIONS if name != FLOAT]),
        required=True,
        section="Quantization",
        help="Precision of the weights; with int8 and int16x8 also of the activations.",
    ),
)
def command(model: Path, output: Path, precision: str, **given: Any) -> int:
    """Quantize MODEL, a float32 .onnx or .tflite file, and write FILE.

    The ranges of int8 and int16x8 are calibrated on the inputs of --data. The report compares FILE
    with MODEL: difference, size and latency. If --tolerance is given and exceeded, no file is
    written.
    """
    from exporter.cli import show
    from exporter.jobs.quantize import quantize_file

    given["precisions"] = (precision,)
    with show_progress(given) as progress:
        report = quantize_file(model, output, options.make_job(given, progress))
    return show.written_file(report, given)
