"""Small TFLite SSDs: class convolutions of anchors x (background + classes), and a post-process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from tests.builders.tflite_builder import Builder

CLASSES = 5
ANCHORS = 2
SIZES = (4, 2)  # of the feature maps
BOXES = ANCHORS * sum(size**2 for size in SIZES)
CHANNELS = 3
ROOM = 4000  # for more rows than possible

OPTIONS: Mapping[str, Any] = {
    "max_detections": ROOM,
    "max_classes_per_detection": 1,
    "detections_per_class": ROOM,
    "use_regular_nms": True,  # per class: the rows of a class do not depend on the others
    "nms_score_threshold": 0.0,
    "nms_iou_threshold": 0.5,
    "num_classes": CLASSES,
    "y_scale": 10.0,
    "x_scale": 10.0,
    "h_scale": 5.0,
    "w_scale": 5.0,
}


def ssd(
    *,
    background: int = 1,
    activation: str = "LOGISTIC",
    shared: bool = False,
    apart: bool = False,
    sizes: Sequence[int] = SIZES,
    int8: bool = False,
    options: Mapping[str, Any] = OPTIONS,
) -> Builder:
    """A detector; call `content(*ROWS)`.

    Args:
        background: positions before the classes.
        shared: all feature maps use one kernel, as in RetinaNet and EfficientDet.
        apart: each map has its activation, before the concatenation.
        sizes: of the feature maps, each half as large as the one before.
        int8: quantized up to the post-process.
        options: of the post-process.
    """
    b = _QuantizedBuilder(3) if int8 else Builder(3)
    width = background + CLASSES
    x = b.feed("x", 1, sizes[0], sizes[0], CHANNELS)
    maps = [b.quantized(x) if isinstance(b, _QuantizedBuilder) else x]
    for level, size in enumerate(sizes[1:], 1):
        shape = (1, size, size, CHANNELS)
        maps.append(b.op("MAX_POOL_2D", maps[-1:], shape, f"p{level}", "Pool2DOptions", **HALF))
    boxes, classes = [], []
    for level, each in enumerate(maps):
        boxes.append(_branch(b, each, 4, f"box{level}", f"box{level}"))
        own = "class" if shared else f"class{level}"
        rows = _branch(b, each, width, f"class{level}", own)
        classes.append(_activated(b, activation, rows, f"score{level}") if apart else rows)
    count = ANCHORS * sum(size**2 for size in sizes)
    axis: dict[str, Any] = {"axis": 1}
    b.op("CONCATENATION", boxes, (1, count, 4), "encodings", "ConcatenationOptions", **axis)
    joined = "scores" if apart else "logits"
    b.op("CONCATENATION", classes, (1, count, width), joined, "ConcatenationOptions", **axis)
    if not apart:
        _activated(b, activation, "logits", "scores")
    place = np.random.default_rng(5).uniform(0.2, 0.8, (count, 2))
    b.constant("anchors", np.concatenate([place, np.full((count, 2), 0.3)], axis=1))
    entering = ["encodings", "scores"]
    if isinstance(b, _QuantizedBuilder):
        entering = [b.real(name) for name in entering]
    return post_process(b, options, entering)


HALF: Mapping[str, Any] = {
    "padding": 1,
    "strideH": 2,
    "strideW": 2,
    "filterHeight": 2,
    "filterWidth": 2,
}


def _activated(b: Builder, function: str, x: str, name: str) -> str:
    shape = b.shape_of(x)
    if function == "SOFTMAX":
        return b.op("SOFTMAX", [x], shape, name, "SoftmaxOptions", beta=1.0)
    return b.op(function, [x], shape, name)


class _QuantizedBuilder(Builder):
    """Every computed tensor is int8; probabilities have the scale that kernels require."""

    def op(self, operator: str, inputs: Any, shape: Any, name: str, *args: Any, **how: Any) -> str:
        super().op(operator, inputs, shape, name, *args, **{"dtype": "int8", **how})
        share = operator in {"LOGISTIC", "SOFTMAX"} or name == "scores"
        return self.quantize(name, 1 / 256 if share else 0.05, -128 if share else 3)

    def normal(self, name: str, *shape: int) -> str:
        values = self.random.normal(size=shape)
        if len(shape) == 1:  # a bias: the scales of input and kernel, multiplied
            self.constant(name, np.rint(values / (0.05 * SCALE)).astype(np.int32))
            return self.quantize(name, np.full(shape, 0.05 * SCALE), np.zeros(shape))
        self.constant(name, np.clip(np.rint(values / SCALE), -127, 127).astype(np.int8))
        return self.quantize(name, np.full(shape[:1], SCALE), np.zeros(shape[:1]))

    def quantized(self, x: str) -> str:
        return self.op("QUANTIZE", [x], self.shape_of(x), f"{x}/codes", "QuantizeOptions")

    def real(self, x: str) -> str:
        name = f"{x}/real"
        return super().op("DEQUANTIZE", [x], self.shape_of(x), name, "DequantizeOptions")


SCALE = 0.025  # of int8 kernels


ROWS = ("boxes", "numbers", "best", "count")


def post_process(b: Builder, options: Mapping[str, Any], entering: Sequence[str]) -> Builder:
    for name in ROWS:
        b.tensor(name, ())
        b.at(name).hasRank = False
        b.at(name).shape = None
    b.model.operatorCodes.append(
        schema.OperatorCodeT(32, b"TFLite_Detection_PostProcess", 1, schema.BuiltinOperator.CUSTOM)
    )
    operator = schema.OperatorT(
        opcodeIndex=len(b.model.operatorCodes) - 1,
        inputs=np.array([b.names[i] for i in (*entering, "anchors")], np.int32),
        outputs=np.array([b.names[o] for o in ROWS], np.int32),
    )
    operator.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(dict(options))), np.uint8)
    b.subgraph.operators.append(operator)
    return b


def _branch(b: Builder, x: str, width: int, name: str, constants: str) -> str:
    """1 x 1 convolution, reshaped to one row per anchor."""
    size = int(b.at(x).shape[1])
    kernel, bias = f"{constants}/kernel", f"{constants}/bias"
    if kernel not in b.names:
        b.normal(kernel, ANCHORS * width, 1, 1, CHANNELS)
        b.normal(bias, ANCHORS * width)
    stride: dict[str, Any] = {"padding": 1, "strideH": 1, "strideW": 1}
    shape = (1, size, size, ANCHORS * width)
    conv = b.op("CONV_2D", [x, kernel, bias], shape, f"{name}/conv", "Conv2DOptions", **stride)
    rows = (1, ANCHORS * size**2, width)
    target = b.constant(f"{name}/shape", np.array(rows, np.int32))
    new: dict[str, Any] = {"newShape": np.array(rows, np.int32)}
    return b.op("RESHAPE", [conv, target], rows, name, "ReshapeOptions", **new)
