"""The whole job: convert, cut, check, quantize, time and report, into one folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from exporter.data.samples import Samples
from exporter.devices.fleet import Fleet
from exporter.errors import UsageError
from exporter.jobs.checks import (
    NO_INPUTS,
)
from exporter.jobs.job import Job
from exporter.jobs.label_file import label_texts, note, with_label_file
from exporter.jobs.make import check_cuts
from exporter.jobs.output_file import check_sharing
from exporter.jobs.quantize import (
    calibration_samples,
    refuse_quantizing,
)
from exporter.jobs.source import OpenedModel, UncutModel
from exporter.jobs.started import started
from exporter.jobs.task_quality import check_truth
from exporter.jobs.timings import Timings
from exporter.jobs.trim_variant import check_trimming
from exporter.jobs.variant import Variant, outside_files_of, run_variant, write_texts
from exporter.jobs.vocabulary import complete_tokens
from exporter.output.draft import new_folder
from exporter.output.files import write_text, writing
from exporter.output.folder import INDEX, check_output_folder
from exporter.output.manifest import write_manifest
from exporter.output.scratch import scratch_folder
from exporter.performance.memory import Originals
from exporter.planning.cut import CutOptions
from exporter.records import Report
from exporter.report.html import to_index_html
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
            records = (options, *filter(None, (job.trimming,)))
            own_job = started(numbered, "run", (source, "-o", target), *records)
            outside = job.share_body and bool(name)
            reports[name] = session.run(
                own_job, options, folder / name, out / name, outside=outside
            )
        with writing(out):
            complete(folder)
            if any(variants):
                write_text(folder / INDEX, to_index_html(reports))
            for name in filter(None, variants):
                write_manifest(folder / name, outside_files_of(folder / name, reports[name]))
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
        self, job: Job, options: CutOptions, folder: Path, out: Path, *, outside: bool = False
    ) -> Report:
        """Make the files of one selection and the report in a folder, without a manifest.

        Args:
            job: may differ from that of the session in targets, precisions, gates and limits.
            folder: is written.
            out: what the folder is called in the end.
            outside: write model files next to the folder, under its name and theirs: files that
                share a body are in one folder.
        """
        models, calibration = self.models(job), self.calibration(job)
        known = models, self.inputs, calibration, self.memory, self.known, self.fleet
        opened = self.opened
        labeled, file = with_label_file(opened.model, opened.path, options)
        tokens = complete_tokens(opened.model, labeled, opened.path)
        own = replace(opened, warnings=(*opened.warnings, *note(file), *tokens.notes))
        variant = Variant(job, own, tokens.options, folder, out, *known, outside=outside)
        report = run_variant(variant, tokens)
        write_texts(folder, label_texts(file, report.remap))
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
    check_trimming(job)
    files = [source, job.data, *(options.labels for options in variants.values())]
    inputs = [Path(file) for file in files if isinstance(file, str | Path)]
    check_output_folder(out, force=job.force, inputs=inputs)
