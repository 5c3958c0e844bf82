"""YOLO-shaped ONNX detectors: the classes are found among boxes, and cut; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporter.cutting import Choice, plan_cut
from exporter.graph import Array
from exporter.job import Job
from exporter.models.onnx import OnnxModel, from_proto
from exporter.tasks import prune_model
from exporter.trace import trace
from tests.onnx_models import numbers, run
from tests.onnx_quantized import quantized
from tests.yolo_models import CHANNELS, CLASSES, DETECTORS, SIZES

KEPT = (4, 0, 3)
QUANTIZED = ["v5 with raw maps", "v7", "v8", "YOLOX decoded"]


def opened(name: str) -> OnnxModel:
    return from_proto(DETECTORS[name].build(), "detector.onnx")


def picture() -> dict[str, Array]:
    return {"x": numbers(1, CHANNELS, SIZES[0], SIZES[0], seed=7)}


@pytest.mark.parametrize("name", DETECTORS)
def test_the_parts_are_told(name: str) -> None:
    head = trace(opened(name).graph()).head()
    assert ", ".join(map(str, head.parts)) == DETECTORS[name].parts
    assert (head.output, head.axis, head.units) == ("y", DETECTORS[name].axis, CLASSES)


@pytest.mark.parametrize("order", [True, False], ids=["as given", "ascending"])
@pytest.mark.parametrize("name", DETECTORS)
def test_the_other_values_stay_to_the_bit(name: str, *, order: bool) -> None:
    """Positions are counted here by hand, from the builders."""
    case, model = DETECTORS[name], opened(name)
    kept = KEPT if order else sorted(KEPT)
    done = prune_model(model, Choice(keep=KEPT, keep_order=order), Job(samples=2))
    assert done.findings.passed
    assert {check.output for check in done.findings.checks} == {"y", *case.maps}
    assert isinstance(done.model, OnnxModel)
    before, after = run(model, picture()), run(done.model, picture())
    places: dict[str, tuple[int, Callable[[int], list[int]]]] = {
        "y": (case.axis, lambda unit: [case.first + unit]),
        **case.maps,
    }
    for output, (axis, at) in places.items():
        width = before[output].shape[axis]
        standing = [place for unit in range(CLASSES) for place in at(unit)]
        chosen = iter([place for unit in kept for place in at(unit)])
        gone = {place for unit in range(CLASSES) if unit not in kept for place in at(unit)}
        columns = [p if p not in standing else next(chosen) for p in range(width) if p not in gone]
        expected = np.take(before[output], columns, axis=axis)
        np.testing.assert_array_equal(after[output], expected, err_msg=output)
    again = plan_cut(done.model, Choice(keep=[0]))
    assert again.selection.units == len(KEPT)


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("name", QUANTIZED)
def test_codes_stay_to_the_bit(name: str, tmp_path: Path, *, per_channel: bool) -> None:
    case = DETECTORS[name]
    pictures = [numbers(1, CHANNELS, SIZES[0], SIZES[0], seed=seed) for seed in range(4)]
    written = quantized(case.build(), pictures, tmp_path, per_channel=per_channel)
    model = from_proto(written, "codes.onnx")
    head = trace(model.graph()).head()
    assert ", ".join(map(str, head.parts)) == case.parts
    done = prune_model(model, Choice(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.findings.passed
    assert isinstance(done.model, OnnxModel)
    before, after = (run(each, picture(), plain=True)["y"] for each in (model, done.model))
    columns = [*range(case.first), *(case.first + unit for unit in KEPT)]
    np.testing.assert_array_equal(after, np.take(before, columns, axis=case.axis))
