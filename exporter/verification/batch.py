"""Run a model on three inputs at once, and compare with the original and with three single runs.

A file may state an open batch and still compute one sample only, for example after a reshape to a
fixed shape, or mix the samples of a batch. Files with a fixed batch are not tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from exporter.data.samples import Samples, to_model_inputs
from exporter.errors import ExporterError
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.records import Check
from exporter.remap import HeadRemap
from exporter.verification.roles import Answers, Stage
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
    if _has_fixed_batch(options.samples, (original, pruned)):
        return None
    three = options.known.batch_of(options.samples, _three)
    if three is None:
        return None
    whole = replace(options, samples=three, run=replace(options.run, batch=BATCH))
    try:
        bad: list[Check] = []
        if stage != "quantize":  # three samples are too few for its limits
            checks = verify_pair(stage, original, pruned, tables, whole).checks
            bad += [check for check in checks if not check.passed]
        detail = _mixed(original, pruned, tables, options, three)
        if detail and _mixed(original, original, (), options, three):
            return None  # its results depend on the other samples of a batch
        if bad and not detail:
            detail = f"{bad[0].output} differs from the original"
    except ExporterError as error:
        if not _runs(original, whole):
            return None  # its batch is open in name only
        detail = error.message
    return Check.of_fact(stage, pruned.name, "batch", not detail, detail, BATCH)


def _has_fixed_batch(samples: Samples, models: Sequence[Model]) -> bool:
    graphs = [model.graph() for model in models]
    return any(
        graph.shape(name)[:1] != (None,)
        for graph in graphs
        for name in samples.values
        if name in graph.inputs
    )


def _three(samples: Samples) -> Samples | None:
    """The first three samples as one batch; None if they are batches, or differ in shape."""
    joined = {}
    for name, values in samples.values.items():
        each = [values[i % samples.count] for i in range(BATCH)]
        if any(value.shape[:1] != (1,) or value.shape != each[0].shape for value in each):
            return None
        joined[name] = np.concatenate(each)[np.newaxis]
    return replace(
        samples, values=joined, labels=None, names=(), on_sample=lambda _done, _total: None
    )


def _runs(model: Model, options: VerifyOptions) -> bool:
    """Does a model run on the batch?"""
    (feed,) = options.samples.feeds()
    try:
        model.runner(options.run)(to_model_inputs(feed, model.graph()))
    except ExporterError:
        return False
    return True


def _mixed(
    original: Model,
    model: Model,
    tables: Sequence[HeadRemap],
    options: VerifyOptions,
    three: Samples,
) -> str:
    """Which output of the batch differs from three single runs; "" if none."""
    if options.precision in _RANGES_OF_BATCH:
        return ""
    fed = pair_inputs(three, original, model, tables)
    run = replace(options.run, batch=BATCH)
    together: Answers
    single: Sequence[Answers]
    if fed.different:
        (batch,) = fed.cut.feeds()
        feeds = (batch, *(_one(batch, i, three.values) for i in range(BATCH)))
        runner, graph = model.runner(run), model.graph()
        together, *single = (runner(to_model_inputs(feed, graph)) for feed in feeds)
    else:  # another comparison has run the model on them
        samples, outputs = options.samples, (model, ())
        (together,) = options.known.of(outputs, three, three.feeds(), run)
        every = options.known.of(outputs, samples, samples.feeds(), options.run)
        first = list(islice(every, BATCH))
        single = [first[i % len(first)] for i in range(BATCH)]
    apart = _APART if model.precision == "fp32" else _APART_ROUNDED
    for name, value in together.items():
        rows = [each[name] for each in single]
        if any(row.shape != rows[0].shape or not row.ndim for row in rows):
            continue  # its length differs from the batch, as after a selection of boxes
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
