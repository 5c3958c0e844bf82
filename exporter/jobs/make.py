"""Make the files of one selection: the float file of each kind, and its quantized files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from exporter.data.samples import Samples
from exporter.errors import ExporterError, ModelError, UsageError
from exporter.formats import KINDS
from exporter.formats.model import Model, SharingModel
from exporter.jobs.cut_before_conversion import CutSource, cut_source
from exporter.jobs.job import Job
from exporter.jobs.output_file import write_pruned
from exporter.jobs.quantize import quantize_for_job
from exporter.jobs.source import OpenedModel, UncutModel
from exporter.output.files import writing
from exporter.output.scratch import scratch_folder
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.quantization import FLOAT, QuantizationSpec
from exporter.verification.token_ids import pair_inputs


def uncut_models(
    opened: OpenedModel, variants: Mapping[str, CutOptions], job: Job, folder: Path
) -> tuple[UncutModel, ...]:
    """The model as each kind that is written, converted into the folder once for all variants.

    Raises:
        ExporterError: wrong options of a variant, before the conversion; or it failed.
    """
    check_cuts(opened, variants, job.progress)
    kinds = job.kinds or opened.default_kinds()
    return tuple(opened.as_kind(kind, folder, job.progress) for kind in kinds)


def check_cuts(
    opened: OpenedModel, variants: Mapping[str, CutOptions], progress: Callable[[str], None]
) -> None:
    """Raise the error of wrong options, before the model is converted; say what patterns select."""
    for options in variants.values():
        with suppress(ModelError):  # the converted file may have a head that the source lacks
            for text in plan_cut(opened.model, options).matches:
                progress(text)


PRUNED, TRIMMED = "pruned", "trimmed"


def file_name(kind: str, precision: str, stem: str = PRUNED) -> str:
    """The name of a file that `run` writes."""
    return f"{stem}.{precision}{KINDS[kind].suffixes[0]}"


@dataclass(frozen=True, eq=False)
class FloatFile:
    """The float file of one kind.

    Attributes:
        model: the file, opened again.
        route: of its conversion; "" without one.
        warnings: about the conversion of a source that was cut.
        cut_source: the source, if it was cut before the conversion; else None.
    """

    uncut: UncutModel
    path: Path
    cut: Cut
    model: Model
    route: str
    warnings: tuple[str, ...] = ()
    cut_source: CutSource | None = None


@dataclass(frozen=True, eq=False)
class QuantizedFile:
    """A quantized file, opened again.

    Attributes:
        before: the quantized model from which it was cut; None if it was cut first.
    """

    cut: Cut
    model: Model
    warnings: tuple[str, ...]
    before: Model | None


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes the files of one selection."""

    job: Job
    source: OpenedModel
    options: CutOptions

    def make_float(self, uncut: UncutModel, path: Path, name: str | None = None) -> FloatFile:
        """Cut the uncut model, or the source if the converted model cannot be cut.

        Args:
            name: of the model, after which external data files are named; None to keep it.
        """
        self.job.progress(f"cutting {path.name}")
        if self.options.allow_gather and uncut.original is not None:
            narrower = replace(self, options=replace(self.options, allow_gather=False))
            with suppress(ModelError, UsageError):  # perhaps the source can be cut
                return narrower.cut_float(uncut, path, name)
        return self.cut_float(uncut, path, name)

    def cut_float(self, uncut: UncutModel, path: Path, name: str | None) -> FloatFile:
        """As `make_float`, with the options as they are and without a line of progress."""
        try:
            images = self.job.image_inputs(uncut.model)
            cut = plan_cut(uncut.model, self.options, uncut.original, images)
        except (ModelError, UsageError) as error:
            return self._make_from_source(uncut, path, name, error)
        made = uncut.model.apply(cut.plan)
        made.name = name or made.name
        with writing(path):
            shares = self.job.share_body and FLOAT in self.job.precisions
            write_pruned(made, cut, uncut.path, path, share_body=shares)
        return FloatFile(uncut, path, cut, self.source.reopen(path), uncut.route)

    def _make_from_source(
        self, uncut: UncutModel, path: Path, name: str | None, reason: ExporterError
    ) -> FloatFile:
        source = cut_source(self.source, uncut, self.options, reason)
        with scratch_folder() as folder:
            converted = source.as_kind(uncut.model.kind, folder, self.job)
            converted.model.name = name or converted.model.name
            with writing(path):
                converted.model.write(path)
        model, warnings = self.source.reopen(path), (source.warning(path.name), *converted.warnings)
        return FloatFile(uncut, path, source.cut, model, converted.route, warnings, source)

    def make_quantized(
        self, plain: FloatFile, spec: QuantizationSpec, samples: Samples | None, path: Path
    ) -> QuantizedFile:
        """Quantize the pruned float model; or the uncut one and then cut it, if asked for."""
        first = self.job.quantize_first
        model = plain.uncut.model if first else plain.model
        if samples and not first:
            tables = plain.cut.remap.heads
            samples = pair_inputs(samples, plain.uncut.model, plain.model, tables).cut
        quantized = quantize_for_job(self.job, self.source, model, spec, samples)
        made, cut = quantized.model, plain.cut
        if first:
            made.sha256 = model.sha256  # of the user's file, which the remap names
            # the float cut shows how the first layers take pixels
            planned = plan_cut(made, self.options, plain.uncut.original, cut.plan.images)
            cut = planned.quantized_to(spec.precision)
            made = made.apply(cut.plan)
        with writing(path):
            if self.job.share_body:  # it was quantized first
                cast("SharingModel", made).write_sharing(path)
            else:
                made.write(path)
        before = quantized.model if first else None
        return QuantizedFile(cut, self.source.reopen(path), quantized.warnings, before)
