"""ONNX SSDs without a post-process: class convolutions of several maps, the last of one cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from exporter.formats.onnx import OnnxModel, from_proto
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.trace import trace
from tests.builders.onnx_models import numbers, run
from tests.builders.onnx_quantized import quantized
from tests.builders.onnx_ssd import CLASSES, SIZES, ssd
from tests.builders.yolo_reference import CHANNELS

KEPT = (4, 0, 3)


def values(model: ModelProto, x: Array, kept: tuple[int, ...], function: str) -> Array:
    """In NumPy: 1 x 1 convolutions are products."""
    constants = {each.name: each for each in model.graph.initializer}
    arrays = {name: np.frombuffer(c.raw_data, np.float32) for name, c in constants.items()}
    maps, rows = np.maximum(x[0], 0).transpose(1, 2, 0).astype(np.float64), []
    for level in range(len(SIZES)):
        if level:
            size = len(maps) // 2
            maps = maps.reshape(size, 2, size, 2, CHANNELS).max(axis=(1, 3))
        name = "logits" if "logits.weight" in arrays else f"logits{level}"
        kernel = arrays[f"{name}.weight"].reshape(-1, CHANNELS)
        rows.append((maps @ kernel.T + arrays[f"{name}.bias"]).reshape(-1, CLASSES))
    z = np.concatenate(rows)[:, list(kept)]
    if function == "Softmax":
        return np.asarray(np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))
    return np.asarray(1 / (1 + np.exp(-z)) if function else z)


CASES: Mapping[str, dict[str, Any]] = {
    "logits": {},
    "logits, channels last": {"last": True},
    "sigmoid": {"function": "Sigmoid"},
    "sigmoid a map": {"function": "Sigmoid", "apart": True},
    "sigmoid, one kernel for five maps": {"function": "Sigmoid", "shared": True},
    "softmax": {"function": "Softmax"},
    "softmax, one kernel, channels last": {"function": "Softmax", "shared": True, "last": True},
}


@pytest.mark.parametrize("name", CASES)
def test_units_are_the_classes_not_the_anchors(name: str) -> None:
    head = trace(from_proto(ssd(**CASES[name]), "ssd.onnx").graph()).head()
    assert (head.output, head.axis, head.units, head.axis_parts) == ("scores", 2, CLASSES, ())
    kernels = [each for each in head.constants if each.name.endswith("weight")]
    uses = [len(SIZES)] if CASES[name].get("shared") else [1] * len(SIZES)
    assert [len(each.uses) for each in kernels] == uses


@pytest.mark.parametrize("name", CASES)
def test_values_of_kept_classes_match(name: str) -> None:
    model = ssd(**CASES[name])
    done = prune_model(
        from_proto(model, "ssd.onnx"), CutOptions(keep=KEPT, keep_order=True), Job(samples=2)
    )
    assert done.results.passed
    assert isinstance(done.model, OnnxModel)
    x = numbers(1, CHANNELS, SIZES[0], SIZES[0], seed=7)
    before, after = run(from_proto(model, "ssd.onnx"), {"x": x}), run(done.model, {"x": x})
    np.testing.assert_array_equal(after["boxes"], before["boxes"])
    expected = values(model, x, KEPT, CASES[name].get("function", ""))
    np.testing.assert_allclose(after["scores"][0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["logits", "sigmoid, one kernel for five maps"])
def test_quantized_values_are_bit_identical(name: str, tmp_path: Path) -> None:
    pictures = [numbers(1, CHANNELS, SIZES[0], SIZES[0], seed=seed) for seed in range(4)]
    written = quantized(ssd(**CASES[name]), pictures, tmp_path, per_channel=True)
    model = from_proto(written, "codes.onnx")
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.results.passed
    assert isinstance(done.model, OnnxModel)
    before, after = (run(each, {"x": pictures[0]}, plain=True) for each in (model, done.model))
    np.testing.assert_array_equal(after["scores"], before["scores"][:, :, list(KEPT)])
    np.testing.assert_array_equal(after["boxes"], before["boxes"])
