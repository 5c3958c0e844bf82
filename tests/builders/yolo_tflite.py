"""Small TFLite detectors of the YOLO families, written by TensorFlow's own converter.

Kernels and grid cells are those of `yolo_reference`. Boxes are in units of the picture's sides, as
exporters write them for TFLite, so that boxes and scores can share a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from litert_quantizer import quantizer, recipe

from exporter.graph import Array
from tests.builders import yolo_reference as reference
from tests.builders.yolo_reference import (
    ANCHORS,
    BINS,
    BOXES,
    CHANNELS,
    CLASSES,
    SIDE,
    SIZES,
    STRIDES,
)


def conv(x: Any, channels: int, name: str) -> Any:
    """1 x 1, with a bias."""
    kernel = reference.kernel(name, channels).transpose(2, 3, 1, 0)
    return tf.nn.conv2d(x, kernel, 1, "SAME") + reference.bias(name, channels)


def maps(x: Any) -> list[Any]:
    first = tf.nn.relu(x)
    return [first, tf.nn.max_pool2d(first, 2, 2, "SAME")]


def yolov5(x: Any) -> Any:
    """Rows of each map, decoded separately and concatenated."""
    rows, width = [], 5 + CLASSES
    for level, each in enumerate(maps(x)):
        size, stride = SIZES[level], STRIDES[level]
        y = tf.reshape(conv(each, ANCHORS * width, f"m{level}"), [-1, size**2, ANCHORS, width])
        y = tf.transpose(y, [0, 2, 1, 3])
        corners = reference.corners(size).reshape(1, size**2, 2)
        xy = (tf.sigmoid(y[..., 0:2]) * 2 - 0.5 + corners) * stride / SIDE
        wh = 4 * tf.sigmoid(y[..., 2:4]) ** 2 * reference.anchors(level)[None, :, None] / SIDE
        rest = tf.sigmoid(y[..., 4 : 5 + CLASSES])
        row = tf.concat([xy, wh, rest, y[..., 5 + CLASSES :]], -1)
        rows.append(tf.reshape(row, [-1, ANCHORS * size**2, width]))
    return tf.concat(rows, 1)


def yolov7(x: Any, *, decode: bool) -> Any:
    """The raw maps [1, anchors, size, size, 5 + classes], or rows decoded with constant grids."""
    raw, rows, width = {}, [], 5 + CLASSES
    for level, each in enumerate(maps(x)):
        size, stride = SIZES[level], STRIDES[level]
        y = tf.reshape(conv(each, ANCHORS * width, f"m{level}"), [1, size, size, ANCHORS, width])
        raw[f"raw{level}"] = y = tf.transpose(y, [0, 3, 1, 2, 4])
        xy, wh, rest = tf.split(tf.sigmoid(y), [2, 2, 1 + CLASSES], 4)
        shape = (1, ANCHORS, size, size, 2)
        grid = (np.broadcast_to(reference.corners(size), shape) - 0.5) * (stride / SIDE)
        anchors = reference.anchors(level)[:, None, None] * 4 / SIDE
        xy = xy * (2 * stride / SIDE) + tf.constant(grid, tf.float32)
        wh = wh**2 * tf.constant(np.broadcast_to(anchors, shape), tf.float32)
        rows.append(tf.reshape(tf.concat([xy, wh, rest], 4), [1, ANCHORS * size**2, width]))
    return tf.concat(rows, 1) if decode else raw


def _boxes(box: Any) -> Any:
    """Distributions [1, 4 * bins, boxes] -> center and size [1, 4, boxes]."""
    share = tf.nn.softmax(tf.transpose(tf.reshape(box, [1, 4, BINS, BOXES]), [0, 3, 1, 2]), -1)
    bins = tf.constant(np.arange(BINS, dtype=np.float32).reshape(1, 1, BINS, 1))
    side = tf.nn.conv2d(tf.transpose(share, [0, 2, 1, 3]), bins, 1, "VALID")
    side = tf.reshape(side, [1, 4, BOXES])
    corners, strides = reference.cells()
    middles = corners.T[None] + np.float32(0.5)
    low, high = middles - side[:, 0:2], middles + side[:, 2:4]
    return tf.concat([(low + high) / 2, high - low], 1) * (strides.T / np.float32(SIDE))


def _turned(x: Any, channels: int, size: int) -> Any:
    """Into PyTorch's order, as converters write it: [1, channels, cells]"""
    return tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [1, channels, size**2])


