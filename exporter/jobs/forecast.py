"""Forecast what a cut will bring: make every file in a temporary folder, and count.

The files are made in the same way as a job makes them, without checks and timings, so that their
sizes are those of the job. Only calibrations differ: two samples are used, because the ranges of
activations change values in a file, and not its structure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter.data.read import read_samples
from exporter.data.samples import Samples, synthetic_samples
from exporter.errors import UsageError
from exporter.forecast.footprint import count_parameters, estimate_memory
from exporter.forecast.forecast import Counts, FileForecast, Forecast
from exporter.forecast.verdict import LatencyBound
from exporter.formats import KINDS, size_bytes
from exporter.formats.model import Model
from exporter.graph import Graph
from exporter.graph.multiply_adds import multiply_adds
from exporter.jobs.head_share import count_bound, measure_bound
from exporter.jobs.inspect import Inspection, inspect_model
from exporter.jobs.job import Job
from exporter.jobs.label_file import with_label_files
from exporter.jobs.make import FloatFile, Maker, file_name, uncut_models
from exporter.jobs.quantize import quantization_specs, refuse_quantizing
from exporter.jobs.source import OpenedModel, UncutModel
from exporter.jobs.vocabulary import complete_tokens
from exporter.output.scratch import scratch_folder
from exporter.planning.cut import CutOptions
from exporter.quantization import FLOAT, PRECISIONS

CALIBRATION_SAMPLES = 2


def forecast_job(
    source: str | Path | Any,
    variants: Mapping[str, CutOptions],
    job: Job,
    out: Path | None = None,
    *,
    measure_share: bool = False,
) -> dict[str, Forecast]:
    """Forecast the files of `run`, or the one of `prune`. Nothing stays on the disk.

    Args:
        source: a path, or a live Keras model.
        variants: name of a variant -> options of the cut.
        out: the file that `prune` would write; None for the files of `run`.
        measure_share: time the head's share instead of counting it.

    Raises:
        ExporterError: as the job does.
    """
    if job.trimming is not None:
        raise UsageError("the size of a trimmed file is not forecast", "leave out --trim")
    with job.open(source) as opened:
        if out is not None:
            job = replace(job, to=(opened.model.kind,), precisions=(FLOAT,))
        return forecast_models(opened, variants, job, out, measure_share=measure_share)


def inspect_with_forecast(
    source: str | Path | Any, options: CutOptions, job: Job, *, measure_share: bool = False
) -> Inspection:
    """Inspect a model, and forecast the files that `run` would write."""
    with job.open(source) as opened:
        size = size_bytes(opened.path) if opened.path else None
        found = inspect_model(opened.model, size, path=opened.path)
        made = forecast_models(opened, {"": options}, job, measure_share=measure_share)
        return replace(found, forecast=made[""])


def forecast_models(
    opened: OpenedModel,
    variants: Mapping[str, CutOptions],
    job: Job,
    out: Path | None = None,
    *,
    measure_share: bool = False,
) -> dict[str, Forecast]:
    """See `forecast_job`. The model is converted once for all variants."""
    refuse_quantizing(job, opened)
    opened, found = with_label_files(opened, variants)
    labeled = {name: options for name, (options, _) in found.items()}
    with scratch_folder() as folder:
        models = uncut_models(opened, labeled, job, folder)
        return {
            name: _forecaster(opened, options, job, out, measure_share=measure_share).forecast(
                models
            )
            for name, options in labeled.items()
        }


def forecast_cut(
    opened: OpenedModel, options: CutOptions, job: Job, models: Iterable[UncutModel]
) -> Forecast:
    """Forecast the files of one cut, from the model as every kind that is written."""
    refuse_quantizing(job, opened)
    opened, found = with_label_files(opened, {"": options})
    forecaster = _forecaster(opened, found[""][0], job, None, measure_share=False)
    return forecaster.forecast(models)


def _forecaster(
    opened: OpenedModel, options: CutOptions, job: Job, out: Path | None, *, measure_share: bool
) -> _Forecaster:
    tokens = complete_tokens(opened.model, options, opened.path)
    opened = replace(opened, warnings=(*opened.warnings, *tokens.notes))
    return _Forecaster(job, opened, tokens.options, out, measure_share)


@dataclass(frozen=True, eq=False)
class _Forecaster(Maker):
    """Makes the files of one selection in temporary folders, and counts."""

    out: Path | None
    measure_share: bool

    def forecast(self, models: Iterable[UncutModel]) -> Forecast:
        floats, files, warnings = [], list[FileForecast](), list[str]()
        for uncut in models:
            with scratch_folder() as folder:
                path = self._path(folder, uncut.model.kind, uncut.model.precision)
                plain = self.make_float(uncut, path, None if self.out else path.name)
                floats.append(plain)
                files += self._files(plain, folder)
                warnings += (*uncut.warnings, *plain.cut.warnings, *plain.warnings)
        warnings += (*map(_noise, files), *self._missing_calibration())
        every = filter(None, (*self.source.warnings, *warnings))
        first = floats[0]
        kind = self._planned(first).kind
        return Forecast(kind, first.cut, tuple(files), tuple(dict.fromkeys(every)))

    def _path(self, folder: Path, kind: str, precision: str) -> Path:
        return folder / (self.out.name if self.out else file_name(kind, precision))

    def _planned(self, plain: FloatFile) -> Model:
        """The model that the cut was planned for."""
        return self.source.model if plain.cut_source else plain.uncut.model

    def _files(self, plain: FloatFile, folder: Path) -> Iterator[FileForecast]:
        specs, uncut = quantization_specs(self.job), plain.uncut
        original = _counts(uncut.model.graph(), uncut.path, uncut.model.graph())
        graph = plain.model.graph()
        bound = count_bound(self._planned(plain).graph(), uncut.model.graph(), graph, plain.cut)
        kind = uncut.model.kind
        if not specs or FLOAT in self.job.precisions:
            counts = _counts(graph, plain.path, graph)
            measured = self._measured(plain, bound)
            yield FileForecast(kind, plain.model.precision, counts, original, True, measured)
        for spec in specs:
            path = self._path(folder, kind, spec.precision)
            exact = not PRECISIONS[spec.precision].calibrated
            before = uncut.model if self.job.quantize_first else plain.model
            samples = None if exact else self._calibration(before)
            quantized = self.make_quantized(plain, spec, samples, path).model
            counts = _counts(quantized.graph(), path, graph)
            yield FileForecast(kind, spec.precision, counts, original, exact, bound)

    def _calibration(self, model: Model) -> Samples:
        """A few samples of the user's data, or generated ones."""
        job, graph = self.job, model.graph()
        file = job.calibration or job.data
        if file is not None and not job.synthetic_calibration:
            return read_samples(
                file, graph, CALIBRATION_SAMPLES, job.data_options(self.source.path)
            )
        return synthetic_samples(graph, CALIBRATION_SAMPLES, job.seed, job.lengths)

    def _missing_calibration(self) -> Iterator[str]:
        job = self.job
        names = [name for name in job.precisions if PRECISIONS[name].calibrated]
        if names and not (job.calibration or job.data or job.synthetic_calibration):
            yield (
                f"{' and '.join(names)} will need inputs to calibrate on: --data FILE, or "
                "--synthetic-calibration"
            )

    def _measured(self, plain: FloatFile, bound: LatencyBound) -> LatencyBound:
        """The bound by the measured share, if it is asked for and can be measured."""
        uncut = plain.uncut.model
        is_timed = KINDS[uncut.kind].benchmarked and plain.cut_source is None
        if not self.measure_share or not is_timed or plain.cut.selection.keeps_all:
            return bound
        return measure_bound(self.job, plain.uncut, plain.cut, self.options, bound)


def _noise(file: FileForecast) -> str:
    """A warning about a measured share that bounds little; "" if there is no reason."""
    if not file.bound.interval or not file.bound.is_noisy:
        return ""
    low, high = (f"{end:.0%}" for end in file.bound.interval)
    return (
        f"the head's share of the latency of {file.name} is between {low} and {high}: measure "
        "again on an idle machine"
    )


def _counts(graph: Graph, path: Path | None, plain: Graph) -> Counts:
    """Args: plain: the same network in float32, whose weights and products are counted."""
    size = size_bytes(path) if path else None
    return Counts(size, count_parameters(plain), multiply_adds(plain), estimate_memory(graph))
