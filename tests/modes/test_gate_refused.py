"""Heads and options that do not support a gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporter.errors import ModelError, UsageError
from exporter.graph import Quantization
from exporter.modes import MODES, Semantics
from exporter.planning.cut import plan_cut
from exporter.planning.options import CutOptions
from exporter.trace import trace
from exporter.trace.readers import Readers
from tests.builders import onnx_models as onnx
from tests.builders.gate_models import onnx_net


def ranked() -> Any:
    top = onnx.node("ArgMax", ["y"], ["id"], "best", axis=1, keepdims=0)
    soft = onnx.node("Softmax", ["z"], ["y"], "softmax", axis=1)
    return onnx.classifier(soft, top, outputs={"y": ("batch", 5)})


def turned() -> Any:
    conv = onnx.node("Conv", ["x", "kernel", "bias"], ["c"], "conv")
    soft = onnx.node("Softmax", ["c"], ["s"], "softmax", axis=1)
    turn = onnx.node("Transpose", ["s"], ["y"], "turn", perm=[0, 2, 1])
    constants = {"kernel": onnx.numbers(5, 6, 1), "bias": onnx.numbers(5)}
    return onnx.model([conv, soft, turn], constants, x=(1, 6, 2))


def both_shown() -> Any:
    soft = onnx.node("Softmax", ["z"], ["y"], "softmax", axis=1)
    return onnx.classifier(soft, outputs={"y": ("batch", 5), "z": ("batch", 5)})


REFUSED: dict[str, tuple[Callable[[], Any], Mapping[str, Any], type[Exception], str]] = {
    "no parse": (onnx_net, {"gate": "logit >> 1"}, UsageError, "at character 8: expected a number"),
    "top:0": (onnx_net, {"gate": "top:0"}, UsageError, "at character 5: at least one unit"),
    "too many": (
        onnx_net,
        {"gate": "top:4", "keep": [0, 1]},
        UsageError,
        "'top:4' chooses 4 of 2 units",
    ),
    "no probability": (
        lambda: onnx_net("linear"),
        {"gate": "probability > 0.5"},
        UsageError,
        "compares a probability; linear returns none",
    ),
    "a restored width": (
        onnx_net,
        {"gate": "input", "restore_width": True},
        UsageError,
        "mode gate does not support absolute probabilities, a restored width",
    ),
    "no gate": (
        onnx_net,
        {"mode": "gate", "keep": [0]},
        UsageError,
        "needs a rule that chooses units",
    ),
    "another mode": (
        onnx_net,
        {"mode": "zero", "gate": "input", "keep": [0]},
        UsageError,
        "the mode zero takes no gate",
    ),
    "an order": (
        onnx_net,
        {"gate": "input", "keep": [1, 0], "keep_order": True},
        UsageError,
        "keep_order has no meaning with mode gate",
    ),
    "ranked units": (ranked, {"gate": "input", "head": "y"}, ModelError, "'best' ranks its units"),
    "a transpose after the softmax": (
        turned,
        {"gate": "input"},
        ModelError,
        "'turn' follows its activation",
    ),
    "boxes on the axis": (
        lambda: onnx_net("linear"),
        {"gate": "input", "units": "1:4"},
        ModelError,
        "the unit axis of 'y' contains more than its units",
    ),
    "several outputs": (
        both_shown,
        {"gate": "input", "head": "y"},
        ModelError,
        "returns its units",
    ),
    "log softmax": (
        lambda: onnx.classifier(onnx.node("LogSoftmax", ["z"], ["y"], "a", axis=1)),
        {"gate": "input"},
        ModelError,
        "log_softmax has no lowest value for units that are off",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_gates_are_refused(case: str) -> None:
    make, choice, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        plan_cut(make(), CutOptions(**choice))


def test_unsupported_dtypes_and_detectors_are_refused() -> None:
    head = trace(onnx_net().graph()).head()
    half = tuple(replace(tensor, dtype="bfloat16") for tensor in head.tensors)
    with pytest.raises(ModelError, match="'z' is bfloat16"):
        MODES["gate"].resolve(replace(head, tensors=half), Semantics(gate="input"))
    codes = Quantization(np.ones(5), np.zeros(5), -128, 127)
    each = tuple(replace(t, dtype="int8", quantization=codes) for t in head.tensors)
    with pytest.raises(ModelError, match="'z' has a scale for each unit"):
        MODES["gate"].resolve(replace(head, tensors=each), Semantics(gate="input"))
    readers = Readers(detections=(object(),))  # type: ignore[arg-type]  # any will do
    detected = replace(head, readers=readers)
    with pytest.raises(ModelError, match="a detector's post-processing reads its units"):
        MODES["gate"].resolve(detected, Semantics(gate="input"))
