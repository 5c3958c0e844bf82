"""YOLO-like ONNX detectors: classes are found next to boxes and cut; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from exporter.errors import UsageError
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace
from tests.builders import yolo_reference as reference
from tests.builders.commands import exporter
from tests.builders.onnx_models import run
from tests.builders.onnx_quantized import quantized
from tests.builders.open_batch import any_batch
from tests.builders.yolo_models import DETECTORS, Net, anchored, yolov8
from tests.builders.yolo_reference import ANCHORS, CLASSES, MASKS, SIZES, picture

KEPT = (4, 0, 3)


def opened(name: str) -> OnnxModel:
    return from_proto(DETECTORS[name].build(), "detector.onnx")


def pruned(model: OnnxModel, *, order: bool = True) -> OnnxModel:
    """Cut and verify with `prune`."""
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=order), Job(samples=2))
    assert done.results.passed
    assert {check.output for check in done.results.checks} == {*model.graph().outputs}
    assert isinstance(done.model, OnnxModel)
    return done.model


@pytest.mark.parametrize("name", DETECTORS)
def test_class_range_is_found(name: str) -> None:
    head = trace(opened(name).graph()).head()
    assert ", ".join(map(str, head.axis_parts)) == DETECTORS[name].parts
    assert (head.output, head.axis, head.units) == ("y", DETECTORS[name].axis, CLASSES)


@pytest.mark.parametrize("order", [True, False], ids=["as given", "ascending"])
@pytest.mark.parametrize("name", DETECTORS)
def test_other_values_are_bit_identical(name: str, *, order: bool) -> None:
    """Positions come from the builders; values come from the formulas."""
    case, model = DETECTORS[name], opened(name)
    kept = KEPT if order else sorted(KEPT)
    small = pruned(model, order=order)
    fed = {"x": picture()}
    before, after = run(model, fed), run(small, fed)
    original, expected = case.answer(picture(), range(CLASSES)), case.answer(picture(), kept)
    places: dict[str, tuple[int, Callable[[int], list[int]]]] = {
        "y": (case.axis, lambda unit: [case.first + unit]),
        **case.maps,
    }
    assert {*before} == {*after} == {*places}
    for output, (axis, at) in places.items():
        np.testing.assert_allclose(before[output], original[output], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(after[output], expected[output], rtol=1e-5, atol=1e-5)
        width = before[output].shape[axis]
        class_positions = [place for unit in range(CLASSES) for place in at(unit)]
        chosen = iter([place for unit in kept for place in at(unit)])
        removed = {place for unit in range(CLASSES) if unit not in kept for place in at(unit)}
        columns = [
            p if p not in class_positions else next(chosen)
            for p in range(width)
            if p not in removed
        ]
        taken = np.take(before[output], columns, axis=axis)
        np.testing.assert_array_equal(after[output], taken, err_msg=output)
    again = plan_cut(small, CutOptions(keep=[0]))
    assert again.selection.units == len(KEPT)


@pytest.mark.parametrize("name", DETECTORS)
def test_any_batch_size(name: str) -> None:
    """Lengths are measured; the cut model matches the formulas for each image."""
    case = DETECTORS[name]
    model = from_proto(any_batch(case.build()), "batch.onnx")
    assert ", ".join(map(str, trace(model.graph()).head().axis_parts)) == case.parts
    pictures = [picture(seed) for seed in range(3)]
    found = run(pruned(model), {"x": np.concatenate(pictures)})
    for i, each in enumerate(pictures):
        for output, expected in case.answer(each, KEPT).items():
            if output in found:
                np.testing.assert_allclose(found[output][i], expected[0], rtol=1e-5, atol=1e-5)


# name -> the convolutions of classes, and the first class channel of each anchor
QUANTIZED = {
    "v5 with raw maps": ("m", ANCHORS, 5),
    "v7": ("m", ANCHORS, 5),
    "v8": ("cv3.", 1, 0),
    "v11": ("cv3.", 1, 0),
    "YOLOX decoded": ("cls", 1, 0),
}
WAYS: Mapping[str, tuple[bool, list[str] | None]] = {
    "every operator": (False, None),
    "every operator, per channel": (True, None),
    "convolutions, per channel": (True, ["Conv"]),
}


def quantized_detector(name: str, way: str, folder: Path) -> ModelProto:
    per_channel, operators = WAYS[way]
    pictures = [picture(seed) for seed in range(8)]
    build = DETECTORS[name].build
    return quantized(build(), pictures, folder, per_channel=per_channel, operators=operators)


def with_outputs(model: ModelProto, names: Sequence[str]) -> OnnxModel:
    """Makes the quantized values of these tensors outputs."""
    shown = ModelProto()
    shown.CopyFrom(model)
    for name in names:
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT8, [1, *"chw"])
        shown.graph.output.append(info)
    return from_proto(shown, "shown.onnx")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_values_are_bit_identical(name: str, way: str, tmp_path: Path) -> None:
    """The tensors of the class convolutions, and the outputs."""
    case, (made_by, anchors, first) = DETECTORS[name], QUANTIZED[name]
    written = quantized_detector(name, way, tmp_path)
    model = from_proto(written, "quantized.onnx")
    assert ", ".join(map(str, trace(model.graph()).head().axis_parts)) == case.parts
    small = pruned(model)
    logits = [f"{made_by}{level}_QuantizeLinear_Output" for level in range(len(SIZES))]
    before, after = (
        run(with_outputs(each, logits), {"x": picture()}, plain=True)
        for each in (written, small.proto)
    )
    row = [*range(first), *(first + unit for unit in KEPT)]
    channels = [anchor * (first + CLASSES) + place for anchor in range(anchors) for place in row]
    for tensor in logits:
        assert before[tensor].dtype == np.int8
        np.testing.assert_array_equal(after[tensor], before[tensor][:, channels])
    columns = [*range(case.first), *(case.first + unit for unit in KEPT)]
    np.testing.assert_array_equal(after["y"], np.take(before["y"], columns, axis=case.axis))
    expected = case.answer(picture(), KEPT)["y"]
    np.testing.assert_allclose(after["y"], expected, rtol=0, atol=0.1 * np.abs(expected).max())
    if WAYS[way][1]:  # scores and boxes do not share the scale of the boxes
        scores = range(case.first, case.first + len(KEPT))
        found, wanted = (np.take(y, scores, case.axis) for y in (after["y"], expected))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=0.03)


@pytest.mark.parametrize("way", ["every operator", "convolutions, per channel"])
def test_quantized_file_on_the_command_line(way: str, tmp_path: Path) -> None:
    """All checks pass, and the written file matches the formulas."""
    (tmp_path / "large").mkdir()
    onnx.save(quantized_detector("v8", way, tmp_path / "large"), tmp_path / "quantized.onnx")
    done = exporter("prune quantized.onnx -o small.onnx --keep 4,0,3 --keep-order --json", tmp_path)
    assert done.code == 0, done.err
    checks = done.record["checks"]
    assert checks
    assert all(check["passed"] for check in checks)
    large, small = (
        from_proto(onnx.load(tmp_path / f"{n}.onnx"), n) for n in ("quantized", "small")
    )
    before, after = (run(each, {"x": picture()}, plain=True)["y"] for each in (large, small))
    np.testing.assert_array_equal(after, before[:, [0, 1, 2, 3, 8, 4, 7]])
    expected = DETECTORS["v8"].answer(picture(), KEPT)["y"]
    np.testing.assert_allclose(after, expected, rtol=0, atol=0.1 * np.abs(expected).max())


def test_mask_prototypes_are_not_a_head() -> None:
    """The output has boxes, classes, and one coefficient for each map."""
    model = from_proto(yolov8(masks=MASKS, maps=MASKS), "masks.onnx")
    found = trace(model.graph())
    assert ([head.name for head in found.heads], found.masks) == (["y", "protos"], ("protos",))
    assert found.head().name == "y"
    assert found.head("protos").units == MASKS
    small = pruned(model)
    before, after = (run(each, {"x": picture()}) for each in (model, small))
    expected = reference.v8(picture(), KEPT, masks=MASKS)["y"]
    np.testing.assert_allclose(after["y"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(after["protos"], before["protos"])


def test_inspect_reports_mask_prototypes(tmp_path: Path) -> None:
    onnx.save(yolov8(masks=MASKS, maps=MASKS), tmp_path / "masks.onnx")
    done = exporter("inspect masks.onnx", tmp_path)
    assert done.out.endswith("\n\nprotos computes masks: it is cut only if --head names it\n")
    assert "Choose one" not in done.out


@pytest.mark.parametrize(
    ("masks", "maps"),
    [
        pytest.param(MASKS, MASKS + 1, id="more maps than coefficients"),
        pytest.param(0, MASKS, id="no coefficients"),
        pytest.param(0, 4, id="as many maps as a box has coordinates"),
        pytest.param(0, CLASSES, id="as many maps as there are classes"),
    ],
)
def test_other_maps_are_a_head(masks: int, maps: int) -> None:
    found = trace(from_proto(yolov8(masks=masks, maps=maps), "maps.onnx").graph())
    assert not found.masks
    with pytest.raises(UsageError, match="several heads: 'y', 'protos'"):
        found.head()


def test_reshape_that_mixes_boxes_and_classes_is_refused() -> None:
    net = Net()
    conv = net.conv(net.maps()[0], 5 + CLASSES, "m")
    net.reshape(conv, "y", 16, 5 + CLASSES, 1)  # channels and cells are never transposed
    found = trace(from_proto(net.model(y=(16, 5 + CLASSES, 1)), "scrambled.onnx").graph())
    assert not found.heads
    assert "Reshape 'y'" in str(found.refusals[0])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        pytest.param(["--keep", "0,1"], 3, "--units A:B", id="ambiguous"),
        pytest.param(["--keep", "0,1", "--units", "5:11"], 0, "2 of 6 units kept", id="stated"),
        pytest.param(["--keep", "0,1", "--units", "5:"], 2, "not a range", id="half a range"),
        pytest.param(["--keep", "0,1", "--units", "5:12"], 2, "no head has", id="too far"),
        pytest.param(["--keep", "6", "--units", "5:11"], 2, "no unit 6", id="no such unit"),
        pytest.param(
            ["--keep", "0", "--units", "5:11", "--restore-ids"], 2, "class indices", id="no ids"
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
    options: list[str], code: int, message: str, tmp_path: Path
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
    assert message in done.out + done.err
