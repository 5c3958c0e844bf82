"""Files that onnxruntime's optimizer, and its quantizers, have written; and QONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)

from exporter.formats.onnx import from_proto
from exporter.graph import Array
from exporter.trace import trace
from tests.builders.onnx_fused import MICROSOFT, OPERATORS, fused, network
from tests.builders.onnx_models import cut, node, numbers, proto

KEPT = (1, 3)
MS = {"com.microsoft": 1}


def run(model: ModelProto, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    result: Array = onnxruntime.InferenceSession(model.SerializeToString(), options).run(
        ["y"], {"x": x}
    )[0]
    return result


# --- operators one by one -------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATORS)
def test_fused_operators(name: str) -> None:
    dims = OPERATORS[name][1]
    axis = 1 if name == "FusedConv" else len(dims) - 1
    model = network(name)
    x = numbers(*(n if isinstance(n, int) else 4 for n in dims))
    after = cut(from_proto(model, "network.onnx"), KEPT).proto
    np.testing.assert_allclose(run(after, x), run(model, x).take(KEPT, axis), atol=1e-6)


REFUSED: Mapping[str, tuple[list[NodeProto], str]] = {
    "another tensor is added": (
        [fused("FusedConv", "x", "square", "", "x")],
        "it adds another tensor to the result of its convolution",
    ),
    "batches are moved": (
        [fused("FusedMatMul", "x", "cube", transBatchB=1)],
        "it moves the batch axis of an operand",
    ),
    "blocked channels": (
        [node("Conv", ["x", "square"], ["y"], "head", domain="com.microsoft.nchwc")],
        "optimize after cutting",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    nodes, reason = REFUSED[name]
    constants = {"square": numbers(6, 6, 1), "cube": numbers(6, 6, 6)}
    used = {key: value for key, value in constants.items() if key in nodes[0].input}
    model = proto(nodes, used, x=("n", 6, 8), outputs={"y": ["n", 6, 8]}, domains=MS)
    (refusal,) = trace(from_proto(model, "network.onnx").graph()).refusals
    assert reason in str(refusal)
    assert "'head'" in str(refusal)


@pytest.mark.parametrize("operator", ["BipolarQuant", "FloatQuant", "IntQuant", "Quant", "Trunc"])
def test_fake_quantization_of_qonnx(operator: str) -> None:
    """No runtime here knows these operators: the kernel and its scales are compared."""
    domain = "qonnx.custom_op.general"
    nodes = [
        node(operator, ["turned", "scale", "zero", "bits"], ["w"], "quant", domain=domain),
        node("Gemm", ["x", "w", "bias"], ["y"], "gemm", transB=1),
    ]
    constants = {"turned": numbers(5, 6), "bias": numbers(5), "scale": numbers(5, 1)}
    constants |= {"zero": np.zeros(1, np.float32), "bits": np.full(1, 4, np.float32)}
    model = proto(nodes, constants, outputs={"y": ["n", 5]}, domains={domain: 1})
    after = cut(from_proto(model, "network.onnx"), KEPT).proto
    found = {t.name: onnx.numpy_helper.to_array(t) for t in after.graph.initializer}
    for name in ("turned", "scale", "bias"):
        np.testing.assert_array_equal(found[name], constants[name][list(KEPT)])
    np.testing.assert_array_equal(found["zero"], constants["zero"])


# --- whole networks, as the optimizer writes them -------------------------------------------------


def cnn() -> ModelProto:
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "c1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "r1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "c2", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], ["sum"], "sum"),
        node("Relu", ["sum"], ["r2"], "r2"),
        node("GlobalAveragePool", ["r2"], ["pool"], "pool"),
        node("Flatten", ["pool"], ["flat"], "flat"),
        node("Gemm", ["flat", "k", "b"], ["z"], "head", transB=1),
        node("Softmax", ["z"], ["y"], "softmax", axis=1),
    ]
    constants = {
        "w1": numbers(16, 3, 3, 3) / 3,
        "b1": numbers(16),
        "w2": numbers(16, 16, 3, 3) / 9,
        "b2": numbers(16),
        "k": numbers(9, 16) / 16,
        "b": numbers(9) / 8,
    }
    return proto(nodes, constants, x=(1, 3, 12, 12), outputs={"y": [1, 9]})


def encoder() -> ModelProto:
    """One layer of a transformer: attention, layer normalizations, GELU."""
    hidden, heads = 16, 2
    nodes = []
    for part in "qkv":
        nodes += [
            node("MatMul", ["x", f"{part}w"], [f"{part}m"], f"{part}m"),
            node("Add", [f"{part}m", f"{part}b"], [f"{part}a"], f"{part}a"),
            node("Reshape", [f"{part}a", "split"], [f"{part}r"], f"{part}r"),
            node("Transpose", [f"{part}r"], [part], part, perm=[0, 2, 1, 3]),
        ]
    nodes += [
        node("Transpose", ["k"], ["kt"], "kt", perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["s"], "s"),
        node("Div", ["s", "root"], ["d"], "d"),
        node("Softmax", ["d"], ["p"], "p", axis=-1),
        node("MatMul", ["p", "v"], ["o"], "o"),
        node("Transpose", ["o"], ["ot"], "ot", perm=[0, 2, 1, 3]),
        node("Reshape", ["ot", "join"], ["oj"], "oj"),
        node("MatMul", ["oj", "ow"], ["om"], "om"),
        node("Add", ["om", "ob"], ["oa"], "oa"),
        node("Add", ["oa", "x"], ["skip"], "skip"),
        node("LayerNormalization", ["skip", "g", "be"], ["n1"], "n1", axis=-1),
        node("MatMul", ["n1", "iw"], ["im"], "im"),
        node("Add", ["im", "ib"], ["ia"], "ia"),
        node("Div", ["ia", "sqrt2"], ["e0"], "e0"),
        node("Erf", ["e0"], ["e1"], "e1"),
        node("Add", ["e1", "one"], ["e2"], "e2"),
        node("Mul", ["ia", "e2"], ["e3"], "e3"),
        node("Mul", ["e3", "half"], ["gelu"], "gelu"),
        node("MatMul", ["gelu", "fw"], ["fm"], "fm"),
        node("Add", ["fm", "fb"], ["fa"], "fa"),
        node("Add", ["fa", "n1"], ["skip2"], "skip2"),
        node("LayerNormalization", ["skip2", "g", "be"], ["n2"], "n2", axis=-1),
        node("Gather", ["n2", "first"], ["cls"], "cls", axis=1),
        node("Gemm", ["cls", "hw", "hb"], ["z"], "head"),
        node("Softmax", ["z"], ["y"], "softmax", axis=-1),
    ]
    constants = {f"{part}w": numbers(hidden, hidden, seed=i) / 4 for i, part in enumerate("qkvo")}
    constants |= {f"{part}b": numbers(hidden, seed=i) for i, part in enumerate("qkvo")}
    constants |= {
        "split": np.array([0, 0, heads, hidden // heads]),
        "join": np.array([0, 0, hidden]),
        "root": np.array((hidden / heads) ** 0.5, np.float32),
        "g": numbers(hidden),
        "be": numbers(hidden, seed=9),
        "iw": numbers(hidden, 32) / 4,
        "ib": numbers(32),
        "fw": numbers(32, hidden) / 4,
        "fb": numbers(hidden, seed=8),
        "sqrt2": np.array(2**0.5, np.float32),
        "one": np.array(1, np.float32),
        "half": np.array(0.5, np.float32),
        "first": np.array(0),
        "hw": numbers(hidden, 9) / 16,
        "hb": numbers(9) / 8,
    }
    return proto(nodes, constants, x=("batch", "time", hidden), outputs={"y": ["batch", 9]})


def lstm() -> ModelProto:
    nodes = [
        node("LSTM", ["x", "w", "r", "b"], ["all", "last", ""], "lstm", hidden_size=8),
        node("Squeeze", ["last", "axis"], ["h"], "squeeze"),
        node("MatMul", ["h", "k"], ["m"], "head"),
        node("Add", ["m", "kb"], ["z"], "bias"),
        node("Sigmoid", ["z"], ["y"], "sigmoid"),
    ]
    constants = {
        "w": numbers(1, 32, 6) / 4,
        "r": numbers(1, 32, 8) / 4,
        "b": numbers(1, 64),
        "axis": np.array([0]),
        "k": numbers(8, 9),
        "kb": numbers(9),
    }
    return proto(nodes, constants, x=("time", "batch", 6), outputs={"y": ["batch", 9]})


NETWORKS: Mapping[str, tuple[Callable[[], ModelProto], tuple[int, ...]]] = {
    "cnn": (cnn, (1, 3, 12, 12)),
    "encoder": (encoder, (2, 5, 16)),
    "lstm": (lstm, (5, 2, 6)),
}
LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
FORMS = ("float", "dynamic", "QDQ", "QOperator")


class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    """A few samples of noise."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._feeds: Iterator[dict[str, Array]] = iter(
            {"x": numbers(*shape, seed=seed)} for seed in range(4)
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)


