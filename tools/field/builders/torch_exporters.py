"""PyTorch's two exporters, then onnxsim, onnxslim and the optimizers of transformers, without torchvision."""

from __future__ import annotations

import warnings

import onnx
import onnxsim
import onnxslim
import torch
from recorder import FOLDER, attempt, record, version_of
from torch import nn

warnings.simplefilter("ignore")
TORCH = "PyTorch " + torch.__version__
UNITS = 10
torch.manual_seed(5)


class Cnn(nn.Module):
    """Convolutions with batch normalization, view(batch, -1), Dense."""

    def __init__(self, end: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.head, self.end = nn.Linear(32, UNITS), end

    def forward(self, x):
        y = self.body(x)
        y = self.head(y.view(y.size(0), -1))
        return y if self.end is None else self.end(y)


class Segment(nn.Module):
    """Logits at the size of the image, by interpolate(size=...)."""

    def __init__(self, classify: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.classify = (
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.Conv2d(8, UNITS, 1),
            classify,
        )

    def forward(self, x):
        y = nn.functional.interpolate(
            self.head(self.body(x).relu()), size=x.shape[2:], mode="bilinear"
        )
        return (y, y.argmax(1)) if self.classify else y


class Tagger(nn.Module):
    """LSTM over (T, batch, features), view(T, batch, -1), CTC log-softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(12, 9, bidirectional=True), nn.Linear(18, UNITS)

    def forward(self, x):
        steps, batch, _ = x.shape
        y, _ = self.lstm(x)
        y = self.head(y.reshape(steps * batch, -1))
        return y.view(steps, batch, -1).log_softmax(-1)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(60, 16), nn.Linear(16, UNITS)
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, tokens):
        return self.head(self.body(self.embed(tokens)).mean(1)).softmax(-1)


class TopK(nn.Module):
    """Logits, and the best three with their indices."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Cnn()

    def forward(self, x):
        y = self.body(x)
        return (y, *y.softmax(1).topk(3))


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(UNITS, 16), nn.GRU(16, 16, batch_first=True)

    def forward(self, tokens):
        return nn.functional.linear(self.body(self.embed(tokens))[0], self.embed.weight)


IMAGE = (torch.randn(2, 3, 32, 32),)
TOKENS = (torch.randint(0, UNITS, (2, 7)),)
DYNAMIC = {0: "batch", 2: "height", 3: "width"}
CASES = [
    # label, module, inputs, names of outputs, dynamic axes of the first input, head, other keys
    ("cnn", Cnn(), IMAGE, ["logits"], {0: "batch"}, "Linear, logits", {}),
    ("cnn_softmax", Cnn(nn.Softmax(1)), IMAGE, ["probs"], None, "Linear, softmax; fixed batch", {}),
    ("cnn_sigmoid", Cnn(nn.Sigmoid()), IMAGE, ["probs"], {0: "batch"}, "Linear, sigmoid", {}),
    (
        "segment",
        Segment(),
        IMAGE,
        ["logits"],
        DYNAMIC,
        "Conv, interpolate(size)",
        {"shapes": {"x": [1, 3, 32, 32]}},
    ),
    (
        "segment_ids",
        Segment(True),
        IMAGE,
        ["logits", "ids"],
        DYNAMIC,
        "Conv, interpolate(size), argmax",
        {"name": "logits", "shapes": {"x": [1, 3, 32, 32]}},
    ),
    (
        "ctc",
        Tagger(),
        (torch.randn(6, 2, 12),),
        ["logprobs"],
        {0: "steps", 1: "batch"},
        "LSTM, view(T, b, -1), log-softmax",
        {"shapes": {"x": [6, 1, 12]}},
    ),
    (
        "transformer",
        Transformer(),
        TOKENS,
        ["probs"],
        {0: "batch", 1: "length"},
        "Linear, softmax over tokens",
        {"high": {"x": UNITS}, "shapes": {"x": [1, 7]}},
    ),
    (
        "topk",
        TopK(),
        IMAGE,
        ["logits", "values", "indices"],
        {0: "batch"},
        "Linear, logits and topk",
        {"name": "logits", "topk": True},
    ),
    (
        "tied",
        Tied(),
        TOKENS,
        ["logits"],
        {0: "batch", 1: "length"},
        "embedding matrix as head",
        {"high": {"x": UNITS}, "shapes": {"x": [1, 7]}},
    ),
]


def legacy(label, module, inputs, outputs, axes, head, row) -> None:
    file = f"legacy_{label}.onnx"
    torch.onnx.export(
        module.eval(),
        inputs,
        str(FOLDER / file),
        dynamo=False,
        input_names=["x"],
        output_names=outputs,
        dynamic_axes=axes and {"x": axes},
        opset_version=17,
    )
    record("torch.onnx.export (TorchScript)", TORCH, file, head, UNITS, **row)


def dynamo(label, module, inputs, outputs, axes, head, row) -> None:
    file = f"dynamo_{label}.onnx"
    shapes = axes and (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    program = torch.onnx.export(
        module.eval(),
        inputs,
        dynamo=True,
        input_names=["x"],
        output_names=outputs,
        dynamic_shapes=shapes,
    )
    program.save(str(FOLDER / file))
    record(
        "torch.onnx.export (dynamo)",
        TORCH + ", " + version_of("onnxscript"),
        file,
        head,
        UNITS,
        **row,
    )


def tool(name: str, call, source: str, head: str) -> None:
    file = f"{name}_{source}"
    onnx.save(call(onnx.load(FOLDER / source)), FOLDER / file)
    shapes = {"ctc": [6, 1, 12], "transformer": [1, 7]}
    shape = next((shape for part, shape in shapes.items() if part in source), [2, 3, 32, 32])
    record(name, version_of(name), file, head, UNITS, shapes={"x": shape})


def functions() -> None:
    """Modules kept as local functions of the file."""
    file = "legacy_functions.onnx"
    torch.onnx.export(
        Cnn().eval(),
        IMAGE,
        str(FOLDER / file),
        dynamo=False,
        export_modules_as_functions={nn.BatchNorm2d, nn.Linear},
        opset_version=17,
    )
    record("torch.onnx.export (TorchScript)", TORCH, file, "Linear in a local function", UNITS)


FOLDER.mkdir(parents=True, exist_ok=True)
for case in CASES:
    attempt("legacy " + case[0], lambda: legacy(*case))
    attempt("dynamo " + case[0], lambda: dynamo(*case))
attempt("functions", functions)
for source in ("legacy_cnn.onnx", "legacy_ctc.onnx", "dynamo_transformer.onnx"):
    attempt(
        "onnxsim " + source,
        lambda: tool("onnxsim", lambda m: onnxsim.simplify(m)[0], source, "of " + source),
    )
    attempt("onnxslim " + source, lambda: tool("onnxslim", onnxslim.slim, source, "of " + source))
