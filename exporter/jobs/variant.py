"""One selection of a run: its files, their checks and measurements, and its report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from os.path import normpath
from pathlib import Path

from exporter.data.samples import Samples
from exporter.devices.fleet import Fleet
from exporter.formats import KINDS, copy_model, suffixes_of
from exporter.formats.model import Model
from exporter.jobs.box_pictures import box_pictures
from exporter.jobs.checks import (
    CheckResults,
    compare_models,
    measure_models,
    prove_cut,
)
from exporter.jobs.make import PRUNED, TRIMMED, FloatFile, Maker, file_name
from exporter.jobs.quantize import (
    calibration_warnings,
    for_float_checks,
    quality_warnings,
    quantization_specs,
)
from exporter.jobs.record import describe_artifact, describe_forms, make_report
from exporter.jobs.source import UncutModel
from exporter.jobs.started import verifying
from exporter.jobs.task_quality import QualityMeter
from exporter.jobs.trim_variant import trimmed_file
from exporter.jobs.vocabulary import TokenCut
from exporter.output.c_source import FORMS, sources
from exporter.output.files import write_text, writing
from exporter.output.folder import OUTSIDE, PAGE
from exporter.output.scratch import scratch_folder
from exporter.performance.memory import ModelFile, Originals
from exporter.planning.cut import Cut
from exporter.quantization import FLOAT, QuantizationSpec
from exporter.records import QUANTIZED_AFTER_TRIM, Artifact, Proof, Report
from exporter.remap import HeadRemap
from exporter.report.html import to_html
from exporter.report.markdown import to_markdown
from exporter.trace import trace
from exporter.verification.answers import KnownAnswers


@dataclass(frozen=True, eq=False)
class Variant(Maker):
    """One selection and its folder; the other fields are the same for all variants.

    Attributes:
        folder: is written.
        out: what the folder is called in the end.
        models: the uncut model of every kind that is written.
        inputs, memory, known, fleet: of the session.
        outside: see `Session.run`.
    """

    folder: Path
    out: Path
    models: tuple[UncutModel, ...]
    inputs: Samples
    calibration: Samples | None
    memory: Originals
    known: KnownAnswers
    fleet: Fleet
    outside: bool = False

    def name_of(self, kind: str, precision: str, stem: str = PRUNED) -> str:
        """The path of a model file, relative to the folder."""
        name = file_name(kind, precision, stem)
        return f"{OUTSIDE}{self.folder.name}.{name}" if self.outside else name

    def path_of(self, name: str) -> Path:
        """The path of a model file with this relative path."""
        return (
            self.folder.parent / name.removeprefix(OUTSIDE) if self.outside else self.folder / name
        )

    def measure(self, uncut: UncutModel, pruned: Model, path: Path) -> CheckResults:
        if not (uncut.path and KINDS[uncut.model.kind].benchmarked):
            return CheckResults()
        original = ModelFile(uncut.model, uncut.path)
        file = ModelFile(pruned, path)
        return measure_models(self.job, original, file, self.inputs, self.memory, self.fleet)

    def check(
        self,
        original: Model,
        pruned: Model,
        heads: tuple[HeadRemap, ...],
        precision: str | None = None,
    ) -> CheckResults:
        """Compare two models.

        Args:
            precision: that the pruned model was quantized to; None if both have the same.
        """
        job = for_float_checks(self.job)
        if precision is not None:
            job = replace(self.job, quantized_to=precision)
        file = self._file_of(original)
        job = verifying(job, file, Path(normpath(self.out / pruned.name)))
        export = "export." if original.kind != pruned.kind else ""
        name = f"worst.{export}{Path(pruned.name).name}.npz"
        job = replace(job, save_worst=self.folder / name, replay=_in(job.replay, self.out))
        results = compare_models(job, original, pruned, self.inputs, heads, self.known)
        if not results.passed and file is not None:
            self._keep(original)
        return replace(
            results, worst=tuple(replace(c, file=c.file and name) for c in results.worst)
        )

    def _file_of(self, original: Model) -> Path | None:
        """The file of a model that is compared; None if it is in none."""
        if original is self.source.model:
            return self.source.path
        uncut = next((each for each in self.models if each.model is original), None)
        if uncut is None or uncut.path is None:
            return None
        return uncut.path if uncut.original is None else self.out / _kept_name(uncut.path)

    def _keep(self, original: Model) -> None:
        """Keep a converted original, with which a failed check can be replayed."""
        for uncut in self.models:
            if uncut.model is original and uncut.original is not None and uncut.path:
                copy_model(uncut.path, self.folder / _kept_name(uncut.path))


def outside_files_of(folder: Path, report: Report) -> list[str]:
    """The model files next to the folder of a report, and their bodies, for its manifest."""
    models = [each.path for each in report.artifacts if each.path.startswith(OUTSIDE)]
    files = (file for each in models for file in KINDS["onnx"].files_of(folder.parent / each[3:]))
    return [f"{OUTSIDE}{file.name}" for file in files]


def _kept_name(uncut: Path) -> str:
    """The name of an uncut file in the folder."""
    return f"original{suffixes_of(uncut)[0]}"


def _in(replay: Callable[[Path], str], folder: Path) -> Callable[[Path], str]:
    """A replay with data of that name in another folder."""
    return lambda data: replay(folder / data.name)


@dataclass(frozen=True, eq=False)
class _Pruned:
    """One pruned artifact.

    Attributes:
        is_wanted: False for a float file that is only needed to make the others.
        has_quality: its task quality is among the results.
    """

    cut: Cut
    model: Model
    artifact: Artifact
    results: CheckResults
    is_wanted: bool = True
    has_quality: bool = False


def run_variant(variant: Variant, tokens: TokenCut) -> Report:
    """Make, check and measure the files of a selection, and write its report.

    Args:
        tokens: the files of a tokenizer that follow the cut.
    """
    job, folder = variant.job, variant.folder
    with writing(folder):
        folder.mkdir(exist_ok=True)
    numbers = count(1)
    pruned = [each for uncut in variant.models for each in _prune(variant, uncut, numbers)]
    quality = _task_quality(variant, pruned)
    job.timings.end("quality")
    remap = pruned[0].cut.remap
    write_texts(folder, tokens.texts(pruned[0].cut))
    artifacts = [each.artifact for each in pruned if each.is_wanted]
    for artifact in tuple(artifacts):
        path = folder / artifact.path
        forms = [form for form in job.forms if FORMS[form].kind == artifact.kind]
        write_texts(folder, sources(path, path.name, forms, remap))
        artifacts += describe_forms(path, forms, artifact.precision)
    warnings = [warning for uncut in variant.models for warning in uncut.warnings]
    warnings += calibration_warnings(job, variant.calibration)
    results = sum((each.results for each in pruned), CheckResults.warn(*warnings)) + quality
    report = make_report(
        job,
        variant.source,
        results.with_resources(job, artifacts),
        variant.inputs,
        variant.calibration,
        remap=remap,
        artifacts=tuple(artifacts),
        selection=pruned[0].cut.selection,
    )
    _write_report(folder, report, plots=job.plots)
    return report


def _prune(variant: Variant, uncut: UncutModel, numbers: Iterator[int]) -> Iterator[_Pruned]:
    """Every precision of one kind. The float file is made first and checked in any case.

    Args:
        numbers: of the files of all kinds.
    """
    specs = quantization_specs(variant.job)
    files = len(variant.models) * (1 + len(specs)) * (1 if variant.job.trimming is None else 2)
    is_wanted = not specs or FLOAT in variant.job.precisions
    with nullcontext() if is_wanted else scratch_folder() as scratch:
        variant.job.on_file(next(numbers), files)
        made = _make_float(variant, uncut, scratch)
        variant.job.timings.end("cut")
        plain = _check_float(variant, made)
        unmeasured = replace(plain.results, latency=(), memory=())
        yield plain if is_wanted else replace(plain, results=unmeasured, is_wanted=False)
        for spec in specs:
            variant.job.on_file(next(numbers), files)
            yield _quantize(variant, made, plain, spec)
        if variant.job.trimming is not None:
            for each in _trim(variant, made, specs, scratch):
                variant.job.on_file(next(numbers), files)
                yield each


def _make_float(variant: Variant, uncut: UncutModel, scratch: Path | None) -> FloatFile:
    """Write the float file of one kind, and the original if it is wanted.

    Args:
        scratch: folder for a float file that is only needed to make the others.
    """
    if variant.job.keep_original and uncut.path:
        original = variant.folder / _kept_name(uncut.path)
        with writing(original):
            copy_model(uncut.path, original)
    name = variant.name_of(uncut.model.kind, uncut.model.precision)
    path = variant.path_of(name) if scratch is None else scratch / Path(name).name
    made = variant.make_float(uncut, path, path.name)
    made.model.name = name
    return made


def _check_float(variant: Variant, made: FloatFile) -> _Pruned:
    """Check and time the float file of one kind."""
    job, uncut, pruned = variant.job, made.uncut, made.model
    if made.cut_source is None:
        proof, results = prove_cut(job, uncut.model, pruned, made.cut.remap)
        results += _compare_float(variant, uncut, pruned, made.cut)
    else:
        proof, results = None, CheckResults()
        if job.verify:
            proof = Proof("sampled", "its source was cut before the conversion")
            results = made.cut_source.check(for_float_checks(job), pruned, variant.inputs)
    job.timings.end("verify")
    results = CheckResults.warn(*made.cut.warnings) + results
    results += variant.measure(uncut, pruned, made.path) + CheckResults.warn(*made.warnings)
    job.timings.end("bench")
    artifact = describe_artifact(pruned, made.path, made.route, uncut.path, proof)
    return _Pruned(made.cut, pruned, artifact, results)


def _compare_float(variant: Variant, uncut: UncutModel, pruned: Model, cut: Cut) -> CheckResults:
    """Compare with the uncut model, and with the source that it was converted from."""
    heads, source = cut.remap.heads, variant.source.model
    results = variant.check(uncut.model, pruned, heads)
    if uncut.original is None or not variant.job.verify:
        return results
    source_heads = {head.name for head in trace(source.graph()).heads}
    if source_heads >= {table.name for table in heads}:
        export = variant.check(source, pruned, heads)
    else:  # the source does not show this head: compare before and after the conversion instead
        export = variant.check(source, uncut.model, ())
    return results + export


def _quantize(
    variant: Variant, plain: FloatFile, checked: _Pruned, spec: QuantizationSpec
) -> _Pruned:
    """Quantize, check and time one file.

    Args:
        checked: the float file, with its results.
    """
    job, uncut = variant.job, plain.uncut
    name = variant.name_of(uncut.model.kind, spec.precision)
    path = variant.path_of(name)
    made = variant.make_quantized(plain, spec, variant.calibration, path)
    made.model.name = name
    job.timings.end("quantize")
    pruned, heads, results = made.model, made.cut.remap.heads, CheckResults()
    proof = Proof("sampled", "it was quantized after the cut") if job.verify else None
    if made.before is not None:
        proof, results = prove_cut(job, made.before, pruned, made.cut.remap)
        results += variant.check(made.before, pruned, heads)
    if plain.cut_source:  # the converted original has no head to compare with
        results += variant.check(plain.model, pruned, (), spec.precision)
    else:
        results += variant.check(uncut.model, pruned, heads, spec.precision)
    job.timings.end("verify")
    results += variant.measure(uncut, pruned, path)
    job.timings.end("bench")
    pruned.precision = spec.precision  # the file itself may state another one, as for "dynamic"
    artifact = describe_artifact(pruned, path, plain.route, uncut.path, proof)
    results += CheckResults.warn(*made.cut.warnings, *made.warnings) + quality_warnings(
        path.name, artifact.bytes, results, checked.artifact.bytes, checked.results.latency
    )
    return _Pruned(made.cut, pruned, artifact, results)


def _trim(
    variant: Variant, made: FloatFile, specs: Iterable[QuantizationSpec], scratch: Path | None
) -> Iterator[_Pruned]:
    """The trimmed float file of one kind, and its quantized files, which are compared with it.

    Args:
        scratch: as for `_make_float`.
    """
    job, uncut, kind = variant.job, made.uncut, made.uncut.model.kind
    name = variant.name_of(kind, made.model.precision, TRIMMED)
    path = variant.path_of(name) if scratch is None else scratch / Path(name).name
    small, results, meter = trimmed_file(job, variant.source, made, variant.inputs, path)
    heads = made.cut.remap.heads
    small.model.name = name
    job.timings.end("trim")
    if scratch is None:
        results += meter.measure(small.model, heads)
        results += variant.measure(uncut, small.model, path)
    artifact = describe_artifact(small.model, path, made.route, uncut.path)
    results = results.for_artifact(name)
    is_wanted = scratch is None
    yield _Pruned(made.cut, small.model, artifact, results, is_wanted, has_quality=True)
    for spec in specs:
        name = variant.name_of(kind, spec.precision, TRIMMED)
        path = variant.path_of(name)
        quantized = variant.make_quantized(small, spec, variant.calibration, path)
        quantized.model.name = name
        job.timings.end("quantize")
        results = CheckResults.warn(*quantized.warnings)
        results += variant.check(small.model, quantized.model, (), spec.precision)
        results += variant.measure(uncut, quantized.model, path)
        results += meter.measure(quantized.model, heads).for_artifact(name)
        proof = Proof("sampled", QUANTIZED_AFTER_TRIM) if job.verify else None
        artifact = describe_artifact(quantized.model, path, made.route, uncut.path, proof)
        yield _Pruned(made.cut, quantized.model, artifact, results, has_quality=True)


def _task_quality(variant: Variant, pruned: Iterable[_Pruned]) -> CheckResults:
    """The task quality of every artifact, next to that of the source, and pictures of boxes."""
    results, meters = CheckResults(), dict[int, QualityMeter]()
    source = variant.source.model
    names = {head.name for head in trace(source.graph()).heads} if variant.inputs.labels else ()
    uncut = {each.model.kind: each.model for each in variant.models}
    for each in (each for each in pruned if not each.has_quality):
        heads = each.cut.remap.heads
        # a SavedModel does not always show the head: the converted model then
        original = source if heads[0].name in names else uncut[each.model.kind]
        labels = each.cut.selection.labels
        new = QualityMeter(variant.job, original, variant.inputs, labels)
        meter = meters.setdefault(id(original), new)
        if each.is_wanted:
            found = meter.measure(each.model, heads)
            found += box_pictures(variant.job, original, each.model, variant.inputs, heads, labels)
            results += found.for_artifact(each.artifact.path)
    return results


def _write_report(folder: Path, report: Report, *, plots: bool) -> None:
    texts = {
        "report.json": report.to_json(),
        "report.md": to_markdown(report),
        PAGE: to_html(report, plots=plots),
    }
    if report.remap is not None:
        texts["remap.json"] = report.remap.to_json()
        texts |= label_files(report.remap.heads)
    write_texts(folder, texts)


def label_files(heads: Iterable[HeadRemap]) -> dict[str, str]:
    """The labels of the new units: `labels.txt`; a file for each head if they differ."""
    by_head = {head.name: head.labels for head in heads if head.labels is not None}
    safe = {name: re.sub(r"[^\w.-]", "_", name) for name in by_head}
    files = {f"labels.{safe[name]}.txt": labels for name, labels in by_head.items()}
    if len(set(files.values())) == 1:
        files = {"labels.txt": next(iter(files.values()))}
    return {name: "".join(f"{label}\n" for label in labels) for name, labels in files.items()}


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts as UTF-8 into a folder; name of the file -> text."""
    for name, text in texts.items():
        with writing(folder / name):
            write_text(folder / name, text)
