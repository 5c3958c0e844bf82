"""The one output file of `prune`, `convert` and `quantize`: check the path, write, report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from exporter.data.samples import Samples
from exporter.errors import OutputError, UsageError
from exporter.formats import KINDS, copy_model, kind_of_suffix, suffixes_of
from exporter.formats.model import Model, SharingModel
from exporter.jobs.checks import CheckResults
from exporter.jobs.job import Job
from exporter.jobs.record import describe_artifact, describe_forms, make_report
from exporter.jobs.source import OpenedModel
from exporter.output.c_source import FORMS
from exporter.output.draft import Draft
from exporter.output.files import refuse_existing_file
from exporter.output.sidecar import sidecar_path, write_artifact
from exporter.planning.cut import Cut
from exporter.records import Artifact, Proof, Report
from exporter.remap import Remap
from exporter.selection import Selection


def check_output_file(
    path: Path, kind: str, forms: Iterable[str] = (), source: Any = None, *, force: bool = False
) -> None:
    """Refuse an output before any work is done.

    Args:
        path: of the artifact.
        kind: of the artifact, key of KINDS.
        forms: keys of FORMS, to be written next to it.
        source: the input. If it is a path, the output never replaces it, even with `force`.
        force: replace existing files.

    Raises:
        UsageError: the suffix belongs to another kind, the kind cannot be written or has no such
            form, or the output is the input.
        OutputError: a file that the job would write exists, or the folder does not exist.
    """
    title, suffixes = KINDS[kind].title, KINDS[kind].suffixes
    if not KINDS[kind].written:
        raise UsageError(
            f"a {title} cannot be cut directly, and none can be written",
            "`exporter run` converts it, and cuts the converted file",
        )
    if kind_of_suffix(path) != kind:
        raise UsageError(
            f"the output {path} does not end in {suffixes[0]}",
            f"use -o NAME{suffixes[0]}; `exporter run` and `convert` write other kinds, and "
            "--to c-array writes C files next to a .tflite",
        )
    names = [path.name, sidecar_path(path).name]
    for form in forms:
        if kind != FORMS[form].kind:
            raise UsageError(
                f"{title} models have no {form} form",
                f"start from the {KINDS[FORMS[form].kind].title} file, or from the Keras model",
            )
        names += import_module(FORMS[form].module).names(path.name)
    for name in names:
        refuse_existing_file(path.with_name(name), force=force)
    if not path.parent.is_dir():
        reason = "is not a folder" if path.parent.exists() else "does not exist"
        raise OutputError(f"the folder {path.parent} {reason}", "create it, or choose another")
    exists = isinstance(source, str | Path) and Path(source).exists() and path.exists()
    if exists and path.samefile(source):
        raise UsageError(f"the output {path} is the model itself", "choose another name with -o")


@dataclass(frozen=True, eq=False)
class NewFile:
    """A model that is ready to be written.

    Attributes:
        draft: of the file.
        write: writes the model at the path that it is given.
        route: of its conversion; "" without one.
        uncut: the original in a file of the same kind.
        selection: the kept units of a cut.
        proof: that the model is the result of its cut.
        texts: name -> content of text files next to it.
    """

    model: Model
    draft: Draft
    write: Callable[[Path], object]
    results: CheckResults
    remap: Remap | None = None
    route: str = ""
    uncut: Path | None = None
    selection: Selection | None = None
    proof: Proof | None = None
    texts: Mapping[str, str] = field(default_factory=dict)


def write_if_passed(
    job: Job, source: OpenedModel, new: NewFile, inputs: Samples, calibration: Samples | None = None
) -> Report:
    """Write the file, its remap and its other forms if all checks passed; report in any case."""
    artifacts: tuple[Artifact, ...] = ()
    path = new.draft.path
    results = new.results.for_artifact(path.name)
    if results.passed:
        write_artifact(new.draft, new.write, new.remap, job.forms)
        for name, text in new.texts.items():
            new.draft.add_text(name, text)
        artifact = describe_artifact(new.model, path, new.route, new.uncut, new.proof)
        results = results.with_resources(job, (artifact,))
        if results.passed:
            artifacts = (artifact, *describe_forms(path, job.forms, artifact.precision))
    job.timings.end("write")
    report = make_report(
        job,
        source,
        results,
        inputs,
        calibration,
        remap=new.remap,
        artifacts=artifacts,
        selection=new.selection,
    )
    if artifacts:
        new.draft.publish()  # the last step: if anything before it fails, nothing is written
    return report


def check_sharing(kinds: Iterable[str]) -> None:
    """Raise a UsageError for kinds of files that cannot share a body."""
    for kind in kinds:
        if not KINDS[kind].shares:
            others = ", ".join(row.title for row in KINDS.values() if row.shares)
            raise UsageError(
                f"{KINDS[kind].title} files contain all their weights: they cannot share a body",
                f"leave out --share-body, or write {others} only: --to onnx",
            )


def write_pruned(
    model: Model, cut: Cut, uncut: Path | None, path: Path, *, share_body: bool = False
) -> None:
    """Write a pruned model, or copy the uncut file if all units are kept.

    Args:
        share_body: write what the cut left as it was into a file of its own. An uncut model with
            its weights in another file gets a body too: a copy of that file, under its old name,
            could replace one that other models next to it read.
    """
    keeps_all = not cut.plan.every_edit and uncut and path.suffix.lower() in suffixes_of(uncut)
    if uncut and keeps_all and not (share_body and len(KINDS["onnx"].files_of(uncut)) > 1):
        copy_model(uncut, path)
    elif share_body:
        cast("SharingModel", model).write_sharing(path)
    else:
        model.write(path)
