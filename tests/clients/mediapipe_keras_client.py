"""MediaPipe names the class with files cut from Keras with --labels: run by `make clients`.

The original contains no metadata at all. See `mediapipe_client.py`; no test is skipped here either.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import mediapipe
import numpy as np
import pytest
from mediapipe.tasks.python import BaseOptions, vision
from PIL import Image

EXPORTER = Path(os.environ["EXPORTER"])  # the command
NETWORK = Path(__file__).parent / "color_network.py"
LABELS = "red\ngreen\nblue\nwhite\n"
BLUE = (0, 0, 255)
KEPT = ["green", "blue"]


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def classified(model: Path, color: tuple[int, int, int]) -> list[tuple[str, int, float]]:
    """Label, index and score of every unit for a picture of one color, highest score first."""
    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=str(model)), max_results=-1
    )
    picture = np.full((48, 64, 3), color, np.uint8)
    with vision.ImageClassifier.create_from_options(options) as classifier:
        result = classifier.classify(mediapipe.Image(mediapipe.ImageFormat.SRGB, picture))
    categories = result.classifications[0].categories
    return [(each.category_name, each.index, each.score) for each in categories]


def colors(folder: Path) -> Path:
    """Pictures of one color each, to calibrate on."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, shade in enumerate(np.random.default_rng(0).integers(0, 256, (120, 3))):
        color = int(shade[0]), int(shade[1]), int(shade[2])
        Image.new("RGB", (32, 32), color).save(pictures / f"{number}.png")
    return pictures


@pytest.mark.parametrize(
    ("network", "options"),
    [("rescaled", []), ("plain", ["--normalize", "0..1"])],
    ids=["a Rescaling layer", "--normalize"],
)
def test_a_file_from_keras_names_the_class(
    tmp_path: Path, network: str, options: list[str]
) -> None:
    keras, labels, out = tmp_path / "net.keras", tmp_path / "labels.txt", tmp_path / "out"
    labels.write_text(LABELS)
    run(EXPORTER.with_name("python"), NETWORK, keras, network)
    precisions: list[str | Path] = ["--precision", "fp32,fp16,int8", "--data", colors(tmp_path)]
    cut: list[str | Path] = ["--keep", ",".join(KEPT), "--labels", labels, "--to", "tflite"]
    run(EXPORTER, "run", keras, "-o", out, *cut, *options, *precisions, "--no-bench")
    for precision in ("fp32", "fp16", "int8"):
        results = classified(out / f"pruned.{precision}.tflite", BLUE)
        assert results[0][:2] == ("blue", 1), precision
        assert results[0][2] > 0.9
        assert {name: index for name, index, _ in results} == {n: i for i, n in enumerate(KEPT)}


def test_integer_inputs_of_int8_are_refused_by_mediapipe(tmp_path: Path) -> None:
    """As docs/clients.md says: it takes float32 and uint8 only."""
    keras, labels, out = tmp_path / "net.keras", tmp_path / "labels.txt", tmp_path / "out"
    labels.write_text(LABELS)
    run(EXPORTER.with_name("python"), NETWORK, keras, "plain")
    cut: list[str | Path] = [
        "--keep",
        ",".join(KEPT),
        "--labels",
        labels,
        "--to",
        "tflite",
        "--no-bench",
    ]
    how: list[str | Path] = ["--precision", "int8", "--integer-io", "--data", colors(tmp_path)]
    run(EXPORTER, "run", keras, "-o", out, *cut, *how, "--normalize", "0..1")
    with pytest.raises(ValueError, match="got INT8"):
        classified(out / "pruned.int8.tflite", BLUE)
