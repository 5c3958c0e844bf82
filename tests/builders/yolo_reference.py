"""The outputs of small YOLO detectors: the formulas of each family in NumPy.

The ONNX and TFLite models of the tests take their kernels and anchors from here. A decoder computes
the classes that it is given from the rows of their kernels, independently of any cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from exporter.graph import Array

CLASSES = 6
CHANNELS = 5
ANCHORS = 3
BINS = 4  # bins of a distribution over distances
SIZES = (4, 2)  # of the feature maps
STRIDES = (8.0, 16.0)
SIDE = 32.0  # of the image, in pixels
BOXES = sum(size**2 for size in SIZES)
MASKS, POINTS = 3, 2
ROOM, OVERLAP, LEAST = 8, 0.5, 0.05  # of the suppression: rows, overlap, score


def picture(seed: int = 7) -> Array:
    """[1, channels, size, size]"""
    shape = (1, CHANNELS, SIZES[0], SIZES[0])
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def kernel(name: str, units: int, channels: int = CHANNELS, size: int = 1) -> Array:
    """[units, channels, size, size]; the same for the same name."""
    random = np.random.default_rng(crc32(f"kernel of {name}".encode()))
    spread = 1.5 / (channels * size**2) ** 0.5
    values = spread * random.normal(size=(units, channels, size, size))
    return np.asarray(values, np.float32)


def bias(name: str, units: int) -> Array:
    random = np.random.default_rng(crc32(f"offsets of {name}".encode()))
    return random.normal(size=units).astype(np.float32)


def corners(size: int) -> Array:
    """x and y of every cell's corner: [size, size, 2]"""
    y, x = np.mgrid[:size, :size]
    return np.stack([x, y], -1).astype(np.float32)


def anchors(level: int) -> Array:
    """Width and height in pixels: [anchors, 2]"""
    random = np.random.default_rng(level)
    return random.uniform(2, 20, (ANCHORS, 2)).astype(np.float32)


def cells() -> tuple[Array, Array]:
    """Corners [boxes, 2] and strides [boxes, 1] of both maps, concatenated."""
    places = np.concatenate([corners(size).reshape(-1, 2) for size in SIZES])
    strides = np.repeat(np.array(STRIDES, np.float32), [size**2 for size in SIZES])
    return places, strides[:, None]


# --- layers, in float64 ---------------------------------------------------------------------------


def maps(x: Array) -> list[Array]:
    """[channels, size, size] for each size."""
    first = np.maximum(x[0].astype(np.float64), 0)
    return [first, first.reshape(CHANNELS, SIZES[1], 2, SIZES[1], 2).max(axis=(2, 4))]


def conv(x: Array, name: str, units: int, rows: Sequence[int] | None = None) -> Array:
    """1 x 1 with a bias, for some of its `units`."""
    taken = range(units) if rows is None else rows
    weights, offset = kernel(name, units, len(x))[list(taken), :, 0, 0], bias(name, units)
    return np.asarray(
        np.einsum("uc,chw->uhw", weights.astype(np.float64), x)
        + offset[list(taken), None, None].astype(np.float64)
    )


def depthwise(x: Array, name: str) -> Array:
    """3 x 3, depthwise, without a bias."""
    weights, (_, height, width) = kernel(name, len(x), 1, 3)[:, 0].astype(np.float64), x.shape
    around = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    total = np.zeros_like(x)
    for i in range(3):
        for j in range(3):
            total += weights[:, i, j, None, None] * around[:, i : i + height, j : j + width]
    return total


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


# --- families -------------------------------------------------------------------------------------


def anchored(level: int, x: Array, classes: Sequence[int]) -> Array:
    """The raw map of v5 and v7: [anchors, size, size, 5 + classes]"""
    width, rows = 5 + CLASSES, [*range(5), *(5 + unit for unit in classes)]
    taken = [anchor * width + row for anchor in range(ANCHORS) for row in rows]
    every = conv(x, f"m{level}", ANCHORS * width, taken)
    return every.reshape(ANCHORS, len(rows), *x.shape[1:]).transpose(0, 2, 3, 1)


def v5(x: Array, classes: Sequence[int], side: float = 1.0) -> dict[str, Array]:
    """v7 too: b = (2 s(t) - 0.5 + corner) stride; size = (2 s(t))^2 anchor; scores s(t)."""
    found, rows = {}, []
    for level, (each, stride) in enumerate(zip(maps(x), STRIDES, strict=True)):
        raw = anchored(level, each, classes)
        s = sigmoid(raw)
        center = (2 * s[..., :2] - 0.5 + corners(SIZES[level])) * stride / side
        size = (2 * s[..., 2:4]) ** 2 * anchors(level)[:, None, None] / side
        row = np.concatenate([center, size, s[..., 4:]], -1)
        rows.append(row.reshape(-1, row.shape[-1]))
        found[f"raw{level}"] = raw[None]
    return {"y": np.concatenate(rows)[None], **found}


