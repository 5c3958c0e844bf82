"""paddle2onnx: networks of PaddlePaddle."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.static import InputSpec
from paddle.vision.models import mobilenet_v1, resnet18
from recorder import FOLDER, attempt, record, version_of

VERSION = version_of("paddle2onnx", "paddlepaddle")
UNITS = 10
paddle.seed(5)


class Recognizer(nn.Layer):
    """Characters per step, as PaddleOCR's."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(12, 8, direction="bidirect"), nn.Linear(16, UNITS)

    def forward(self, x):
        return nn.functional.softmax(self.head(self.lstm(x)[0]), axis=2)


def export(label: str, layer, shape: list, head: str, **row) -> None:
    layer.eval()
    paddle.onnx.export(
        layer,
        str(FOLDER / f"paddle_{label}"),
        input_spec=[InputSpec(shape, "float32", "x")],
        opset_version=14,
    )
    record("paddle2onnx", VERSION, f"paddle_{label}.onnx", head, UNITS, **row)


FOLDER.mkdir(parents=True, exist_ok=True)
attempt(
    "mobilenet",
    lambda: export(
        "mobilenet",
        nn.Sequential(mobilenet_v1(scale=0.25, num_classes=UNITS), nn.Softmax()),
        [-1, 3, 64, 64],
        "Linear, softmax",
    ),
)
attempt(
    "resnet",
    lambda: export("resnet", resnet18(num_classes=UNITS), [1, 3, 64, 64], "Linear, logits"),
)
attempt(
    "recognizer",
    lambda: export(
        "recognizer",
        Recognizer(),
        [-1, 6, 12],
        "LSTM, Linear, softmax per step",
        shapes={"x": [1, 6, 12]},
    ),
)
