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
from tests.commands import exporter
from tests.onnx_models import numbers, run
from tests.onnx_quantized import quantized
from tests.yolo_models import ANCHORS, CHANNELS, CLASSES, DETECTORS, SIZES, Net, anchored

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


def test_a_reshape_that_scrambles_boxes_and_classes_is_refused() -> None:
    net = Net()
    conv = net.conv(net.maps()[0], 5 + CLASSES, "m")
    net.reshape(conv, "y", 16, 5 + CLASSES, 1)  # channels and places are never exchanged
    found = trace(from_proto(net.model(y=(16, 5 + CLASSES, 1)), "scrambled.onnx").graph())
    assert not found.heads
    assert "Reshape 'y'" in str(found.refusals[0])


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        pytest.param(["--keep", "0,1"], 3, "--units A:B", id="not told apart"),
        pytest.param(["--keep", "0,1", "--units", "5:11"], 0, "2 of 6 units kept", id="stated"),
        pytest.param(["--keep", "0,1", "--units", "5:"], 2, "no stretch", id="half a stretch"),
        pytest.param(["--keep", "0,1", "--units", "5:12"], 2, "no head has", id="too far"),
        pytest.param(["--keep", "6", "--units", "5:11"], 2, "no unit 6", id="no such unit"),
        pytest.param(
            ["--keep", "0", "--units", "5:11", "--restore-ids"], 2, "class numbers", id="no ids"
        ),
        pytest.param(
            ["--keep", "0", "--units", "4:11", "--labels", "six.txt"],
            2,
            "6 labels for 7 units",
            id="a part that is no wider than its labels",
        ),
    ],
)
def test_raw_maps_on_the_command_line(
    options: list[str], code: int, told: str, tmp_path: Path
) -> None:
    net = Net()
    anchored(net, 0, net.maps()[0])
    made = net.model(raw0=(1, ANCHORS, SIZES[0], SIZES[0], 5 + CLASSES))
    (tmp_path / "raw.onnx").write_bytes(made.SerializeToString())
    (tmp_path / "six.txt").write_text("\n".join("abcdef"), "utf-8")
    options = [str(tmp_path / each) if each.endswith(".txt") else each for each in options]
    out = tmp_path / "small.onnx"
    command = ["prune", str(tmp_path / "raw.onnx"), "-o", str(out), "--samples", "2"]
    done = exporter([*command, *options], tmp_path)
    assert (done.code, out.exists()) == (code, code == 0), done.err
    assert told in done.out + done.err
