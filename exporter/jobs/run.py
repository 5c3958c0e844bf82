"""The whole job: open -> trace -> select -> plan -> apply -> verify -> bench -> report."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter.data.samples import Samples
from exporter.errors import ModelError, UsageError
from exporter.formats import KINDS, copy_model, suffixes_of
from exporter.formats.model import Model
from exporter.jobs.checks import NO_INPUTS, CheckResults, Measures, compare_models, measure_models
from exporter.jobs.cut_before_conversion import Precut, cut_before
from exporter.jobs.options import Job
from exporter.jobs.quantize import (
    calibration,
    calibration_warnings,
    drawbacks,
    gates,
    quantized,
    refuse_quantizing,
    ruined,
    wishes,
)
from exporter.jobs.record import describe, describe_forms, make_report
from exporter.jobs.source import Source, Target
from exporter.output.c_source import FORMS, write_forms
from exporter.output.files import write_atomically
from exporter.output.folder import atomic_folder, refuse_existing
from exporter.output.sidecar import write_text
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.quantization import FLOAT, QuantizationSpec
from exporter.records import Artifact, Report
from exporter.report.html import to_html
from exporter.report.markdown import to_markdown
from exporter.trace import trace

_FOLDER = re.compile(r"\w[\w.-]*")


def run_job(source: str | Path | Any, out: Path, choice: CutOptions, job: Job) -> Report:
    """Convert, cut, verify, time and report, into the folder `out`, which appears whole.

    Args:
        source: a path, or a live Keras model.

    Returns:
        The report, which is also written as report.json, report.md and report.html. A failed check
        is a result in it, not an error.

    Raises:
        ExporterError: any of its classes; nothing is written then.
    """
    return run_variants(source, out, {"": choice}, job)[""]


def run_variants(
    source: str | Path | Any, out: Path, choices: Mapping[str, CutOptions], job: Job
) -> dict[str, Report]:
    """`run_job` for several selections with one conversion, each in its own folder of `out`.

    Args:
        choices: folder name -> what to keep; "" is `out` itself.
    """
    check_run(source, out, choices, job)
    with (
        job.open(source) as given,
        _prepared(given, job, choices.values()) as work,
        atomic_folder(out, force=job.force) as folder,
    ):
        return {
            name: _variant(_named(work, name), folder / name, choice)
            for name, choice in choices.items()
        }


def check_run(
    source: str | Path | Any, out: Path, choices: Mapping[str, CutOptions], job: Job
) -> None:
    """Refuse an output that `run_variants` could not write, before minutes are spent."""
    for name in filter(None, choices):
        if not _FOLDER.fullmatch(name):
            raise UsageError(
                f"the variant {name!r} cannot name a folder", "use letters, digits, dots, dashes"
            )
    files = [source, job.data, *(choice.labels for choice in choices.values())]
    inputs = [Path(file) for file in files if isinstance(file, str | Path)]
    refuse_existing(out, force=job.force, inputs=inputs)


# --- what all variants share --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Work:
    job: Job
    source: Source
    inputs: Samples
    calibration: Samples | None
    targets: tuple[Target, ...]


@contextmanager
def _prepared(source: Source, job: Job, choices: Iterable[CutOptions]) -> Iterator[_Work]:
    refuse_quantizing(job, source)
    inputs = job.inputs(source.model) if job.verify or job.bench else NO_INPUTS
    ranges = calibration(job, source.model)
    _refuse_early(source, choices)
    with tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        kinds = job.kinds or source.default_kinds()
        targets = tuple(source.target(kind, Path(folder), job.progress) for kind in kinds)
        yield _Work(job, source, inputs, ranges, targets)


def _named(work: _Work, variant: str) -> _Work:
    """The same, with the variant's name before what is said."""
    if not variant:
        return work
    say = work.job.progress
    return replace(work, job=replace(work.job, progress=lambda step: say(f"{variant}: {step}")))


