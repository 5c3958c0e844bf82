"""Prune a model into a file of the same kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from exporter.data.samples import Samples
from exporter.errors import CheckError
from exporter.formats import kind_of
from exporter.formats.model import Model, SharingModel
from exporter.jobs.checks import NO_INPUTS, CheckResults, compare_models, prove_cut
from exporter.jobs.job import Job
from exporter.jobs.label_file import next_to, note, with_label_file
from exporter.jobs.output_file import (
    NewFile,
    check_output_file,
    check_sharing,
    write_if_passed,
    write_pruned,
)
from exporter.jobs.started import started
from exporter.jobs.vocabulary import check_token_files, complete_tokens
from exporter.output.draft import new_file
from exporter.output.sidecar import write_artifact
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.records import Proof, Quality, Report
from exporter.remap import Remap


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned model with the results of its check.

    Attributes:
        model: the pruned model.
        cut: how it was cut; `cut.remap` maps its indices to the original's.
        results: checks and warnings.
        inputs: the samples that the check ran on.
        proof: that the model is the result of its cut; None if the job does not verify.
    """

    model: Model
    cut: Cut
    results: CheckResults
    inputs: Samples = NO_INPUTS
    proof: Proof | None = None

    @property
    def remap(self) -> Remap:
        return self.cut.remap

    @property
    def ok(self) -> bool:
        """Every check passed."""
        return self.results.passed

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.results.warnings

    @property
    def quality(self) -> tuple[Quality, ...]:
        """Of the task, if the data has labels; see `Report`."""
        return self.results.quality

    def _repr_html_(self) -> str:
        """The pruned units and the result of the check, in a notebook."""
        from exporter.report.notebook import pruned_fragment

        return pruned_fragment(self.remap, self.results.checks, self.warnings)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each check."""
        from exporter.report.notebook import check_rows, data_frame

        return data_frame(check_rows(self.results.checks))

    def save(self, path: str | Path, *, force: bool = False, share_body: bool = False) -> None:
        """Write the model and its remap file.

        Args:
            share_body: write the constants that the cut left as they were into a second file,
                which other variants in the folder share. For ONNX.

        Raises:
            CheckError: a check failed; no file is written.
            UsageError, OutputError: as `output_file.check_output_file`.
        """
        if not self.ok:
            raise CheckError(
                f"a check failed; {path} was not written",
                "look at results.checks; model.write(path) writes the model all the same",
            )
        target = Path(path)
        check_output_file(target, self.model.kind, force=force)
        check_sharing([self.model.kind] if share_body else [])
        write = cast("SharingModel", self.model).write_sharing if share_body else self.model.write
        with new_file(target, force=force) as draft:
            write_artifact(draft, write, self.remap)
            draft.publish()


def prune_model(model: Model, options: CutOptions, job: Job, path: Path | None = None) -> Pruned:
    """Cut an opened model and check the cut; nothing is written.

    Args:
        path: of the model's file; None if it has none.
    """
    job.timings.end("open")
    cut = plan_cut(model, options, images=job.image_inputs(model))
    for text in cut.matches:
        job.progress(text)
    job.progress(f"cutting {model.name}")
    pruned = model.apply(cut.plan)
    job.timings.end("cut")
    inputs = job.inputs(model, path) if job.verify or job.data else NO_INPUTS
    proof, results = prove_cut(job, model, pruned, cut.remap)
    results += compare_models(job, model, pruned, inputs, cut.remap.heads)
    job.timings.end("verify")
    if job.data is not None:
        from exporter.jobs.task_quality import QualityMeter

        meter = QualityMeter(job, model, inputs, cut.selection.labels)
        results += meter.measure(pruned, cut.remap.heads)
        job.timings.end("quality")
    return Pruned(pruned, cut, CheckResults.warn(*cut.warnings) + results, inputs, proof)


def prune_file(source: str | Path, out: Path, options: CutOptions, job: Job) -> Report:
    """Cut a file into a file of the same kind, and write the remap next to it.

    If a check fails, no file is written and the report contains the failed check. If all units are
    kept, the file is copied byte for byte.
    """
    check_prune(source, out, job)
    check_token_files(options, Path(source), out, force=job.force)
    job = started(job, "prune", (source, "-o", out), options)
    with new_file(out, force=job.force) as draft, job.open(source) as found:
        options, file = with_label_file(found.model, found.path, options)
        opened = replace(found, warnings=(*found.warnings, *note(file)))
        tokens = complete_tokens(opened.model, options, opened.path)
        pruned = prune_model(opened.model, tokens.options, job, opened.path)
        for name, text in tokens.texts(pruned.cut).items():
            draft.add_text(name, text)
        write = partial(
            write_pruned, pruned.model, pruned.cut, opened.path, share_body=job.share_body
        )
        new = NewFile(
            pruned.model,
            draft,
            write,
            CheckResults.warn(*tokens.notes) + pruned.results,
            remap=pruned.remap,
            uncut=opened.path,
            selection=pruned.cut.selection,
            proof=pruned.proof,
            texts=next_to(out, file, pruned.remap, force=job.force),
        )
        return write_if_passed(job, opened, new, pruned.inputs)


def check_prune(source: str | Path, out: Path, job: Job) -> None:
    """Refuse an output that `prune_file` could not write, before a model is opened."""
    kind = kind_of(Path(source))
    check_sharing([kind] if job.share_body else [])
    check_output_file(out, kind, job.forms, source, force=job.force)
