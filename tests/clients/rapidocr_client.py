"""RapidOCR reads the same digits and letters before and after its recognizer is cut.

Run by `make clients`. The package contains its models.
"""

from __future__ import annotations

import os
import string
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rapidocr_onnxruntime
from PIL import Image, ImageDraw, ImageFont
from rapidocr_onnxruntime import RapidOCR

EXPORTER = os.environ["EXPORTER"]  # the command
RECOGNIZER = Path(rapidocr_onnxruntime.__file__).parent / "models" / "ch_PP-OCRv4_rec_infer.onnx"
KEPT = string.digits + string.ascii_uppercase
TEXTS = ("AB 12 XYZ 789", "KM 0345", "QUARTZ 6")


def pictures() -> np.ndarray:
    font = ImageFont.load_default(size=40)
    page = Image.new("RGB", (480, 90 * len(TEXTS)), "white")
    for line, text in enumerate(TEXTS):
        ImageDraw.Draw(page).text((30, 20 + 90 * line), text, fill="black", font=font)
    return np.asarray(page)


def read(recognizer: Path) -> list[str]:
    lines, _ = RapidOCR(rec_model_path=str(recognizer))(pictures())
    return [text for _, text, _ in lines]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ocr") / "small.onnx"
    shape = ["--input-shape", "x=1,3,48,320"]  # of the samples of the check; the file's stays open
    keep = ["--keep", ",".join(KEPT)]
    command = [EXPORTER, "prune", str(RECOGNIZER), *keep, *shape, "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return path


def test_the_same_texts_are_read(small: Path) -> None:
    before = read(RECOGNIZER)
    assert [text.replace(" ", "") for text in before] == [t.replace(" ", "") for t in TEXTS]
    assert read(small) == before


def test_the_recognizer_is_smaller(small: Path) -> None:
    assert small.stat().st_size < RECOGNIZER.stat().st_size - 1_000_000
