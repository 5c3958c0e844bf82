"""torchvision, timm and ultralytics with random weights, as ONNX."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import timm
import torch
import torchvision
from recorder import FOLDER, attempt, record, version_of

os.environ["YOLO_OFFLINE"] = "true"
from ultralytics import YOLO

warnings.simplefilter("ignore")
torch.manual_seed(5)
UNITS = 20
OPTIONS = {"input_names": ["images"], "output_names": ["scores"]}


def export(module, file: str, size: int, *, dynamo: bool, **options) -> None:
    torch.onnx.export(
        module.eval(),
        (torch.randn(1, 3, size, size),),
        str(FOLDER / file),
        dynamo=dynamo,
        **OPTIONS,
        **options,
    )


def classifier(name: str, size: int, *, dynamo: bool) -> None:
    file = f"torchvision_{name}{'_dynamo' * dynamo}.onnx"
    model = torchvision.models.get_model(name, weights=None, num_classes=UNITS)
    export(model, file, size, dynamo=dynamo)
    record("torchvision", version_of("torchvision", "torch"), file, "Linear, logits", UNITS)


def segmentation(name: str) -> None:
    class Out(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = torchvision.models.get_model(
                name, weights=None, weights_backbone=None, num_classes=UNITS
            )

        def forward(self, x):
            return self.model(x)["out"]

    file = f"torchvision_{name}.onnx"
    export(
        Out(),
        file,
        64,
        dynamo=False,
        dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}},
    )
    record(
        "torchvision",
        version_of("torchvision", "torch"),
        file,
        "Conv, interpolate(size)",
        UNITS,
        shapes={"images": [1, 3, 64, 64]},
    )


def detection() -> None:
    file = "torchvision_ssdlite.onnx"
    model = torchvision.models.get_model(
        "ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=UNITS
    )
    torch.onnx.export(
        model.eval(),
        ([torch.rand(3, 320, 320)],),
        str(FOLDER / file),
        dynamo=False,
        opset_version=17,
        input_names=["images"],
        output_names=["boxes", "scores", "labels"],
    )
    record(
        "torchvision",
        version_of("torchvision", "torch"),
        file,
        "SSDLite with its post-process",
        UNITS,
    )


def timm_model(name: str, size: int, *, dynamo: bool) -> None:
    file = f"timm_{name}{'_dynamo' * dynamo}.onnx"
    export(timm.create_model(name, num_classes=UNITS, exportable=True), file, size, dynamo=dynamo)
    record("timm", version_of("timm", "torch"), file, "Linear or convolution, logits", UNITS)


def yolo(config: str, head: str, row: dict, **options) -> None:
    model = YOLO(config + ".yaml")
    written = model.export(format="onnx", imgsz=64, simplify=False, **options)
    file = config + "".join(f"_{key}" for key in options) + ".onnx"
    shutil.move(written, FOLDER / file)
    record(
        "ultralytics", version_of("ultralytics", "torch"), file, head, row.pop("units", 80), **row
    )


FOLDER.mkdir(parents=True, exist_ok=True)
BOXES = {"first": 4, "name": "output0"}
for name, size in (
    ("resnet18", 64),
    ("mobilenet_v3_small", 64),
    ("efficientnet_b0", 64),
    ("shufflenet_v2_x0_5", 64),
):
    attempt(name, lambda: classifier(name, size, dynamo=False))
attempt("mobilenet dynamo", lambda: classifier("mobilenet_v3_small", 64, dynamo=True))
attempt("lraspp", lambda: segmentation("lraspp_mobilenet_v3_large"))
attempt("ssdlite", detection)
for name, size in (
    ("mobilenetv4_conv_small", 64),
    ("vit_tiny_patch16_224", 224),
    ("mobilevit_xxs", 64),
):
    attempt(name, lambda: timm_model(name, size, dynamo=False))
attempt("fastvit dynamo", lambda: timm_model("fastvit_t8", 64, dynamo=True))
attempt("v8", lambda: yolo("yolov8n", "boxes and 80 classes", dict(BOXES)))
attempt(
    "v8 dynamic",
    lambda: yolo(
        "yolov8n",
        "boxes and 80 classes, open sizes",
        {**BOXES, "shapes": {"images": [1, 3, 64, 64]}},
        dynamic=True,
    ),
)
attempt("v11 obb", lambda: yolo("yolo11n-obb", "boxes, classes, angle", dict(BOXES, units=80)))
attempt("v10", lambda: yolo("yolov10n", "boxes and 80 classes", dict(BOXES)))
attempt("v5", lambda: yolo("yolov5nu", "boxes and 80 classes", dict(BOXES)))
for folder in Path().glob("*.pt"):
    folder.unlink()
