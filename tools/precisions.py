"""Write `docs/precisions.md`: each kind of head at each precision, cut and checked, or refused.

For every cell a file is built, cut in every mode, run next to its original and checked, as
`exporter prune` does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

import documents
import numpy as np

from exporter.data.samples import synthetic_samples
from exporter.errors import ExporterError
from exporter.formats.model import Model, RunOptions
from exporter.jobs.job import Job
from exporter.jobs.prune import Pruned, prune_model
from exporter.modes import MODES
from exporter.planning.cut import CutOptions
from exporter.quantization import QuantizationSpec
from exporter.quantization.quantize import quantize_model
from exporter.verification.limits import LIMITS, cut_precision
from exporter.verification.metrics import Block, comparable, measure

PROJECT = documents.PROJECT
DOCUMENT = PROJECT / "docs" / "precisions.md"
SHOWN = ("slice", "zero", "mask")  # the modes that need only a selection
KEPT = (1, 3, 4)
SAMPLES = 4
CALIBRATION = 32

HEAD = """\
# Precisions

What `exporter` cuts at each precision, written by `tools/precisions.py` (`make precisions`). Each
cell is a small file with a head of that kind at that precision. In each mode the file is cut to
three units, run next to its original, and checked. A cell names the modes whose checks passed, or
the refusal that the command line prints. `tests/builders/onnx_precisions.py` and
`tests/builders/tflite_precisions.py` build the files.

"Called" is the name of the precision in reports and file names. "z" is the limit for the logits:
quantized values are bit-identical; float sums stay within the limit, which is multiplied by the
largest |z| if that is above 1.

"Written" is the other direction: `exporter quantize` brings the float32 file of the first row to
each precision. The result must reach the named signal-to-noise ratio (SQNR), and is then cut like
the other files.
"""

LEAST_DB: Mapping[str, float] = {"fp16": 50, "dynamic": 25, "int8": 20, "int16x8": 35, "int4": 5}


def document() -> str:
    """The whole document."""
    parts = [HEAD]
    for title, module in families().items():
        parts.append(f"## {title}, read and cut\n\n" + read(module))
        head = ("Written", "SQNR", *map(_capital, module.FUNCTIONS))
        rows = [written(module, precision) for precision in LEAST_DB]
        parts.append(f"## {title}, written and cut\n\n" + documents.table(head, rows))
    import precisions_detectors  # noqa: PLC0415 - which need this one
    import precisions_keras  # noqa: PLC0415

    parts += [precisions_detectors.document(), precisions_keras.document()]
    return "\n".join(parts)


def read(module: ModuleType) -> str:
    """The table of files that other tools wrote."""
    head = ("Precision", "Called", "z", *map(_capital, module.FUNCTIONS))
    return documents.table(head, [_row(module, precision) for precision in module.PRECISIONS])


def written(module: ModuleType, precision: str) -> tuple[str, ...]:
    """The row of float32 files that are quantized to a precision."""
    cells = (_written(module.built(kind, "float32"), precision) for kind in module.FUNCTIONS)
    return (f"`{precision}`", f"at least {LEAST_DB[precision]:g} dB", *cells)


def _written(model: Model, precision: str) -> str:
    """As `cell`, of the model quantized to a precision.

    Raises:
        RuntimeError: the signal-to-noise ratio is below LEAST_DB, or a check fails.
    """
    inputs = synthetic_samples(model.graph(), CALIBRATION)
    try:
        made = quantize_model(model, QuantizationSpec(precision), inputs).model
    except ExporterError as error:
        return f"refused: {error.message}"
    (output,) = model.graph().outputs
    wanted, given = (
        np.stack([runner(feed)[output] for feed in inputs.feeds()])
        for runner in (each.runner(RunOptions()) for each in (model, made))
    )
    noise = measure("sqnr_db", Block(*comparable(wanted, given), axis=-1))
    if noise < LEAST_DB[precision]:
        raise RuntimeError(f"{model.name} at {precision}: {noise:.1f} dB")
    return cell(made)


def families() -> Mapping[str, ModuleType]:
    """Title of a format -> the test module that builds its files."""
    with importable_tests():
        from tests.builders import onnx_precisions, tflite_precisions  # noqa: PLC0415 - needs the path
    return {"ONNX": onnx_precisions, "TFLite": tflite_precisions}


@contextmanager
def importable_tests() -> Iterator[None]:
    """Make the builders of the tests importable."""
    sys.path.insert(0, str(PROJECT))
    try:
        yield
    finally:
        sys.path.remove(str(PROJECT))


def _row(module: ModuleType, precision: str) -> tuple[str, ...]:
    models: list[Model | None] = [module.built(kind, precision) for kind in module.FUNCTIONS]
    files = [model for model in models if model is not None]
    near = dict.fromkeys(nearness(model) for model in files)
    cells = ("no such file" if model is None else cell(model) for model in models)
    return (precision, f"`{files[0].precision}`", " or ".join(filter(None, near)), *cells)


def cell(model: Model) -> str:
    """The modes whose checks passed, and the refusals of others."""
    modes: dict[str, list[str]] = {}
    for mode in SHOWN:
        if mode in MODES:
            modes.setdefault(outcome(model, mode), []).append(mode)
    passed = modes.pop("", [])
    texts = [", ".join(passed)] if passed else []
    for reason, refused in modes.items():
        texts.append(f"{', '.join(refused)} refused: {reason}")
    return "; ".join(texts)


def outcome(model: Model, mode: str) -> str:
    """The reason why a cut is refused, or "" if its checks passed.

    Raises:
        RuntimeError: a check fails, or there is none.
    """
    try:
        checks = _pruned(model, mode).results.checks
    except ExporterError as error:
        return error.message
    failed = [check for check in checks if not check.passed]
    if failed or not checks:
        raise RuntimeError(f"{model.name} ({model.precision}), {mode}: {failed}")
    return ""


def nearness(model: Model) -> str:
    """The limit of z as a text; "" if the head cannot be sliced."""
    try:
        checks = _pruned(model, "slice").results.checks
    except ExporterError:
        return ""
    first = next(check for check in checks if check.metric == "max_abs")
    if first.limit == 0.0:
        return "bit-identical"
    row = LIMITS.get(("cut", cut_precision(model)), LIMITS["cut", "fp32"])
    return f"within {row.z if row.scaled else LIMITS['cut', 'fp32'].z:g}"


def _pruned(model: Model, mode: str) -> Pruned:
    return prune_model(model, CutOptions(keep=KEPT, mode=mode), Job(samples=SAMPLES))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def main() -> None:
    """Write the document."""
    documents.write(DOCUMENT, document())


if __name__ == "__main__":
    sys.modules["precisions"] = sys.modules[__name__]
    main()
