"""The functions of the package.

Their keywords are the fields of `CutOptions` and `Job`, which are options of the command line.
If a check fails, a function returns its result with `ok` false. With `check=True` it raises.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_type_hints, overload

from exporter.batches.index import Batch, headline
from exporter.batches.plan import read_plan
from exporter.batches.run import BatchOptions, Progress, forecast_batch, no_progress, write_batch
from exporter.errors import CheckError, UsageError
from exporter.formats import open_again
from exporter.formats.model import Model
from exporter.jobs.compare import bench_files, verify_files
from exporter.jobs.convert import convert_file
from exporter.jobs.forecast import inspect_with_forecast
from exporter.jobs.inspect import Inspection, inspect_file
from exporter.jobs.job import Job
from exporter.jobs.options import OPENING
from exporter.jobs.prune import Pruned, prune_model
from exporter.jobs.quantize import quantize_file
from exporter.jobs.run import run_job, run_variants
from exporter.jobs.select import UnitChoice, select_units
from exporter.jobs.select_options import SelectOptions
from exporter.jobs.trim import trim_file
from exporter.jobs.trim_options import TrimOptions, options_of_run
from exporter.jobs.unshare import unshare as unshare_files
from exporter.jobs.verify_folder import FolderReport, raise_if_failed, verify_folder
from exporter.keywords import JobKeywords, Keywords, SelectingKeywords, TrimmingKeywords
from exporter.planning.keywords import unknown_keyword, with_keywords
from exporter.planning.option import options_of
from exporter.planning.options import CutOptions
from exporter.records import Check, Report
from exporter.selection import Units
from exporter.storage.upload import writable
from exporter.storage.urls import local_path

if TYPE_CHECKING:
    import keras

Source = str | Path | Any  # a path, or a live keras.Model

_TYPES = (
    get_type_hints(Keywords) | get_type_hints(SelectingKeywords) | get_type_hints(TrimmingKeywords)
)
_with_keywords = functools.partial(with_keywords, types=_TYPES)

# --- the functions ------------------------------------------------------------------------------


@_with_keywords(CutOptions, Job)
def inspect(
    source: Source,
    *,
    measure_share: bool = False,
    channels: bool = False,
    **options: Unpack[Keywords],
) -> Inspection:
    """Find the heads of a model, and what cannot be cut and why.

        exporter.inspect("net.onnx").heads[0].head.units

    With `keep` or `remove`, also forecast the files that `run` would write:

        exporter.inspect("net.onnx", keep=[1, 5]).forecast.files[0].counts.bytes

    Args:
        source: a path, or a live `keras.Model`. Keras models are opened in a child process.
        measure_share: time the head's share of the latency instead of counting its multiply-adds.
        channels: without a selection: list the groups of inner channels that `trim` can remove.
    """
    if options.keys() <= OPENING and not measure_share:
        return inspect_file(local_path(source), _job(options), channels=channels)
    cut_options, job = _records(options)
    return inspect_with_forecast(local_path(source), cut_options, job, measure_share=measure_share)


@_with_keywords(SelectOptions, Job)
def select(source: Source, **options: Unpack[SelectingKeywords]) -> UnitChoice:
    """Choose units by data. Nothing is written.

        choice = exporter.select("net.onnx", data="pictures", normalize="-1..1", min_f1=0.6)
        exporter.prune("net.onnx", keep=choice)

    Args:
        source: a path, or a live `keras.Model`. Keras models run in a child process.

    Returns:
        A `Selection`, with the numbers that decided: `table()` has a dictionary per unit, and
        `to_pandas()` a row.

    Raises:
        ExporterError: one of its subclasses.
    """
    chosen, others = _split(SelectOptions, options)
    return select_units(local_path(source), Job(**others), SelectOptions(**chosen))


@overload
def prune(model: str | Path | Model, **options: Unpack[Keywords]) -> Pruned: ...
@overload
def prune(
    model: keras.Model,
    *,
    share_weights: bool = False,
    **options: Unpack[Keywords],
) -> keras.Model: ...
@_with_keywords(
    CutOptions, Job, without=("to", "force", "share_body", "timeout_s", "memory_limit_bytes")
)
def prune(model: Any, *, share_weights: bool = False, **options: Any) -> Any:
    """Cut a model, and compare the result with the original.

        pruned = exporter.prune("net.onnx", keep=["owl", "macaw"], labels="labels.txt")
        pruned.save("small.onnx")

    Args:
        model: a path, a model from `open_model`, or a live `keras.Model`. It is not changed.
        share_weights: of a live `keras.Model`: the result uses the layers that stay unchanged,
            instead of copies. They take no more memory, and training one model trains both.

    Returns:
        A `Pruned` with `ok`, `remap` and `save(path)`. For a live `keras.Model` a new
        `keras.Model`, which has the attributes `ok` and `remap`.

    Raises:
        ExporterError: one of its subclasses.
        CheckError: a check failed, and `check` is true.
    """
    cut_options, job = _records(options)
    live = _is_live(model)
    if share_weights and not live:
        raise UsageError("share_weights needs a live keras.Model", "leave it out for files")
    pruned = prune_model(_open(model, live=live, share_weights=share_weights), cut_options, job)
    _raise_if_asked(job, pruned.results.checks)
    return _live_model(pruned) if live else pruned


@_with_keywords(TrimOptions, CutOptions, Job)
def trim(source: str | Path, out: str | Path, **options: Unpack[TrimmingKeywords]) -> Report:
    """Remove inner channels of a network, and refit what reads them on unlabeled samples.

        exporter.trim("net.onnx", "small.onnx", keep=["owl"], data="pictures", min_agreement=0.99)

    Args:
        source: a float32 .onnx or .tflite file.
        out: the file to write, of the same kind. It is not equal to its source: see
            `Report.trimmed`.
    """
    trimming, others = _split(TrimOptions, options)
    cut, others = _split(CutOptions, others)
    job = Job(**others)
    wanted = CutOptions(**cut) if cut else None
    return _checked(job, trim_file(source, Path(out), TrimOptions(**trimming), wanted, job))


@_with_keywords(Job)
def convert(source: Source, out: str | Path, **options: Unpack[JobKeywords]) -> Report:
    """Convert a Keras model or a SavedModel, uncut, to an .onnx or .tflite file.

        exporter.convert("net.keras", "net.tflite")

    Args:
        source: a path, or a live `keras.Model`.
        out: the file to write. If a check fails, it is not written.
    """
    job = _job(options)
    with writable(out, force=job.force) as file:
        report = convert_file(local_path(source), file, job)
    return _checked(job, report)


@_with_keywords(Job)
def quantize(
    source: str | Path,
    out: str | Path,
    *,
    precision: str,
    **options: Unpack[JobKeywords],
) -> Report:
    """Quantize a float32 .onnx or .tflite file.

        exporter.quantize("small.onnx", "small.int8.onnx", precision="int8", data="inputs.npz")

    Args:
        source: a file.
        out: the file to write, of the same kind. If a check fails, it is not written.
        precision: "fp16", "dynamic", "int8", "int16x8" or "int4". The ranges of int8 and int16x8
            are calibrated on `data`.
    """
    job = _job({**options, "precisions": (precision,)})
    with writable(out, force=job.force) as file:
        report = quantize_file(local_path(source), file, job)
    return _checked(job, report)


@overload
def run(source: Source, out: str | Path, **options: Unpack[TrimmingKeywords]) -> Report: ...
@overload
def run(
    source: Source,
    out: str | Path,
    *,
    variants: Mapping[str, Units],
    **options: Unpack[TrimmingKeywords],
) -> dict[str, Report]: ...
@_with_keywords(CutOptions, Job, TrimOptions)
def run(
    source: Source,
    out: str | Path,
    *,
    variants: Mapping[str, Units] | None = None,
    **options: Any,
) -> Report | dict[str, Report]:
    """Convert, cut, verify, quantize and measure a model, and write files and report to a folder.

        report = exporter.run("net.keras", "out", keep=["owl", "macaw"], labels="labels.txt")
        assert report.ok

    Args:
        source: a path, or a live `keras.Model`.
        out: the folder to write. The files stay if a check fails.
        variants: folder name -> units to keep, for several cuts after one conversion.

    Returns:
        The report, or with `variants` a report for each.
    """
    trimming, options = _split(TrimOptions, options)
    shared = {**options, "trimming": options_of_run(trimming)}
    if variants is None:
        cut_options, job = _records(shared)
        with writable(out, force=job.force) as folder:
            report = run_job(local_path(source), folder, cut_options, job)
        return _checked(job, report)
    records = {name: _records({**shared, "keep": keep}) for name, keep in variants.items()}
    if not records:
        raise UsageError("there are no variants", "name at least one: {'birds': [1, 5]}")
    job = next(iter(records.values()))[1]
    cuts = {name: cut_options for name, (cut_options, _) in records.items()}
    with writable(out, force=job.force) as folder:
        reports = run_variants(local_path(source), folder, cuts, job)
    _raise_if_asked(job, [check for report in reports.values() for check in report.checks])
    return reports


def batch(
    plan: str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    memory: int | None = None,
    dry_run: bool = False,
    on_cell: Callable[[Progress], None] = no_progress,
    **options: Unpack[Keywords],
) -> Batch:
    """Run every cell of a plan: models x selections x precisions x formats, and more.

        found = exporter.batch("plan.toml", "out", bench=False)
        found.to_pandas().sort_values("bytes")

    Finished cells are skipped, so that an interrupted batch continues with the same call.

    Args:
        plan: a TOML file, see docs/batch.md; or the same tables in a dictionary.
        out: the folder to write, or its URL; None for the `output` of the plan.
        scheduler: address of a Dask scheduler; None for processes on this machine.
        workers: number of processes on this machine; None for one for each core.
        memory: bytes that the tasks on each host may take together; None for 80 % of what is free.
        dry_run: forecast every cell, and write nothing.
        on_cell: called when a cell is done.
        options: of `run`, for all cells; they win over those of the plan. `force` does finished
            cells again.

    Returns:
        A `Batch` with `ok`, `cells` and `to_pandas()`. A cell that fails is a row in it.

    Raises:
        ExporterError: the plan, the output or the scheduler cannot be used.
    """
    values: dict[str, Any] = {**options}
    check, force = values.pop("check", False), values.pop("force", False)
    declared = (each for record in (CutOptions, Job) for each in options_of(record, "run"))
    known = {each.name for each in declared if each.flag}
    for name in values:
        if name not in known:
            raise TypeError(unknown_keyword("batch", name, known))
    found = read_plan(plan, values)
    how = BatchOptions(scheduler, workers, memory, force, on_cell)
    if dry_run:
        return forecast_batch(found, how)
    result = write_batch(found, out, how)
    if check and not result.ok:
        raise CheckError(f"{headline(result.cells)}; see {result.folder}")
    return result


@overload
def verify(original: str | Path, **options: Unpack[JobKeywords]) -> FolderReport: ...
@overload
def verify(original: str | Path, pruned: str | Path, **options: Unpack[JobKeywords]) -> Report: ...
@_with_keywords(Job)
def verify(
    original: str | Path,
    pruned: str | Path | None = None,
    **options: Any,
) -> Report | FolderReport:
    """Prove that a pruned or converted file matches its original, or check a result folder.

        assert exporter.verify("net.onnx", "small.onnx").ok
        assert exporter.verify("out").files.passed

    Args:
        original: a file; or a folder that `run` wrote, whose files are compared with its
            SHA256SUMS. No model runs then.
        pruned: a file.

    Raises:
        CheckError: the folder was interrupted while it was written or copied.
    """
    job = _job(options)
    if pruned is None:
        found = verify_folder(local_path(original))
        if job.check:
            raise_if_failed(found)
        return found
    return _checked(job, verify_files(local_path(original), local_path(pruned), job))


@_with_keywords(Job)
def bench(original: str | Path, pruned: str | Path, **options: Unpack[JobKeywords]) -> Report:
    """Measure latency and memory of two files of one kind, next to each other.

    exporter.bench("net.onnx", "small.onnx").latency[0].speedup
    """
    return bench_files(local_path(original), local_path(pruned), _job(options))


def unshare(source: str | Path, out: str | Path, *, force: bool = False) -> list[Path]:
    """Write a model that shares a body with others, or all of a folder, with all their constants.

        exporter.unshare("out/birds.pruned.fp32.onnx", "birds.onnx")

    Args:
        source: an .onnx file, or a folder, that was written with `share_body`.
        out: the file or the folder to write.
        force: replace an existing output.

    Returns:
        The models that were written.

    Raises:
        ExporterError: one of its subclasses.
    """
    with writable(out, force=force) as target:
        return unshare_files(local_path(source), target, force=force)


# --- records and results ------------------------------------------------------------------------


def _records(options: Mapping[str, Any]) -> tuple[CutOptions, Job]:
    cut, job = _split(CutOptions, options)
    return CutOptions(**cut), Job(**job)


def _split(record: type, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a record, and the others."""
    names = {option.name for option in options_of(record)}
    own = {name: value for name, value in options.items() if name in names}
    return own, {name: value for name, value in options.items() if name not in names}


