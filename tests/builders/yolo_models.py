"""Small ONNX detectors with the operators, in their order, that PyTorch's exporter writes.

Two feature maps, a few classes, and the heads of the YOLO families, with the kernels and anchors of
`yolo_reference`. Each builder states the positions of boxes and classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto

from exporter.graph import Array
from tests.builders import yolo_reference as reference
from tests.builders.onnx_models import node, proto
from tests.builders.yolo_reference import (
    ANCHORS,
    BINS,
    BOXES,
    CHANNELS,
    CLASSES,
    MASKS,
    POINTS,
    SIZES,
)


class Net:
    """Nodes and constants in running order."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}

    def op(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(node(operator, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name: str, values: Any) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def integers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.float32(value))

    def maps(self) -> list[str]:
        """The feature maps [1, channels, size, size]."""
        self.op("Relu", ["x"], "p0")
        self.op("MaxPool", ["p0"], "p1", kernel_shape=[2, 2], strides=[2, 2])
        return ["p0", "p1"]

    def conv(self, x: str, channels: int, name: str) -> str:
        """1 x 1, with a bias."""
        self.constant(f"{name}.weight", reference.kernel(name, channels))
        self.constant(f"{name}.bias", reference.bias(name, channels))
        return self.op("Conv", [x, f"{name}.weight", f"{name}.bias"], name, kernel_shape=[1, 1])

    def reshape(self, x: str, name: str, *shape: int) -> str:
        return self.op("Reshape", [x, self.integers(f"{name}.shape", *shape)], name)

    def slice(self, x: str, name: str, start: int, stop: int, axis: int) -> str:
        bounds = {"starts": start, "ends": stop, "axes": axis, "steps": 1}
        ends = [self.integers(f"{name}.{key}", value) for key, value in bounds.items()]
        return self.op("Slice", [x, *ends], name)

    def split(self, x: str, names: Sequence[str], sizes: Sequence[int], axis: int) -> None:
        stated = self.integers(f"{names[0]}.sizes", *sizes)
        self.nodes.append(node("Split", [x, stated], list(names), names[0], axis=axis))

    def model(self, **outputs: Sequence[int]) -> ModelProto:
        size = SIZES[0]
        return proto(self.nodes, self.constants, x=(1, CHANNELS, size, size), outputs=outputs)


TO_THE_END = 2**63 - 1


def anchored(net: Net, level: int, x: str) -> str:
    """The raw map of YOLOv5 and v7: [1, anchors, size, size, 5 + classes]."""
    row, size = 5 + CLASSES, SIZES[level]
    conv = net.conv(x, ANCHORS * row, f"m{level}")
    shaped = net.reshape(conv, f"view{level}", 1, ANCHORS, row, size, size)
    return net.op("Transpose", [shaped], f"raw{level}", perm=[0, 1, 3, 4, 2])


def _grid(level: int) -> tuple[Array, Array, float]:
    """Corners and anchors, each repeated for the other, and the stride, as constants."""
    size = SIZES[level]
    shape = (1, ANCHORS, size, size, 2)
    corners = np.broadcast_to(reference.corners(size), shape)
    anchors = np.broadcast_to(reference.anchors(level)[:, None, None], shape)
    return corners.copy(), anchors.copy(), reference.STRIDES[level]


def decoded(net: Net, level: int, parts: Sequence[str]) -> str:
    """(xy * 2 + grid) * stride, (wh * 2) ** 2 * anchors, the rest: [1, boxes, 5 + classes]."""
    xy, wh, rest = parts
    corners, anchors, stride = _grid(level)
    two = net.number(f"two{level}", 2.0)
    xy = net.op("Mul", [xy, two], f"xy2{level}")
    xy = net.op("Add", [xy, net.constant(f"grid{level}", corners - np.float32(0.5))], f"xyg{level}")
    xy = net.op("Mul", [xy, net.number(f"stride{level}", stride)], f"xys{level}")
    wh = net.op("Mul", [wh, two], f"wh2{level}")
    wh = net.op("Pow", [wh, net.number(f"square{level}", 2.0)], f"whp{level}")
    wh = net.op("Mul", [wh, net.constant(f"anchors{level}", anchors)], f"wha{level}")
    return _rows(net, level, [xy, wh, rest])


def folded(net: Net, level: int, parts: Sequence[str]) -> str:
    """The same with constants multiplied first: xy * 2 stride + stride * (grid - 0.5)."""
    xy, wh, rest = parts
    corners, anchors, stride = _grid(level)
    moved = ((corners - 0.5) * stride).astype(np.float32)
    xy = net.op("Mul", [xy, net.number(f"stride{level}", 2 * stride)], f"xys{level}")
    xy = net.op("Add", [xy, net.constant(f"grid{level}", moved)], f"xyg{level}")
    wh = net.op("Pow", [wh, net.number(f"square{level}", 2.0)], f"whp{level}")
    wh = net.op("Mul", [wh, net.constant(f"anchors{level}", 4 * anchors)], f"wha{level}")
    return _rows(net, level, [xy, wh, rest])


def _rows(net: Net, level: int, parts: Sequence[str]) -> str:
    row = net.op("Concat", parts, f"row{level}", axis=4)
    return net.reshape(row, f"rows{level}", 1, ANCHORS * SIZES[level] ** 2, 5 + CLASSES)


def _split(net: Net, level: int, y: str) -> list[str]:
    parts = [f"xy{level}", f"wh{level}", f"conf{level}"]
    net.split(y, parts, [2, 2, 1 + CLASSES], 4)
    return parts


def _sliced(net: Net, level: int, y: str) -> list[str]:
    """Slices; the last one ends at the end."""
    bounds = [(0, 2), (2, 4), (4, TO_THE_END)]
    return [net.slice(y, f"part{level}{i}", *each, 4) for i, each in enumerate(bounds)]


def yolov5(
    *,
    raw: bool = False,
    apart: Callable[[Net, int, str], list[str]] = _split,
    decode: Callable[[Net, int, Sequence[str]], str] = decoded,
) -> ModelProto:
    """xy, wh and the rest, each decoded; with `raw` the maps are outputs too."""
    net = Net()
    rows = []
    for level, x in enumerate(net.maps()):
        y = net.op("Sigmoid", [anchored(net, level, x)], f"sigmoid{level}")
        rows.append(decode(net, level, apart(net, level, y)))
    net.op("Concat", rows, "y", axis=1)
    row = 5 + CLASSES
    maps = {f"raw{i}": (1, ANCHORS, n, n, row) for i, n in enumerate(SIZES)} if raw else {}
    return net.model(y=(1, ANCHORS * BOXES, row), **maps)


def yolov8(
    *, transposed: bool = False, raw: bool = False, masks: int = 0, points: int = 0, maps: int = 0
) -> ModelProto:
    """Boxes from a distribution (DFL), classes after a sigmoid; [1, 4 + classes, boxes].

    Args:
        maps: number of mask prototypes, which the mask coefficients weight.
    """
    net = Net()
    levels = []
    for level, x in enumerate(net.maps()):
        both = [net.conv(x, 4 * BINS, f"cv2.{level}"), net.conv(x, CLASSES, f"cv3.{level}")]
        joined = net.op("Concat", both, f"feat{level}", axis=1)
        levels.append(net.reshape(joined, f"flat{level}", 1, 4 * BINS + CLASSES, -1))
    every = net.op("Concat", levels, "every", axis=2)
    net.split(every, ["box", "cls"], [4 * BINS, CLASSES], 1)
    parts = [_dfl(net, "box"), net.op("Sigmoid", ["cls"], "scores")]
    if masks:
        parts.append(_extra_branch(net, "masks", masks))
    if points:
        parts.append(_key_points(net, points))
    width = 4 + CLASSES + masks + 3 * points
    net.op("Concat", parts, "rows" if transposed else "y", axis=1)
    shape: tuple[int, ...] = (1, width, BOXES)
    if transposed:
        net.op("Transpose", ["rows"], "y", perm=[0, 2, 1])
        shape = (1, BOXES, width)
    more = {f"feat{i}": (1, 4 * BINS + CLASSES, n, n) for i, n in enumerate(SIZES)} if raw else {}
    if maps:
        net.op("Relu", [net.conv("p0", maps, "proto")], "protos")
        more["protos"] = (1, maps, SIZES[0], SIZES[0])
    return net.model(y=shape, **more)


def yolov11() -> ModelProto:
    """Boxes and classes are joined separately; the classes have a depthwise convolution first."""
    net = Net()
    box, cls = [], []
    for level, x in enumerate(net.maps()):
        side = net.conv(x, 4 * BINS, f"cv2.{level}")
        box.append(net.reshape(side, f"side{level}", 1, 4 * BINS, -1))
        deep = _silu(net, _depthwise(net, x, f"dw.{level}"))
        deep = _silu(net, net.conv(deep, CHANNELS, f"pw.{level}"))
        score = net.conv(deep, CLASSES, f"cv3.{level}")
        cls.append(net.reshape(score, f"score{level}", 1, CLASSES, -1))
    boxes = _dfl(net, net.op("Concat", box, "box", axis=2))
    scores = net.op("Sigmoid", [net.op("Concat", cls, "cls", axis=2)], "scores")
    net.op("Concat", [boxes, scores], "y", axis=1)
    return net.model(y=(1, 4 + CLASSES, BOXES))


def _silu(net: Net, x: str) -> str:
    return net.op("Mul", [x, net.op("Sigmoid", [x], f"{x}.s")], f"{x}.silu")


def _depthwise(net: Net, x: str, name: str) -> str:
    weights = net.constant(f"{name}.weight", reference.kernel(name, CHANNELS, 1, 3))
    around: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1] * 4, "group": CHANNELS}
    return net.op("Conv", [x, weights], name, **around)


