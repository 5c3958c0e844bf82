"""Real networks: one for digits on held-out images, and a MobileNet on photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import exporter
from exporter.data.digits import split_digits
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.records import Report

KINDS = ("onnx", "tflite")


@pytest.fixture(scope="module")
def folder(digits_network: tuple[Path, float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted network that classifies digits, and images to calibrate on."""
    made = tmp_path_factory.mktemp("digits")
    for kind in KINDS:
        exporter.convert(digits_network[0], made / f"digits.{kind}", verify=False)
    np.save(made / "seen.npy", split_digits()[0].images[:200])
    return made


def accuracy(file: Path) -> float:
    """On the 360 held-out digits."""
    _, pictures = split_digits()
    model = open_model(file)
    runner = model.runner(RunOptions())
    named = [int(runner({"image": p[np.newaxis]})["digit"].argmax()) for p in pictures.images]
    return float((np.array(named) == pictures.labels).mean())


LARGEST = {"fp16": 0.6, "dynamic": 0.5, "int8": 0.5}  # precision -> share of the float file's size


@pytest.mark.parametrize("precision", LARGEST)
@pytest.mark.parametrize("kind", KINDS)
def test_accuracy_on_digits_drops_by_less_than_half_a_point(
    folder: Path, kind: str, precision: str
) -> None:
    original, small = folder / f"digits.{kind}", folder / f"{precision}.{kind}"
    exporter.quantize(original, small, precision=precision, data=folder / "seen.npy", bench=False)
    assert accuracy(original) >= 0.97
    assert abs(accuracy(small) - accuracy(original)) <= 0.005
    assert small.stat().st_size < LARGEST[precision] * original.stat().st_size


@pytest.fixture(scope="module")
def photographs(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "pictures.npy"
    paths = sorted((zoo / "images").iterdir())
    pictures = [np.asarray(Image.open(p).convert("RGB").resize((224, 224))) for p in paths]
    np.save(file, np.stack(pictures).astype(np.float32) / 127.5 - 1)
    return file


def worst(report: Report) -> float:
    return float(report.to_dict()["precisions"][0]["sqnr_db"])


@pytest.mark.parametrize("kind", KINDS)
def test_mobilenet_in_both_orders(zoo: Path, photographs: Path, tmp_path: Path, kind: str) -> None:
    """Twenty classes, some of them on the photographs. If quantized first, z is bit-identical."""
    source = zoo / f"mobilenet_v1_025_224_float.{kind}"
    reports = {
        first: exporter.run(
            source,
            tmp_path / str(first),
            keep=range(80, 100),  # birds: macaw 89, lorikeet 91 among them
            precisions=["int8"],
            quantize_first=first,
            data=photographs,
            bench=False,
        )
        for first in (False, True)
    }
    for report in reports.values():
        assert report.ok
        assert any("calibrated on only 9 samples" in warning for warning in report.warnings)
        assert worst(report) > 5
        (artifact,) = report.artifacts
        assert artifact.original_bytes is not None
        assert artifact.bytes < 0.25 * artifact.original_bytes
    cut = [
        c for c in reports[True].checks if (c.stage, c.artifact) == ("cut", f"pruned.int8.{kind}")
    ]
    (z,) = [c for c in cut if c.output.endswith("(z)") and c.metric == "max_abs"]
    assert (z.value, z.limit) == (0.0, 0.0)
    birds = np.load(photographs)[6]  # parrot.jpg is the seventh by name
    for first in (False, True):
        model = open_model(tmp_path / str(first) / f"pruned.int8.{kind}")
        assert model.remap is not None
        answer = model.runner(RunOptions())({model.graph().inputs[0]: birds[np.newaxis]})
        best = int(next(iter(answer.values())).argmax())
        assert model.remap.to_original([best]).tolist() == [89]
