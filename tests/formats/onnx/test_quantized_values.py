"""QDQ models: kernels are cut with their scales and zero points; a zeroed unit is a real 0."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest
from onnx import NodeProto, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders.onnx_models import cut, model, node, run, softmax
from tests.builders.onnx_quantized_kernels import (
    EACH,
    KERNELS,
    POINTS,
    S8,
    SCALES,
    Nodes,
    X,
    dequantized,
    product,
)

KEPT = [4, 0, 2]
B32 = np.random.default_rng(3).integers(-900, 900, 5, np.int32)


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("name", KERNELS)
def test_quantized_kernels(name: str, mode: str) -> None:
    nodes, constants, kernel = KERNELS[name]
    opened = model(nodes, constants, x=X.shape)
    before, after = (run(m, {"x": X}, plain=True)["y"] for m in (opened, cut(opened, KEPT, mode)))
    np.testing.assert_allclose(before, X @ kernel, atol=1e-4)
    if mode == "zero":
        assert not after[:, [1, 3]].any()
        after = after[:, KEPT]
    np.testing.assert_allclose(after, before[:, KEPT], atol=1e-6)


def test_four_bit_kernels() -> None:
    values = np.random.default_rng(4).integers(-8, 8, (6, 5)).astype(ml_dtypes.int4)
    points = np.array([1, -2, 0, 3, -8]).astype(ml_dtypes.int4)
    nodes = product(dequantized("w", "s", "p", axis=1))
    opened = model(nodes, {"w": values, "s": SCALES, "p": points}, x=X.shape, opset=21, ir=10)
    expected = X @ ((values.astype(np.float32) - points.astype(np.float32)) * SCALES)
    after = run(cut(opened, KEPT), {"x": X}, plain=True)["y"]
    np.testing.assert_allclose(after, expected[:, KEPT], atol=1e-5)
    assert not run(cut(opened, KEPT, "zero"), {"x": X}, plain=True)["y"][:, [1, 3]].any()


def test_zero_is_refused_if_a_reshape_mixes_zero_points() -> None:
    """Different zero points per channel, and a reshape after which no axis has the channels."""
    nodes = product(
        node("Reshape", ["w", "to"], ["r"], "reshape"), dequantized("r", "s", "p", axis=1)
    )
    constants = {"w": S8[None], "s": SCALES, "p": POINTS, "to": np.array([6, 5])}
    opened = model(nodes, constants, x=X.shape)
    after = run(cut(opened, KEPT), {"x": X}, plain=True)["y"]
    np.testing.assert_allclose(after, (X @ EACH)[:, KEPT], atol=1e-5)
    with pytest.raises(ModelError, match="the file does not state the scale or zero point of 'w'"):
        cut(opened, KEPT, "zero")


REFUSED: Mapping[str, tuple[Nodes, Mapping[str, Array], str]] = {
    "scales of two axes": (
        product(dequantized("w", "s")),
        {"w": S8, "s": np.tile(SCALES, (6, 1))},
        "more than one axis",
    ),
    "a scale that is computed": (
        [
            node("ReduceMax", ["x"], ["s"], "max", keepdims=0),
            *product(dequantized("w", "s")),
        ],
        {"w": S8},
        "computed",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unknown_scales_are_refused(name: str) -> None:
    nodes, constants, reason = REFUSED[name]
    opened = model(nodes, constants, x=X.shape, opset=21, ir=10, outputs={"y": [3, 5]})
    (refusal,) = trace(opened.graph()).refusals
    assert reason in refusal.reason


# --- quantized values up to the output ------------------------------------------------------------


def tail(*last: NodeProto) -> OnnxModel:
    """x -> quantized x -> quantized product -> quantized z -> tail."""
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xp"], ["xq"], "quantize x"),
        dequantized("xq", "xs", "xp", to="xd"),
        dequantized("w", "s", "p", axis=1),
        dequantized("b", "bs", to="bias", axis=0),
        node("Gemm", ["xd", "k", "bias"], ["f"], "head"),
        node("QuantizeLinear", ["f", "zs", "zp"], ["z"], "quantize z"),
        *last,
    ]
    constants: dict[str, Array] = {
        "xs": np.array(0.025, np.float32),
        "xp": np.array(120, np.uint8),
        "w": S8,
        "s": SCALES,
        "p": POINTS,
        "b": B32,
        "bs": SCALES * np.float32(0.025),
        "zs": np.array(0.2, np.float32),
        "zp": np.array(131, np.uint8),
        "ys": np.array(1 / 256, np.float32),
        "yp": np.array(0, np.uint8),
        "narrow": np.array(0.01, np.float32),
    }
    return model(nodes, constants, x=("batch", 6))


def quantized(tensor: str, *, scale: str = "ys", point: str = "yp") -> NodeProto:
    return node("QuantizeLinear", [tensor, scale, point], ["y"], "quantize y")


FLOAT = dequantized("z", "zs", "zp", to="d")
TAILS = {
    "quantized logits": (node("Identity", ["z"], ["y"], "y"),),
    "quantized probabilities": (
        FLOAT,
        node("Softmax", ["d"], ["soft"], "softmax"),
        quantized("soft"),
    ),
    "floats of probabilities": (FLOAT, node("Softmax", ["d"], ["y"], "softmax")),
    "quantized values that saturate": (
        FLOAT,
        node("Relu", ["d"], ["relu"], "relu"),
        quantized("relu", scale="narrow"),
    ),
    "dequantized again": (
        FLOAT,
        node("Sigmoid", ["d"], ["soft"], "sigmoid"),
        node("QuantizeLinear", ["soft", "ys", "yp"], ["q"], "quantize"),
        dequantized("q", "ys", "yp", to="y"),
    ),
}


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("name", TAILS)
def test_oracle_matches_within_one_quantized_value(name: str, mode: str) -> None:
    opened = tail(*TAILS[name])
    head = trace(opened.graph()).head()
    result = cut(opened, KEPT, mode)
    before = run(shown(opened, head.z), {"x": X}, plain=True)["_z"]
    after = run(shown(result, head.z), {"x": X}, plain=True)
    graph = opened.graph()
    z = graph.tensors[head.z].dequantize(before)
    expected = MODES[mode].oracle(head, KEPT, z)
    assert np.array_equal(graph.tensors[head.z].dequantize(after["_z"]), expected.z)
    y = graph.tensors["y"].dequantize(after["y"])
    quantization = graph.tensors["y"].quantization
    step = float(quantization.scale.sum()) if quantization is not None else 1 / 256
    np.testing.assert_allclose(y, expected.y, atol=1.001 * step)
    if mode == "zero":
        assert not graph.tensors[head.z].dequantize(after["_z"])[:, [1, 3]].any()


def shown(opened: OnnxModel, z: str) -> OnnxModel:
    return opened.apply(Plan((AddOutput(z, "_z"),)))


def test_logits_tensor_and_its_quantization() -> None:
    graph = tail(*TAILS["quantized probabilities"]).graph()
    head = trace(graph).head()
    assert (head.activation, head.z) == ("softmax", "d")
    assert [n.name for n in head.tail] == ["softmax", "quantize y"]
    assert head.tensor("y").quantization is not None
    coded = graph.tensors["z"].quantization
    assert coded is not None
    assert (coded.scale.tolist(), coded.zero_point.tolist()) == ([np.float32(0.2)], [131])
    assert (coded.low, coded.high) == (0, 255)
    assert graph.tensors["d"].quantization is None


MOVES = {
    "reshaped": (node("Reshape", ["z", "to"], ["y"], "r"), True),
    "turned": (node("Transpose", ["z"], ["y"], "t"), True),
    "joined with itself": (node("Concat", ["z", "z"], ["y"], "c", axis=0), True),
    "joined with others": (node("Concat", ["z", "xq"], ["y"], "c", axis=1), False),
    "the best of them": (node("Max", ["z", "z"], ["y"], "m"), False),
}


@pytest.mark.parametrize("name", MOVES)
def test_quantization_is_kept_where_values_only_move(name: str) -> None:
    move, same = MOVES[name]
    nodes = list(tail(node("Identity", ["z"], ["y"], "y")).proto.graph.node)[:-1]
    constants = {
        t.name: numpy_helper.to_array(t)
        for t in tail(node("Identity", ["z"], ["y"], "y")).proto.graph.initializer
    }
    constants["to"] = np.array([1, -1])
    graph = model([*nodes, move], constants, x=X.shape).graph()
    assert (graph.tensors["y"].quantization is not None) == same


def test_quantized_probabilities_are_computed_from_the_kept_units() -> None:
    result = run(cut(tail(*TAILS["floats of probabilities"]), KEPT), {"x": X}, plain=True)["y"]
    values = run(tail(node("Identity", ["z"], ["y"], "y")), {"x": X}, plain=True)["y"].astype(
        np.float64
    )
    logits = (values - 131) * np.float32(0.2)
    np.testing.assert_allclose(result, softmax(logits[:, KEPT]), atol=1e-6)
