"""Run several samples of a Keras model together: one call takes far less time than many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from exporter.formats.model import Model, Runner, RunOptions
from exporter.graph import Array

Answers = dict[str, Array]

_MOST_DIFFERENCE = 1e-6  # of the largest value of an output; the order of additions may differ


def run_samples(model: Model, feeds: Sequence[Mapping[str, Array]]) -> list[Answers]:
    """The outputs of a model for each sample.

    All samples run as one batch if the model leaves the batch open and the samples have the same
    shapes. Two of them then also run alone: a division by the largest value of the batch changes
    all samples but one. If an answer differs, samples of a batch affect each other (normalization
    by the batch, a reshape of the batch), and all of them run alone.

    Args:
        model: in this process.
        feeds: the inputs of each sample, (1, ...).
    """
    runner = model.runner(RunOptions())
    alone = {len(feeds) // 2, 0}  # sums along the batch change the middle, in either direction
    if len(feeds) > len(alone) and _has_open_batch(model) and _are_alike(feeds):
        rows = _rows_of_batch(runner, feeds)
        if rows and all(_agree(rows[i], runner(feeds[i])) for i in sorted(alone)):
            return rows
    return [runner(feed) for feed in feeds]


def _rows_of_batch(runner: Runner, feeds: Sequence[Mapping[str, Array]]) -> list[Answers]:
    """The answers of one batch by sample; none if it fails or its outputs have another length."""
    together = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    try:
        batch = runner(together)
    except Exception:  # noqa: BLE001 - the samples then run alone, which raises real errors again
        return []
    if not all(values.ndim and len(values) == len(feeds) for values in batch.values()):
        return []
    return [{name: v[i : i + 1] for name, v in batch.items()} for i in range(len(feeds))]


def _has_open_batch(model: Model) -> bool:
    graph = model.graph()
    shapes = [graph.shape(name) for name in (*graph.inputs, *graph.outputs)]
    return all(shape and shape[0] is None for shape in shapes)


def _are_alike(feeds: Sequence[Mapping[str, Array]]) -> bool:
    shapes = [{name: values.shape for name, values in feed.items()} for feed in feeds]
    return all(shape == shapes[0] for shape in shapes) and all(
        shape[:1] == (1,) for shape in shapes[0].values()
    )


def _agree(row: Answers, alone: Answers) -> bool:
    return all(_are_equal(row[name], values) for name, values in alone.items())


def _are_equal(row: Array, alone: Array) -> bool:
    if row.shape != alone.shape or alone.dtype.kind not in "fV":
        return np.array_equal(row, alone)
    wide = alone.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    limit = _MOST_DIFFERENCE * float(np.abs(finite).max(initial=0.0))
    return np.allclose(row.astype(np.float64), wide, rtol=0.0, atol=limit, equal_nan=True)
