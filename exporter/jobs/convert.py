"""Convert a Keras model or a SavedModel into an edge file, without cutting it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from exporter.errors import UsageError
from exporter.formats import KINDS, copy_model, kind_of_suffix
from exporter.jobs.checks import NO_INPUTS, CheckResults, compare_models
from exporter.jobs.job import Job
from exporter.jobs.output_file import NewFile, check_output_file, write_if_passed
from exporter.jobs.started import started
from exporter.output.draft import new_file
from exporter.output.scratch import scratch_folder
from exporter.records import Report


def convert_file(source: str | Path | Any, out: Path, job: Job) -> Report:
    """Convert a Keras model or a SavedModel, and compare the file with it.

    If a check fails, no file is written and the report contains the failed check.
    """
    kind = kind_of_suffix(out)
    if kind is None or not KINDS[kind].converter:
        known = ", ".join(row.suffixes[0] for row in KINDS.values() if row.converter)
        raise UsageError(
            f"the suffix of {out.name} is not one that models are converted to",
            f"use -o NAME with {known}",
        )
    check_output_file(out, kind, job.forms, source, force=job.force)
    job = started(job, "convert", (source, "-o", out))
    with (
        new_file(out, force=job.force) as draft,
        job.open(source) as opened,
        scratch_folder() as folder,
    ):
        inputs = job.inputs(opened.model, opened.path) if job.verify else NO_INPUTS
        uncut = opened.as_kind(kind, folder, job.progress, out.stem)
        if uncut.original is None or uncut.path is None:
            raise UsageError(f"{opened.model.name} is in {KINDS[kind].title} format already")
        results = CheckResults.warn(*uncut.warnings)
        results += compare_models(job, opened.model, uncut.model, inputs, ())
        write = partial(copy_model, uncut.path)
        new = NewFile(uncut.model, draft, write, results, route=uncut.route)
        return write_if_passed(job, opened, new, inputs)
