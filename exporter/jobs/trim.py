"""Trim a model: a smaller and faster network for the kept units, fitted on the user's data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from exporter.data.samples import Samples
from exporter.errors import CheckError, ModelError, UsageError
from exporter.evaluation.labels import units_of_labels
from exporter.formats import KINDS, copy_model, kind_of
from exporter.formats.model import Model, unit_labels
from exporter.jobs.checks import measure_models, prove_cut
from exporter.jobs.job import Job
from exporter.jobs.output_file import NewFile, check_output_file, write_if_passed
from exporter.jobs.started import started
from exporter.jobs.task_quality import QualityMeter
from exporter.jobs.trim_options import TrimOptions
from exporter.jobs.trim_search import Search
from exporter.output.draft import new_file
from exporter.output.scratch import scratch_folder
from exporter.performance.memory import ModelFile
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.records import Report

_CURVE = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1)  # shares of the curve


def trim_file(
    source: str | Path, out: Path, options: TrimOptions, cut: CutOptions | None, job: Job
) -> Report:
    """Cut the head of a file, trim its body, and write a file of the same kind.

    Args:
        cut: which units are kept; None keeps all.

    Raises:
        UsageError: no data, too few samples, or a target that no trimmed network reaches.
        ModelError: no channels can be removed, or outputs cannot be compared.
    """
    path = Path(source)
    kind = _kind(path, options)
    check_output_file(out, kind, (), path, force=job.force)
    if job.data is None:
        raise UsageError(
            "a network is trimmed on samples of its inputs",
            "give them with --data; they need no labels",
        )
    records = (cut, options) if cut else (options,)
    job = started(job, "trim", (path, "-o", out), *records)
    with (
        new_file(out, force=job.force) as new,
        job.open(path) as opened,
        scratch_folder() as folder,
    ):
        original = opened.model
        base, planned = _cut(original, cut, job)
        every = of_kept_classes(job.inputs(original, path), original, planned)
        search = Search(base, every, options, job)
        found = search.find()
        draft = folder / out.name
        search.model(found.index).write(draft)
        small = opened.reopen(draft)
        results = search.results(found)
        held_out = search.held_out
        meter = QualityMeter(job, original, held_out, planned.selection.labels if planned else None)
        results += meter.measure(small, planned.remap.heads if planned else ())
        if KINDS[kind].benchmarked:
            files = ModelFile(original, path), ModelFile(small, draft)
            results += measure_models(job, *files, held_out)
        if options.pareto is not None:
            _write_curve(options.pareto, search)
        write = partial(copy_model, draft)
        remap = planned.remap if planned else base.remap
        file = NewFile(small, new, write, results, remap, uncut=path)
        return write_if_passed(job, opened, file, held_out, search.calibration)


def _kind(path: Path, options: TrimOptions) -> str:
    kind = kind_of(path)
    if options.by == "latency" and not KINDS[kind].benchmarked:
        raise UsageError(
            f"the latency of a {KINDS[kind].title} model is not measured",
            "give --by multiply-adds, or trim the converted .onnx or .tflite file",
        )
    if not KINDS[kind].written:
        raise UsageError(
            f"a {KINDS[kind].title} cannot be trimmed directly",
            "`exporter convert` it to .onnx or .tflite, and trim that file",
        )
    return kind


def _cut(model: Model, options: CutOptions | None, job: Job) -> tuple[Model, Cut | None]:
    """The model with its head cut, which is what the trimmed network is compared with."""
    check_trimmable(model)
    if options is None:
        return model, None
    cut = plan_cut(model, options, images=job.image_inputs(model))
    pruned = model.apply(cut.plan)
    _, results = prove_cut(job, model, pruned, cut.remap)
    if not results.passed:
        raise CheckError("the cut of the head is not proved", "`exporter prune` shows the checks")
    return pruned, cut


def check_trimmable(model: Model) -> None:
    """ModelError for a model that is not float32."""
    if model.precision != "fp32":
        raise ModelError(
            f"{model.name} is {model.precision}, and channels are refitted in float32",
            "trim the float32 file, then quantize the result",
        )


def of_kept_classes(samples: Samples, model: Model, cut: Cut | None) -> Samples:
    """The samples of kept classes, if the labels tell; all samples otherwise."""
    if cut is None or samples.labels is None:
        return samples
    if not all(isinstance(label, str | int) for label in samples.labels):
        return samples
    head = cut.heads[0]
    names = cut.selection.labels or unit_labels(model, head)
    labels = [label for label in samples.labels if isinstance(label, str | int)]
    units = units_of_labels(labels, head.units, names)
    chosen = np.flatnonzero(np.isin(units, cut.selection.kept)).tolist()
    return samples.at(chosen)


def _write_curve(path: Path, search: Search) -> None:
    """Agreement and error by size, as CSV and as a plot next to it."""
    indices = sorted({search.index_of(share) for share in _CURVE})
    points = [search.at(index) for index in indices]
    lines = ["share,agreement,sqnr_db\n"]
    rows: list[tuple[float, float | None]] = []
    for each in points:
        agreement = each.difference.agreement
        shown = "" if agreement is None else f"{agreement:.6f}"
        error = each.difference.worst_sqnr_db
        lines.append(f"{each.step.cost:.6f},{shown},{error:.3f}\n")
        rows.append((each.step.cost, agreement))
    path.write_text("".join(lines), "utf-8")
    _write_plot(path.with_suffix(".svg"), rows)


def _write_plot(path: Path, rows: Sequence[tuple[float, float | None]]) -> None:
    from exporter.report.trim_curve import curve

    path.write_text(curve([(share, each) for share, each in rows if each is not None]), "utf-8")
