"""The part of `docs/precisions.md` about detectors: every precision, in both orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import documents
import precisions

from exporter.data.samples import synthetic_samples
from exporter.errors import ExporterError
from exporter.formats.model import Model
from exporter.formats.onnx import from_proto
from exporter.formats.tflite import from_bytes
from exporter.jobs.checks import compare_models
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.quantization import FLOAT, QuantizationSpec
from exporter.quantization.quantize import quantize_model
from exporter.records import Check

HEAD = """\
## Detectors, in both orders

Boxes and classes share an axis (as in YOLO), or are the inputs of a post-process (as in an SSD).
"Quantized, then cut" names the modes whose checks passed, as above. "Cut, then quantized" is the
signal-to-noise ratio of the kept boxes and classes.

"""


def document() -> str:
    """Both tables."""
    models = built()
    names = [FLOAT, *precisions.LEAST_DB]
    first = [row(models, name, quantized_then_cut) for name in names]
    second = [row(models, name, cut_then_quantized) for name in precisions.LEAST_DB]
    return (
        HEAD
        + documents.table(("Quantized, then cut", *models), first)
        + "\n"
        + documents.table(("Cut, then quantized", *models), second)
    )


def row(
    models: Mapping[str, Model], precision: str, cell: Callable[[Model, str], str]
) -> tuple[str, ...]:
    """The result of each detector at a precision."""
    cells = []
    for model in models.values():
        try:
            cells.append(cell(model, precision))
        except ExporterError as error:
            cells.append(f"refused: {error.message}")
    return (f"`{precision}`", *cells)


def built() -> Mapping[str, Model]:
    """Title -> a small float detector."""
    with precisions.importable_tests():
        from tests.builders import onnx_suppression, ssd_models, yolo_tflite  # noqa: PLC0415 - needs the path
        from tests.builders.yolo_models import DETECTORS  # noqa: PLC0415
    post_process = ssd_models.ssd().content(*ssd_models.ROWS)
    return {
        "ONNX, one axis": from_proto(DETECTORS["v8"].build(), "detector.onnx"),
        "ONNX, NonMaxSuppression": from_proto(onnx_suppression.ssd(), "detector.onnx"),
        "TFLite, one axis": from_bytes(yolo_tflite.converted("v8"), "detector.tflite"),
        "TFLite, post-process": from_bytes(post_process, "detector.tflite"),
    }


def quantized_then_cut(model: Model, precision: str) -> str:
    """The modes whose checks passed for the quantized file, or for the float32 file itself."""
    plain = precisions.cell(model)
    if precision == FLOAT:
        return plain
    inputs = synthetic_samples(model.graph(), precisions.CALIBRATION)
    text = precisions.cell(quantize_model(model, QuantizationSpec(precision), inputs).model)
    return f"as `{FLOAT}`" if text == plain else text


def cut_then_quantized(model: Model, precision: str) -> str:
    """The signal-to-noise ratio.

    Raises:
        RuntimeError: it is below LEAST_DB, or nothing was compared.
    """
    cut = prune_model(model, CutOptions(keep=precisions.KEPT), Job(samples=precisions.SAMPLES))
    inputs = synthetic_samples(model.graph(), precisions.CALIBRATION)
    made = quantize_model(cut.model, QuantizationSpec(precision), inputs).model
    job = Job(quantized_to=precision)
    checks = compare_models(job, model, made, inputs, cut.remap.heads).checks
    return least(model.name, precision, checks)


def least(name: str, precision: str, checks: tuple[Check, ...]) -> str:
    """The bound that the worst ratio meets; raises RuntimeError otherwise."""
    ratios = [c.value for c in checks if c.metric == "sqnr_db" and c.value is not None]
    worst = min(ratios, default=float("-inf"))
    if worst < precisions.LEAST_DB[precision]:
        raise RuntimeError(f"{name} at {precision}: {worst:.1f} dB")
    return f"at least {precisions.LEAST_DB[precision]:g} dB"
