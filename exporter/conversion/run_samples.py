"""Run several samples of a Keras model together: one call takes far less time than many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from exporter.formats.model import Model, RunOptions
from exporter.graph import Array

Answers = dict[str, Array]

_MOST_DIFFERENCE = 1e-6  # of the largest value of an output; the order of additions may differ


def run_samples(model: Model, feeds: Sequence[Mapping[str, Array]]) -> list[Answers]:
    """The outputs of a model for each sample.

    All samples run as one batch if the model leaves the batch open and the samples have the same
    shapes. One of them then also runs alone. If its answer differs, samples of a batch affect each
    other (normalization by the batch, a reshape of the batch), and all of them run alone.

    Args:
        model: in this process.
        feeds: the inputs of each sample, (1, ...).
    """
    runner = model.runner(RunOptions())
    if len(feeds) > 1 and _has_open_batch(model) and _are_alike(feeds):
        batch = runner({name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})
        if all(values.ndim and len(values) == len(feeds) for values in batch.values()):
            rows = [
                {name: values[i : i + 1] for name, values in batch.items()}
                for i in range(len(feeds))
            ]
            middle = len(feeds) // 2  # sums along the batch change it, in either direction
            if _agree(rows[middle], runner(feeds[middle])):
                return rows
    return [runner(feed) for feed in feeds]


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
