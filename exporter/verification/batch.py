"""Run a model on three inputs at once, and compare with the original and with three single runs.

A file may state an open batch and still compute one sample only, for example after a reshape to a
fixed shape, or mix the samples of a batch. Files with a fixed batch are not tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from exporter.data.samples import Samples, to_model_inputs
from exporter.errors import ExporterError
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.records import Check
from exporter.remap import HeadRemap
from exporter.verification.roles import Stage
from exporter.verification.token_ids import pair_inputs
from exporter.verification.verify import VerifyOptions, verify_pair

BATCH = 3
_APART, _APART_ROUNDED = 1e-3, 5e-2  # relative to the largest value: float32, and other types
_STEPS = 2  # of quantized values: a kernel may round another batch differently
_RANGES_OF_BATCH = frozenset({"dynamic", "int4"})  # they quantize by the ranges of a whole batch


def batch_check(
    stage: Stage,
    original: Model,
    pruned: Model,
    tables: Sequence[HeadRemap],
    options: VerifyOptions,
) -> Check | None:
    """Compare a batch of 3; None if one of the models allows no such batch.

    Args: see `verify_pair`.
    """
    three = _three(options.samples, (original, pruned))
    if three is None:
        return None
    whole = replace(options, samples=three, run=replace(options.run, batch=BATCH))
    try:
        detail = _mixed(original, pruned, tables, whole)
        if detail and _mixed(original, original, (), whole):
            return None  # its results depend on the other samples of a batch
        if not detail and stage != "quantize":  # three samples are too few for its limits
            checks = verify_pair(stage, original, pruned, tables, whole).checks
            bad = [check for check in checks if not check.passed]
            detail = f"{bad[0].output} differs from the original" if bad else ""
    except ExporterError as error:
        if not _runs(original, whole):
            return None  # its batch is open in name only
        detail = error.message
    return Check.of_fact(stage, pruned.name, "batch", not detail, detail, BATCH)


def _three(samples: Samples, models: Sequence[Model]) -> Samples | None:
    """The first three samples as one batch; None if an input of a model has a fixed batch."""
    for model in models:
        graph = model.graph()
        if any(graph.shape(name)[:1] != (None,) for name in samples.values if name in graph.inputs):
            return None
    joined = {}
    for name, values in samples.values.items():
        each = [values[i % samples.count] for i in range(BATCH)]
        if any(value.shape[:1] != (1,) or value.shape != each[0].shape for value in each):
            return None
        joined[name] = np.concatenate(each)[np.newaxis]
    return replace(samples, values=joined, labels=None, on_sample=lambda _done, _total: None)


def _runs(model: Model, options: VerifyOptions) -> bool:
    """Does a model run on the batch?"""
    (feed,) = options.samples.feeds()
    try:
        model.runner(options.run)(to_model_inputs(feed, model.graph()))
    except ExporterError:
        return False
    return True


def _mixed(
    original: Model, model: Model, tables: Sequence[HeadRemap], options: VerifyOptions
) -> str:
    """Which output of the batch is not that of three single runs; "" if none."""
    if options.precision in _RANGES_OF_BATCH:
        return ""
    graph = model.graph()
    (batch,) = pair_inputs(options.samples, original, model, tables).cut.feeds()
    runner = model.runner(options.run)
    together = runner(to_model_inputs(batch, graph))
    feeds = (_one(batch, i, options.samples.values) for i in range(BATCH))
    single = [runner(to_model_inputs(feed, graph)) for feed in feeds]
    apart = _APART if model.precision == "fp32" else _APART_ROUNDED
    for name, value in together.items():
        rows = [each[name] for each in single]
        if any(row.shape != rows[0].shape or not row.ndim for row in rows):
            continue  # its length is not that of the batch, as after a selection of boxes
        joined = np.concatenate(rows)
        if joined.shape == value.shape and not _agree(joined, value, apart):
            return f"{name} of {BATCH} inputs at once differs from {BATCH} single runs"
    return ""


def _one(batch: Mapping[str, Array], place: int, sampled: Mapping[str, Array]) -> dict[str, Array]:
    """The feed of one sample; the mask of a gate is the same for all."""
    return {
        name: value[place : place + 1] if name in sampled else value
        for name, value in batch.items()
    }


def _agree(expected: Array, actual: Array, apart: float) -> bool:
    """Are two arrays near? Not of wide integers: the indices of nearly tied units may differ."""
    if expected.dtype.kind in "biuOSU":
        return expected.dtype.itemsize > 1 or _near(expected, actual, _STEPS)
    largest = np.abs(np.nan_to_num(expected.astype(np.float64))).max(initial=1.0)
    return _near(expected, actual, apart * largest)


def _near(expected: Array, actual: Array, limit: float) -> bool:
    left, right = (np.asarray(values, np.float64) for values in (expected, actual))
    return bool(np.allclose(left, right, rtol=0.0, atol=limit, equal_nan=True))
