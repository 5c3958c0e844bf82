"""Small TFLite detectors of the YOLO families, written by TensorFlow's own converter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

CLASSES = 6
CHANNELS = 5
ANCHORS = 3
SIZES = (4, 2)  # of the feature maps
BOXES = sum(size**2 for size in SIZES)
BINS = 4


class Weights:
    """Seeded, in the order in which they are asked for."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def __call__(self, *shape: int) -> Any:
        return tf.constant(self.random.normal(size=shape).astype(np.float32))

    def conv(self, x: Any, channels: int) -> Any:
        """1 x 1, with a bias."""
        return tf.nn.conv2d(x, self(1, 1, CHANNELS, channels), 1, "SAME") + self(channels)


def _maps(x: Any) -> list[Any]:
    first = tf.nn.relu(x)
    return [first, tf.nn.max_pool2d(first, 2, 2, "SAME")]


def yolov5(x: Any) -> Any:
    """Rows of each map, decoded on their own, one behind the other."""
    w, rows = Weights(), []
    for size, each in zip(SIZES, _maps(x), strict=True):
        y = tf.reshape(w.conv(each, ANCHORS * (5 + CLASSES)), [-1, size**2, ANCHORS, 5 + CLASSES])
        y = tf.transpose(y, [0, 2, 1, 3])
        xy = (tf.sigmoid(y[..., 0:2]) * 2 - 0.5 + w(1, size**2, 2)) * 8.0 / 32.0
        wh = 4 * tf.sigmoid(y[..., 2:4]) ** 2 * w(1, ANCHORS, 1, 2) / 32.0
        rest = tf.sigmoid(y[..., 4 : 5 + CLASSES])
        row = tf.concat([xy, wh, rest, y[..., 5 + CLASSES :]], -1)
        rows.append(tf.reshape(row, [-1, ANCHORS * size**2, 5 + CLASSES]))
    return tf.concat(rows, 1)


def yolov8(x: Any) -> Any:
    """Boxes out of a distribution; the axes are brought into PyTorch's order, as converters do."""
    w, levels = Weights(), []
    for size, each in zip(SIZES, _maps(x), strict=True):
        y = tf.concat([w.conv(each, 4 * BINS), w.conv(each, CLASSES)], -1)
        y = tf.transpose(y, [0, 3, 1, 2])
        levels.append(tf.reshape(y, [1, 4 * BINS + CLASSES, size**2]))
    box, cls = tf.split(tf.concat(levels, 2), [4 * BINS, CLASSES], 1)
    share = tf.nn.softmax(tf.transpose(tf.reshape(box, [1, 4, BINS, BOXES]), [0, 3, 1, 2]), -1)
    bins = tf.constant(np.arange(BINS, dtype=np.float32).reshape(1, 1, BINS, 1))
    side = tf.nn.conv2d(tf.transpose(share, [0, 2, 1, 3]), bins, 1, "VALID")
    side = tf.reshape(side, [1, 4, BOXES])
    anchors = w(1, 2, BOXES)
    low, high = anchors - side[:, 0:2], anchors + side[:, 2:4]
    boxes = tf.concat([(low + high) / 2, high - low], 1) * w(1, BOXES)
    return tf.concat([boxes, tf.sigmoid(cls)], 1)


def yolox(x: Any) -> Any:
    w, levels = Weights(), []
    for each in _maps(x):
        parts = [w.conv(each, 4), *(tf.sigmoid(w.conv(each, n)) for n in (1, CLASSES))]
        levels.append(tf.reshape(tf.concat(parts, -1), [1, -1, 5 + CLASSES]))
    y, strides = tf.concat(levels, 1), w(1, BOXES, 1)
    xy, wh = (y[..., :2] + w(1, BOXES, 2)) * strides, tf.exp(y[..., 2:4]) * strides
    return tf.concat([xy, wh, y[..., 4:]], -1)


FAMILIES: Mapping[str, Callable[[Any], Any]] = {"v5": yolov5, "v8": yolov8, "YOLOX": yolox}


def converted(family: str, *, int8: bool) -> bytes:
    """The file, with integers at its ends too where it is quantised."""
    shape = (1, SIZES[0], SIZES[0], CHANNELS)
    function = tf.function(FAMILIES[family], input_signature=[tf.TensorSpec(shape)])
    concrete = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], function)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = _pictures
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _pictures() -> Iterator[list[Any]]:
    random = np.random.default_rng(1)
    for _ in range(8):
        yield [random.normal(size=(1, SIZES[0], SIZES[0], CHANNELS)).astype(np.float32)]
