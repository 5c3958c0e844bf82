"""Shapes that onnx's inference does not find, or that a file states wrongly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, helper

from exporter.formats.onnx import from_proto
from exporter.graph import Array
from exporter.graph.lengths import Lengths
from exporter.trace import trace
from tests.builders import commands
from tests.builders.commands import Done
from tests.builders.onnx_decoders import decoder
from tests.builders.onnx_models import Dims, cut, node, numbers, proto

KEPT = (1, 3)
MS = {"com.microsoft": 1}


def size(source: str, axis: int, name: str) -> list[NodeProto]:
    """The length of one axis, as PyTorch writes x.shape[axis]: a vector with one entry."""
    return [
        node("Shape", [source], [f"{name}.shape"], f"{name}.shape"),
        node("Gather", [f"{name}.shape", f"at{axis}"], [f"{name}.one"], f"{name}.one"),
        node("Unsqueeze", [f"{name}.one", "zero"], [name], name),
    ]


LENGTHS = {f"at{axis}": np.array(axis) for axis in range(4)} | {
    "zero": np.array([0]),
    "rest": np.array([-1]),
    "two": np.array([2]),
}


def viewed() -> ModelProto:
    """x[b, 4, t] -> rows [t * b, 4] -> Gemm -> view(t, b, -1)."""
    nodes = [
        node("Transpose", ["x"], ["turned"], "turn", perm=[2, 0, 1]),
        *size("turned", 0, "t"),
        *size("turned", 1, "b"),
        node("Mul", ["t", "b"], ["both"], "both"),
        node("Concat", ["both", "four"], ["flat"], "flat", axis=0),
        node("Reshape", ["turned", "flat"], ["rows"], "rows"),
        node("Gemm", ["rows", "kernel"], ["z"], "gemm"),
        node("Concat", ["t", "b", "rest"], ["target"], "target", axis=0),
        node("Reshape", ["z", "target"], ["y"], "view"),
    ]
    constants = {**LENGTHS, "four": np.array([4]), "kernel": numbers(4, 7)}
    return proto(nodes, constants, x=("b", 4, "t"), outputs={"y": ["T", "b", "C"]}, opset=13)


def resized() -> ModelProto:
    """x[b, 3, h, w] -> convolution of stride 2 -> interpolate(size=x.shape[2:])."""
    nodes = [
        node("Conv", ["x", "kernel"], ["z"], "conv", strides=[2, 2]),
        *size("x", 2, "h"),
        *size("x", 3, "w"),
        node("Shape", ["z"], ["small"], "small"),
        node("Slice", ["small", "zero", "two", "zero"], ["start"], "start"),
        node("Concat", ["start", "h", "w"], ["sizes"], "sizes", axis=0),
        node("Resize", ["z", "", "", "sizes"], ["y"], "resize", mode="nearest"),
    ]
    constants = {**LENGTHS, "kernel": numbers(7, 3, 1, 1)}
    outputs: dict[str, Dims | None] = {"y": ["n", "c", "hh", "ww"]}
    return proto(nodes, constants, x=("b", 3, "h", "w"), outputs=outputs, opset=13)


def ranked() -> ModelProto:
    """The same, followed by ArgMax: no output shows the width."""
    model = resized()
    model.graph.node[-1].output[0] = "big"
    model.graph.node.append(node("ArgMax", ["big"], ["y"], "ids", axis=1, keepdims=0))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", onnx.TensorProto.INT64, ["n", "hh", "ww"])
    )
    return model


def stated(dims: Dims) -> ModelProto:
    """x[1, 4, t] -> Conv -> transposed: y[1, t, 7], but the file states another shape."""
    nodes = [
        node("Conv", ["x", "kernel"], ["z"], "conv"),
        node("Transpose", ["z"], ["y"], "turn", perm=[0, 2, 1]),
    ]
    constants = {"kernel": numbers(7, 4, 1)}
    return proto(nodes, constants, x=(1, 4, "t"), outputs={"y": dims}, opset=13)


def after(operator: str, inputs: Sequence[str], **attributes: Any) -> ModelProto:
    """x[batch, t, 16] -> an operator of onnxruntime -> MatMul -> Softmax."""
    nodes = [
        node(operator, list(inputs), ["h"], "body", domain="com.microsoft", **attributes),
        node("MatMul", ["h", "kernel"], ["m"], "head"),
        node("Add", ["m", "bias"], ["z"], "add"),
        node("Softmax", ["z"], ["y"], "softmax", axis=-1),
    ]
    constants = {
        "gamma": numbers(16),
        "beta": numbers(16, seed=1),
        "square": numbers(16, 16),
        "qkv": numbers(16, 48),
        "qkv_bias": numbers(48),
        "kernel": numbers(16, 7),
        "bias": numbers(7),
    }
    outputs: dict[str, Dims | None] = {"y": ["batch", "t", "c"]}
    return proto(nodes, constants, x=("batch", "t", 16), outputs=outputs, domains=MS)


MODELS: Mapping[str, Any] = {
    "view(t, b, -1)": viewed,
    "interpolate(size=...)": resized,
    "interpolate, then argmax": ranked,
    "an output of another rank": lambda: stated([1, "seq"]),
    "an output of another length": lambda: stated([1, "seq", 99]),
    "an output without a shape": lambda: stated(["a", "b", "c"]),
    "SkipLayerNormalization": lambda: after("SkipLayerNormalization", ["x", "x", "gamma", "beta"]),
    "FusedMatMul": lambda: after("FusedMatMul", ["x", "square"], alpha=0.5),
    "BiasGelu": lambda: after("BiasGelu", ["x", "gamma"]),
    "Attention": lambda: after("Attention", ["x", "qkv", "qkv_bias"], num_heads=2),
}


def run(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_units_are_found(name: str) -> None:
    model = MODELS[name]()
    opened = from_proto(model, "network.onnx")
    after_cut = cut(opened, KEPT).proto
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    given = [n or other for n, other in zip(shape, (2, 3, 6, 8), strict=False)]
    x = numbers(*given)
    before, found = run(model, {"x": x})["y"], run(after_cut, {"x": x})["y"]
    if found.dtype == np.int64:  # new indices
        expected = run_to(model, "big", x)[:, list(KEPT)].argmax(1)
    else:
        axis = 1 if name.startswith("interpolate") else -1
        expected = before.take(KEPT, axis)
        if name in {"SkipLayerNormalization", "FusedMatMul", "BiasGelu", "Attention"}:
            expected = expected / expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def run_to(model: ModelProto, tensor: str, x: Array) -> Array:
    shown = ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.add(name=tensor)
    return run(shown, {"x": x})[tensor]


@pytest.mark.parametrize("make", [viewed, resized])
def test_measured_lengths_are_not_written(make: Any) -> None:
    """The file leaves its lengths open as before; only the width of the units has a number."""
    before = make()
    after_cut = cut(from_proto(before, "network.onnx"), KEPT).proto
    stated_dims = list(after_cut.graph.output[0].type.tensor_type.shape.dim)
    old = [d.dim_param for d in before.graph.output[0].type.tensor_type.shape.dim]
    assert sorted(d.dim_value for d in stated_dims) == [0] * (len(old) - 1) + [len(KEPT)]
    assert [d.dim_param for d in stated_dims if not d.dim_value] == [
        name for name in old if name not in {"C", "c"}
    ]


def custom(tail: Sequence[NodeProto], dims: Dims, kernel: Array) -> ModelProto:
    """x[batch, 6] -> an operator that no library has -> the tail."""
    nodes = [node("Mine", ["x"], ["h"], "mine", domain="own"), *tail]
    constants = {"kernel": kernel, "bias": numbers(5)}
    return proto(nodes, constants, outputs={"y": dims}, domains={"own": 1})


CUSTOM: Mapping[str, ModelProto] = {
    "the kernel of a Gemm": custom(
        [node("Gemm", ["h", "kernel", "bias"], ["z"]), node("Softmax", ["z"], ["y"])],
        ["n", "c"],
        numbers(6, 5),
    ),
    "a transposed kernel": custom(
        [node("Gemm", ["h", "kernel"], ["y"], transB=1)], ["n", "c"], numbers(5, 6)
    ),
    "the kernel of a convolution": custom(
        [node("Conv", ["h", "kernel"], ["z"]), node("Relu", ["z"], ["y"])],
        ["n", "c", "w"],
        numbers(5, 2, 3),
    ),
    "the result of an activation": custom(
        [
            node("MatMul", ["h", "kernel"], ["m"]),
            node("Add", ["m", "bias"], ["z"]),
            node("Softmax", ["z"], ["y"], axis=1),
        ],
        ["n", 5],
        numbers(6, 5),
    ),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_kernels_and_results_state_shapes(name: str) -> None:
    """onnxruntime does not load the file, and cannot name or measure shapes."""
    (head,) = trace(from_proto(CUSTOM[name], "network.onnx").graph()).heads
    assert (head.units, head.axis) == (5, 1)


def test_given_lengths_are_used_while_tracing() -> None:
    """The number of positions decides the units: a flattened axis before the head."""
    tail = [node("Flatten", ["x"], ["flat"], "flat"), node("Gemm", ["flat", "kernel"], ["y"])]
    model = proto(tail, {"kernel": numbers(12, 5)}, x=("batch", 4, "t"), outputs={"y": [None, 5]})
    opened = from_proto(model, "network.onnx").with_lengths(Lengths({"x": (1, 4, 3)}))
    assert opened.graph().tensors["x"].shape == (None, 4, None), "the input stays open"
    (head,) = trace(opened.graph()).heads
    assert head.units == 5


def test_a_decoder_with_66_inputs_needs_no_flag(tmp_path: Path) -> None:
    model = decoder(32)
    assert len(model.graph.input) == 66
    onnx.save(model, tmp_path / "decoder.onnx")
    done = pruned(tmp_path)
    assert done.code == 0, done.err
    lengths = {"sequence_length": 3, "past_sequence_length": 2}
    feeds = {info.name: feed(info, lengths) for info in model.graph.input}
    before, after_cut = run(model, feeds), run(onnx.load(tmp_path / "cut.onnx"), feeds)
    expected = before.pop("logits")[..., list(KEPT)]
    np.testing.assert_allclose(after_cut.pop("logits"), expected, atol=1e-6)
    for name, value in before.items():
        np.testing.assert_array_equal(after_cut[name], value)


def pruned(folder: Path, *options: str) -> Done:
    line = "prune decoder.onnx -o cut.onnx --keep 1,3 --head logits --samples 2"
    return commands.exporter([*line.split(), *options], folder)


def feed(info: onnx.ValueInfoProto, lengths: Mapping[str, int]) -> Array:
    kind = info.type.tensor_type
    shape = [
        d.dim_value or lengths.get(d.dim_param) or (5 if "+" in d.dim_param else 1)
        for d in kind.shape.dim
    ]
    random = np.random.default_rng(len(info.name))
    if kind.elem_type == onnx.TensorProto.INT64:
        return random.integers(0, 2, shape)
    return random.normal(size=shape).astype(np.float32)


def test_an_empty_cache(tmp_path: Path) -> None:
    onnx.save(decoder(1), tmp_path / "decoder.onnx")
    done = pruned(tmp_path, "--dim", "past_sequence_length=0,sequence_length=4")
    assert done.code == 0, done.err


def test_an_unknown_dimension_is_refused(tmp_path: Path) -> None:
    onnx.save(decoder(1), tmp_path / "decoder.onnx")
    done = pruned(tmp_path, "--dim", "time=3")
    assert done.code == 2
    assert "no input has an open dimension named 'time'" in done.err
    assert "sequence_length" in done.err