def _flat(levels: Sequence[Array]) -> Array:
    """[channels, boxes]"""
    return np.concatenate([each.reshape(len(each), -1) for each in levels], axis=1)


def _distances(box: Array) -> Array:
    """The mean of each side's distribution over bins: [4, boxes]"""
    shares = np.exp(box.reshape(4, BINS, -1))
    return np.asarray(np.tensordot(np.arange(BINS), shares / shares.sum(1, keepdims=True), (0, 1)))


def _from_distances(box: Array, side: float) -> Array:
    """Distances to left, top, right and bottom -> center and size: [4, boxes]"""
    places, strides = cells()
    low, high = (places + 0.5).T - box[:2], (places + 0.5).T + box[2:]
    return np.concatenate([(low + high) / 2, high - low]) * strides.T / side


def v8(
    x: Array, classes: Sequence[int], side: float = 1.0, *, masks: int = 0, points: int = 0
) -> dict[str, Array]:
    """Rows [1, 4 + classes + others, boxes]; the maps have the distributions, then classes."""
    levels = maps(x)
    box = [conv(each, f"cv2.{i}", 4 * BINS) for i, each in enumerate(levels)]
    cls = [conv(each, f"cv3.{i}", CLASSES, classes) for i, each in enumerate(levels)]
    parts = [_from_distances(_distances(_flat(box)), side), sigmoid(_flat(cls))]
    if masks:
        parts.append(_flat([conv(each, f"masks.{i}", masks) for i, each in enumerate(levels)]))
    if points:
        every = _flat([conv(each, f"cv4.{i}", 3 * points) for i, each in enumerate(levels)])
        (corner, strides), each = cells(), every.reshape(points, 3, -1)
        position = (2 * each[:, :2] + corner.T) * strides.T
        both = np.concatenate([position, sigmoid(each[:, 2:])], 1)
        parts.append(both.reshape(3 * points, -1))
    feats = [np.concatenate(both)[None] for both in zip(box, cls, strict=True)]
    found = {f"feat{i}": feat for i, feat in enumerate(feats)}
    return {"y": np.concatenate(parts)[None], **found}


def v11(x: Array, classes: Sequence[int], side: float = 1.0) -> dict[str, Array]:
    """As v8, with a depthwise and a pointwise convolution with SiLU before the classes."""
    levels = maps(x)
    deep = [silu(depthwise(each, f"dw.{i}")) for i, each in enumerate(levels)]
    deep = [silu(conv(each, f"pw.{i}", CHANNELS)) for i, each in enumerate(deep)]
    cls = _flat([conv(each, f"cv3.{i}", CLASSES, classes) for i, each in enumerate(deep)])
    box = _flat([conv(each, f"cv2.{i}", 4 * BINS) for i, each in enumerate(levels)])
    return {"y": np.concatenate([_from_distances(_distances(box), side), sigmoid(cls)])[None]}


def yolox(
    x: Array, classes: Sequence[int], side: float = 1.0, *, decode: bool = True
) -> dict[str, Array]:
    """Rows [1, boxes, 5 + classes]: center = (t + corner) stride, size = e^t stride."""
    levels = list(enumerate(maps(x)))
    box = _flat([conv(each, f"reg{i}", 4) for i, each in levels]).T
    obj = _flat([conv(each, f"obj{i}", 1) for i, each in levels]).T
    cls = _flat([conv(each, f"cls{i}", CLASSES, classes) for i, each in levels]).T
    corner, strides = cells()
    if decode:
        both = [(box[:, :2] + corner) * strides, np.exp(box[:, 2:]) * strides]
        box = np.concatenate(both, 1) / side
    return {"y": np.concatenate([box, sigmoid(obj), sigmoid(cls)], 1)[None]}


# --- suppression ----------------------------------------------------------------------------------


def _overlap(box: Array, others: Array) -> Array:
    """Intersection over union of (y, x, y, x) or (x, y, x, y)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.clip(high - low, 0, None).prod(1)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (box[None], others)]
    return np.asarray(both / (areas[0] + areas[1] - both))


def suppressed(boxes: Array, scores: Array, *, overlap: float, least: float) -> list[int]:
    """Greedy NMS: indices of boxes [boxes, 4] that do not overlap a better one too much."""
    found: list[int] = []
    for position in np.argsort(-scores, kind="stable").tolist():
        apart = not found or (_overlap(boxes[position], boxes[found]) <= overlap).all()
        if scores[position] > least and apart:
            found.append(position)
    return found
