"""The examples run unchanged, and print correct results."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.planning.cut import CutOptions, plan_cut
from tests.builders.commands import exporter

PROJECT = Path(__file__).parents[2]
PETS = Path("images") / "cats_and_dogs.jpg"
PLAN = PROJECT / "examples" / "batch.toml"
MODEL = "automl_flowers_uint8_metadata.tflite"
LABELS = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("keep", [[1, 3], [0, 2, 4]], ids=str)
def test_on_device_prints_the_best_kept_unit_of_the_original(
    zoo: Path, tmp_path: Path, keep: list[int], mode: str
) -> None:
    original = open_model(zoo / MODEL)
    name = original.graph().inputs[0]
    shape = [n or 1 for n in original.graph().shape(name)]
    values = np.zeros(shape, np.uint8)
    values[..., 0] = 250  # all red: the five scores differ clearly
    (scores,) = original.runner(RunOptions())({name: values}).values()
    expected = max(keep, key=lambda unit: scores[0, unit])

    cut = plan_cut(original, CutOptions(keep=keep, labels=LABELS, mode=mode))
    assert cut.plan.remap is not None
    original.apply(cut.plan).write(tmp_path / "small.tflite")
    (tmp_path / "remap.json").write_text(cut.plan.remap.to_json(), "utf-8")
    np.save(tmp_path / "input.npy", values)
    command = [sys.executable, str(PROJECT / "examples" / "on_device.py")]
    done = subprocess.run(
        [*command, "small.tflite", "remap.json", "input.npy"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{expected} {LABELS[expected]}\n"


def test_detector_draws_its_detections(zoo: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(PROJECT / "examples" / "detector.py"), "pets.png"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "EXPORTER_ZOO": str(zoo)},
        check=True,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["cat", "cat", "cat", "dog", "dog"]
    assert lines[-2:] == ["boxes and scores of cat, dog, horse: equal", "drawn: pets.png"]
    with Image.open(tmp_path / "pets.png") as drawn, Image.open(zoo / PETS) as photograph:
        assert drawn.width == 2 * photograph.width + 12
        left = np.asarray(drawn.crop((0, 0, photograph.width, drawn.height)))
        right = np.asarray(drawn.crop((photograph.width + 12, 0, drawn.width, drawn.height)))
    band = left.shape[0] - right.shape[0] + drawn.height - photograph.height
    np.testing.assert_array_equal(left[band:], right[band:])  # no other class had boxes
    assert (left != right).any()


def test_the_plan_makes_every_cell(shelf: Path, tmp_path: Path) -> None:
    for path in (*(shelf / name for name in ("net.onnx", "net.tflite", "labels.txt")), PLAN):
        shutil.copyfile(path, tmp_path / path.name)
    done = exporter("batch batch.toml -o results --json --workers 1", tmp_path)
    assert done.code == 0, done.err
    selections, precisions = ("indices", "names"), ("fp32", "fp16")
    assert {row["name"] for row in done.record["cells"]} == {
        f"net.{kind}/{selection}.{precision}"
        for kind in ("onnx", "tflite")
        for selection in selections
        for precision in precisions
    }


def test_short_fine_tuning_improves_the_kept_classes(tmp_path: Path) -> None:
    """The original is trained for two epochs only, so that there is room for improvement."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "examples" / "fine_tune.py"), "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=True,
        capture_output=True,
        text=True,
    )
    original, small, zeroed, nonzero = done.stdout.splitlines()
    accuracies = [[float(n) for n in re.findall(r"([0-9.]+)%", line)] for line in (small, zeroed)]
    (accuracy,) = (float(n) for n in re.findall(r"([0-9.]+)%", original))
    for before, after in accuracies:
        assert after > max(before, 80.0)
    assert accuracies[0][0] >= accuracy  # there are fewer wrong units
    assert nonzero == "weights of zeroed units that are not 0: 0"