def yolov8(x: Any) -> Any:
    """Boxes from a distribution, and classes, concatenated per map."""
    levels = []
    for level, (size, each) in enumerate(zip(SIZES, maps(x), strict=True)):
        both = [conv(each, 4 * BINS, f"cv2.{level}"), conv(each, CLASSES, f"cv3.{level}")]
        levels.append(_turned(tf.concat(both, -1), 4 * BINS + CLASSES, size))
    box, cls = tf.split(tf.concat(levels, 2), [4 * BINS, CLASSES], 1)
    return tf.concat([_boxes(box), tf.sigmoid(cls)], 1)


def yolov11(x: Any) -> Any:
    """Boxes and classes are joined separately; a depthwise convolution precedes the classes."""
    box, cls = [], []
    for level, (size, each) in enumerate(zip(SIZES, maps(x), strict=True)):
        box.append(_turned(conv(each, 4 * BINS, f"cv2.{level}"), 4 * BINS, size))
        kernel = reference.kernel(f"dw.{level}", CHANNELS, 1, 3).transpose(2, 3, 0, 1)
        deep = tf.nn.silu(tf.nn.depthwise_conv2d(each, kernel, [1] * 4, "SAME"))
        deep = tf.nn.silu(conv(deep, CHANNELS, f"pw.{level}"))
        cls.append(_turned(conv(deep, CLASSES, f"cv3.{level}"), CLASSES, size))
    return tf.concat([_boxes(tf.concat(box, 2)), tf.sigmoid(tf.concat(cls, 2))], 1)


def yolox(x: Any) -> Any:
    levels = []
    for level, each in enumerate(maps(x)):
        parts = [("obj", 1), ("cls", CLASSES)]
        sure = [tf.sigmoid(conv(each, n, f"{name}{level}")) for name, n in parts]
        row = tf.concat([conv(each, 4, f"reg{level}"), *sure], -1)
        levels.append(tf.reshape(row, [1, -1, 5 + CLASSES]))
    y, (corners, strides) = tf.concat(levels, 1), reference.cells()
    steps = strides[None] / np.float32(SIDE)
    xy, wh = (y[..., :2] + corners[None]) * steps, tf.exp(y[..., 2:4]) * steps
    return tf.concat([xy, wh, y[..., 4:]], -1)


def suppressed(x: Any, *, version: int) -> Any:
    """Each box has its best class; of overlapping boxes the best one is kept."""
    y = yolox(x)[0]
    boxes = tf.concat([y[:, :2] - y[:, 2:4] / 2, y[:, :2] + y[:, 2:4] / 2], -1)
    scores = y[:, 4:5] * y[:, 5:]
    best, kind = tf.reduce_max(scores, -1), tf.argmax(scores, -1, output_type=tf.int32)
    limits: dict[str, Any] = {
        "max_output_size": reference.ROOM,
        "iou_threshold": reference.OVERLAP,
        "score_threshold": reference.LEAST,
        "pad_to_max_output_size": True,
    }
    if version == 4:
        taken, count = tf.raw_ops.NonMaxSuppressionV4(boxes=boxes, scores=best, **limits)
    else:
        taken, _, count = tf.raw_ops.NonMaxSuppressionV5(
            boxes=boxes, scores=best, soft_nms_sigma=0.0, **limits
        )
    named = {"boxes": boxes, "scores": best, "classes": kind}
    return {**{name: tf.gather(each, taken) for name, each in named.items()}, "count": count}


FAMILIES: Mapping[str, Callable[[Any], Any]] = {
    "v5": yolov5,
    "v7": partial(yolov7, decode=True),
    "v7 raw maps": partial(yolov7, decode=False),
    "v8": yolov8,
    "v11": yolov11,
    "YOLOX": yolox,
    **{f"suppressed by version {n}": partial(suppressed, version=n) for n in (4, 5)},
}


def fed(x: Array) -> Array:
    """A picture in TFLite's order."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def converted(family: str, *, int8: bool = False) -> bytes:
    """The file, with a signature, and with integer inputs and outputs if it is quantized."""
    module, spec = tf.Module(), tf.TensorSpec((1, SIZES[0], SIZES[0], CHANNELS), name="x")
    module.answer = tf.function(_named(FAMILIES[family]), input_signature=[spec])
    concrete = module.answer.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x] for x in _pictures())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _named(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        found = function(x)
        return found if isinstance(found, dict) else {"y": found}

    return call


def quantized(content: bytes) -> bytes:
    """A float file as litert-quantizer quantizes it."""
    tool = quantizer.Quantizer(bytearray(content))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    ranges = tool.calibrate({"serving_default": [{"x": x} for x in _pictures()]})
    return bytes(tool.quantize(ranges).quantized_model)


def _pictures() -> Iterator[Array]:
    return (fed(reference.picture(seed)) for seed in range(8))
