"""The scores of the units of a head on samples, and the norms of their weights."""

from __future__ import annotations

import numpy as np

from exporter.data.samples import Samples
from exporter.errors import UsageError
from exporter.evaluation.unit_table import Predictions
from exporter.formats.model import Model, run_each
from exporter.graph import Array
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.operations import Linear
from exporter.graph.walk import origin, through
from exporter.jobs.job import Job
from exporter.trace.head import Head

_LARGEST_SCORES = 500_000_000  # samples x units held in memory: 2 GB of float32


def predict(
    model: Model, head: Head, samples: Samples, truth: Array | None, job: Job
) -> Predictions:
    """Run the model on every sample."""
    if samples.count * head.units > _LARGEST_SCORES:
        most = _LARGEST_SCORES // head.units
        raise UsageError(
            f"the scores of {samples.count} samples and {head.units} units do not fit in memory",
            f"use --samples {most} or fewer",
        )
    job.progress(f"running {model.name} on {samples.count} samples")
    rows = detected_rows(model, head)
    scores = np.empty((samples.count, head.units), np.float32)
    for i, outputs in enumerate(run_each(model.runner(job.run_options), samples.feeds())):
        if rows is not None:
            scores[i] = _detected(head, *(outputs[name] for name in rows[1:]))
        else:
            scores[i] = _unit_scores(model, head, outputs[head.output])
    if bad := np.flatnonzero(np.isnan(scores).any(axis=1)).tolist():
        raise UsageError(
            f"{model.name} returns NaN for {len(bad)} samples, first for number {bad[0]}",
            "check the model and the range of its inputs",
        )
    largest = np.finfo(np.float32).max
    np.clip(scores, -largest, largest, out=scores)  # masked units have a score of -infinity
    active = active_above("sigmoid" if rows is not None else head.activation)
    return Predictions(scores, truth, active, is_detector=rows is not None)


def detected_rows(model: Model, head: Head) -> tuple[str, str, str, str] | None:
    """The outputs of a detector with boxes, class indices, scores and their number, if it is one.

    None if the model returns the scores of all units, or no such rows.
    """
    outputs = model.graph().outputs
    found = (each.rows for each in head.readers.detections if not each.tables)
    return None if head.output in outputs else next(filter(None, found), None)


def _detected(head: Head, classes: Array, scores: Array, number: Array) -> Array:
    """(units,) the score of the best box of each unit; 0 for units that were not detected."""
    count, best = int(np.ravel(number)[0]), np.zeros(head.units)
    units = np.ravel(classes)[:count].astype(np.int64)
    np.maximum.at(best, units, np.ravel(scores)[:count])
    return best


def active_above(activation: str) -> float:
    """The score above which a unit is active: a probability of 0.5, or 0 of another output."""
    if activation == "log_softmax":
        return float(np.log(0.5))
    return 0.5 if activation in ACTIVATIONS and ACTIVATIONS[activation].probability else 0.0


def weight_norms(model: Model, head: Head) -> Array:
    """(units,) Euclidean norm of the weights of each unit, over all kernels of the head."""
    graph, squares = model.graph(), np.zeros(head.units)
    axes = {constant.name: constant.unit_axis for constant in head.constants}
    refused = UsageError(
        f"the weights of head {head.name!r} cannot be read", "use another criterion than the norm"
    )
    linear = [(node, node.operation) for node in head.body if isinstance(node.operation, Linear)]
    if not linear:
        raise refused
    for node, operation in linear:
        kernel = node.inputs[operation.kernel]
        # of QuantizeLinear and DequantizeLinear pairs, the constant is before them
        name = origin(graph.producers, kernel, through("cast", "dequantize"))
        tensor = graph.tensors[name]
        has_scale = tensor.quantization is not None or tensor.dtype.startswith("float")
        if tensor.read is None or name not in axes or operation.packed_bits or not has_scale:
            raise refused
        values = np.square(np.asarray(tensor.dequantize(tensor.read()), np.float64))
        axis = axes[name]
        sums = np.moveaxis(values, axis.axis, 0).reshape(len(axis.units), -1).sum(axis=1)
        np.add.at(squares, axis.units[axis.units >= 0], sums[axis.units >= 0])
    if not np.isfinite(squares).all():  # the scale is computed when the model runs, for example
        raise refused
    return np.sqrt(squares)


def _unit_scores(model: Model, head: Head, output: Array) -> Array:
    """(units,) the real values of the units in the output of one sample."""
    axis = head.tensor(head.output).unit_axis
    if output.size != len(axis.units) or len(np.flatnonzero(axis.units >= 0)) != head.units:
        raise UsageError(
            f"head {head.name!r} returns several values per unit, such as boxes, pixels or a batch",
            "select works with classifiers: one value per unit and sample",
        )
    values = model.graph().tensors[head.output].dequantize(output).reshape(-1)
    scores = np.empty(head.units)
    scores[axis.units[axis.units >= 0]] = values[axis.units >= 0]
    return scores
