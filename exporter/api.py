"""The public functions of the package; `import exporter` shows them without loading anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

from exporter.errors import CheckError, UsageError
from exporter.formats import open_model
from exporter.formats.model import Model
from exporter.jobs.compare import bench_files, verify_files
from exporter.jobs.convert import convert_file
from exporter.jobs.inspect import Inspection, inspect_file
from exporter.jobs.options import Job
from exporter.jobs.prune import Pruned, prune_model
from exporter.jobs.quantize import quantize_file
from exporter.jobs.run import run_job, run_variants
from exporter.planning.cut import CutOptions, Units
from exporter.records import Report

Source = str | Path | Any  # a path, or a live keras.Model


class ChoiceOptions(TypedDict, total=False):
    """The fields of `cutting.CutOptions`."""

    keep: Units
    remove: Units
    labels: str | Path | Sequence[str]
    keep_order: bool
    head: str
    mode: str
    units: str | tuple[int, int]
    restore_ids: bool
    new_ids: bool
    emit: str
    probabilities: str
    restore_width: bool
    for_quantization: bool
    merge: Mapping[str, Units]
    allow_nonfinite: bool
    allow_remove_special: bool
    gate: str


class JobOptions(TypedDict, total=False):
    """The fields of `job.Job`."""

    to: Sequence[str]
    data: str | Path
    samples: int
    seed: int
    tolerance: float
    precisions: Sequence[str]
    calibration: str | Path
    synthetic_calibration: bool
    integer_io: bool
    quantize_first: bool
    input_shapes: Mapping[str, tuple[int, ...]]
    threads: int
    opset: int
    batch: int
    signature: str
    timeout_s: float
    memory_limit_bytes: int
    large_head_bytes: int
    keep_original: bool
    force: bool
    verify: bool
    bench: bool
    progress: Callable[[str], None]


class Options(ChoiceOptions, JobOptions):
    """What to keep, and how the job is done."""


def inspect(source: Source, **options: Unpack[JobOptions]) -> Inspection:
    """The heads of a model, and what is refused and why.

    A Keras file or model is opened in a child process.
    """
    return inspect_file(source, _job(options))


def prune(model: Source | Model, *, share_weights: bool = False, **options: Unpack[Options]) -> Any:
    """Cut a model and check the cut.

    Args:
        model: an opened model (`open_model`), a path, or a live `keras.Model`. Never changed.
        share_weights: of a live `keras.Model`: layers whose weights stay as they are belong to both
            models, take no memory a second time, and learn for both; without it all are copied.
        options: what to keep (`ChoiceOptions`), and how it is checked (`JobOptions`).

    Returns:
        A `Pruned`, with `save(path)` and `remap`; for a live `keras.Model` a new `keras.Model`,
        whose attribute `remap` holds the table.

    Raises:
        ExporterError: any of its classes; `CheckError` where the result does not answer as the
            oracle says.
    """
    choice, job = _records(options)
    live = _is_live(model)
    if share_weights and not live:
        raise UsageError(
            "share_weights has a meaning for a live keras.Model alone", "leave it out for files"
        )
    done = prune_model(_open(model, live=live, share_weights=share_weights), choice, job)
    failed = [check for check in done.results.checks if not check.passed]
    if failed:
        first = failed[0]
        raise CheckError(
            f"{len(failed)} checks failed; {first.output}: {first.metric} is {first.value}, "
            f"the limit is {first.limit}"
        )
    return _unwrapped(done) if live else done


def convert(source: Source, out: str | Path, **options: Unpack[JobOptions]) -> Report:
    """Convert a Keras model, uncut, to `out` (.onnx or .tflite); a failed check writes nothing."""
    return convert_file(source, Path(out), _job(options))


def quantize(
    source: str | Path, out: str | Path, *, precision: str, **options: Unpack[JobOptions]
) -> Report:
    """Bring a float32 .onnx or .tflite file to another precision; a failed check writes nothing.

    Args:
        source: a file.
        out: a file of the same kind.
        precision: "fp16", "dynamic", "int8", "int16x8" or "int4".
        options: `data` is what int8 and int16x8 are calibrated on, and what all are compared on.
    """
    return quantize_file(source, Path(out), _job({**options, "precisions": (precision,)}))


@overload
def run(source: Source, out: str | Path, **options: Unpack[Options]) -> Report: ...
@overload
def run(
    source: Source,
    out: str | Path,
    *,
    variants: Mapping[str, Units],
    **options: Unpack[Options],
) -> dict[str, Report]: ...
def run(
    source: Source,
    out: str | Path,
    *,
    variants: Mapping[str, Units] | None = None,
    **options: Unpack[Options],
) -> Report | dict[str, Report]:
    """The whole job, into the folder `out`.

    Args:
        source: a path, or a live `keras.Model`.
        variants: folder name -> what to keep, for several cuts with one conversion.

    Returns:
        The report, or one a variant. A failed check is a result in it: look at `ok`.
    """
    if variants is None:
        return run_job(source, Path(out), *_records(options))
    made = {name: _records({**options, "keep": keep}) for name, keep in variants.items()}
    if not made:
        raise UsageError("there are no variants", "name at least one: {'birds': [1, 5]}")
    choices = {name: choice for name, (choice, _) in made.items()}
    return run_variants(source, Path(out), choices, next(iter(made.values()))[1])


def verify(original: str | Path, pruned: str | Path, **options: Unpack[JobOptions]) -> Report:
    """Prove that a pruned or converted file answers as its original does."""
    return verify_files(Path(original), Path(pruned), _job(options))


def bench(original: str | Path, pruned: str | Path, **options: Unpack[JobOptions]) -> Report:
    """Time two files of one kind side by side."""
    return bench_files(Path(original), Path(pruned), _job(options))


# --- from keywords to records -------------------------------------------------------------------

_CHOICE = {field.name for field in fields(CutOptions)}
_JOB = {field.name for field in fields(Job)}


def _records(options: Mapping[str, Any]) -> tuple[CutOptions, Job]:
    """What to keep, and how the job is done."""
    chosen = {key: value for key, value in options.items() if key in _CHOICE}
    return CutOptions(**chosen), _job({k: v for k, v in options.items() if k not in _CHOICE})


def _job(options: Mapping[str, Any]) -> Job:
    unknown = sorted(options.keys() - _JOB)
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}")
    given = dict(options)
    for name in ("data", "calibration"):
        if given.get(name) is not None:
            given[name] = Path(given[name])
    for name in ("to", "precisions"):
        if given.get(name) is not None:
            value = given[name]
            given[name] = (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))
    return Job(**given)


# --- live Keras models --------------------------------------------------------------------------


def _is_live(model: Any) -> bool:
    """A `keras.Model`, told without importing Keras."""
    return any(base.__module__.partition(".")[0] == "keras" for base in type(model).__mro__)


def _open(model: Any, *, live: bool, share_weights: bool) -> Model:
    if isinstance(model, str | Path):
        return open_model(model)
    if live:
        kind = import_module("exporter.formats.keras.model").KerasModel
        model = kind(model, share_weights=share_weights)
    opened: Model = model
    return opened


def _unwrapped(done: Pruned) -> Any:
    """The `keras.Model` itself, with the table on it."""
    model: Any = vars(done.model)["model"]
    object.__setattr__(model, "remap", done.remap)
    return model
