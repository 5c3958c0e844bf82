"""An SSD head in ONNX: class scores of several feature maps, joined."""

from __future__ import annotations

from typing import Any

from onnx import ModelProto

from tests.builders.onnx_models import numbers, proto
from tests.builders.yolo_models import Net
from tests.builders.yolo_reference import CHANNELS

CLASSES = 6
ANCHORS = 2
SIZES = (16, 8, 4, 2, 1)


def ssd(
    function: str = "", *, apart: bool = False, shared: bool = False, last: bool = False
) -> ModelProto:
    """Outputs `boxes` [1, boxes, 4] and `scores` [1, boxes, classes].

    Args:
        function: operator after the class values; "" for none.
        apart: one function for each map, before the concatenation.
        shared: all maps have the same kernel, as in RetinaNet and EfficientDet.
        last: channels become last and are reshaped (tf2onnx); otherwise as PyTorch does it.
    """
    net = Net()
    how: dict[str, Any] = {"axis": 2} if function == "Softmax" else {}
    x, parts = net.op("Relu", ["x"], "p0"), {"boxes": list[str](), "logits": list[str]()}
    for level, size in enumerate(SIZES):
        if level:
            x = net.op("MaxPool", [x], f"p{level}", kernel_shape=[2, 2], strides=[2, 2])
        for name, width in (("boxes", 4), ("logits", CLASSES)):
            conv = convolution(net, x, ANCHORS * width, name, level, shared=shared)
            rows = in_rows(net, conv, width, size, last=last)
            if apart and name == "logits" and function:
                rows = net.op(function, [rows], f"{rows}.answer", **how)
            parts[name].append(rows)
    net.op("Concat", parts["boxes"], "boxes", axis=1)
    joint = bool(function) and not apart
    net.op("Concat", parts["logits"], "logits" if joint else "scores", axis=1)
    if joint:
        net.op(function, ["logits"], "scores", **how)
    count = ANCHORS * sum(size**2 for size in SIZES)
    outputs = {"boxes": (1, count, 4), "scores": (1, count, CLASSES)}
    size = SIZES[0]
    return proto(net.nodes, net.constants, x=(1, CHANNELS, size, size), outputs=outputs)


def convolution(net: Net, x: str, channels: int, name: str, level: int, *, shared: bool) -> str:
    if not shared:
        return net.conv(x, channels, f"{name}{level}")
    if level == 0:
        net.constant(f"{name}.weight", numbers(channels, CHANNELS, 1, 1, seed=channels))
        net.constant(f"{name}.bias", numbers(channels, seed=channels))
    constants = [f"{name}.weight", f"{name}.bias"]
    return net.op("Conv", [x, *constants], f"{name}{level}", kernel_shape=[1, 1])


def in_rows(net: Net, conv: str, width: int, size: int, *, last: bool) -> str:
    if last:
        turned = net.op("Transpose", [conv], f"{conv}.last", perm=[0, 2, 3, 1])
    else:
        apart = net.reshape(conv, f"{conv}.apart", 1, ANCHORS, width, size, size)
        turned = net.op("Transpose", [apart], f"{conv}.last", perm=[0, 3, 4, 1, 2])
    return net.reshape(turned, f"{conv}.rows", 1, -1, width)
