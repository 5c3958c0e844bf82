"""Fill the record of a job."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from exporter.data.samples import Samples
from exporter.formats import size_bytes
from exporter.formats.model import Model
from exporter.jobs.options import Job
from exporter.jobs.source import Source
from exporter.output.c_source import FORMS
from exporter.records import Artifact, Original, Report
from exporter.report.machine import machine, versions


def make_report(
    job: Job, source: Source, inputs: Samples, calibration: Samples | None = None, **found: Any
) -> Report:
    """A report of what was found, with what is known of every job.

    Args:
        calibration: what showed the ranges of activations, if anything was calibrated.
        found: further fields of `Report`; a warning that comes twice is told once.
    """
    found["warnings"] = tuple(dict.fromkeys(found.get("warnings", ())))
    found.setdefault("remap", None)
    return Report(
        versions=versions(),
        machine=machine(),
        command=job.command,
        inputs=_told(inputs) | ({"calibration": _told(calibration)} if calibration else {}),
        original=_original(source),
        **found,
    )


def _told(inputs: Samples) -> dict[str, Any]:
    return {"source": inputs.source, "samples": inputs.count}


def describe(model: Model, path: Path, route: str = "", uncut: Path | None = None) -> Artifact:
    """A written file.

    Args:
        route: of its conversion.
        uncut: the whole model in a file of the same kind.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(
        path=path.name,
        kind=model.kind,
        precision=model.precision,
        bytes=size_bytes(path),
        sha256=sha256,
        route=route,
        original_bytes=size_bytes(uncut) if uncut else None,
    )


def describe_forms(path: Path, forms: Iterable[str], precision: str) -> Iterator[Artifact]:
    """The written files of an artifact's other forms.

    Args:
        path: of the artifact, beside which they stand.
        forms: keys of FORMS, of the artifact's kind.
        precision: of the artifact.
    """
    for form in forms:
        for name in import_module(FORMS[form].module).names(path.name):
            content = path.with_name(name).read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            yield Artifact(name, form, precision, len(content), sha256, route="")


def _original(source: Source) -> Original:
    model, path = source.model, source.path
    name, size = (path.name, size_bytes(path)) if path else (model.name, None)
    return Original(name, model.kind, model.precision, size, model.sha256)
