"""Convert a Keras model or a SavedModel into a file, without cutting it."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from exporter.errors import UsageError
from exporter.formats import KINDS, copy_model, kind_of_suffix
from exporter.jobs.checks import NO_INPUTS, CheckResults, _named, compare_models
from exporter.jobs.options import Job
from exporter.jobs.output_checks import check_forms, check_output, refuse_input
from exporter.jobs.record import describe, describe_forms, make_report
from exporter.output.c_source import write_forms
from exporter.output.files import write_atomically
from exporter.records import Artifact, Report


def convert_file(source: str | Path | Any, out: Path, job: Job) -> Report:
    """Convert a Keras model or a SavedModel, uncut, and check the file.

    One that fails is not written.
    """
    kind = kind_of_suffix(out)
    if kind is None or not KINDS[kind].edge:
        known = ", ".join(row.suffixes[0] for row in KINDS.values() if row.edge)
        raise UsageError(f"{out.name} names no kind to convert to", f"use -o NAME with {known}")
    check_output(out, kind, force=job.force)
    check_forms(out, kind, job.forms, force=job.force)
    if isinstance(source, str | Path):
        refuse_input(Path(source), out)
    with job.open(source) as given, tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        inputs = job.inputs(given.model) if job.verify else NO_INPUTS
        target = given.target(kind, Path(folder), job.progress, out.stem)
        if target.original is None or target.path is None:
            raise UsageError(f"{given.model.name} is of the kind {KINDS[kind].title} already")
        path = target.path
        found = (
            compare_models(job, given.model, target.model, inputs, ())
            if job.verify
            else CheckResults()
        )
        artifacts: tuple[Artifact, ...] = ()
        if found.passed:
            write_atomically(out, partial(_write_converted, path, out, job), force=job.force)
            artifact = describe(target.model, out, target.route)
            artifacts = (artifact, *describe_forms(out, job.forms, artifact.precision))
        return make_report(
            job,
            given,
            inputs,
            artifacts=artifacts,
            checks=_named(found, out),
            warnings=(*given.warnings, *target.warnings, *found.warnings),
        )


def _write_converted(path: Path, out: Path, job: Job, file: Path) -> None:
    copy_model(path, file)
    write_forms(file, out, job.forms, None, force=job.force)
