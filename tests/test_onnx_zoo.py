"""Real ONNX files that other people's tools wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import checker

from exporter.errors import ModelError
from exporter.graph import Array
from exporter.models.model import RunOptions
from exporter.models.onnx import OnnxModel, open_file
from exporter.modes import MODES
from exporter.plan import AddOutput, Plan
from exporter.trace import trace
from tests.onnx_models import cut

KEPT = [4, 0, 287, 1000, 89]


@pytest.fixture(scope="module")
def mobilenet(zoo: Path) -> OnnxModel:
    return open_file(zoo / "mobilenet_v1_025_224_float.onnx")


@pytest.fixture(scope="module")
def answers(mobilenet: OnnxModel) -> Mapping[str, Array]:
    return run(mobilenet)


def run(model: OnnxModel) -> dict[str, Array]:
    """z and y on one seeded picture."""
    z = "MobilenetV1/Logits/SpatialSqueeze"
    shown = model.apply(Plan((AddOutput(z, z),)))
    checker.check_model(shown.proto, full_check=True)
    picture = np.random.default_rng(7).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    y, z_values = shown.runner(RunOptions())({"input": picture}).values()
    return {"y": y, "z": z_values}


UNKNOWN = {
    "mobilenet_v2_100_224_qdq_logits.onnx": "QuantizeLinear",
    "yolox_nano_3class.onnx": "Concat 'Concat_423'",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_has_no_row_is_refused_by_name(zoo: Path, name: str) -> None:
    with pytest.raises(ModelError, match=UNKNOWN[name]):
        trace(open_file(zoo / name).graph()).head()


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


def test_the_head(mobilenet: OnnxModel) -> None:
    head = trace(mobilenet.graph()).head()
    assert (head.axis, head.units, head.activation) == (1, 1001, "softmax")
    assert [node.operator for node in (*head.body, *head.tail)] == ["Conv", "Squeeze", "Softmax"]
    assert [c.shape for c in head.constants] == [(1001, 256, 1, 1), (1001,)]


@pytest.mark.parametrize("kept", [KEPT, [17], list(range(1001))], ids=["five", "one", "all"])
def test_slice(mobilenet: OnnxModel, answers: Mapping[str, Array], kept: list[int]) -> None:
    result = run(cut(mobilenet, kept))
    np.testing.assert_allclose(result["z"], answers["z"][:, kept], atol=1e-5)
    part = answers["y"][:, kept].astype(np.float64)
    np.testing.assert_allclose(result["y"], part / part.sum(), atol=1e-6)


def test_zero(mobilenet: OnnxModel, answers: Mapping[str, Array]) -> None:
    result = run(cut(mobilenet, KEPT, "zero"))
    removed = np.setdiff1d(np.arange(1001), KEPT)
    np.testing.assert_array_equal(result["z"][:, removed], np.float32(0))
    np.testing.assert_array_equal(result["z"][:, KEPT], answers["z"][:, KEPT])
    head = trace(mobilenet.graph()).head()
    expected = MODES["zero"].oracle(head, KEPT, answers["z"])
    np.testing.assert_allclose(result["y"], expected.y, atol=1e-6)


def test_a_cut_leaves_the_source_and_the_body_alone(mobilenet: OnnxModel) -> None:
    before = mobilenet.to_bytes()
    result = cut(mobilenet, KEPT)
    assert mobilenet.to_bytes() == before
    saved = len(before) - len(result.to_bytes())
    assert 0 <= saved - 996 * (256 + 1) * 4 < 16  # shorter numbers for lengths and widths
    old, new = (m.proto.graph.initializer for m in (mobilenet, result))
    changed = [a.name for a, b in zip(old, new, strict=True) if a != b]
    assert len(changed) == 2