def _refuse_early(source: Source, choices: Iterable[CutOptions]) -> None:
    """A choice that does not fit is told before the conversion.

    What the source's own kind cannot cut may be cut in the converted file: that is seen there.
    """
    for choice in choices:
        with suppress(ModelError):
            plan_cut(source.model, choice)


# --- one variant --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Result:
    cut: Cut
    pruned: Model
    artifact: Artifact
    results: CheckResults
    measures: Measures
    warnings: tuple[str, ...] = ()
    precut: bool = False  # the original's file has no head to hold another precision against


def _variant(work: _Work, folder: Path, choice: CutOptions) -> Report:
    folder.mkdir(exist_ok=True)
    results = [each for target in work.targets for each in _results(work, target, folder, choice)]
    names = {path.name for path in folder.iterdir()}
    written = [each for each in results if each.artifact.path in names]
    report = make_report(
        work.job,
        work.source,
        work.inputs,
        work.calibration,
        remap=results[0].cut.remap,
        artifacts=tuple(result.artifact for result in written),
        checks=tuple(check for result in results for check in result.results.checks),
        latency=tuple(row for result in written for row in result.measures.latency),
        memory=tuple(row for result in written for row in result.measures.memory),
        warnings=_warnings(work, results),
    )
    forms: list[Artifact] = []
    for artifact in report.artifacts:
        path = folder / artifact.path
        own = [form for form in work.job.forms if FORMS[form].kind == artifact.kind]
        write_forms(path, path, own, report.remap)
        forms += describe_forms(path, own, artifact.precision)
    report = replace(report, artifacts=(*report.artifacts, *forms))
    _write_report(folder, report)
    return report


def _results(work: _Work, target: Target, folder: Path, choice: CutOptions) -> Iterator[_Result]:
    """One artifact a precision; the float one is proved, and what the others are held against.

    It goes where it was not asked for.
    """
    plain = _result(work, target, folder, choice)
    yield plain
    for wish in wishes(work.job):
        yield _coarser(work, target, plain, (folder, choice, wish))
    if wishes(work.job) and FLOAT not in work.job.precisions:
        (folder / plain.artifact.path).unlink()


def _coarser(
    work: _Work, target: Target, plain: _Result, chosen: tuple[Path, CutOptions, QuantizationSpec]
) -> _Result:
    """The artifact of another precision, in the order of cutting and quantizing that was chosen."""
    folder, choice, wish = chosen
    path = folder / f"pruned.{wish.precision}{KINDS[target.model.kind].suffixes[0]}"
    found, cut, source = CheckResults(), plain.cut, target.model
    if work.job.quantize_first:
        made = quantized(work.job, work.source, source, wish, work.calibration)
        whole = made.model
        whole.sha256 = source.sha256  # the same model to the remap, whichever its precision
        cut = plan_cut(whole, choice, target.original)
        write_atomically(path, whole.apply(cut.plan).write)
    else:
        made = quantized(work.job, work.source, plain.pruned, wish, work.calibration)
        write_atomically(path, made.model.write)
    pruned = work.source.reopen(path)
    if work.job.verify:
        tables = cut.remap.heads
        if work.job.quantize_first:
            found = compare_models(gates(work.job), made.model, pruned, work.inputs, tables)
        held = (
            (plain.pruned, pruned, work.inputs, ())
            if plain.precut
            else (source, pruned, work.inputs, tables)
        )
        found += compare_models(work.job, *held)
    artifact = describe(pruned, path, plain.artifact.route, _uncut(target))
    measures = _measures(work, target, (pruned, path))
    sizes = plain.artifact.bytes, artifact.bytes
    times = next(iter(plain.measures.latency), None), next(iter(measures.latency), None)
    return _Result(
        cut=cut,
        pruned=pruned,
        artifact=replace(artifact, precision=wish.precision),
        results=found,
        measures=measures,
        warnings=(
            *made.warnings,
            *ruined(path.name, (c for c in found.checks if c.stage == "quantize")),
            *drawbacks(path.name, sizes, times),
        ),
    )


def _uncut(target: Target) -> Path | None:
    return target.path if target.path and target.path.exists() else None


