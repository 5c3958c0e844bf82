"""TFLite detectors with non-maximum suppression in the graph: kept rows, new class indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from exporter.formats.model import Model, RunOptions
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from tests.builders import yolo_reference as reference
from tests.builders.yolo_reference import CLASSES, LEAST, OVERLAP, ROOM, SIDE, picture

KEPT = (4, 0, 3)
NUMBERED = {False: tuple(range(len(KEPT))), True: KEPT}  # are ids restored?


@pytest.fixture(scope="module")
def written() -> Callable[[int], bytes]:
    @cache
    def get(version: int) -> bytes:
        from tests.builders.yolo_tflite import converted  # noqa: PLC0415 - starts TensorFlow

        return converted(f"suppressed by version {version}")

    return get


def answer(model: Model, seed: int) -> dict[str, Array]:
    (fed,) = model.graph().inputs
    x = np.ascontiguousarray(picture(seed).transpose(0, 2, 3, 1))
    return dict(model.runner(RunOptions())({fed: x}))


def rows(classes: Sequence[int], names: Sequence[int], seed: int) -> Array:
    """(box, score, class index) in NumPy: the best class of each box, greedy suppression."""
    (y,) = reference.yolox(picture(seed), classes, SIDE)["y"]
    boxes = np.concatenate([y[:, :2] - y[:, 2:4] / 2, y[:, :2] + y[:, 2:4] / 2], 1)
    scores = y[:, 4:5] * y[:, 5:]
    best, kind = scores.max(1), np.array(names)[scores.argmax(1)]
    found = reference.suppressed(boxes, best, overlap=OVERLAP, least=LEAST)[:ROOM]
    return np.column_stack([boxes[found], best[found], kind[found]])


def returned(model: Model, seed: int) -> Array:
    parts = answer(model, seed)
    table = np.column_stack([parts["boxes"], parts["scores"], parts["classes"]])
    return table[: int(parts["count"])]


@pytest.mark.parametrize("restored", NUMBERED)
@pytest.mark.parametrize("operator", ["NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5"])
def test_rows_of_kept_classes(
    operator: str, *, restored: bool, written: Callable[[int], bytes]
) -> None:
    model = from_bytes(written(int(operator[-1])), "yolo.tflite")
    assert operator in [node.operator for node in model.graph().nodes]
    names = NUMBERED[restored]
    options = CutOptions(keep=KEPT, keep_order=True, restore_ids=restored)
    done = prune_model(model, options, Job(samples=2))
    assert done.results.passed
    counted = {c.metric: c.value for c in done.results.checks if c.metric in {"rows", "classes"}}
    assert counted == {"rows": 0.0, "classes": 0.0}
    seen = set[float]()
    for seed in range(6):
        every, kept = rows(range(CLASSES), range(CLASSES), seed), rows(KEPT, names, seed)
        np.testing.assert_allclose(returned(model, seed), every, rtol=0, atol=1e-5)
        np.testing.assert_allclose(returned(done.model, seed), kept, rtol=0, atol=1e-5)
        seen.update(kept[:, 5])
    assert seen == set(map(float, names))
