"""A small TFLite network whose channels can be removed."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.builders.tflite_builder import Builder

SIDE = 7


def as_tflite(seed: int = 0) -> Builder:
    """conv 3 x 3, stride 2, ReLU; depthwise 3 x 3; conv 1 x 1, ReLU; mean; dense; softmax."""
    b = Builder(seed)
    x = b.feed("x", 1, SIDE, SIDE, 2)
    conv: dict[str, Any] = {
        "padding": 0,
        "strideW": 1,
        "strideH": 1,
        "dilationWFactor": 1,
        "dilationHFactor": 1,
    }
    relu = {"fusedActivationFunction": 1}

    def convolved(name: str, given: str, shape: tuple[int, ...], *kernel: int, **more: Any) -> str:
        inputs = [given, b.normal(f"{name}/k", *kernel), b.normal(f"{name}/b", shape[-1])]
        depthwise = "depthMultiplier" in more
        operator = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        options = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
        return b.op(operator, inputs, shape, name, options, **{**conv, **more})

    a = convolved("a", x, (1, 4, 4, 8), 8, 3, 3, 2, **relu, strideW=2, strideH=2)
    d = convolved("d", a, (1, 4, 4, 8), 1, 3, 3, 8, depthMultiplier=1)
    e = convolved("e", d, (1, 4, 4, 6), 6, 1, 1, 8, **relu)
    c = convolved("c", e, (1, 4, 4, 7), 7, 3, 3, 6, **relu)
    axes = b.constant("axes", np.array([1, 2], np.int32))
    mean = b.op("MEAN", [c, axes], (1, 7), "mean", "ReducerOptions", keepDims=False)
    b.softmax(b.dense(mean, 4, "scores"), "y")
    return b
