"""The examples run as they stand, and what they print is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.planning.cut import CutOptions, plan_cut

PROJECT = Path(__file__).parents[2]
PETS = Path("images") / "cats_and_dogs.jpg"
MODEL = "automl_flowers_uint8_metadata.tflite"
LABELS = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("keep", [[1, 3], [0, 2, 4]], ids=str)
def test_device_says_what_the_original_would(
    zoo: Path, tmp_path: Path, keep: list[int], mode: str
) -> None:
    original = open_model(zoo / MODEL)
    name = original.graph().inputs[0]
    shape = [n or 1 for n in original.graph().shape(name)]
    values = np.zeros(shape, np.uint8)
    values[..., 0] = 250  # all red: the five scores lie far apart
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


def test_the_detector_draws_what_it_finds(zoo: Path, tmp_path: Path) -> None:
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
    assert lines[-2:] == ["boxes and scores of cat, dog, horse: the same", "drawn: pets.png"]
    with Image.open(tmp_path / "pets.png") as drawn, Image.open(zoo / PETS) as photograph:
        assert drawn.width == 2 * photograph.width + 12
        left = np.asarray(drawn.crop((0, 0, photograph.width, drawn.height)))
        right = np.asarray(drawn.crop((photograph.width + 12, 0, drawn.width, drawn.height)))
    band = left.shape[0] - right.shape[0] + drawn.height - photograph.height
    np.testing.assert_array_equal(left[band:], right[band:])  # nothing else was above the line
    assert (left != right).any()


def test_a_short_fine_tune_lifts_the_kept_classes(tmp_path: Path) -> None:
    """In a small setting: a network that was trained for two epochs leaves room."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "examples" / "fine_tune.py"), "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=True,
        capture_output=True,
        text=True,
    )
    whole, small, zeroed, alive = done.stdout.splitlines()
    shares = [[float(n) for n in re.findall(r"([0-9.]+)%", line)] for line in (small, zeroed)]
    (among_all,) = (float(n) for n in re.findall(r"([0-9.]+)%", whole))
    for before, after in shares:
        assert after > max(before, 80.0)
    assert shares[0][0] >= among_all  # fewer units to be mistaken for
    assert alive == "weights of zeroed units that are not 0: 0"
