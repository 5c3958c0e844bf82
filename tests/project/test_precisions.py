"""docs/precisions.md is up to date, and its script stops at a failed check."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from exporter.formats.onnx import OnnxModel, from_proto
from exporter.quantization import FLOAT, PRECISIONS
from tests.builders import onnx_precisions, tflite_precisions

PROJECT = Path(__file__).parents[2]


def load() -> ModuleType:
    """The script, which is not in a package."""
    sys.path.insert(0, str(PROJECT / "tools"))
    try:
        for name in ("detectors", "keras"):
            importlib.import_module(f"precisions_{name}")
        return importlib.import_module("precisions")
    finally:
        sys.path.remove(str(PROJECT / "tools"))


precisions = load()


@pytest.mark.parametrize("title", ["ONNX", "TFLite"])
def test_the_tables_of_a_format_are_up_to_date(title: str) -> None:
    """All rows of files that are read; of files that are written, a refusal and an integer row."""
    text = precisions.DOCUMENT.read_text("utf-8")
    module = precisions.families()[title]
    assert text.startswith(precisions.HEAD)
    assert precisions.read(module) in text, "run `make precisions`"
    part = text.partition(f"## {title}, written and cut\n")[2].partition("\n## ")[0]
    assert all(
        f"| `{precision}` | at least" in part for precision in PRECISIONS if precision != FLOAT
    )
    for precision in ("int8", "int4"):
        row = " | ".join(precisions.written(module, precision))
        assert f"| {row} |" in part, "run `make precisions`"


def test_detectors_and_keras_files_have_their_tables() -> None:
    """Of the detectors the int8 row, in both orders; of Keras files that all rows exist."""
    detectors, keras = (
        importlib.import_module(f"precisions_{name}") for name in ("detectors", "keras")
    )
    text = precisions.DOCUMENT.read_text("utf-8")
    models = detectors.built()
    for order in (detectors.quantized_then_cut, detectors.cut_then_quantized):
        row = " | ".join(detectors.row(models, "int8", order))
        assert f"| {row} |" in text, "run `make precisions`"
    part = text.partition(keras.HEAD)[2]
    assert all(f"| `{precision}` | proved |" in part for precision in PRECISIONS)


def test_a_detector_with_too_much_noise_stops_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    detectors = importlib.import_module("precisions_detectors")
    monkeypatch.setitem(precisions.LEAST_DB, "int8", 60)
    model = detectors.built()["TFLite, post-process"]
    with pytest.raises(RuntimeError, match=r"at int8: \d+\.\d dB"):
        detectors.cut_then_quantized(model, "int8")


def test_a_classifier_with_too_much_noise_stops_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(precisions.LEAST_DB, "int4", 60)
    with pytest.raises(RuntimeError, match=r"at int4: \d+\.\d dB"):
        precisions.written(tflite_precisions, "int4")


def test_every_precision_of_the_builders_has_a_row() -> None:
    text = precisions.DOCUMENT.read_text("utf-8")
    for module in (onnx_precisions, tflite_precisions):
        assert all(f"| {precision} | `" in text for precision in module.PRECISIONS)


class Wrong(OnnxModel):
    """A model whose cuts have a changed weight."""

    def apply(self, plan: Any) -> Any:
        result = super().apply(plan)
        proto = type(result.proto)()
        proto.CopyFrom(result.proto)
        for tensor in proto.graph.initializer:
            if tensor.name == "b" and "exporter.remap" in {p.key for p in proto.metadata_props}:
                values = np.frombuffer(tensor.raw_data, np.float32) + np.float32(1)
                tensor.raw_data = values.tobytes()
        return from_proto(proto, self.name)


def test_a_wrong_cut_stops_the_script() -> None:
    model = onnx_precisions.built("dense, logits", "float32")
    assert model is not None
    assert not precisions.outcome(model, "slice")
    with pytest.raises(RuntimeError, match="max_abs"):
        precisions.outcome(Wrong(model.proto, model.name), "slice")
