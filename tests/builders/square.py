"""What the tests of prune-then-convert and convert-then-prune share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from exporter.graph import Array

KEPT = [0, 4, 5]

# what cannot be cut in the file that a converter wrote, and has to be cut before: (case, kind)
EXPORT = 2e-5  # limit of a converted model, times the largest value above 1
BEFORE: Mapping[tuple[str, str], str] = {
    ("Conv1D, local maximum, upsampled", "onnx"): "computed while the model runs",
    ("Conv2DTranspose, global mean", "tflite"): "the shape of its result is a separate constant",
    (
        "EinsumDense with units in the middle, and its own softmax over steps",
        "onnx",
    ): "it spreads the units over several axes",
    ("EinsumDense that sums over two axes", "onnx"): "computed while the model runs",
    ("TimeDistributed Dense with softmax", "onnx"): "it mixes the units",
    ("TimeDistributed Dense with softmax", "tflite"): "PACK",
    ("TimeDistributed Conv2D", "tflite"): "PACK",
}


def sample(model: Any) -> Array:
    shape = [1, *model.inputs[0].shape[1:]]
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def agree(actual: Array, expected: Array, limit: float) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit)
