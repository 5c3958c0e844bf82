"""`run --trim`: the trimmed network of a pruned float file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exporter.data.samples import Samples
from exporter.errors import UsageError
from exporter.jobs.checks import CheckResults
from exporter.jobs.job import Job
from exporter.jobs.make import FloatFile
from exporter.jobs.source import OpenedModel
from exporter.jobs.task_quality import QualityMeter
from exporter.jobs.trim import check_trimmable, of_kept_classes
from exporter.jobs.trim_options import TrimOptions
from exporter.jobs.trim_search import Search
from exporter.output.files import writing


def check_trimming(job: Job) -> None:
    """Refuse options that `run --trim` does not have (raises UsageError)."""
    if job.trimming is None:
        return
    if job.data is None:
        raise UsageError(
            "a network is trimmed on samples of its inputs",
            "give them with --data; they need no labels",
        )
    if job.quantize_first:
        raise UsageError(
            "channels are refitted in float32", "leave out --quantize-first, or --trim"
        )


def trimmed_file(
    job: Job, source: OpenedModel, pruned: FloatFile, inputs: Samples, path: Path
) -> tuple[FloatFile, CheckResults, QualityMeter]:
    """Trim a pruned float file, write the result to a path, and open it again.

    Args:
        inputs: some calibrate, the others are held out.

    Returns:
        The trimmed file; its record and checks; and the meter of its task quality, and of its
        quantized files: on the held-out samples.

    Raises:
        UsageError: too few samples, or a target that no trimmed network reaches.
        ModelError: no channels can be removed, or outputs cannot be compared.
    """
    options, original = job.trimming or TrimOptions(min_agreement=1.0), pruned.uncut.model
    job.progress(f"trimming {pruned.path.name}")
    check_trimmable(pruned.model)
    search = Search(pruned.model, of_kept_classes(inputs, original, pruned.cut), options, job)
    found = search.find()
    model = search.model(found.index)
    model.name = path.name
    with writing(path):
        model.write(path)
    small = source.reopen(path)
    results = search.results(found)
    meter = QualityMeter(job, original, search.held_out, pruned.cut.selection.labels)
    return replace(pruned, path=path, model=small, warnings=()), results, meter
