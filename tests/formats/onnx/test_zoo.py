"""Real ONNX files from other tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import checker

from exporter.formats.model import RunOptions
from exporter.formats.onnx import OnnxModel, open_file
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders.commands import exporter
from tests.builders.onnx_models import cut, filled, softmax

KEPT = [4, 0, 287, 1000, 89]


@pytest.fixture(scope="module")
def mobilenet(zoo: Path) -> OnnxModel:
    return open_file(zoo / "mobilenet_v1_025_224_float.onnx")


@pytest.fixture(scope="module")
def original(mobilenet: OnnxModel) -> Mapping[str, Array]:
    return run(mobilenet)


def run(model: OnnxModel) -> dict[str, Array]:
    """Logits and output for one seeded image."""
    z = "MobilenetV1/Logits/SpatialSqueeze"
    shown = model.apply(Plan((AddOutput(z, z),)))
    checker.check_model(shown.to_bytes(), full_check=True)
    picture = np.random.default_rng(7).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    y, z_values = shown.runner(RunOptions())({"input": picture}).values()
    return {"y": y, "z": z_values}


@pytest.mark.parametrize(
    ("name", "precision", "width"),
    [
        ("light_resnet50.onnx", "fp32", 1000),
        ("light_squeezenet.onnx", "fp32", 1000),
        ("mobilenet_v1_025_224_float.onnx", "fp32", 1001),
        ("mobilenet_v2_100_224_qdq_logits.onnx", "int8", 1001),
        ("yolox_nano_3class.onnx", "fp32", 3549),
    ],
)
def test_every_file_opens(zoo: Path, name: str, precision: str, width: int) -> None:
    opened = open_file(zoo / name)
    graph = opened.graph()
    assert len(graph.inputs) == 1
    assert width in graph.shape(graph.outputs[0])
    assert opened.precision == precision
    assert opened.to_bytes()


def test_head(mobilenet: OnnxModel) -> None:
    head = trace(mobilenet.graph()).head()
    assert (head.axis, head.units, head.activation) == (1, 1001, "softmax")
    assert [node.operator for node in (*head.body, *head.tail)] == ["Conv", "Squeeze", "Softmax"]
    assert [c.shape for c in head.constants] == [(1001, 256, 1, 1), (1001,)]


@pytest.mark.parametrize("kept", [KEPT, [17], list(range(1001))], ids=["five", "one", "all"])
def test_slice(mobilenet: OnnxModel, original: Mapping[str, Array], kept: list[int]) -> None:
    result = run(cut(mobilenet, kept))
    np.testing.assert_allclose(result["z"], original["z"][:, kept], atol=1e-5)
    part = original["y"][:, kept].astype(np.float64)
    np.testing.assert_allclose(result["y"], part / part.sum(), atol=1e-6)


def test_zero(mobilenet: OnnxModel, original: Mapping[str, Array]) -> None:
    result = run(cut(mobilenet, KEPT, "zero"))
    removed = np.setdiff1d(np.arange(1001), KEPT)
    np.testing.assert_array_equal(result["z"][:, removed], np.float32(0))
    np.testing.assert_array_equal(result["z"][:, KEPT], original["z"][:, KEPT])
    head = trace(mobilenet.graph()).head()
    expected = MODES["zero"].oracle(head, KEPT, original["z"])
    np.testing.assert_allclose(result["y"], expected.y, atol=1e-6)


def test_cut_keeps_the_source_and_the_body(mobilenet: OnnxModel) -> None:
    before = mobilenet.to_bytes()
    result = cut(mobilenet, KEPT)
    assert mobilenet.to_bytes() == before
    saved = len(before) - len(result.to_bytes())
    assert 0 <= saved - 996 * (256 + 1) * 4 < 16  # lengths and widths take fewer digits
    old, new = (m.proto.graph.initializer for m in (mobilenet, result))
    changed = [a.name for a, b in zip(old, new, strict=True) if a != b]
    assert len(changed) == 2


# --- a QDQ file -----------------------------------------------------------------------------------

PIXELS = np.random.default_rng(3).integers(0, 256, (1, 224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def quantized(zoo: Path) -> OnnxModel:
    return open_file(zoo / "mobilenet_v2_100_224_qdq_logits.onnx")


def quantized_output(model: OnnxModel) -> Array:
    checker.check_model(model.to_bytes(), full_check=True)
    (name,) = model.graph().inputs
    return model.runner(RunOptions())({name: PIXELS})["output"]


@pytest.fixture(scope="module")
def all_codes(quantized: OnnxModel) -> Array:
    return quantized_output(quantized)


def test_quantized_head(quantized: OnnxModel) -> None:
    head = trace(quantized.graph()).head()
    assert (head.axis, head.units, head.activation, head.z) == (1, 1001, "linear", "output")
    assert [node.operator for node in head.body[-3:]] == ["Conv", "QuantizeLinear", "Reshape"]
    assert {(c.shape, c.dtype) for c in head.constants} == {
        ((1001, 1280, 1, 1), "uint8"),
        ((1001,), "int32"),
    }


@pytest.mark.parametrize("seed", range(6))
def test_quantized_values_of_kept_units_are_bit_identical(
    quantized: OnnxModel, all_codes: Array, seed: int
) -> None:
    random = np.random.default_rng(seed)
    kept = random.permutation(1001)[: random.integers(1, 1001)].tolist()
    result = quantized_output(cut(quantized, kept))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, all_codes[:, kept])


def test_zeroed_units_are_the_zero_point(quantized: OnnxModel, all_codes: Array) -> None:
    result = quantized_output(cut(quantized, KEPT, "zero"))
    removed = np.setdiff1d(np.arange(1001), KEPT)
    np.testing.assert_array_equal(result[:, KEPT], all_codes[:, KEPT])
    tensor = quantized.graph().tensors["output"]
    assert not tensor.dequantize(result)[:, removed].any()
    assert len(set(result[0, removed].tolist())) == 1


# --- weights as ConstantOfShape nodes -------------------------------------------------------------


def fixed(model: OnnxModel, tensor: str) -> list[int]:
    return [n or 1 for n in model.graph().shape(tensor)]


LIGHT = {
    "light_resnet50.onnx": ("Gemm", (1, 1000), 1),
    "light_squeezenet.onnx": ("Conv", (1, 1000, 1, 1), 2),
}


@pytest.mark.parametrize("name", LIGHT)
def test_weights_made_by_constant_of_shape_are_cut(zoo: Path, name: str) -> None:
    operator, shape, _ = LIGHT[name]
    opened = open_file(zoo / name)
    head = trace(opened.graph()).head()
    assert (head.units, head.activation) == (1000, "softmax")
    assert operator in {node.operator for node in head.body}
    result = cut(opened, [7, 3, 500])
    checker.check_model(result.to_bytes(), full_check=True)
    (output,) = result.proto.graph.output
    assert [d.dim_value for d in output.type.tensor_type.shape.dim] == [1, 3, *shape[2:]]
    feeds = {n: np.zeros(fixed(result, n), np.float32) for n in result.graph().inputs}
    (found,) = result.runner(RunOptions())(feeds).values()
    np.testing.assert_allclose(found.ravel(), [1 / 3] * 3, atol=1e-6)  # all weights are equal


@pytest.mark.parametrize("name", LIGHT)
def test_cut_of_the_same_network_with_random_weights(zoo: Path, name: str) -> None:
    opened = filled(open_file(zoo / name))
    head = trace(opened.graph()).head()
    random = np.random.default_rng(5)
    (fed,) = opened.graph().inputs
    feeds = {fed: random.normal(size=fixed(opened, fed)).astype(np.float32)}
    kept = random.permutation(1000)[:40].tolist()
    before, after = (
        m.apply(Plan((AddOutput(head.z, "z"),))).runner(RunOptions())(feeds)
        for m in (opened, cut(opened, kept))
    )
    expected = before["z"][:, kept]
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(after["z"], expected, atol=1e-6 * max(1, np.abs(expected).max()))
    np.testing.assert_allclose(after[head.output], softmax(expected - expected.max(), 1), atol=1e-6)


@pytest.mark.parametrize("kept", [[0, 2], [2, 0], [1]], ids=str)
def test_detector_keeps_boxes(zoo: Path, kept: list[int]) -> None:
    """Boxes, objectness and classes share an axis; each part has separate kernels."""
    opened = open_file(zoo / "yolox_nano_3class.onnx")
    head = trace(opened.graph()).head()
    assert (head.axis, head.units, head.activation) == (2, 3, "linear")
    assert ", ".join(map(str, head.axis_parts)) == "box 0:4, object 4:5, classes 5:8"
    assert len(head.junctions) == 3
    (fed,) = opened.graph().inputs
    picture = np.random.default_rng(1).uniform(0, 255, fixed(opened, fed))
    feeds = {fed: picture.astype(np.float32)}
    places = [*range(5), *(5 + unit for unit in kept)]
    before, after = (m.runner(RunOptions())(feeds)["output"] for m in (opened, cut(opened, kept)))
    np.testing.assert_array_equal(after[..., :5], before[..., :5])
    np.testing.assert_allclose(after, before[..., places], atol=1e-5)


def test_detector_on_the_command_line(zoo: Path, tmp_path: Path) -> None:
    """Two of three classes are kept, every check passes, and the file matches the original."""
    source = zoo / "yolox_nano_3class.onnx"
    line = ["prune", str(source), "-o", "small.onnx", "--keep", "0,2", "--samples", "2", "--json"]
    done = exporter(line, tmp_path)
    assert done.code == 0, done.err
    record = done.record
    assert [check["passed"] for check in record["checks"]] == [True] * len(record["checks"]) != []
    (head,) = record["remap"]["heads"]
    assert (head["part"], head["old_units"], head["kept"]) == ([5, 7], 3, [0, 2])
    large, small = open_file(source), open_file(tmp_path / "small.onnx")
    (fed,) = large.graph().inputs
    picture = np.random.default_rng(2).uniform(0, 255, fixed(large, fed)).astype(np.float32)
    before, after = (m.runner(RunOptions())({fed: picture})["output"] for m in (large, small))
    np.testing.assert_array_equal(after[..., :5], before[..., :5])
    np.testing.assert_allclose(after[..., 5:], before[..., [5, 7]], atol=1e-6)
