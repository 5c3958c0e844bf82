"""Make the report of a job."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from exporter.data.files import DataFile, hash_files
from exporter.data.samples import Samples
from exporter.formats import KINDS, size_bytes
from exporter.formats.model import Model
from exporter.graph import Graph
from exporter.jobs.checks import CheckResults
from exporter.jobs.job import Job
from exporter.jobs.source import OpenedModel
from exporter.ondevice.machine import machine
from exporter.output.c_source import FORMS
from exporter.output.files import sha256_of
from exporter.output.folder import OUTSIDE
from exporter.records import Artifact, Device, Interface, Original, Proof, Report, SelectedUnit
from exporter.remap import Remap
from exporter.report.machine import OnDemand, versions
from exporter.selection import Selection

_MOST_LABELS = 4000  # of a vocabulary; the page has no more rows


def make_report(
    job: Job,
    source: OpenedModel,
    results: CheckResults,
    inputs: Samples,
    calibration: Samples | None = None,
    *,
    artifacts: tuple[Artifact, ...] = (),
    remap: Remap | None = None,
    selection: Selection | None = None,
) -> Report:
    """The report of a job. A warning that occurs twice appears once.

    Args:
        calibration: the samples that an integer precision was calibrated on.
        selection: its reasons are reported, if a selection file gave them.
    """
    model, path = source.model, source.path
    samples = _describe_samples(inputs, job.data)
    warnings = [*source.warnings, *inputs.warnings]
    if calibration:
        warnings += calibration.warnings
        samples["calibration"] = _describe_samples(calibration, job.calibration or job.data)
    warnings += results.warnings
    return Report(
        versions=OnDemand(versions),
        machine=OnDemand(machine),
        command=job.command,
        inputs=samples,
        original=Original(
            path.name if path else model.name,
            model.kind,
            model.precision,
            size_bytes(path) if path else None,
            model.sha256,
        ),
        remap=remap,
        artifacts=artifacts,
        selection=describe_selection(selection) if selection else (),
        unit_labels=_labels(selection, remap),
        date=datetime.now(UTC).isoformat(timespec="seconds") if job.dated else "",
        options=job.options,
        settings=_settings(job, inputs),
        timings={
            step: round(seconds, 3) for step, seconds in job.timings.seconds.items() if job.dated
        },
        **{
            **vars(results),
            "coverage": tuple(dict.fromkeys(results.coverage)),
            "devices": _each_device(results.devices),
            "warnings": tuple(dict.fromkeys(warnings)),
        },
    )


def _each_device(rows: Iterable[Device]) -> tuple[Device, ...]:
    """One row for each device, from its first state to its last."""
    found: dict[str, Device] = {}
    for row in rows:
        first = found.setdefault(row.name, row)
        found[row.name] = replace(first, temperature_after_c=row.temperature_after_c)
    return tuple(found.values())


def describe_selection(selection: Selection) -> tuple[SelectedUnit, ...]:
    """A row for each unit, if the units were chosen by data; otherwise none."""
    reasons, labels, kept = selection.reasons, selection.labels, frozenset(selection.kept)
    return tuple(
        SelectedUnit(unit, labels[unit] if labels else "", unit in kept, reasons.get(unit, ""))
        for unit in (range(selection.units) if reasons else ())
    )


def _labels(selection: Selection | None, remap: Remap | None) -> tuple[str, ...]:
    """The labels of the units that the remap counts; none if those of a cut of a cut do not fit."""
    labels = () if selection is None else selection.labels or ()
    heads = () if remap is None else remap.heads
    if [head.old_units for head in heads] != [len(labels)]:
        return ()
    new_and_old = zip(heads[0].labels or (), heads[0].new_to_old, strict=False)
    if any(isinstance(old, int) and labels[old] != label for label, old in new_and_old):
        return ()
    return tuple(labels[:_MOST_LABELS])


def _describe_samples(samples: Samples, data: Path | None) -> dict[str, Any]:
    described = {"source": samples.source, "samples": samples.count}
    files = hash_files(samples)
    if not files:
        return described
    return {**described, "files": len(files), "sha256": digest(files, data or Path())}


def digest(files: Iterable[DataFile], data: Path) -> str:
    """The SHA-256 of one file, or of the lines that `sha256sum` prints for several, in hex.

    Args:
        files: several are named relative to the folder `data`, and sorted by name.
    """
    found = list(files)
    if len(found) == 1:
        return found[0].sha256
    names = {os.path.relpath(each.path, data).replace(os.sep, "/"): each.sha256 for each in found}
    lines = "".join(f"{names[name]}  {name}\n" for name in sorted(names))
    return hashlib.sha256(lines.encode()).hexdigest()


def _settings(job: Job, inputs: Samples) -> dict[str, Any]:
    """How models were run and compared."""
    has_load = job.dated and hasattr(os, "getloadavg")
    return {
        "threads": job.threads,
        "batch": job.batch,
        "runtimes": {name: kind.runtime for name, kind in KINDS.items() if kind.runtime},
        "counted_samples": "all, of kept and of removed classes" if inputs.count else "none",
        "load_average": list(os.getloadavg()) if has_load else None,
    }


def describe_artifact(
    model: Model,
    path: Path,
    route: str = "",
    uncut: Path | None = None,
    proof: Proof | None = None,
) -> Artifact:
    """The record of a written model file.

    Args:
        model: its name is the path of the file, if that is next to the folder of the report.
        route: of its conversion; "" without one.
        uncut: the original in a file of the same kind.
        proof: that the model is the result of its cut.
    """
    graph = model.graph()
    return Artifact(
        path=model.name if model.name.startswith(OUTSIDE) else path.name,
        kind=model.kind,
        precision=model.precision,
        bytes=size_bytes(path),
        sha256=sha256_of(path),
        route=route,
        original_bytes=size_bytes(uncut) if uncut else None,
        proof=proof,
        inputs=_interface(graph, graph.inputs),
        outputs=_interface(graph, graph.outputs),
    )


def _interface(graph: Graph, names: Iterable[str]) -> tuple[Interface, ...]:
    """The dtype of each input or output, and the scale of quantized ones."""
    found = []
    for name in names:
        tensor = graph.tensors[name]
        known = tensor.quantization
        if known is None or known.scale.size != 1:
            found.append(Interface(name, tensor.dtype))
        else:
            scale, zero_point = float(known.scale.item()), int(known.zero_point.item())
            found.append(Interface(name, tensor.dtype, scale, zero_point))
    return tuple(found)


def describe_forms(path: Path, forms: Iterable[str], precision: str) -> Iterator[Artifact]:
    """The records of the other forms of a model file, such as its C source.

    Args:
        path: of the model file; the forms are in the same folder.
        forms: keys of FORMS.
        precision: of the model file.
    """
    for form in forms:
        for name in import_module(FORMS[form].module).names(path.name):
            content = path.with_name(name).read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            yield Artifact(name, form, precision, len(content), sha256, route="")
