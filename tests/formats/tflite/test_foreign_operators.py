"""Operators of other runtimes: the refusal names the processor or library, and the way out."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.trace import trace
from tests.builders.tflite_builder import Builder

CASES = {
    "edgetpu-custom-op": (
        "it is compiled for the Edge TPU",
        "cut the file before edgetpu_compiler",
        "is compiled for the Edge TPU",
        "--no-verify",
    ),
    "ethos-u": ("compiled for the Ethos-U", "before vela", "is compiled for", "--no-verify"),
    "FlexErf": ("it is TensorFlow's Erf", "builtin operators only", "(FlexErf)", "--no-verify"),
    "MyOperator": ("there is no rule for it", "", "MyOperator", "--no-verify"),
}


def _with(operator: str, *, last: bool) -> TfliteModel:
    """A dense layer, with a custom operator after it or before it."""
    builder = Builder()
    builder.feed("x", 1, 4)
    if not last:
        builder.op("CUSTOM", ["x"], (1, 4), "a")
    builder.dense("x" if last else "a", 5, "z")
    if last:
        builder.op("CUSTOM", ["z"], (1, 5), "y")
    for code in builder.model.operatorCodes:
        if code.builtinCode == 32:
            code.customCode = operator
    return from_bytes(builder.content("y" if last else "z"), "built.tflite")


@pytest.mark.parametrize("operator", CASES)
def test_a_refused_trace_names_the_runtime(operator: str) -> None:
    fact, remedy, _, _ = CASES[operator]
    (refusal,) = trace(_with(operator, last=True).graph()).refusals
    assert fact in refusal.reason
    assert remedy in refusal.hint


@pytest.mark.parametrize("operator", CASES)
def test_a_file_that_litert_cannot_run_is_explained(operator: str) -> None:
    _, _, fact, remedy = CASES[operator]
    model = _with(operator, last=False)
    assert trace(model.graph()).head().units == 5
    with pytest.raises(ModelError) as caught:
        model.runner(RunOptions())({"x": np.zeros((1, 4), np.float32)})
    assert fact in caught.value.message
    assert remedy in caught.value.hint