def written(network: str, form: str, level: str, folder: Path) -> ModelProto:
    """The network in this form, as onnxruntime optimizes it and writes it."""
    build, shape = NETWORKS[network]
    source = folder / "float.onnx"
    onnx.save(build(), source)
    quantized = folder / "quantized.onnx"
    if form == "dynamic":
        quantize_dynamic(source, quantized)
    elif form != "float":
        quantize_static(source, quantized, Reader(shape), QuantFormat[form])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(source if form == "float" else quantized, options)
    return onnx.load(folder / "optimized.onnx")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", NETWORKS)
def test_optimized_files(network: str, form: str, level: str, tmp_path: Path) -> None:
    model = written(network, form, level, tmp_path)
    opened = from_proto(model, "network.onnx")
    assert len(trace(opened.graph()).heads) == 1
    x = numbers(*NETWORKS[network][1], seed=7)
    before, after = run(model, x), run(cut(opened, KEPT).proto, x)
    expected = before[:, list(KEPT)].astype(np.float64)
    if network != "lstm":
        expected /= expected.sum(axis=1, keepdims=True)
    step = 1e-6 if form in {"float", "dynamic"} else 0.02  # of a quantized softmax's output
    np.testing.assert_allclose(after, expected, atol=step)


def test_the_optimizer_fuses_these_networks(tmp_path: Path) -> None:
    """The files above contain the operators that they are meant to contain."""
    found: set[str] = set()
    for name in NETWORKS:
        found |= {n.op_type for n in written(name, "float", "extended", tmp_path).graph.node}
    assert "FusedConv" in found
    domains = {n.domain for n in written("cnn", "float", "all", tmp_path).graph.node}
    assert any(domain.startswith(MICROSOFT) for domain in domains)