def _job(options: Mapping[str, Any]) -> Job:
    return Job(**options)


def _checked(job: Job, report: Report) -> Report:
    _raise_if_asked(job, report.checks)
    return report


def _raise_if_asked(job: Job, checks: Iterable[Check]) -> None:
    failed = [check for check in checks if not check.passed]
    if failed and job.check:
        first = failed[0]
        raise CheckError(
            f"{len(failed)} checks failed; {first.output}: {first.metric} is {first.value}, "
            f"the limit is {first.limit}"
        )


# --- live Keras models --------------------------------------------------------------------------


def _is_live(model: Any) -> bool:
    """Is it a `keras.Model`? Answered without importing Keras."""
    return any(base.__module__.partition(".")[0] == "keras" for base in type(model).__mro__)


def _open(model: Any, *, live: bool, share_weights: bool) -> Model:
    if isinstance(model, str | Path):
        return open_again(local_path(model))
    if live:
        kind = import_module("exporter.formats.keras.model").KerasModel
        model = kind(model, share_weights=share_weights)
    opened: Model = model
    return opened


def _live_model(pruned: Pruned) -> Any:
    """The `keras.Model` itself, with the remap and the outcome of the checks as attributes."""
    model: Any = vars(pruned.model)["model"]
    for name, value in (("remap", pruned.remap), ("ok", pruned.ok)):
        object.__setattr__(model, name, value)
    return model
