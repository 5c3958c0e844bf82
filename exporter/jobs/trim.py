"""Trim a model: a smaller and faster network for the kept units, fitted on the user's data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from exporter.data.samples import Samples
from exporter.errors import CheckError, ModelError, UsageError
from exporter.evaluation.labels import units_of_labels
from exporter.formats import KINDS, copy_model, kind_of
from exporter.formats.model import Model, unit_labels
from exporter.graph import Graph
from exporter.graph.multiply_adds import multiply_adds
from exporter.jobs.checks import CheckResults, measure_models, prove_cut
from exporter.jobs.job import Job
from exporter.jobs.output_file import NewFile, check_output_file, write_if_passed
from exporter.jobs.started import started
from exporter.jobs.task_quality import QualityMeter
from exporter.jobs.trim_options import TrimOptions
from exporter.output.draft import new_file
from exporter.output.scratch import scratch_folder
from exporter.performance.memory import ModelFile
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.records import TRIM_STAGE, Check, Report, Trimmed
from exporter.trimming.allocate import Step
from exporter.trimming.outputs import Answers
from exporter.trimming.split import split_samples
from exporter.trimming.trimmer import FitOptions, Trimmer

_LEAST_SAMPLES = 8  # of each part
_RARE = 5  # samples
_SEARCHED = 32  # networks of the path that are tried at most, by bisection
_CURVE = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1)  # shares of the curve


@dataclass(frozen=True, eq=False)
class Measured:
    """One trimmed network, and its answers to the held-out samples."""

    step: Step
    model: Model
    answers: Answers


class _Search:
    """Networks of one path, each built and measured once."""

    def __init__(self, trimmer: Trimmer, held_out: Samples, job: Job, by: str) -> None:
        self._trimmer, self._held_out, self._job = trimmer, held_out, job
        self.reference = self._answers(trimmer.model)
        if not self.reference.is_finite:
            raise ModelError(
                f"{trimmer.model.name} returns NaN or infinite values for some samples, with which "
                "no trimmed network can be compared",
                "leave those samples out, or correct the model",
            )
        self.steps = trimmer.path("parameters" if by == "parameters" else "multiply-adds")
        self._known: dict[int, Measured] = {}

    def _answers(self, model: Model) -> Answers:
        return Answers(model, self._trimmer.observed, self._held_out, self._job.run_options)

    def at(self, index: int) -> Measured:
        if index not in self._known:
            step = self.steps[index]
            self._job.progress(f"trimming to {step.cost:.1%}")
            model = self._trimmer.build(step.widths)
            self._known[index] = Measured(step, model, self._answers(model))
        return self._known[index]

    def index_of(self, share: float) -> int:
        """The first network that costs no more; the last one if none does."""
        found = (i for i, step in enumerate(self.steps) if step.cost <= share)
        return next(found, len(self.steps) - 1)

    def smallest(self, accepts: Callable[[Measured], bool]) -> Measured:
        """The smallest network that is accepted, if those before it are."""
        every = np.linspace(0, len(self.steps) - 1, min(_SEARCHED, len(self.steps)))
        indices = sorted(set(every.astype(int).tolist()))
        low, high = 0, len(indices)
        while high - low > 1:
            middle = (low + high) // 2
            if accepts(self.at(indices[middle])):
                low = middle
            else:
                high = middle
        return self.at(indices[low])


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
    check_output_file(out, _kind(path), (), path, force=job.force)
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
        every = _of_kept_classes(job.inputs(original, path), original, planned)
        calibration, held_out = split_samples(every, options.held_out)
        _check_counts(calibration, held_out)
        trimmer = Trimmer(
            base, calibration, job.run_options, FitOptions(options.multiple), job.progress
        )
        if not trimmer.channels.groups:
            raise ModelError(
                f"{base.name} has no channels that can be removed",
                "`exporter inspect MODEL --channels` shows why",
            )
        search = _Search(trimmer, held_out, job, options.by)
        found = _find(search, options, job, original, held_out)
        if not found.answers.is_finite:
            raise ModelError(
                f"{base.name} returns NaN or infinite values when it is trimmed so far",
                "trim it less: a larger --target",
            )
        draft = folder / out.name
        found.model.write(draft)
        small = opened.reopen(draft)
        row = _row(found, search, trimmer, calibration, held_out)
        results = CheckResults(trimmed=(row,), checks=_checks(row, options))
        results += CheckResults.warn(*_warnings(trimmer, row))
        meter = QualityMeter(job, original, held_out, planned.selection.labels if planned else None)
        results += meter.measure(small, planned.remap.heads if planned else ())
        results += measure_models(job, ModelFile(original, path), ModelFile(small, draft), held_out)
        if options.pareto is not None:
            _write_curve(options.pareto, search)
        write = partial(copy_model, draft)
        remap = planned.remap if planned else base.remap
        file = NewFile(small, new, write, results, remap, uncut=path)
        return write_if_passed(job, opened, file, held_out, calibration)


def _kind(path: Path) -> str:
    kind = kind_of(path)
    if not KINDS[kind].opened_here:
        raise UsageError(
            f"{path.name} is a {KINDS[kind].title} file, which cannot be trimmed directly",
            "convert it first: `exporter convert`",
        )
    return kind


def _cut(model: Model, options: CutOptions | None, job: Job) -> tuple[Model, Cut | None]:
    """The model with its head cut, which is what the trimmed network is compared with."""
    if model.precision != "fp32":
        raise ModelError(
            f"{model.name} is {model.precision}, and channels are refitted in float32",
            "trim the float32 file, then quantize the result",
        )
    if options is None:
        return model, None
    cut = plan_cut(model, options, images=job.image_inputs(model))
    pruned = model.apply(cut.plan)
    _, results = prove_cut(job, model, pruned, cut.remap)
    if not results.passed:
        raise CheckError("the cut of the head is not proved", "`exporter prune` shows the checks")
    return pruned, cut


def _of_kept_classes(samples: Samples, model: Model, cut: Cut | None) -> Samples:
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


def _check_counts(calibration: Samples, held_out: Samples) -> None:
    if min(calibration.count, held_out.count) < _LEAST_SAMPLES:
        raise UsageError(
            f"{calibration.count} samples to calibrate on, and {held_out.count} held out, are too "
            "few",
            f"give at least {_LEAST_SAMPLES} different ones for each; some hundreds are usual",
        )


def _find(
    search: _Search, options: TrimOptions, job: Job, original: Model, held_out: Samples
) -> Measured:
    if options.min_agreement is not None:
        limit = options.min_agreement
        if search.reference.agreement(search.reference) is None:
            raise UsageError("the model has no head whose first unit can agree", "give --target")
        return search.smallest(lambda each: (_agreement(search, each) or 0.0) >= limit)
    target = options.target or 0.0
    if options.by == "latency":
        return _of_latency(search, target, job, original, held_out)
    found = search.at(search.index_of(target))
    if found.step.cost > target:
        raise UsageError(
            f"the narrowest network has {found.step.cost:.1%} of the {options.by}",
            "give a larger --target, or a smaller --multiple",
        )
    return found


def _of_latency(
    search: _Search, target: float, job: Job, original: Model, held_out: Samples
) -> Measured:
    """The largest network that is fast enough."""
    from exporter.performance.latency import bench_models

    feeds = list(held_out.within(1 << 24).feeds())

    def is_slow(each: Measured) -> bool:
        row = bench_models(original, each.model, feeds, job.bench_options, progress=job.progress)
        return 1.0 / row.speedup > target

    slow = search.smallest(is_slow)
    index = next(i for i, step in enumerate(search.steps) if step is slow.step)
    if index == 0 and not is_slow(slow):
        return slow
    return search.at(min(index + 1, len(search.steps) - 1))


def _agreement(search: _Search, each: Measured) -> float | None:
    return search.reference.agreement(each.answers)


def _row(
    found: Measured, search: _Search, trimmer: Trimmer, calibration: Samples, held_out: Samples
) -> Trimmed:
    agreement = _agreement(search, found)
    before, after = trimmer.model.graph(), found.model.graph()
    channels = {
        group.name: f"{group.units} -> {found.step.widths[group.name]}"
        for group in trimmer.channels.groups
    }
    return Trimmed(
        artifact="",
        agreement=agreement,
        agreement_ci95=_interval(agreement, held_out.count),
        sqnr_db=search.reference.sqnr_db(found.answers),
        calibration_samples=calibration.count,
        held_out_samples=held_out.count,
        original_multiply_adds=multiply_adds(before),
        multiply_adds=multiply_adds(after),
        original_parameters=_parameters(before),
        parameters=_parameters(after),
        channels=channels,
        rarely_seen=tuple(_rarely_seen(trimmer)),
    )


def _interval(agreement: float | None, samples: int) -> tuple[float, float] | None:
    """None without SciPy."""
    if agreement is None:
        return None
    from exporter.evaluation.intervals import of_share

    try:
        return of_share(round(agreement * samples), samples)
    except ImportError:
        return None


def _parameters(graph: Graph) -> int:
    return sum(
        prod(n or 0 for n in tensor.shape or ())
        for tensor in graph.tensors.values()
        if tensor.is_constant and tensor.dtype.startswith("float")
    )


def _rarely_seen(trimmer: Trimmer) -> list[str]:
    """The units that come first in few calibration samples, by label if there is one."""
    answers = Answers(trimmer.model, trimmer.observed, trimmer.samples, trimmer.options)
    found = []
    for head in trimmer.observed.heads[:1]:
        labels = unit_labels(trimmer.model, head)
        counts = np.bincount(answers.first[head.name].ravel(), minlength=head.units)
        found += [labels[unit] if labels else str(unit) for unit in np.flatnonzero(counts < _RARE)]
    return found


def _checks(row: Trimmed, options: TrimOptions) -> tuple[Check, ...]:
    limit, samples = options.min_agreement, row.held_out_samples
    passed = limit is None or (row.agreement or 0.0) >= limit
    source = "user" if limit is not None else ""
    found = [Check(TRIM_STAGE, "", "", "sqnr_db", row.sqnr_db, None, True, samples)]
    if row.agreement is not None:
        found.insert(
            0,
            Check(
                TRIM_STAGE, "", "", "top1", row.agreement, limit, passed, samples, limit_from=source
            ),
        )
    return tuple(found)


def _warnings(trimmer: Trimmer, row: Trimmed) -> list[str]:
    found = []
    few = [each for each in trimmer.products if trimmer.rows_of(each) < each.design.columns]
    if few:
        worst = max(few, key=lambda each: each.design.columns / max(1, trimmer.rows_of(each)))
        found.append(
            f"{row.calibration_samples} calibration samples give {trimmer.rows_of(worst)} rows for "
            f"{worst.design.columns} inputs of {worst.node.name!r}, so that its fit depends on its "
            f"ridge (likewise for {len(few) - 1} other products): give more samples"
        )
    if row.rarely_seen:
        names = ", ".join(row.rarely_seen[:10])
        more = f" and {len(row.rarely_seen) - 10} more" if len(row.rarely_seen) > 10 else ""  # noqa: PLR2004
        found.append(
            f"fewer than {_RARE} calibration samples show each of {names}{more}: what these units "
            "need may be removed"
        )
    return found


def _write_curve(path: Path, search: _Search) -> None:
    """Agreement and error by size, as CSV and as a plot next to it."""
    indices = sorted({search.index_of(share) for share in _CURVE})
    points = [search.at(index) for index in indices]
    lines = ["share,agreement,sqnr_db\n"]
    rows: list[tuple[float, float | None]] = []
    for each in points:
        agreement = _agreement(search, each)
        shown = "" if agreement is None else f"{agreement:.6f}"
        lines.append(f"{each.step.cost:.6f},{shown},{search.reference.sqnr_db(each.answers):.3f}\n")
        rows.append((each.step.cost, agreement))
    path.write_text("".join(lines), "utf-8")
    _write_plot(path.with_suffix(".svg"), rows)


def _write_plot(path: Path, rows: Sequence[tuple[float, float | None]]) -> None:
    from exporter.report.trim_curve import curve

    path.write_text(curve([(share, each) for share, each in rows if each is not None]), "utf-8")
