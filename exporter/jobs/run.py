"""The whole job: convert, cut, check, quantize, time and report, into one folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from os.path import normpath
from pathlib import Path
from typing import Any

from exporter.data.samples import Samples
from exporter.devices.fleet import Fleet
from exporter.errors import UsageError
from exporter.formats import KINDS, copy_model, suffixes_of
from exporter.formats.model import Model
from exporter.jobs.box_pictures import box_pictures
from exporter.jobs.checks import (
    NO_INPUTS,
    CheckResults,
    compare_models,
    measure_models,
    prove_cut,
)
from exporter.jobs.job import Job
from exporter.jobs.label_file import label_texts, note, with_label_file
from exporter.jobs.make import FloatFile, Maker, check_cuts, pruned_name
from exporter.jobs.output_file import check_sharing
from exporter.jobs.quantize import (
    calibration_samples,
    calibration_warnings,
    for_float_checks,
    quality_warnings,
    quantization_specs,
    refuse_quantizing,
)
from exporter.jobs.record import describe_artifact, describe_forms, make_report
from exporter.jobs.source import OpenedModel, UncutModel
from exporter.jobs.started import started, verifying
from exporter.jobs.task_quality import QualityMeter, check_truth
from exporter.jobs.timings import Timings
from exporter.jobs.vocabulary import TokenCut, complete_tokens
from exporter.output.c_source import FORMS, sources
from exporter.output.draft import new_folder
from exporter.output.files import write_text, writing
from exporter.output.folder import BESIDE, INDEX, PAGE, check_output_folder
from exporter.output.manifest import write_manifest
from exporter.output.scratch import scratch_folder
from exporter.performance.memory import ModelFile, Originals
from exporter.planning.cut import Cut, CutOptions
from exporter.quantization import FLOAT, QuantizationSpec
from exporter.records import Artifact, Proof, Report
from exporter.remap import HeadRemap
from exporter.report.html import to_html, to_index_html
from exporter.report.markdown import to_markdown
from exporter.trace import trace
from exporter.verification.answers import KnownAnswers

_FOLDER_NAME = re.compile(r"\w[\w.-]*")


def _nothing_more(_folder: Path) -> None:
    """Add no files."""


def run_job(
    source: str | Path | Any,
    out: Path,
    options: CutOptions,
    job: Job,
    *,
    complete: Callable[[Path], None] = _nothing_more,
) -> Report:
    """Convert, cut, verify, quantize, time and report, into the folder `out`, atomically.

    Args:
        source: a path, or a live Keras model.
        complete: adds files to the folder, whose other files are written but for the manifest.

    Returns:
        The report, which is also in the folder as report.json, report.md and report.html. A failed
        check is a result in it, not an error.

    Raises:
        ExporterError: any of its classes; nothing is written then.
    """
    return run_variants(source, out, {"": options}, job, complete=complete)[""]


def run_variants(
    source: str | Path | Any,
    out: Path,
    variants: Mapping[str, CutOptions],
    job: Job,
    *,
    complete: Callable[[Path], None] = _nothing_more,
) -> dict[str, Report]:
    """`run_job` for several selections with one conversion, each in its own subfolder of `out`.

    Args:
        variants: subfolder name -> options of the cut; "" is `out` itself.
    """
    check_run(source, out, variants, job)
    job = replace(job, timings=Timings())
    with new_folder(out, force=job.force) as folder, open_session(source, job, variants) as session:
        session.models(job)
        job.timings.end("convert")
        reports = {}
        for number, (name, options) in enumerate(variants.items()):
            target = out / name if name else out  # which may have a URL
            numbered = _numbered(_named(job, name), number, len(variants))
            own_job = started(numbered, "run", (source, "-o", target), options)
            beside = job.share_body and bool(name)
            reports[name] = session.run(own_job, options, folder / name, out / name, beside=beside)
        with writing(out):
            complete(folder)
            if any(variants):
                write_text(folder / INDEX, to_index_html(reports))
            for name in filter(None, variants):
                write_manifest(folder / name, files_beside_report(folder / name, reports[name]))
            write_manifest(folder)
        return reports


@dataclass(eq=False)
class Session:
    """An opened model, and everything that its cuts share.

    Attributes:
        converted: converts it to a kind, or opens what was converted before.
        inputs: that models run on.
        memory: of the uncut models that were measured.
        known: the answers of originals to the inputs: computed once for all cuts.
        fleet: the devices to measure on; empty for this machine.
    """

    opened: OpenedModel
    converted: Callable[[str], UncutModel]
    inputs: Samples
    fleet: Fleet
    memory: Originals = field(default_factory=dict)
    known: KnownAnswers = field(default_factory=KnownAnswers)
    _models: dict[str, UncutModel] = field(default_factory=dict)
    _calibration: dict[Any, Samples | None] = field(default_factory=dict)

    def run(
        self, job: Job, options: CutOptions, folder: Path, out: Path, *, beside: bool = False
    ) -> Report:
        """Make the files of one selection and the report in a folder, without a manifest.

        Args:
            job: may differ from that of the session in targets, precisions, gates and limits.
            folder: is written.
            out: what the folder is called in the end.
            beside: write model files next to the folder, under its name and theirs: files that
                share a body are in one folder.
        """
        models, calibration = self.models(job), self.calibration(job)
        known = models, self.inputs, calibration, self.memory, self.known, self.fleet
        opened = self.opened
        labeled, file = with_label_file(opened.model, opened.path, options)
        tokens = complete_tokens(opened.model, labeled, opened.path)
        own = replace(opened, warnings=(*opened.warnings, *note(file), *tokens.notes))
        variant = _Variant(job, own, tokens.options, folder, out, *known, beside=beside)
        report = _run_variant(variant, tokens)
        _write_texts(folder, label_texts(file, report.remap))
        return report

    def models(self, job: Job) -> tuple[UncutModel, ...]:
        """The uncut model of every kind that the job writes."""
        for kind in (kinds := job.kinds or self.opened.default_kinds()):
            if kind not in self._models:
                self._models[kind] = self.converted(kind)
        return tuple(self._models[kind] for kind in kinds)

    def calibration(self, job: Job) -> Samples | None:
        """The samples that the job calibrates integer precisions on."""
        key = job.precisions, job.calibration, job.synthetic_calibration
        if key not in self._calibration:
            self._calibration[key] = calibration_samples(job, self.opened)
        return self._calibration[key]


@contextmanager
def open_session(
    source: str | Path | Any,
    job: Job,
    variants: Mapping[str, CutOptions],
    converted: Callable[[OpenedModel, str], UncutModel] | None = None,
    known: OpenedModel | None = None,
) -> Iterator[Session]:
    """Open a model for several cuts.

    Args:
        variants: their options, which are checked before the model is converted.
        converted: gives the model as a kind. Default: it is converted for this session.
        known: the model, if it is open already; it stays open.
    """
    opening = job.open(source) if known is None else nullcontext(known)
    with opening as opened, scratch_folder() as scratch, job.fleet() as fleet:
        if job.bench:
            list(fleet.devices())  # an unreachable one is found before the work is done
        refuse_quantizing(job, opened)
        check_sharing((job.kinds or opened.default_kinds()) if job.share_body else ())
        job.timings.end("open")
        runs = job.verify or job.bench or job.data
        inputs = job.inputs(opened.model, opened.path) if runs else NO_INPUTS
        check_truth(job, inputs)
        check_cuts(
            opened,
            {n: with_label_file(opened.model, opened.path, o)[0] for n, o in variants.items()},
            job.progress,
        )
        convert = converted or partial(OpenedModel.as_kind, folder=scratch, progress=job.progress)
        session = Session(opened, partial(convert, opened), inputs, fleet)
        session.calibration(job)
        job.timings.end("samples")
        yield session


def _named(job: Job, variant: str) -> Job:
    """The job with the name of the variant before each progress message."""
    if not variant:
        return job
    return replace(job, progress=lambda message: job.progress(f"{variant}: {message}"))


def _numbered(job: Job, variant: int, variants: int) -> Job:
    """The job that counts the files of all variants, which have equally many."""

    def on_file(number: int, files: int) -> None:
        job.on_file(variant * files + number, variants * files)

    return replace(job, on_file=on_file)


def check_run(
    source: str | Path | Any, out: Path, variants: Mapping[str, CutOptions], job: Job
) -> None:
    """Refuse an output that `run_variants` could not write, before minutes are spent."""
    for name in filter(None, variants):
        if not _FOLDER_NAME.fullmatch(name):
            raise UsageError(
                f"the variant {name!r} cannot name a folder", "use letters, digits, dots, dashes"
            )
    files = [source, job.data, *(options.labels for options in variants.values())]
    inputs = [Path(file) for file in files if isinstance(file, str | Path)]
    check_output_folder(out, force=job.force, inputs=inputs)


@dataclass(frozen=True, eq=False)
class _Variant(Maker):
    """One selection and its folder; the other fields are the same for all variants.

    Attributes:
        folder: is written.
        out: what the folder is called in the end.
        models: the uncut model of every kind that is written.
        inputs, memory, known, fleet: of the session.
        beside: see `Session.run`.
    """

    folder: Path
    out: Path
    models: tuple[UncutModel, ...]
    inputs: Samples
    calibration: Samples | None
    memory: Originals
    known: KnownAnswers
    fleet: Fleet
    beside: bool = False

    def name_of(self, kind: str, precision: str) -> str:
        """The path of a model file, relative to the folder."""
        name = pruned_name(kind, precision)
        return f"{BESIDE}{self.folder.name}.{name}" if self.beside else name

    def path_of(self, name: str) -> Path:
        """The path of a model file with this relative path."""
        return self.folder.parent / name.removeprefix(BESIDE) if self.beside else self.folder / name

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


def files_beside_report(folder: Path, report: Report) -> list[str]:
    """The model files next to the folder of a report, and their bodies, for its manifest."""
    models = [each.path for each in report.artifacts if each.path.startswith(BESIDE)]
    files = (file for each in models for file in KINDS["onnx"].files_of(folder.parent / each[3:]))
    return [f"{BESIDE}{file.name}" for file in files]


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
    """

    cut: Cut
    model: Model
    artifact: Artifact
    results: CheckResults
    is_wanted: bool = True