def _dfl(net: Net, box: str) -> str:
    """The mean of a distribution over bins for each side, then center and size."""
    x = net.reshape(box, "sides", 1, 4, BINS, BOXES)
    x = net.op("Transpose", [x], "bins", perm=[0, 2, 1, 3])
    x = net.op("Softmax", [x], "shares", axis=1)
    bins = net.constant("dfl.weight", np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1))
    x = net.op("Conv", [x, bins], "mean", kernel_shape=[1, 1])
    x = net.reshape(x, "distance", 1, 4, BOXES)
    low, high = net.slice(x, "lt", 0, 2, 1), net.slice(x, "rb", 2, 4, 1)
    corners, strides = reference.cells()
    places = net.constant("anchor_points", (corners.T + np.float32(0.5))[None])
    low = net.op("Sub", [places, low], "low")
    high = net.op("Add", [places, high], "high")
    center = net.op("Add", [low, high], "sum")
    center = net.op("Div", [center, net.number("half", 2.0)], "center")
    size = net.op("Sub", [high, low], "size")
    box = net.op("Concat", [center, size], "xywh", axis=1)
    return net.op("Mul", [box, net.constant("strides", strides.T)], "boxes")


def _extra_branch(net: Net, name: str, channels: int) -> str:
    """A separate branch: its values are not classes, though they look like some."""
    levels = [
        net.reshape(net.conv(x, channels, f"{name}.{i}"), f"{name}.flat{i}", 1, channels, -1)
        for i, x in enumerate(("p0", "p1"))
    ]
    return net.op("Concat", levels, name, axis=2)


