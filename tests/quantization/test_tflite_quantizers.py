"""Files that litert-quantizer writes of a small float network are cut, and the cut is proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from litert_quantizer import quantizer, recipe

from exporter.formats.tflite import from_bytes
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from tests.builders.tflite_builder import Builder

FEATURES, UNITS, KEPT = 64, 11, [7, 1, 4]
KEY = "serving_default"


def network() -> Builder:
    """With a signature: the library does not quantize a file without one."""
    builder = Builder()
    hidden = builder.dense(builder.feed("x", 1, FEATURES), 33, "h")
    builder.op("RELU", [hidden], (1, 33), "r")
    builder.softmax(builder.dense("r", UNITS, "z"), "y")
    builder.signature({"x": "x"}, {"y": "y"}, KEY)
    return builder


def quantized(made: Any) -> bytes:
    tool = quantizer.Quantizer(bytearray(network().content("y")))
    tool.load_quantization_recipe(made)
    random = np.random.default_rng(0)
    data = [{"x": random.normal(size=(1, FEATURES)).astype(np.float32)} for _ in range(10)]
    ranges = tool.calibrate({KEY: data}) if tool.need_calibration else None
    return bytes(tool.quantize(ranges).quantized_model)


RECIPES: Mapping[str, tuple[Callable[[], Any], str]] = {
    "dynamic int8": (recipe.dynamic_wi8_afp32, "dynamic"),
    "dynamic int4": (recipe.dynamic_wi4_afp32, "int4"),
    "int8 weights": (recipe.weight_only_wi8_afp32, "dynamic"),
    "int4 weights": (recipe.weight_only_wi4_afp32, "int4"),
    "int8": (recipe.static_wi8_ai8, "int8"),
    "int16x8": (recipe.static_wi8_ai16, "int16x8"),
}


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")  # its calibration uses it
@pytest.mark.parametrize("name", RECIPES)
def test_files_of_litert_quantizer_are_cut(name: str) -> None:
    made, precision = RECIPES[name]
    model = from_bytes(quantized(made()), "quantized.tflite")
    assert model.precision == precision
    for mode in ("slice", "zero"):
        checks = prune_model(model, CutOptions(keep=KEPT, mode=mode), Job(samples=4)).results.checks
        assert checks
        assert not [check for check in checks if not check.passed]
