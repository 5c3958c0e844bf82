"""Write `docs/precisions.md`: each kind of head in each precision, cut and proved, or refused.

Nothing is claimed: every cell is a file that is built, cut in every mode, run beside its original
and checked, as `exporter prune` does it.
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
from exporter.jobs.options import Job
from exporter.jobs.prune import Pruned, prune_model
from exporter.modes import MODES
from exporter.planning.cut import CutOptions
from exporter.quantization import QuantizationSpec
from exporter.quantization.quantize import quantize_model
from exporter.verification.limits import LIMITS, cut_precision
from exporter.verification.metrics import compare

PROJECT = documents.PROJECT
DOCUMENT = PROJECT / "docs" / "precisions.md"
SHOWN = ("slice", "zero", "mask")  # the modes that need no more than a selection
KEPT = (1, 3, 4)
SAMPLES = 4
CALIBRATION = 32

HEAD = """\
# Precisions

What `exporter` cuts, written by `tools/precisions.py` (`make precisions`). Each cell is a small
file in which a head of that kind stands in that precision: it is cut to three units in each mode,
run beside its original, and checked. A cell names the modes whose checks passed; a refusal is what
the command line says. The files are built by `tests/builders/onnx_precisions.py` and
`tests/builders/tflite_precisions.py`.

"Called" is how reports and file names call the precision. "z" says how near the values before the
last activation must be to those of the original: codes equal to the bit, float sums within the
limit, which is multiplied by the largest |z| where that is above 1.

"Written" is the other direction: the float32 file of the first row is brought to each precision by
the library that `exporter quantize` uses, must keep the signal-to-noise ratio that is named, and is
then cut as the others are.
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
    """The table of files that others wrote."""
    head = ("Precision", "Called", "z", *map(_capital, module.FUNCTIONS))
    return documents.table(head, [_row(module, precision) for precision in module.PRECISIONS])


def written(module: ModuleType, precision: str) -> tuple[str, ...]:
    """The row of what is made of the float32 files."""
    cells = (_written(module.built(kind, "float32"), precision) for kind in module.FUNCTIONS)
    return (f"`{precision}`", f"at least {LEAST_DB[precision]:g} dB", *cells)


def _written(model: Model, precision: str) -> str:
    """As `cell`, of the model in that precision.

    Raises:
        RuntimeError: the answers are further off than is claimed, or a check fails.
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
    noise = compare(wanted, given, axis=-1, tie=0.0, metrics=["sqnr_db"])["sqnr_db"]
    if noise < LEAST_DB[precision]:
        raise RuntimeError(f"{model.name} at {precision}: {noise:.1f} dB")
    return cell(made)


def families() -> Mapping[str, ModuleType]:
    """Title of a format -> the module that builds its files, which lies with the tests."""
    with beside_the_tests():
        from tests.builders import onnx_precisions, tflite_precisions  # noqa: PLC0415 - needs the path
    return {"ONNX": onnx_precisions, "TFLite": tflite_precisions}


@contextmanager
def beside_the_tests() -> Iterator[None]:
    """Where their builders can be imported."""
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
    """The modes that are proved, and why others are refused."""
    modes: dict[str, list[str]] = {}
    for mode in SHOWN:
        if mode in MODES:
            modes.setdefault(outcome(model, mode), []).append(mode)
    proved = modes.pop("", [])
    told = [", ".join(proved)] if proved else []
    for reason, refused in modes.items():
        told.append(f"{', '.join(refused)} refused: {reason}")
    return "; ".join(told)


def outcome(model: Model, mode: str) -> str:
    """Why a cut is refused, or "" where it is proved.

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
    """What z is held to; "" where the head cannot be sliced."""
    try:
        checks = _pruned(model, "slice").results.checks
    except ExporterError:
        return ""
    first = next(check for check in checks if check.metric == "max_abs")
    if first.limit == 0.0:
        return "equal to the bit"
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
