"""exporter quantize"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.progress import narrating
from exporter.quantization import FLOAT, PRECISIONS


@click.command("quantize")
@click.argument("model", type=options.PATH)
@click.option("-o", "--output", type=options.PATH, required=True, metavar="FILE")
@click.option(
    "--precision",
    type=click.Choice([name for name in PRECISIONS if name != FLOAT]),
    required=True,
    help="What the weights, and with int8 and int16x8 the activations too, become.",
)
@options.quantization
@options.checks
@options.limits
@click.option("--verify/--no-verify", default=True, show_default=True)
@click.option("--bench/--no-bench", default=True, show_default=True)
@options.forms
@options.force
@options.common
def command(model: Path, output: Path, precision: str, **given: Any) -> int:
    """Bring the float32 MODEL (.onnx or .tflite) to another precision, as FILE.

    int8 and int16x8 are calibrated on the inputs of --data. What the precision lost is measured
    against MODEL and reported beside size and latency; --tolerance makes it a check, and a file
    that fails is not written.
    """
    from exporter.cli import show
    from exporter.jobs.quantize import quantize_file

    given["precisions"] = (precision,)
    with narrating(given) as say:
        report = quantize_file(model, output, options.job(given, say))
    return show.converted(report, given)
