"""The part of `docs/precisions.md` about Keras files: `exporter run` at every precision."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import documents
import precisions
import precisions_detectors

from exporter.errors import ExporterError
from exporter.jobs.job import Job
from exporter.jobs.run import run_job
from exporter.planning.cut import CutOptions
from exporter.quantization import FLOAT

HEAD = """\
## Keras, converted, cut and written

A `.keras` file through `exporter run --precision`: converted, cut to three units and quantized, and
in the other order. "Proved": every check passed in both orders.

"""
KINDS = {"onnx": "ONNX", "tflite": "TFLite"}
UNITS = 6


def document() -> str:
    """The table: one row per precision, one column per head and kind of file."""
    columns: dict[str, Mapping[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for head, file in saved(Path(folder)):
            for kind, title in KINDS.items():
                columns[f"{head}: {title}"] = cells(file, kind, [FLOAT, *precisions.LEAST_DB])
    rows = [
        (f"`{name}`", *(column[name] for column in columns.values()))
        for name in (FLOAT, *precisions.LEAST_DB)
    ]
    return HEAD + documents.table(("Written", *columns), rows)


def saved(folder: Path) -> Iterator[tuple[str, Path]]:
    """A small file per kind of head."""
    import keras  # noqa: PLC0415 - seconds
    from keras import layers  # noqa: PLC0415

    def dense(activation: str) -> list[Any]:
        return [layers.Input((8,)), layers.Dense(UNITS, activation)]

    heads = {
        "Dense, softmax": dense("softmax"),
        "Dense, sigmoid": dense("sigmoid"),
        "Convolution, mean, softmax": [
            layers.Input((8, 8, 3)),
            layers.Conv2D(UNITS, 3),
            layers.GlobalAveragePooling2D(),
            layers.Softmax(),
        ],
    }
    for i, (head, stack) in enumerate(heads.items()):
        keras.utils.set_random_seed(i)
        path = folder / f"network{i}.keras"
        keras.Sequential(stack).save(path)
        yield head, path


def cells(file: Path, kind: str, names: Iterable[str]) -> Mapping[str, str]:
    """Precision -> the result of both orders, as one text if they agree."""
    cut_first, cut_last = (done(file, kind, names, quantize_first=first) for first in (False, True))
    return {name: _both(cut_first[name], cut_last[name]) for name in names}


def _both(cut_first: str, cut_last: str) -> str:
    alike = cut_first.partition(":")[0] == cut_last.partition(":")[0]
    return cut_first if alike else f"{cut_first}; quantized first {cut_last}"


def done(file: Path, kind: str, names: Iterable[str], *, quantize_first: bool) -> dict[str, str]:
    """One conversion for all precisions; if one of them is refused, the list is split."""
    wanted = list(names)
    try:
        return run(file, kind, wanted, quantize_first=quantize_first)
    except ExporterError as error:
        if len(wanted) == 1:
            return {wanted[0]: f"refused: {error.message}"}
    found: dict[str, str] = {}
    for part in (wanted[:-1], wanted[-1:]):
        found |= done(file, kind, part, quantize_first=quantize_first)
    return found


def run(file: Path, kind: str, names: list[str], *, quantize_first: bool) -> dict[str, str]:
    """Precision -> "proved".

    Raises:
        RuntimeError: a check failed, or a signal-to-noise ratio is below LEAST_DB.
    """
    job = Job(
        to=(kind,),
        samples=precisions.CALIBRATION,
        precisions=tuple(names),
        synthetic_calibration=True,
        quantize_first=quantize_first,
        bench=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        report = run_job(file, Path(folder, "out"), CutOptions(keep=precisions.KEPT), job)
    if not report.ok or not report.checks:
        raise RuntimeError(f"{file.name} to {kind}: {report.checks}")
    results = {}
    for name in names:
        checks = tuple(c for c in report.checks if f".{name}." in c.artifact)
        if name != FLOAT:
            precisions_detectors.least(file.name, name, checks)
        results[name] = "proved"
    return results
