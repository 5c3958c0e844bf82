"""Decoders as they are exported for text generation, with an input for each cached tensor."""

from __future__ import annotations

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from tests.builders.onnx_models import Dims, node, numbers

VOCABULARY, HIDDEN, HEADS = 40, 16, 2
SIZE = HIDDEN // HEADS
TOTAL = "past_sequence_length + sequence_length"


def decoder(layers: int = 32) -> ModelProto:
    """With `input_ids`, `attention_mask`, and two cached tensors for each layer."""
    nodes, constants = layers_of(layers)
    return _model(nodes, constants, inputs_of(layers), outputs_of(layers))


def merged_decoder(layers: int = 1, *, vocabulary: int = VOCABULARY) -> ModelProto:
    """Both forms of a decoder in one file: the first step reads no cache, the others do.

    The branches share their weights, and name their tensors alike.
    """
    with_past, constants = layers_of(layers)
    first, _ = layers_of(layers, reads_past=False)
    outputs = outputs_of(layers, vocabulary)
    names = [output.name for output in outputs]
    chosen = helper.make_node(
        "If",
        ["use_cache_branch"],
        names,
        "optimum::if",
        then_branch=_branch(with_past, outputs, "with_past"),
        else_branch=_branch(first, outputs, "no_past"),
    )
    flag = helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
    return _model([chosen], constants, [*inputs_of(layers), flag], outputs)


def layers_of(
    layers: int, *, reads_past: bool = True
) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    """Nodes and constants from `input_ids` to `logits`."""
    constants = {"table": numbers(VOCABULARY, HIDDEN), "lm_head": numbers(HIDDEN, VOCABULARY)}
    constants |= {"heads": np.array([0, 0, HEADS, SIZE]), "joined": np.array([0, 0, HIDDEN])}
    constants["axes"] = np.array([1, 2])
    nodes = [node("Gather", ["table", "input_ids"], ["h0"], "embed")]
    nodes += [
        node("Cast", ["attention_mask"], ["shown"], "cast", to=TensorProto.FLOAT),
        node("Unsqueeze", ["shown", "axes"], ["mask"], "mask"),
    ]
    for i in range(layers):
        for part in "qkv":
            constants[f"{part}{i}"] = numbers(HIDDEN, HIDDEN, seed=i) / 8
            nodes += [
                node("MatMul", [f"h{i}", f"{part}{i}"], [f"{part}_flat{i}"], f"{part}_{i}"),
                node("Reshape", [f"{part}_flat{i}", "heads"], [f"{part}_split{i}"], f"{part}s{i}"),
                node("Transpose", [f"{part}_split{i}"], [f"{part}_{i}"], perm=[0, 2, 1, 3]),
            ]
        for part, kind in (("k", "key"), ("v", "value")):
            past, present = f"past_key_values.{i}.{kind}", f"present.{i}.{kind}"
            read = [past, f"{part}_{i}"] if reads_past else [f"{part}_{i}"]
            nodes.append(node("Concat", read, [present], f"cache_{part}{i}", axis=2))
        nodes += [
            node("Transpose", [f"present.{i}.key"], [f"turned{i}"], perm=[0, 1, 3, 2]),
            node("MatMul", [f"q_{i}", f"turned{i}"], [f"scores{i}"], f"scores_{i}"),
            *(
                [node("Add", [f"scores{i}", "mask"], [f"masked{i}"], f"masked_{i}")]
                if reads_past
                else [node("Identity", [f"scores{i}"], [f"masked{i}"], f"masked_{i}")]
            ),
            node("Softmax", [f"masked{i}"], [f"weights{i}"], f"softmax_{i}", axis=-1),
            node("MatMul", [f"weights{i}", f"present.{i}.value"], [f"mixed{i}"], f"mix_{i}"),
            node("Transpose", [f"mixed{i}"], [f"back{i}"], perm=[0, 2, 1, 3]),
            node("Reshape", [f"back{i}", "joined"], [f"joined{i}"], f"join_{i}"),
            node("Add", [f"h{i}", f"joined{i}"], [f"h{i + 1}"], f"residual_{i}"),
        ]
    nodes.append(node("MatMul", [f"h{layers}", "lm_head"], ["logits"], "head"))
    return nodes, constants


def inputs_of(layers: int) -> list[ValueInfoProto]:
    text = ["batch_size", "sequence_length"]
    cached: Dims = ["batch_size", HEADS, "past_sequence_length", SIZE]
    return [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, text),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch_size", TOTAL]),
        *(
            helper.make_tensor_value_info(
                f"past_key_values.{i}.{kind}", TensorProto.FLOAT, list(cached)
            )
            for i in range(layers)
            for kind in ("key", "value")
        ),
    ]


def outputs_of(layers: int, vocabulary: int = VOCABULARY) -> list[ValueInfoProto]:
    logits: Dims = ["batch_size", "sequence_length", vocabulary]
    return [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, list(logits)),
        *(
            helper.make_tensor_value_info(
                f"present.{i}.{kind}", TensorProto.FLOAT, ["batch_size", HEADS, TOTAL, SIZE]
            )
            for i in range(layers)
            for kind in ("key", "value")
        ),
    ]


def _branch(nodes: list[NodeProto], outputs: list[ValueInfoProto], name: str) -> GraphProto:
    return helper.make_graph(nodes, name, [], outputs)


def _model(
    nodes: list[NodeProto],
    constants: dict[str, np.ndarray],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
) -> ModelProto:
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
