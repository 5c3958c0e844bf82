"""Gates on quantized heads; the expected values are computed with NumPy."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from tests.builders import mode_cells
from tests.builders.gate_models import SHOWN, checks, gated
from tests.builders.mode_cells import FEATURES, KEPT, KINDS, UNITS
from tests.builders.tflite_builder import Builder, read

GATES = ("input", "input:float", "logit > 0.3", "abs < 0.7", "top:2", "probability > 0.2")
HEADS = ("softmax", "sigmoid", "linear", "relu")
CELLS = [
    (kind, dtype, head, gate)
    for kind in KINDS
    for dtype in ("int8", "uint8")
    for head in HEADS
    for gate in GATES
    if not (gate.startswith("probability") and head in {"linear", "relu"})
]
KEEP = np.isin(np.arange(UNITS), KEPT)
built = cache(mode_cells.built)


def rows(model: Any, count: int = 12) -> Array:
    dtype = model.graph().tensors["x"].dtype
    random = np.random.default_rng(8)
    if dtype == "float32":
        return random.normal(size=(count, FEATURES)).astype(np.float32)
    bounds = np.iinfo(dtype)
    return random.integers(bounds.min, bounds.max + 1, (count, FEATURES)).astype(dtype)


def real(model: Any, name: str, values: Array) -> Array:
    return np.asarray(model.graph().tensors[name].dequantize(values), np.float64)


def passed(gate: str, z: Array, head: str, flags: Array) -> Array:
    """The units that are on: (UNITS,) bool, computed from the definition of the gate."""
    if gate.startswith("input"):
        return flags & KEEP
    if gate == "top:2":
        first = np.argsort(-np.where(KEEP, z, -np.inf), kind="stable")[:2]
        return np.isin(np.arange(UNITS), first)
    held = z.astype(np.float32)
    whole = SHOWN[head](z, np.ones(UNITS, bool)) if gate.startswith("prob") else z
    conditions = {
        "logit > 0.3": held > np.float32(0.3),
        "abs < 0.7": np.abs(held) < np.float32(0.7),
        "probability > 0.2": whole > 0.2,
    }
    return np.asarray(conditions[gate] & KEEP)


@pytest.mark.parametrize(("kind", "dtype", "head", "gate"), CELLS)
def test_gate_on_quantized_heads(kind: str, dtype: str, head: str, gate: str) -> None:
    """On: the original's quantized values, a softmax within one step. Off: 0 or the lowest."""
    original = built(head, kind, dtype)
    pruned, cut = gated(original, gate, keep=KEPT)
    assert [check for check in checks(original, pruned, cut) if not check.passed] == []
    (output,) = original.graph().outputs
    seen = original.apply(Plan((AddOutput("z", "z"),))) if output != "z" else original
    before, after = seen.runner(RunOptions()), pruned.runner(RunOptions())
    step = 0.0 if head != "softmax" else 1.01 / 256
    for number, row in enumerate(rows(original)):
        flags = np.random.default_rng(number).random(UNITS) < 0.5
        feed = {"x": row[None]}
        told = before(feed)
        z = real(original, "z", told["z"])[0]
        if gate.startswith("input"):
            wanted = pruned.graph().tensors["unit_mask"]
            feed["unit_mask"] = flags.reshape(1, UNITS).astype(wanted.dtype)
        shown = real(pruned, output, after(feed)[output])[0]
        on = passed(gate, z, head, flags)
        whole = real(original, output, told[output])[0]
        expected = SHOWN["softmax"](z, on) if head == "softmax" else whole
        assert np.abs(shown[on] - expected[on]).max(initial=0.0) <= step
        if head in {"softmax", "sigmoid"}:
            assert not shown[~on].any()
        elif on.any() and (~on).any():
            assert shown[~on].max() <= shown[on].min()


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_unused_quantized_softmax_is_removed(dtype: str) -> None:
    original = built("softmax", "tflite", dtype)
    assert operators(original) == ["FULLY_CONNECTED", "SOFTMAX"]
    pruned, _ = gated(original, "input")
    wanted = ["FULLY_CONNECTED", "DEQUANTIZE", "SELECT_V2", "SOFTMAX", "SELECT_V2", "QUANTIZE"]
    assert operators(pruned) == wanted
    assert operators(original) == ["FULLY_CONNECTED", "SOFTMAX"]  # the source stays


def operators(model: Any) -> list[str]:
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - of this test alone

    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    file = read(model.content)
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in file.operatorCodes]
    return [names[codes[each.opcodeIndex]] for each in file.subgraphs[0].operators]


@pytest.mark.parametrize("reshaped", [True, False])
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_quantized_softmax_with_reshape_and_beta(beta: float, *, reshaped: bool) -> None:
    """Also with a real output: its Dequantize is removed with the softmax."""
    builder = Builder()
    x = builder.quantize(builder.feed("x", 1, 6, dtype="int8"), 1 / 32, 0)
    random = np.random.default_rng(3)
    codes = random.integers(-127, 128, (5, 6)).astype(np.int8)
    builder.quantize(builder.constant("kernel", codes), np.full(5, 0.01), np.zeros(5))
    builder.constant("bias", np.zeros(5, np.int32))
    builder.quantize("bias", np.full(5, 0.01 / 32), np.zeros(5))
    names = [x, "kernel", "bias"]
    builder.op("FULLY_CONNECTED", names, (1, 5), "z", "FullyConnectedOptions", "int8", 4)
    builder.quantize("z", 0.1, 0)
    builder.op("SOFTMAX", ["z"], (1, 5), "s", "SoftmaxOptions", "int8", 2, beta=beta)
    builder.quantize("s", 1 / 256, -128)
    if reshaped:
        to = builder.constant("to", np.array([1, 1, 5], np.int32))
        builder.op("RESHAPE", ["s", to], (1, 1, 5), "r", dtype="int8")
        builder.quantize("r", 1 / 256, -128)
    last = "r" if reshaped else "s"
    builder.op("DEQUANTIZE", [last], builder.shape_of(last), "y", "DequantizeOptions", version=2)
    original = from_bytes(builder.content("y"), "network.tflite")
    flags = np.array([True, False, True, True, False])
    for gate in ("input", "probability > 0.2"):
        pruned, cut = gated(original, gate)
        assert [check for check in checks(original, pruned, cut) if not check.passed] == []
        seen = original.apply(Plan((AddOutput("z", "z"),))).runner(RunOptions())
        for row in random.integers(-128, 128, (6, 1, 6)).astype(np.int8):
            z = real(original, "z", seen({"x": row})["z"])[0] * beta
            on = flags if gate == "input" else SHOWN["softmax"](z, np.ones(5, bool)) > 0.2
            feed = {"x": row, **({"unit_mask": flags} if gate == "input" else {})}
            shown = np.ravel(pruned.runner(RunOptions())(feed)["y"])
            assert np.allclose(
                shown, SHOWN["softmax"](z, on), atol=1e-5
            )  # not quantized in between


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v1_025_224_uint8_metadata.tflite", "mobilenet_v2_100_224_qdq_logits.onnx"],
)
@pytest.mark.parametrize("gate", ["input", "top:3"])
def test_published_quantized_files(name: str, gate: str, zoo: Path) -> None:
    original = open_model(zoo / name)
    pruned, cut = gated(original, gate, keep="0-499")
    found = checks(original, pruned, cut)
    assert found
    assert [check for check in found if not check.passed] == []