def _run_variant(variant: _Variant, tokens: TokenCut) -> Report:
    job, folder = variant.job, variant.folder
    with writing(folder):
        folder.mkdir(exist_ok=True)
    numbers = count(1)
    pruned = [each for uncut in variant.models for each in _prune(variant, uncut, numbers)]
    quality = _task_quality(variant, pruned)
    job.timings.end("quality")
    remap = pruned[0].cut.remap
    _write_texts(folder, tokens.texts(pruned[0].cut))
    artifacts = [each.artifact for each in pruned if each.is_wanted]
    for artifact in tuple(artifacts):
        path = folder / artifact.path
        forms = [form for form in job.forms if FORMS[form].kind == artifact.kind]
        _write_texts(folder, sources(path, path.name, forms, remap))
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


def _prune(variant: _Variant, uncut: UncutModel, numbers: Iterator[int]) -> Iterator[_Pruned]:
    """Every precision of one kind. The float file is made first and checked in any case.

    Args:
        numbers: of the files of all kinds.
    """
    specs = quantization_specs(variant.job)
    files = len(variant.models) * (1 + len(specs))
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


def _make_float(variant: _Variant, uncut: UncutModel, scratch: Path | None) -> FloatFile:
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


def _check_float(variant: _Variant, made: FloatFile) -> _Pruned:
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


