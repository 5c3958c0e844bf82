"""Small models of both formats, with the features that a proof has to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from exporter.formats.model import Model
from exporter.formats.onnx import from_bytes as onnx_from_bytes
from exporter.formats.tflite import from_bytes as tflite_from_bytes
from tests.builders import (
    language_models,
    mode_cells,
    onnx_rankings,
    several_heads,
    tflite_metadata,
)
from tests.builders import onnx_models as onnx
from tests.builders.tflite_builder import Builder

LABELS = ("ant", "bee", "cat", "dog", "eel", "fox")


def small_onnx() -> bytes:
    """x[batch, 1, 6, 6] -> Conv, Relu, MaxPool -> "y" (softmax) and "tags" (sigmoid), labels."""
    constants = {
        "filters": onnx.numbers(4, 1, 3, 3),
        "offsets": onnx.numbers(4),
        "kernel": onnx.numbers(16, 6),
        "bias": onnx.numbers(6),
        "tag_kernel": onnx.numbers(16, 3, seed=1),
        "tag_bias": onnx.numbers(3, seed=1),
    }
    nodes = [
        onnx.node("Conv", ["x", "filters", "offsets"], ["c"], "conv", kernel_shape=[3, 3]),
        onnx.node("Relu", ["c"], ["r"], "relu"),
        onnx.node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        onnx.node("Flatten", ["p"], ["f"], "flatten"),
        onnx.node("Gemm", ["f", "kernel", "bias"], ["z"], "head"),
        onnx.node("Softmax", ["z"], ["y"], "softmax", axis=1),
        onnx.node("MatMul", ["f", "tag_kernel"], ["t"], "tag_product"),
        onnx.node("Add", ["t", "tag_bias"], ["s"], "tag_sum"),
        onnx.node("Sigmoid", ["s"], ["tags"], "sigmoid"),
    ]
    outputs = {"y": None, "tags": None}
    made = onnx.proto(nodes, constants, x=("batch", 1, 6, 6), outputs=outputs)
    helper.set_model_props(made, {"labels": str(list(LABELS)).replace("'", '"')})
    return bytes(made.SerializeToString())


def small_tflite() -> bytes:
    """x[?, 8] -> dense with RELU -> "y" (softmax) and "tags" (logistic), with labels."""
    builder = Builder(seed=5)
    x = builder.feed("x", None, 8)
    builder.normal("k", 7, 8)
    builder.normal("b", 7)
    relu: dict[str, Any] = {"fusedActivationFunction": 1}
    builder.op("FULLY_CONNECTED", [x, "k", "b"], (None, 7), "h", "FullyConnectedOptions", **relu)
    builder.op("TANH", ["h"], (None, 7), "g")
    builder.softmax(builder.dense("g", 6, "z"), "y")
    builder.op("LOGISTIC", [builder.dense("g", 3, "t")], (None, 3), "tags")
    builder.signature({"x": "x"}, {"y": "y", "tags": "tags"})
    entry = tflite_metadata.metadata([tflite_metadata.Associated("labels.txt")])
    builder.metadata("TFLITE_METADATA", entry)
    content = builder.content("y", "tags")
    files = {"labels.txt": "".join(f"{label}\n" for label in LABELS).encode()}
    return tflite_metadata.zipped(content, files)


def looping_onnx() -> bytes:
    """x, shift, more -> MatMul, Loop, noise, a function, If, dense "y". One branch never runs."""
    node, info = helper.make_node, helper.make_tensor_value_info
    matrix, flag, whole = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
    body = helper.make_graph(
        [node("Add", ["v", "one"], ["v2"]), node("Identity", ["go"], ["go2"])],
        "body",
        [info("i", whole, []), info("go", flag, []), info("v", matrix, ["batch", 4])],
        [info("go2", flag, []), info("v2", matrix, ["batch", 4])],
    )
    branches = {
        "then_branch": node("Mul", ["s", "one"], ["rare"]),
        "else_branch": node("Neg", ["s"], ["usual"]),
    }
    graphs = {
        name: helper.make_graph([each], name, [], [info(each.output[0], matrix, None)])
        for name, each in branches.items()
    }
    nodes = [
        node("MatMul", ["x", "kernel"], ["h"]),
        node("Add", ["h", "shift"], ["h1"]),
        node("Add", ["h1", "more"], ["h2"]),
        node("Loop", ["times", "always", "h2"], ["looped"], body=body),
        node("RandomNormalLike", ["looped"], ["n1"]),
        node("RandomNormalLike", ["looped"], ["n2"]),
        node("Mul", ["n1", "n2"], ["n"]),
        node("Add", ["looped", "n"], ["noisy"]),
        node("Soft", ["noisy"], ["s"], domain="local"),
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "limit"], ["is_rare"]),
        node("If", ["is_rare"], ["r"], **graphs),
        node("Reshape", ["r", "rows"], ["f"]),
        node("MatMul", ["f", "head"], ["product"], "head"),
        node("Softmax", ["product"], ["y"], "softmax", axis=1),
    ]
    constants = {
        "kernel": onnx.numbers(6, 4),
        "head": onnx.numbers(4, 6),
        "one": np.ones(4, np.float32),
        "times": np.array(2),
        "always": np.array(True),
        "limit": np.array(1e6, np.float32),
        "rows": np.array([-1, 4]),
    }
    made = onnx.proto(nodes, constants, outputs={"y": ("batch", 6)}, domains={"local": 1})
    made.graph.input.extend(info(name, matrix, ["batch", 4]) for name in ("shift", "more"))
    soft = [node("Softmax", ["a"], ["b"])]
    opset = [helper.make_opsetid("", made.opset_import[0].version)]
    made.functions.append(helper.make_function("local", "Soft", ["a"], ["b"], soft, opset))
    return bytes(made.SerializeToString())


def stateful_tflite() -> bytes:
    """x[1, 4] -> two SVDF, each with a state of its own -> dense "y" (softmax)."""
    builder = Builder(seed=3)
    name = builder.feed("x", 1, 4)
    for layer in ("a", "b"):
        inputs = [builder.normal(f"{layer}{n}", *s) for n, s in (("f", (4, 4)), ("t", (4, 2)))]
        builder.tensor(f"{layer}state", (1, 8))
        builder.at(f"{layer}state").isVariable = True
        ends = [name, *inputs, "", f"{layer}state"]
        name = builder.op("SVDF", ends, (1, 4), layer, "SVDFOptions", rank=1)
    builder.softmax(builder.dense(name, 6, "z"), "y")
    return builder.content("y")


def _cell(kind: str, head: str, precision: str) -> Callable[[], bytes]:
    def build() -> bytes:
        made: Any = mode_cells.built(head, kind, precision)
        return bytes(made.to_bytes() if kind == "onnx" else made.content)

    return build


MODELS: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "two heads.onnx": ("onnx", small_onnx),
    "two heads.tflite": ("tflite", small_tflite),
    "loop and branches.onnx": ("onnx", looping_onnx),
    "states.tflite": ("tflite", stateful_tflite),
    **{
        f"{head} {precision}.{kind}": (kind, _cell(kind, head, precision))
        for kind in ("onnx", "tflite")
        for head, precision in (
            ("softmax", "float32"),
            ("sigmoid", "float16 weights"),
            ("softmax", "int8"),
            ("log_softmax", "float32"),
            ("linear", "uint8"),
        )
    },
}
"""Name -> kind, and the function that builds the file."""


def with_background_dropped() -> bytes:
    """x -> dense, softmax over 6 classes, the last of which is dropped."""
    nodes = [
        onnx.node("Gemm", ["x", "kernel", "bias"], ["z"], "gemm"),
        onnx.node("Softmax", ["z"], ["p"], "softmax", axis=1),
        onnx.node("Slice", ["p", "start", "stop", "axis"], ["y"], "drop"),
    ]
    ends = {"start": np.array([0]), "stop": np.array([-1]), "axis": np.array([1])}
    constants = {"kernel": onnx.numbers(6, 6), "bias": onnx.numbers(6), **ends}
    return bytes(onnx.proto(nodes, constants).SerializeToString())


def _ranked(name: str) -> Callable[[], bytes]:
    nodes, outputs, options = onnx_rankings.RANKED[name]
    return lambda: onnx_rankings.ranked(*nodes, outputs=tuple(outputs), **options).to_bytes()


def _language(form: str) -> Callable[[], bytes]:
    return lambda: language_models.onnx_model(form).SerializeToString()


_TOKENS, _HEADS = {"keep": "0,2-8,11,30-37"}, {"cuts": {"age": [0, 2], "race": [1, 3, 4]}}
_BOTH = {**_TOKENS, "vocabulary": "both"}
FEATURES: Mapping[str, tuple[str, Callable[[], bytes], Mapping[str, Any]]] = {
    **{f"tokens, {form}": ("onnx", _language(form), _BOTH) for form in language_models.FORMS},
    "tokens, tied, ids stay": ("onnx", _language("tied"), {**_BOTH, "keep_ids": True}),
    "tokens, untied, ids stay": (
        "onnx",
        _language("untied"),
        {**_BOTH, "keep_ids": True, "unknown_id": 3},
    ),
    "tokens, head alone": ("onnx", _language("untied"), _TOKENS),
    "tokens, tied.tflite": (
        "tflite",
        lambda: language_models.tflite_model("GATHER", tied=True).content("logits"),
        _BOTH,
    ),
    "tokens, ids stay.tflite": (
        "tflite",
        lambda: language_models.tflite_model("GATHER", tied=False).content("logits"),
        {**_BOTH, "keep_ids": True},
    ),
    "several heads": ("onnx", lambda: several_heads.five_heads().to_bytes(), _HEADS),
    "several heads, masked": (
        "onnx",
        lambda: several_heads.five_heads().to_bytes(),
        {**_HEADS, "mode": "mask"},
    ),
    "heads of one kernel": (
        "onnx",
        lambda: several_heads.one_kernel().to_bytes(),
        {"cuts": {"age": [0, 2, 4], "gender": [1]}},
    ),
    "several heads.tflite": (
        "tflite",
        lambda: several_heads.two_in_tflite().content,
        {"cuts": {"gender": [1], "age": [0, 2]}},
    ),
    "dropped outputs": (
        "onnx",
        lambda: several_heads.five_heads().to_bytes(),
        {"head": "race", "keep": [1, 3, 4], "drop_outputs": ["mood", "pose"]},
    ),
    "dropped output.tflite": (
        "tflite",
        lambda: several_heads.two_in_tflite().content,
        {"head": "age", "keep": [1, 3], "drop_outputs": ["gender"]},
    ),
    **{
        f"ranking, {name}, {title}": ("onnx", _ranked(name), options)
        for name in onnx_rankings.RANKED
        for title, options in (
            ("old ids", {"keep": [0, 2, 4]}),
            ("new ids", {"keep": [0, 2, 4], "new_ids": True}),
        )
    },
    "group": ("onnx", small_onnx, {"head": "y", "keep": [0, 2], "group": 2}),
    "group.tflite": ("tflite", small_tflite, {"head": "y", "keep": [1], "group": 3}),
    "background dropped": ("onnx", with_background_dropped, {"keep": [0, 2]}),
}
"""Newer features: name -> format, content, options of the cut."""


def opened(kind: str, content: bytes, name: str = "file") -> Model:
    return (onnx_from_bytes if kind == "onnx" else tflite_from_bytes)(content, name)


def content_of(model: Any) -> bytes:
    return bytes(model.to_bytes() if model.kind == "onnx" else model.content)


CUTS: Mapping[str, Mapping[str, Any]] = {
    "slice": {"keep": [0, 2, 3]},
    "slice in an order": {"keep": [3, 0], "keep_order": True},
    "zero": {"keep": [1, 4], "mode": "zero"},
    "mask": {"keep": [0, 5], "mode": "mask"},
    "restored": {"keep": [1, 2], "restore_width": True},
    "ids": {"keep": [1, 2, 4], "emit": "ids:2"},
}


def head_of(name: str) -> dict[str, Any]:
    """The option that names the head, for the models with two."""
    return {"head": "y"} if name.startswith("two heads") else {}


RANDOM = np.random.default_rng