def _key_points(net: Net, points: int) -> str:
    """x and y in the image, and the visibility of each keypoint."""
    x = net.reshape(_extra_branch(net, "cv4", 3 * points), "kpt", 1, points, 3, BOXES)
    corners, strides = reference.cells()
    point = net.op("Mul", [net.slice(x, "at", 0, 2, 2), net.number("kpt2", 2.0)], "at2")
    point = net.op("Add", [point, net.constant("kpt.corners", corners.T)], "at3")
    point = net.op("Mul", [point, net.constant("kpt.strides", strides.T)], "at4")
    seen = net.op("Sigmoid", [net.slice(x, "vis", 2, 3, 2)], "visible")
    return net.reshape(net.op("Concat", [point, seen], "kpts", axis=2), "kpt.y", 1, 3 * points, -1)


def yolox(*, decode: bool) -> ModelProto:
    """Boxes, objectness and classes from separate convolutions."""
    net = Net()
    levels = []
    for level, x in enumerate(net.maps()):
        box = net.conv(x, 4, f"reg{level}")
        obj = net.op("Sigmoid", [net.conv(x, 1, f"obj{level}")], f"objs{level}")
        cls = net.op("Sigmoid", [net.conv(x, CLASSES, f"cls{level}")], f"clss{level}")
        joined = net.op("Concat", [box, obj, cls], f"out{level}", axis=1)
        levels.append(net.reshape(joined, f"flat{level}", 1, 5 + CLASSES, -1))
    every = net.op("Concat", levels, "every", axis=2)
    rows = net.op("Transpose", [every], "rows" if decode else "y", perm=[0, 2, 1])
    if decode:
        xy, wh = net.slice(rows, "xy", 0, 2, 2), net.slice(rows, "wh", 2, 4, 2)
        rest = net.slice(rows, "rest", 4, TO_THE_END, 2)
        corners, steps = reference.cells()
        grid, strides = net.constant("grids", corners[None]), net.constant("strides", steps[None])
        xy = net.op("Mul", [net.op("Add", [xy, grid], "xyg"), strides], "xys")
        wh = net.op("Mul", [net.op("Exp", [wh], "whe"), strides], "whs")
        net.op("Concat", [xy, wh, rest], "y", axis=2)
    return net.model(y=(1, BOXES, 5 + CLASSES))


