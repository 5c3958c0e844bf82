"""Heads without a product: each unit has constants of its own, which features meet by broadcast."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import NodeProto

from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from tests.builders.onnx_models import model, node, numbers

UNITS, KEPT = 5, [0, 2, 3]
X = numbers(7, 6, seed=1)
MEANS, VARIANCES, PRIORS = numbers(1, UNITS, 6), np.exp(numbers(1, UNITS, 6)), numbers(1, UNITS)
SQUARED = np.square(X[:, None] - MEANS.astype(np.float64))  # [batch, units, features]


def distances(*tail: NodeProto) -> OnnxModel:
    """x[batch, 6] -> squared differences from the mean of each unit -> the tail -> y."""
    first = [
        node("Reshape", ["x", "rows"], ["r"], "rows"),
        node("Sub", ["r", "means"], ["d"], "sub"),
        node("Pow", ["d", "two"], ["p"], "pow"),
    ]
    constants = {
        "rows": np.array([-1, 1, 6], np.int64),
        "means": MEANS,
        "two": np.array(2, np.float32),
        "variances": VARIANCES,
        "priors": PRIORS,
        "half": np.array(0.5, np.float32),
        "features": np.array([2], np.int64),
        "column": np.array([-1, 1], np.int64),
    }
    return model([*first, *tail], constants, outputs={"y": ("batch", UNITS)})


def naive_bayes() -> OnnxModel:
    """As skl2onnx writes GaussianNB: the exponential of a log-softmax of log-likelihoods."""
    return distances(
        node("Div", ["p", "variances"], ["q"], "div"),
        node("ReduceSum", ["q", "features"], ["s"], "sum", keepdims=0),
        node("Mul", ["s", "half"], ["h"], "half"),
        node("Sub", ["priors", "h"], ["z"], "z"),
        node("ReduceLogSumExp", ["z"], ["t"], "total", axes=[1], keepdims=0),
        node("Reshape", ["t", "column"], ["c"], "column"),
        node("Sub", ["z", "c"], ["l"], "log"),
        node("Exp", ["l"], ["y"], "y"),
    )


def nearest() -> OnnxModel:
    """The Euclidean distance from the mean of each unit."""
    total = node("ReduceSum", ["p", "features"], ["s"], "sum", keepdims=0)
    return distances(total, node("Sqrt", ["s"], ["y"], "y"))


def probabilities() -> Array:
    z = PRIORS - 0.5 * (SQUARED / VARIANCES).sum(-1)
    shares = np.exp(z[:, KEPT])
    return np.asarray(shares / shares.sum(1, keepdims=True))


CASES = [
    pytest.param(naive_bayes, probabilities(), id="Gaussian naive Bayes"),
    pytest.param(nearest, np.sqrt(SQUARED.sum(-1))[:, KEPT], id="distances"),
]


@pytest.mark.parametrize(("make", "expected"), CASES)
def test_the_constants_of_each_unit_are_cut(make: Callable[[], OnnxModel], expected: Array) -> None:
    done = prune_model(make(), CutOptions(keep=KEPT), Job(samples=4))
    assert done.results.passed
    found = np.asarray(done.model.runner(RunOptions())({"x": X})["y"])
    assert np.allclose(found, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("make", [naive_bayes, nearest])
def test_their_values_cannot_be_zeroed(make: Callable[[], OnnxModel]) -> None:
    with pytest.raises(ModelError, match="so that a removed unit's value would not be 0"):
        prune_model(make(), CutOptions(keep=KEPT, mode="zero"), Job(samples=4))