def _compare_float(variant: _Variant, uncut: UncutModel, pruned: Model, cut: Cut) -> CheckResults:
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
    variant: _Variant, plain: FloatFile, checked: _Pruned, spec: QuantizationSpec
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


def _task_quality(variant: _Variant, pruned: Iterable[_Pruned]) -> CheckResults:
    """The task quality of every artifact, next to that of the source, and pictures of boxes."""
    results, meters = CheckResults(), dict[int, QualityMeter]()
    source = variant.source.model
    names = {head.name for head in trace(source.graph()).heads} if variant.inputs.labels else ()
    uncut = {each.model.kind: each.model for each in variant.models}
    for each in pruned:
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
    _write_texts(folder, texts)


def label_files(heads: Iterable[HeadRemap]) -> dict[str, str]:
    """The labels of the new units: `labels.txt`; a file for each head if they differ."""
    by_head = {head.name: head.labels for head in heads if head.labels is not None}
    safe = {name: re.sub(r"[^\w.-]", "_", name) for name in by_head}
    files = {f"labels.{safe[name]}.txt": labels for name, labels in by_head.items()}
    if len(set(files.values())) == 1:
        files = {"labels.txt": next(iter(files.values()))}
    return {name: "".join(f"{label}\n" for label in labels) for name, labels in files.items()}


def _write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        with writing(folder / name):
            write_text(folder / name, text)
