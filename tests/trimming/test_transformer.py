"""A transformer block: attention heads and what a layer normalization mixes stay as they are."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.testing import assert_allclose

import exporter
from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from tests.builders.onnx_models import model, node, numbers

TOKENS, FEATURES, HEAD, HIDDEN, UNITS = 6, 12, 8, 16, 5
USED = HIDDEN // 2  # units of the hidden layer; the others are always 0


def block() -> OnnxModel:
    """softmax(q k^T) v, residual, layer normalization; two dense layers likewise; mean; head."""
    seeds = count()

    def kernel(*shape: int) -> Array:
        return numbers(*shape, seed=next(seeds)) / np.float32(np.sqrt(shape[0]))

    hidden, bias = kernel(FEATURES, HIDDEN), kernel(HIDDEN)
    hidden[:, USED:] = bias[USED:] = 0.0
    constants = {
        **{name: kernel(FEATURES, HEAD) for name in ("wq", "wk", "wv")},
        "wo": kernel(HEAD, FEATURES),
        "w1": hidden,
        "b1": bias,
        "w2": kernel(HIDDEN, FEATURES),
        "wy": kernel(FEATURES, UNITS),
        "by": kernel(UNITS),
        **{f"scale{i}": 1 + kernel(FEATURES) for i in (1, 2)},
        **{f"shift{i}": kernel(FEATURES) for i in (1, 2)},
    }
    nodes = [
        *(node("MatMul", ["x", f"w{each}"], [each], f"product {each}") for each in "qkv"),
        node("Transpose", ["k"], ["kt"], "transposed", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"], "scores"),
        node("Softmax", ["scores"], ["weights"], "weights", axis=-1),
        node("MatMul", ["weights", "v"], ["mixed"], "mixed"),
        node("MatMul", ["mixed", "wo"], ["attended"], "attended"),
        node("Add", ["x", "attended"], ["sum1"], "sum1"),
        node("LayerNormalization", ["sum1", "scale1", "shift1"], ["norm1"], "norm1", axis=-1),
        node("MatMul", ["norm1", "w1"], ["dense1"], "dense1"),
        node("Add", ["dense1", "b1"], ["biased1"], "biased1"),
        node("Relu", ["biased1"], ["hidden"], "hidden"),
        node("MatMul", ["hidden", "w2"], ["dense2"], "dense2"),
        node("Add", ["norm1", "dense2"], ["sum2"], "sum2"),
        node("LayerNormalization", ["sum2", "scale2", "shift2"], ["norm2"], "norm2", axis=-1),
        node("ReduceMean", ["norm2"], ["mean"], "mean", axes=[1], keepdims=0),
        node("Gemm", ["mean", "wy", "by"], ["z"], "head"),
        node("Softmax", ["z"], ["y"], "y", axis=-1),
    ]
    shapes = {"x": (1, TOKENS, FEATURES), "outputs": {"y": (1, UNITS)}}
    return model(nodes, constants, opset=17, **shapes)


def outputs(path: Path, x: Array) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": each})[0] for each in x])


def kernels(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the kernels, by the name of the product that reads them."""
    graph = onnx.load(path).graph
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    products = [each for each in graph.node if each.op_type in {"MatMul", "Gemm"}]
    return {each.name: shapes[each.input[1]] for each in products if each.input[1] in shapes}


def test_only_the_hidden_layer_becomes_narrower(tmp_path: Path) -> None:
    """The hidden units that are removed are always 0, so that nothing is lost."""
    net, small = tmp_path / "net.onnx", tmp_path / "small.onnx"
    block().write(net)
    np.savez(tmp_path / "data.npz", x=numbers(60, 1, TOKENS, FEATURES))
    found = exporter.inspect(net, channels=True).channels or ()
    assert [each.name for each in found if not each.reason] == ["dense1"]
    reasons = {each.name: each.reason for each in found}
    assert all("not a constant" in reasons[each] for each in "qkv")
    assert "LayerNormalization" in reasons["dense2"]
    exporter.trim(net, small, data=tmp_path / "data.npz", target=0.85, bench=False)
    expected = {**kernels(net), "dense1": (FEATURES, USED), "dense2": (USED, FEATURES)}
    assert kernels(net) != expected
    assert kernels(small) == expected
    x = numbers(20, 1, TOKENS, FEATURES, seed=1)
    assert_allclose(outputs(small, x), outputs(net, x), atol=1e-5)