def _result(work: _Work, target: Target, folder: Path, choice: CutOptions) -> _Result:
    """One artifact, checked and timed as it stands on the disk."""
    kind = KINDS[target.model.kind]
    path = folder / f"pruned.{target.model.precision}{kind.suffixes[0]}"
    work.job.progress(f"cutting {path.name}")
    uncut = _uncut(target)
    if work.job.keep_original and uncut:
        copy_model(uncut, folder / f"original{suffixes_of(uncut)[0]}")
    try:
        cut = plan_cut(target.model, choice, target.original)
    except (ModelError, UsageError) as error:
        return _precut(work, target, path, cut_before(work.source, target, choice, error))
    pruned = _written(work.source, target, cut, path)
    return _Result(
        cut=cut,
        pruned=pruned,
        artifact=describe(pruned, path, target.route, uncut),
        results=_findings(work, target, pruned, cut),
        measures=_measures(work, target, (pruned, path)),
    )


def _precut(work: _Work, target: Target, path: Path, before: Precut) -> _Result:
    """The same for a head that has to be cut before the conversion."""
    with tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        made = before.target(target.model.kind, Path(folder), work.job)
        made.model.name = path.name  # files beside it are called after it
        write_atomically(path, made.model.write)
    pruned = work.source.reopen(path)
    job = gates(work.job)
    return _Result(
        cut=before.cut,
        pruned=pruned,
        artifact=describe(pruned, path, made.route, _uncut(target)),
        results=before.results(job, pruned, work.inputs) if job.verify else CheckResults(),
        measures=_measures(work, target, (pruned, path)),
        warnings=(before.told(path.name), *made.warnings),
        precut=True,
    )


def _written(source: Source, target: Target, cut: Cut, path: Path) -> Model:
    """Apply the plan, write the file, and open what was written."""
    uncut = _uncut(target)
    if not cut.plan.edits and uncut and path.suffix in suffixes_of(uncut):
        copy_model(uncut, path)
    else:
        pruned = target.model.apply(cut.plan)
        pruned.name = path.name  # files beside it are called after it
        write_atomically(path, pruned.write)
    return source.reopen(path)


def _findings(work: _Work, target: Target, pruned: Model, cut: Cut) -> CheckResults:
    if not work.job.verify:
        return CheckResults()
    tables, job = cut.remap.heads, gates(work.job)
    found = compare_models(job, target.model, pruned, work.inputs, tables)
    if target.original is None:
        return found
    shown = {head.name for head in trace(work.source.model.graph()).heads}
    if shown >= {table.name for table in tables}:
        export = compare_models(job, work.source.model, pruned, work.inputs, tables)
    else:  # layers that cannot be looked into: the uncut file stands between the two
        export = compare_models(job, work.source.model, target.model, work.inputs, ())
    return replace(found, checks=found.checks + export.checks)


def _measures(work: _Work, target: Target, pruned: tuple[Model, Path]) -> Measures:
    if not (work.job.bench and target.path and KINDS[target.model.kind].edge):
        return Measures()
    return measure_models(work.job, ((target.model, target.path), pruned), work.inputs)


def _warnings(work: _Work, results: Iterable[_Result]) -> tuple[str, ...]:
    told = [*work.source.warnings, *(w for target in work.targets for w in target.warnings)]
    told += calibration_warnings(work.job, work.calibration)
    for result in results:
        told += [*result.cut.warnings, *result.results.warnings, *result.measures.warnings]
        told += result.warnings
    return tuple(told)


def _write_report(folder: Path, report: Report) -> None:
    texts = {
        "report.json": report.to_json(),
        "report.md": to_markdown(report),
        "report.html": to_html(report),
    }
    if report.remap is not None:
        texts["remap.json"] = report.remap.to_json()
        labels = report.remap.heads[0].labels
        if labels is not None:
            texts["labels.txt"] = "".join(f"{label}\n" for label in labels)
    for name, text in texts.items():
        write_text(folder / name, text)
