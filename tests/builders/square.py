"""Shared by the tests that prune before and after a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from exporter.graph import Array

KEPT = [0, 4, 5]

EXPORT = 2e-5  # tolerance of a converted model, times the largest value above 1
# (case, kind) that cannot be pruned after the conversion -> reason
BEFORE: Mapping[tuple[str, str], str] = {
    ("Conv1D, local maximum, upsampled", "onnx"): "computed while the model runs",
    (
        "EinsumDense on the middle axis, softmax over steps",
        "onnx",
    ): "it spreads the units over several axes",
    ("EinsumDense that sums over two axes", "onnx"): "computed while the model runs",
    ("TimeDistributed Dense with softmax", "onnx"): "it mixes the units",
    ("TimeDistributed Dense with softmax", "tflite"): "it mixes the units",
}


def sample(model: Any) -> Array:
    shape = [1, *model.inputs[0].shape[1:]]
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def agree(actual: Array, expected: Array, limit: float) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit)
