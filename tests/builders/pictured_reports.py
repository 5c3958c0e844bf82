"""Worst samples, boxes and confusions for reports in tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from exporter.data.preview import picture_of
from exporter.records import (
    BoxPicture,
    Confusion,
    DrawnBox,
    InputPreview,
    UnitValue,
    WorstCase,
    WorstSample,
)

PNG = picture_of(np.eye(8, dtype=np.uint8)[np.newaxis] * 255, 8)
FILE = "pruned.fp32.onnx"


def sample(expected: float | None, actual: float | None, **other: object) -> WorstSample:
    place = (3, 1, 5, "d<o>g", expected, actual)
    case = WorstCase("cut", FILE, "scores", "max_abs", *place, sample_name="o<w>l/a.jpg")
    values = (UnitValue(0, 3, "cat", 0.75, 0.75), UnitValue(1, 5, "d<o>g", expected, actual))
    inputs = (
        InputPreview("image", (1, 8, 8, 3), "uint8", 0.0, 9.0, 255.0, ("1", "2"), PNG),
        InputPreview("i<d>s", (1, 3), "int64", 1.0, 2.0, 3.0, ("1", "2", "3")),
        InputPreview("text", (1, 1), "<U3", None, None, None, ("<b>",)),
    )
    found = WorstSample(case, True, 1e-6, 16, values, inputs)
    return replace(found, **other)  # type: ignore[arg-type]


def box(unit: int, score: float, kept: bool, left: float = 0.1) -> DrawnBox:
    return DrawnBox((left, -0.2, left + 0.4, 1.2), unit, f"l<{unit}>" * (unit > 0), score, kept)


BOXES = BoxPicture(
    FILE, 2, PNG, 300, 200, 0.4, (box(1, 0.9, True), box(0, 0.5, False, 0.6)), (box(1, 0.9, True),)
)

CONFUSION = Confusion(FILE, "scores", (0, 2), ("$c_a$", "sea_lion"), ((5, 1), (0, 7)))
