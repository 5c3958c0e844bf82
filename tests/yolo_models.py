"""Small ONNX detectors with the operators, in their order, that PyTorch's exporter writes.

Two feature maps, a few classes, and heads as the YOLO families have them. Positions of boxes and
classes are stated by hand, beside the builder that puts them there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto

from exporter.graph import Array
from tests.onnx_models import node, numbers, proto

CLASSES = 6
CHANNELS = 5
ANCHORS = 3
SIZES = (4, 2)  # of the feature maps


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
        self.constant(f"{name}.weight", numbers(channels, CHANNELS, 1, 1, seed=len(self.nodes)))
        self.constant(f"{name}.bias", numbers(channels, seed=len(self.nodes)))
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


def decoded(net: Net, level: int, parts: Sequence[str]) -> str:
    """xy * 2 + grid, (wh * 2) ** 2 * anchors, and the rest behind: [1, boxes, 5 + classes]."""
    xy, wh, rest = parts
    size = SIZES[level]
    two = net.number(f"two{level}", 2.0)
    grid = net.constant(f"grid{level}", numbers(1, ANCHORS, size, size, 2, seed=level))
    anchors = net.constant(f"anchors{level}", numbers(1, ANCHORS, size, size, 2, seed=9 + level))
    stride = net.number(f"stride{level}", 8.0 * (level + 1))
    xy = net.op("Mul", [xy, two], f"xy2{level}")
    xy = net.op("Mul", [net.op("Add", [xy, grid], f"xyg{level}"), stride], f"xys{level}")
    wh = net.op("Mul", [wh, two], f"wh2{level}")
    wh = net.op("Pow", [wh, net.number(f"square{level}", 2.0)], f"whp{level}")
    wh = net.op("Mul", [wh, anchors], f"wha{level}")
    row = net.op("Concat", [xy, wh, rest], f"row{level}", axis=4)
    return net.reshape(row, f"rows{level}", 1, ANCHORS * size**2, 5 + CLASSES)


BOXES = sum(size**2 for size in SIZES)


def yolov5(*, raw: bool = False) -> ModelProto:
    """Split into xy, wh and the rest; with `raw` the maps are outputs too."""
    net = Net()
    rows = []
    for level, x in enumerate(net.maps()):
        y = net.op("Sigmoid", [anchored(net, level, x)], f"sigmoid{level}")
        parts = [f"xy{level}", f"wh{level}", f"conf{level}"]
        net.split(y, parts, [2, 2, 1 + CLASSES], 4)
        rows.append(decoded(net, level, parts))
    net.op("Concat", rows, "y", axis=1)
    row = 5 + CLASSES
    maps = {f"raw{i}": (1, ANCHORS, n, n, row) for i, n in enumerate(SIZES)} if raw else {}
    return net.model(y=(1, ANCHORS * BOXES, row), **maps)


def yolov7() -> ModelProto:
    """Slices instead of a split; the last goes to the end."""
    net = Net()
    rows = []
    for level, x in enumerate(net.maps()):
        y = net.op("Sigmoid", [anchored(net, level, x)], f"sigmoid{level}")
        bounds = [(0, 2), (2, 4), (4, TO_THE_END)]
        parts = [net.slice(y, f"part{level}{i}", *each, 4) for i, each in enumerate(bounds)]
        rows.append(decoded(net, level, parts))
    net.op("Concat", rows, "y", axis=1)
    return net.model(y=(1, ANCHORS * BOXES, 5 + CLASSES))


BINS = 4


def yolov8(
    *, transposed: bool = False, raw: bool = False, masks: int = 0, points: int = 0
) -> ModelProto:
    """Boxes out of a distribution (DFL), classes behind a sigmoid; [1, 4 + classes, boxes]."""
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
        parts.append(_beside(net, "masks", masks))
    if points:
        parts.append(_key_points(net, points))
    width = 4 + CLASSES + masks + 3 * points
    net.op("Concat", parts, "rows" if transposed else "y", axis=1)
    shape: tuple[int, ...] = (1, width, BOXES)
    if transposed:
        net.op("Transpose", ["rows"], "y", perm=[0, 2, 1])
        shape = (1, BOXES, width)
    maps = {f"feat{i}": (1, 4 * BINS + CLASSES, n, n) for i, n in enumerate(SIZES)} if raw else {}
    return net.model(y=shape, **maps)


def _dfl(net: Net, box: str) -> str:
    """The mean of a distribution over bins for each side, then centre and size."""
    x = net.reshape(box, "sides", 1, 4, BINS, BOXES)
    x = net.op("Transpose", [x], "bins", perm=[0, 2, 1, 3])
    x = net.op("Softmax", [x], "shares", axis=1)
    bins = net.constant("dfl.weight", np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1))
    x = net.op("Conv", [x, bins], "mean", kernel_shape=[1, 1])
    x = net.reshape(x, "distance", 1, 4, BOXES)
    low, high = net.slice(x, "lt", 0, 2, 1), net.slice(x, "rb", 2, 4, 1)
    places = net.constant("anchor_points", numbers(1, 2, BOXES))
    low = net.op("Sub", [places, low], "low")
    high = net.op("Add", [places, high], "high")
    centre = net.op("Add", [low, high], "sum")
    centre = net.op("Div", [centre, net.number("half", 2.0)], "centre")
    size = net.op("Sub", [high, low], "size")
    box = net.op("Concat", [centre, size], "xywh", axis=1)
    return net.op("Mul", [box, net.constant("strides", numbers(1, BOXES))], "boxes")


def _beside(net: Net, name: str, channels: int) -> str:
    """A branch of its own: what it gives is no class, though it is as plain as one."""
    levels = [
        net.reshape(net.conv(x, channels, f"{name}.{i}"), f"{name}.flat{i}", 1, channels, -1)
        for i, x in enumerate(("p0", "p1"))
    ]
    return net.op("Concat", levels, name, axis=2)


def _key_points(net: Net, points: int) -> str:
    """x and y on the picture, and how visible each is."""
    x = net.reshape(_beside(net, "cv4", 3 * points), "kpt", 1, points, 3, BOXES)
    place = net.op("Mul", [net.slice(x, "at", 0, 2, 2), net.number("kpt2", 2.0)], "at2")
    seen = net.op("Sigmoid", [net.slice(x, "vis", 2, 3, 2)], "visible")
    return net.reshape(net.op("Concat", [place, seen], "kpts", axis=2), "kpt.y", 1, 3 * points, -1)


def yolox(*, decode: bool) -> ModelProto:
    """Boxes, objectness and classes out of convolutions of their own."""
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
        grid = net.constant("grids", numbers(1, BOXES, 2))
        strides = net.constant("strides", numbers(1, BOXES, 1))
        xy = net.op("Mul", [net.op("Add", [xy, grid], "xyg"), strides], "xys")
        wh = net.op("Mul", [net.op("Exp", [wh], "whe"), strides], "whs")
        net.op("Concat", [xy, wh, rest], "y", axis=2)
    return net.model(y=(1, BOXES, 5 + CLASSES))


@dataclass(frozen=True)
class Detector:
    """A model, and where things stand in it.

    Attributes:
        axis: the unit axis of the output "y".
        first: the position of the first class on it.
        parts: as people should be told them.
        maps: further outputs -> unit axis, and the positions of each class by its number.
    """

    build: Callable[[], ModelProto]
    axis: int
    first: int
    parts: str
    maps: Mapping[str, tuple[int, Callable[[int], list[int]]]] = field(default_factory=dict)


_V5 = f"box 0:4, object 4:5, classes 5:{5 + CLASSES}"
_V8 = f"box 0:4, classes 4:{4 + CLASSES}"
_END = 4 + CLASSES

DETECTORS: Mapping[str, Detector] = {
    "v5": Detector(yolov5, 2, 5, _V5),
    "v5 with raw maps": Detector(
        lambda: yolov5(raw=True),
        2,
        5,
        _V5,
        {f"raw{i}": (4, lambda unit: [5 + unit]) for i in range(2)},
    ),
    "v7": Detector(yolov7, 2, 5, _V5),
    "v8": Detector(yolov8, 1, 4, _V8),
    "v8 transposed": Detector(lambda: yolov8(transposed=True), 2, 4, _V8),
    "v8 with raw maps": Detector(
        lambda: yolov8(raw=True),
        1,
        4,
        _V8,
        {f"feat{i}": (1, lambda unit: [4 * BINS + unit]) for i in range(2)},
    ),
    "v8 with masks": Detector(lambda: yolov8(masks=3), 1, 4, f"{_V8}, other {_END}:{_END + 3}"),
    "v8 with key points": Detector(
        lambda: yolov8(points=2), 1, 4, f"{_V8}, other {_END}:{_END + 6}"
    ),
    "YOLOX": Detector(lambda: yolox(decode=False), 2, 5, _V5),
    "YOLOX decoded": Detector(lambda: yolox(decode=True), 2, 5, _V5),
}