@dataclass(frozen=True)
class Detector:
    """A model, and the positions of its classes.

    Attributes:
        answer: an image and classes -> the outputs, by the formulas.
        axis: the unit axis of the output "y".
        first: the position of the first class on it.
        parts: the description that users read.
        maps: other outputs -> unit axis, and the positions of each class by its index.
    """

    build: Callable[[], ModelProto]
    answer: Callable[[Array, Sequence[int]], Mapping[str, Array]]
    axis: int
    first: int
    parts: str
    maps: Mapping[str, tuple[int, Callable[[int], list[int]]]] = field(default_factory=dict)


_V5 = f"box 0:4, object 4:5, classes 5:{5 + CLASSES}"
_V8 = f"box 0:4, classes 4:{4 + CLASSES}"
_END = 4 + CLASSES


def _transposed_rows(x: Array, classes: Sequence[int]) -> dict[str, Array]:
    return {"y": reference.v8(x, classes)["y"].swapaxes(1, 2)}


DETECTORS: Mapping[str, Detector] = {
    "v5": Detector(yolov5, reference.v5, 2, 5, _V5),
    "v5 with raw maps": Detector(
        partial(yolov5, raw=True),
        reference.v5,
        2,
        5,
        _V5,
        {f"raw{i}": (4, lambda unit: [5 + unit]) for i in range(2)},
    ),
    "v7": Detector(partial(yolov5, decode=folded), reference.v5, 2, 5, _V5),
    "v7 in slices": Detector(partial(yolov5, apart=_sliced), reference.v5, 2, 5, _V5),
    "v8": Detector(yolov8, reference.v8, 1, 4, _V8),
    "v8 transposed": Detector(partial(yolov8, transposed=True), _transposed_rows, 2, 4, _V8),
    "v8 with raw maps": Detector(
        partial(yolov8, raw=True),
        reference.v8,
        1,
        4,
        _V8,
        {f"feat{i}": (1, lambda unit: [4 * BINS + unit]) for i in range(2)},
    ),
    "v8 with masks": Detector(
        partial(yolov8, masks=MASKS),
        partial(reference.v8, masks=MASKS),
        1,
        4,
        f"{_V8}, other {_END}:{_END + MASKS}",
    ),
    "v8 with key points": Detector(
        partial(yolov8, points=POINTS),
        partial(reference.v8, points=POINTS),
        1,
        4,
        f"{_V8}, other {_END}:{_END + 3 * POINTS}",
    ),
    "v11": Detector(yolov11, reference.v11, 1, 4, _V8),
    "YOLOX": Detector(
        partial(yolox, decode=False), partial(reference.yolox, decode=False), 2, 5, _V5
    ),
    "YOLOX decoded": Detector(partial(yolox, decode=True), reference.yolox, 2, 5, _V5),
}
