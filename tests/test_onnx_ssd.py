"""ONNX SSDs without a post-process: class convolutions of several maps, the last of one place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from exporter.cutting import Choice
from exporter.graph import Array
from exporter.job import Job
from exporter.models.onnx import OnnxModel, from_proto
from exporter.tasks import prune_model
from exporter.trace import trace
from tests.onnx_models import numbers, proto, run
from tests.onnx_quantized import quantized
from tests.yolo_models import Net
from tests.yolo_reference import CHANNELS

CLASSES = 6
ANCHORS = 2
SIZES = (16, 8, 4, 2, 1)
KEPT = (4, 0, 3)


def ssd(
    function: str = "", *, apart: bool = False, shared: bool = False, last: bool = False
) -> ModelProto:
    """Outputs `boxes` [1, boxes, 4] and `scores` [1, boxes, classes].

    Args:
        function: operator behind the class values; "" for none.
        apart: each map has its own, in front of the join.
        shared: one kernel serves all maps, as in RetinaNet and EfficientDet.
        last: channels are put last and reshaped (tf2onnx), not taken apart and turned (PyTorch).
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
    behind = bool(function) and not apart
    net.op("Concat", parts["logits"], "logits" if behind else "scores", axis=1)
    if behind:
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


def values(model: ModelProto, x: Array, kept: tuple[int, ...], function: str) -> Array:
    """In NumPy: 1 x 1 convolutions are products."""
    constants = {each.name: each for each in model.graph.initializer}
    arrays = {name: np.frombuffer(c.raw_data, np.float32) for name, c in constants.items()}
    maps, rows = np.maximum(x[0], 0).transpose(1, 2, 0).astype(np.float64), []
    for level in range(len(SIZES)):
        if level:
            size = len(maps) // 2
            maps = maps.reshape(size, 2, size, 2, CHANNELS).max(axis=(1, 3))
        name = "logits" if "logits.weight" in arrays else f"logits{level}"
        kernel = arrays[f"{name}.weight"].reshape(-1, CHANNELS)
        rows.append((maps @ kernel.T + arrays[f"{name}.bias"]).reshape(-1, CLASSES))
    z = np.concatenate(rows)[:, list(kept)]
    if function == "Softmax":
        return np.asarray(np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))
    return np.asarray(1 / (1 + np.exp(-z)) if function else z)


CASES: Mapping[str, dict[str, Any]] = {
    "logits": {},
    "logits, channels last": {"last": True},
    "sigmoid": {"function": "Sigmoid"},
    "sigmoid a map": {"function": "Sigmoid", "apart": True},
    "sigmoid, one kernel for five maps": {"function": "Sigmoid", "shared": True},
    "softmax": {"function": "Softmax"},
    "softmax, one kernel, channels last": {"function": "Softmax", "shared": True, "last": True},
}


@pytest.mark.parametrize("name", CASES)
def test_the_classes_are_the_units_not_the_anchors_of_the_last_map(name: str) -> None:
    head = trace(from_proto(ssd(**CASES[name]), "ssd.onnx").graph()).head()
    assert (head.output, head.axis, head.units, head.parts) == ("scores", 2, CLASSES, ())
    kernels = [each for each in head.constants if each.name.endswith("weight")]
    uses = [len(SIZES)] if CASES[name].get("shared") else [1] * len(SIZES)
    assert [len(each.uses) for each in kernels] == uses


@pytest.mark.parametrize("name", CASES)
def test_the_values_are_those_of_the_kept_classes(name: str) -> None:
    model = ssd(**CASES[name])
    done = prune_model(
        from_proto(model, "ssd.onnx"), Choice(keep=KEPT, keep_order=True), Job(samples=2)
    )
    assert done.findings.passed
    assert isinstance(done.model, OnnxModel)
    x = numbers(1, CHANNELS, SIZES[0], SIZES[0], seed=7)
    before, after = run(from_proto(model, "ssd.onnx"), {"x": x}), run(done.model, {"x": x})
    np.testing.assert_array_equal(after["boxes"], before["boxes"])
    expected = values(model, x, KEPT, CASES[name].get("function", ""))
    np.testing.assert_allclose(after["scores"][0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["logits", "sigmoid, one kernel for five maps"])
def test_codes_stay_to_the_bit(name: str, tmp_path: Path) -> None:
    pictures = [numbers(1, CHANNELS, SIZES[0], SIZES[0], seed=seed) for seed in range(4)]
    written = quantized(ssd(**CASES[name]), pictures, tmp_path, per_channel=True)
    model = from_proto(written, "codes.onnx")
    done = prune_model(model, Choice(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.findings.passed
    assert isinstance(done.model, OnnxModel)
    before, after = (run(each, {"x": pictures[0]}, plain=True) for each in (model, done.model))
    np.testing.assert_array_equal(after["scores"], before["scores"][:, :, list(KEPT)])
    np.testing.assert_array_equal(after["boxes"], before["boxes"])
