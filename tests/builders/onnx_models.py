"""Small ONNX models for tests, built by hand, and run without the code under test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnxruntime
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    checker,
    helper,
    numpy_helper,
    shape_inference,
)

from exporter.formats.onnx import OnnxModel, from_proto
from exporter.graph import Array
from exporter.graph.edits import Plan
from exporter.modes import MODES
from exporter.trace import trace

Dims = Sequence[int | str | None]

node = helper.make_node


def numbers(*shape: int, seed: int = 0) -> Array:
    """Normal float32 values; the same for the same shape and seed."""
    random = np.random.default_rng([seed, *shape])
    return random.normal(size=shape).astype(np.float32)


def proto(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array],
    *,
    x: Dims = ("batch", 6),
    outputs: Mapping[str, Dims | None] | None = None,
    opset: int = 17,
    ir: int = 8,
    domains: Mapping[str, int] | None = None,
) -> ModelProto:
    """A model with the float32 input `x` and the output `y`, or the given outputs.

    Shapes that are None are inferred.
    """
    given = outputs if outputs is not None else {"y": None}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x))]
    if ir < 4:
        inputs += [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in constants.items()
        ]
    graph = helper.make_graph(
        list(nodes),
        "network",
        inputs,
        [
            ValueInfoProto(name=n)
            if d is None
            else helper.make_tensor_value_info(n, TensorProto.FLOAT, d)
            for n, d in given.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
        doc_string="a graph for tests",
    )
    versions = {"": opset, **(domains or {})}
    result = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, v) for domain, v in versions.items()],
        ir_version=ir,
        producer_name="tests",
    )
    if all(given.values()):
        return result
    inferred = shape_inference.infer_shapes(result, data_prop=True).graph.output
    for output, known in zip(result.graph.output, inferred, strict=True):
        output.CopyFrom(known)
    return result


def model(nodes: Sequence[NodeProto], constants: Mapping[str, Array], **options: Any) -> OnnxModel:
    """As `proto`, opened."""
    return from_proto(proto(nodes, constants, **options), "network.onnx")


def classifier(*tail: NodeProto, **options: Any) -> OnnxModel:
    """x[batch, 6] -> Gemm -> z[batch, 5] -> the tail, or a softmax -> y."""
    last = tail or (node("Softmax", ["z"], ["y"], "softmax", axis=1),)
    constants = {"kernel": numbers(6, 5), "bias": numbers(5), **options.pop("constants", {})}
    gemm = node("Gemm", ["x", "kernel", "bias"], ["z"], "gemm")
    return model([gemm, *last], constants, **options)


def run(opened: OnnxModel, feeds: Mapping[str, Array], *, plain: bool = False) -> dict[str, Array]:
    """Every output, after the checker has accepted the file.

    Args:
        plain: run every operator as the file states it. Otherwise onnxruntime fuses a product with
            the dequantization before it, and quantizes the other input too.
    """
    checker.check_model(opened.proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        opened.to_bytes(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def cut(opened: OnnxModel, kept: Sequence[int], mode: str = "slice") -> OnnxModel:
    """The model with the units of its only head cut by the modes' own plan."""
    head = trace(opened.graph()).head()
    return opened.apply(Plan(MODES[mode].edits(head, kept)))


def softmax(values: Array, axis: int = -1) -> Array:
    """Softmax in float64."""
    e = np.exp(values.astype(np.float64))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def filled(opened: OnnxModel, seed: int = 0) -> OnnxModel:
    """The model with seeded normal weights instead of ConstantOfShape nodes.

    Kernels are scaled so that values have the same size in every layer; variances of
    normalizations are positive.
    """
    source = ModelProto()
    source.CopyFrom(opened.proto)
    random = np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in source.graph.initializer}
    kept = [n for n in source.graph.node if n.op_type != "ConstantOfShape"]
    for n in source.graph.node:
        if n.op_type == "ConstantOfShape":
            shape = tuple(int(d) for d in shapes[n.input[0]])
            values = random.normal(size=shape) * (0.7 / prod(shape[1:])) ** 0.5
            values = values if len(shape) > 1 else 1 + 0.1 * np.abs(random.normal(size=shape))
            weights = numpy_helper.from_array(values.astype(np.float32), n.output[0])
            source.graph.initializer.append(weights)
    del source.graph.node[:]
    source.graph.node.extend(kept)
    return from_proto(source, opened.name)
