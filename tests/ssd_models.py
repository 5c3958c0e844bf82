"""Small TFLite SSDs: class convolutions of anchors x (background + classes), and a post-process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from tests.tflite_builder import Builder

CLASSES = 5
ANCHORS = 2
SIZES = (4, 2)  # of the feature maps
BOXES = ANCHORS * sum(size**2 for size in SIZES)
CHANNELS = 3
ROOM = 250  # more rows than there can be

OPTIONS: Mapping[str, Any] = {
    "max_detections": ROOM,
    "max_classes_per_detection": 1,
    "detections_per_class": ROOM,
    "use_regular_nms": True,  # class by class: a class's rows do not depend on the others
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
    options: Mapping[str, Any] = OPTIONS,
) -> Builder:
    """Call `content(*ROWS)`.

    Args:
        background: positions in front of the classes.
        shared: one kernel serves both feature maps, as in RetinaNet and EfficientDet.
        options: of the post-process.
    """
    b = Builder(3)
    width = background + CLASSES
    x = b.feed("x", 1, SIZES[0], SIZES[0], CHANNELS)
    pooled: dict[str, Any] = {
        "padding": 1,
        "strideH": 2,
        "strideW": 2,
        "filterHeight": 2,
        "filterWidth": 2,
    }
    maps = [x, b.op("MAX_POOL_2D", [x], (1, 2, 2, CHANNELS), "p1", "Pool2DOptions", **pooled)]
    boxes, classes = [], []
    for level, each in enumerate(maps):
        boxes.append(_branch(b, each, 4, f"box{level}", f"box{level}"))
        own = "class" if shared else f"class{level}"
        classes.append(_branch(b, each, width, f"class{level}", own))
    axis: dict[str, Any] = {"axis": 1}
    b.op("CONCATENATION", boxes, (1, BOXES, 4), "encodings", "ConcatenationOptions", **axis)
    b.op("CONCATENATION", classes, (1, BOXES, width), "logits", "ConcatenationOptions", **axis)
    shape = (1, BOXES, width)
    if activation == "SOFTMAX":
        b.op("SOFTMAX", ["logits"], shape, "scores", "SoftmaxOptions", beta=1.0)
    else:
        b.op(activation, ["logits"], shape, "scores")
    place = np.random.default_rng(5).uniform(0.2, 0.8, (BOXES, 2))
    b.constant("anchors", np.concatenate([place, np.full((BOXES, 2), 0.3)], axis=1))
    return post_process(b, options)


ROWS = ("boxes", "numbers", "best", "count")


def post_process(b: Builder, options: Mapping[str, Any]) -> Builder:
    for name in ROWS:
        b.tensor(name, ())
        b.at(name).hasRank = False
        b.at(name).shape = None
    b.model.operatorCodes.append(
        schema.OperatorCodeT(32, b"TFLite_Detection_PostProcess", 1, schema.BuiltinOperator.CUSTOM)
    )
    operator = schema.OperatorT(
        opcodeIndex=len(b.model.operatorCodes) - 1,
        inputs=np.array([b.names[i] for i in ("encodings", "scores", "anchors")], np.int32),
        outputs=np.array([b.names[o] for o in ROWS], np.int32),
    )
    operator.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(dict(options))), np.uint8)
    b.subgraph.operators.append(operator)
    return b


def _branch(b: Builder, x: str, width: int, name: str, constants: str) -> str:
    """1 x 1 convolution, reshaped to one row an anchor."""
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
