"""A folder of pictures drives select, prune, verify, bench and calibration of real models.

Every step is a real command, as docs/select.md shows them; no line of Python is needed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.builders.commands import Done, exporter

MODELS: dict[str, tuple[str, list[str], set[str]]] = {  # file, options for --data, labels found
    "MobileNet": (
        "mobilenet_v1_025_224_float.tflite",
        ["--normalize=-1..1"],
        {"macaw", "cheeseburger"},
    ),
    "flowers": ("automl_flowers_uint8_metadata.tflite", [], {"sunflowers"}),
    "SSD": ("coco_ssd_mobilenet_v1_uint8_metadata.tflite", [], {"cat", "person"}),
}
PICTURES = ("burger.jpg", "parrot.jpg", "sunflower.bmp", "cats_and_dogs.jpg", "grace_hopper.bmp")


@pytest.fixture(scope="module")
def pictures(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo") / "pictures"
    folder.mkdir()
    for name in PICTURES:
        shutil.copyfile(zoo / "images" / name, folder / name)
    return folder


def ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def record(line: list[str], folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(ok(exporter([*line, "--json"], folder)).out)
    return result


@pytest.mark.parametrize("name", MODELS)
def test_pictures_drive_every_command(zoo: Path, pictures: Path, tmp_path: Path, name: str) -> None:
    file, normalize, found = MODELS[name]
    model, data = str(zoo / file), ["--data", str(pictures), *normalize]
    labels = ["--labels", str(zoo / "labels" / "imagenet_1001.txt")] if name == "MobileNet" else []
    criteria = ["--min-count", "1", *labels]
    choice = record(["select", model, *data, *criteria, "-o", "selection.json"], tmp_path)
    kept = {row["label"] for row in choice["table"] if row["kept"]}
    assert kept >= found
    assert choice["data"].items() >= {"source": "pictures", "samples": len(PICTURES)}.items()
    cut = ["--keep", "@selection.json", *labels]
    pruned = record(["prune", model, "-o", "small.tflite", *cut, *data], tmp_path)
    assert {row["label"] for row in pruned["selection"] if row["kept"]} == kept
    verified = record(["verify", model, "small.tflite", *data], tmp_path)
    assert verified["ok"]
    assert verified["inputs"].items() >= {"source": "pictures", "samples": len(PICTURES)}.items()
    timed = record(
        ["bench", model, "small.tflite", *data, "--samples", "2", "--bench-seconds", "0"], tmp_path
    )
    assert timed["latency"][0]["original_p50_ms"] > 0


def test_pictures_calibrate(zoo: Path, pictures: Path, tmp_path: Path) -> None:
    model = str(zoo / "mobilenet_v1_025_224_float.tflite")
    data = ["--data", str(pictures), "--normalize=-1..1"]
    line = ["quantize", model, "-o", "int8.tflite", "--precision", "int8", *data, "--no-bench"]
    report = record(line, tmp_path)
    assert (
        report["inputs"]["calibration"].items()
        >= {"source": "pictures", "samples": len(PICTURES)}.items()
    )
    quality = {c["metric"]: c["value"] for c in report["checks"] if c["stage"] == "quantize"}
    assert quality["sqnr_db"] > 5


@pytest.mark.parametrize("name", ["flowers", "SSD"])
def test_a_quantized_model_is_not_calibrated_again(zoo: Path, pictures: Path, name: str) -> None:
    line = ["quantize", str(zoo / MODELS[name][0]), "-o", "again.tflite", "--precision", "int8"]
    done = exporter([*line, "--data", str(pictures)], pictures.parent)
    assert done.code == 3
    assert "is quantized already (uint8)" in done.err
