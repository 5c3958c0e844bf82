"""A trimmed float32 file is quantized to int8, and keeps its first units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

import exporter
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from tests.builders import channel_models, tflite_channels
from tests.builders.onnx_models import numbers

CALIBRATED = 60  # of 160 samples


def write_onnx(path: Path) -> None:
    channel_models.network("plain", seed=2).write(path)


def write_tflite(path: Path) -> None:
    from_bytes(tflite_channels.as_tflite(seed=2).content("y"), path.name).write(path)


def first_units_of_onnx(path: Path, x: Array) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.array([session.run(None, {"x": each})[0].argmax() for each in x])


def first_units_of_tflite(path: Path, x: Array) -> Array:
    model = Interpreter(str(path))
    model.allocate_tensors()
    found = []
    for each in x:
        model.set_tensor(model.get_input_details()[0]["index"], each)
        model.invoke()
        found.append(model.get_tensor(model.get_output_details()[0]["index"]).argmax())
    return np.array(found)


KINDS = {
    "onnx": (write_onnx, first_units_of_onnx, (3, 9, 9), (3, 1, 1)),
    "tflite": (write_tflite, first_units_of_tflite, (7, 7, 2), (1, 1, 2)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_quality_after_quantization(kind: str, tmp_path: Path) -> None:
    """Noise around one mean for each channel of a sample. The compared samples are new to both
    steps.
    """
    write, first_units, shape, means = KINDS[kind]
    net, small, tiny = (tmp_path / f"{name}.{kind}" for name in ("net", "small", "tiny"))
    write(net)
    x = numbers(160, 1, *shape) + 10 * numbers(160, 1, *means, seed=1)
    data = tmp_path / "data.npz"
    np.savez(data, x=x[:CALIBRATED])
    (row,) = exporter.trim(net, small, data=data, target=0.6, multiple=2, bench=False).trimmed
    assert row.parameters < row.original_parameters
    exporter.quantize(small, tiny, precision="int8", data=data, bench=False)
    expected, found = (first_units(path, x[CALIBRATED:]) for path in (small, tiny))
    assert np.bincount(expected).max() <= 90, "one unit is always the first"
    assert (expected == found).mean() >= 0.95
