"""A detector with boxes and classes in two outputs."""

from __future__ import annotations

from exporter.formats.onnx import OnnxModel, from_proto
from tests.builders.yolo_models import Net

# --- the background ------------------------------------------------------------------------------


def boxes_and_classes(*labels: str) -> OnnxModel:
    """Two outputs: [1, n, 4] and [1, n, classes]."""
    net = Net()
    size = 4
    for name, width in (("boxes", 4), ("classes", len(labels))):
        conv = net.op(
            "Transpose", [net.conv("x", 2 * width, f"{name}c")], f"{name}t", perm=[0, 2, 3, 1]
        )
        rows = net.reshape(conv, f"{name}r", 1, 2 * size**2, width)
        net.op("Sigmoid" if name == "classes" else "Identity", [rows], name)
    made = net.model(boxes=(1, 2 * size**2, 4), classes=(1, 2 * size**2, len(labels)))
    made.metadata_props.add(key="names", value=repr(list(labels)))
    return from_proto(made, "ssd.onnx")


NAMES = ("background", "cat", "dog")
