"""The types of a file's tensors: as stated, completed by shape inference."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    numpy_helper,
)

from exporter.formats.onnx.constants import is_constant_node
from exporter.formats.onnx.contrib_shapes import replace_with_standard_ops
from exporter.formats.onnx.protos import (
    DEFAULT_DOMAINS,
    FIRST_IR_WITHOUT_INPUTS,
    copy_without,
    dtype_of,
    node_names,
    shape_of,
    tensor_type,
)
from exporter.formats.onnx.shape_inference_by_node import complete, is_open
from exporter.formats.onnx.shape_vectors import Lengths
from exporter.graph import Tensor

_EQUATION = re.compile(rb"[A-Za-z,.\->\s]*")
_SMALL = 1024  # elements; constants above it carry no shapes, and need not pass through inference


def types_of(model: ModelProto, constants: Mapping[str, Tensor]) -> dict[str, TypeProto]:
    """Types as stated, completed by shape inference over a skeleton without the large constants.

    Inference gives up on some chains that compute lengths. Where it did, it is asked again with the
    targets that reshapes are given, and then node by node (see `stepwise`).
    """
    skeleton = _skeleton(model, constants)
    types = _inferred(skeleton)
    tensors = {name: Tensor(name, shape_of(t), dtype_of(t)) for name, t in types.items()}
    if _state_targets(skeleton.graph, {**tensors, **constants}):
        types = _inferred(skeleton)
    if any(is_open(types.get(name)) for node in skeleton.graph.node for name in node.output):
        complete(skeleton, types, constants)
    return types


def _inferred(skeleton: ModelProto) -> dict[str, TypeProto]:
    try:
        result = onnx.shape_inference.infer_shapes(skeleton, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):  # contradictions, unknown types
        result = skeleton  # what the file states must do then
    graph = result.graph
    return {info.name: info.type for info in (*graph.value_info, *graph.input, *graph.output)}


def _state_targets(graph: GraphProto, tensors: Mapping[str, Tensor]) -> bool:
    """Put a constant in place of each computed target whose result has no known shape."""
    names = node_names(graph)
    lengths = Lengths(dict(zip(names, graph.node, strict=True)), tensors)
    known = [*graph.initializer]
    for name, node in zip(names, graph.node, strict=True):
        if node.op_type != "Reshape" or node.domain not in DEFAULT_DOMAINS or len(node.input) == 1:
            continue
        result, target = tensors.get(node.output[0]), tensors.get(node.input[1])
        entries = lengths.at(name, 1)
        if entries is None or (target is not None and target.is_constant):
            continue
        if result is not None and result.shape is not None and None not in result.shape:
            continue
        values = np.array([max(entry.value, -1) for entry in entries], np.int64)
        if (values == -1).sum() <= 1:
            node.input[1] = f"{name}/target"
            known.append(numpy_helper.from_array(values, node.input[1]))
    stated = len(known) > len(graph.initializer)
    graph.initializer.extend(known[len(graph.initializer) :])
    return stated


def _skeleton(model: ModelProto, constants: Mapping[str, Tensor]) -> ModelProto:
    """The model with every large constant turned into an input of its type."""
    source = model.graph
    result = copy_without(model, "graph")
    result.ir_version = max(result.ir_version, FIRST_IR_WITHOUT_INPUTS)
    result.graph.CopyFrom(copy_without(source, "node", "initializer"))
    large = {name for name, tensor in constants.items() if _elements(tensor) > _SMALL}
    stated = {info.name for info in source.input}
    result.graph.input.extend(_as_input(constants[name]) for name in sorted(large - stated))
    small = (tensor for tensor in source.initializer if tensor.name not in large)
    result.graph.initializer.extend(_held(tensor, constants[tensor.name]) for tensor in small)
    nodes = (node for node in source.node if not _holds_one_of(node, large))
    kept = (node for node in nodes if not _is_endless(node))
    result.graph.node.extend(
        each for node in kept for each in replace_with_standard_ops(node, constants)
    )
    return result


def _held(tensor: TensorProto, constant: Tensor) -> TensorProto:
    """The constant itself, with its values inside: inference opens no other file."""
    if tensor.data_location != TensorProto.EXTERNAL or constant.read is None:
        return tensor
    return numpy_helper.from_array(constant.read(), tensor.name)


def _elements(tensor: Tensor) -> int:
    count = 1
    for length in tensor.shape or ():
        count *= length or 0
    return count


def _holds_one_of(node: NodeProto, large: set[str]) -> bool:
    return is_constant_node(node) and node.output[0] in large


def _is_endless(node: NodeProto) -> bool:
    """Inference (onnx 1.23) never ends on an Einsum with a character that no equation has."""
    equations = (a.s for a in node.attribute if a.name == "equation")
    return node.op_type == "Einsum" and not all(_EQUATION.fullmatch(text) for text in equations)


def _as_input(constant: Tensor) -> ValueInfoProto:
    return ValueInfoProto(
        name=constant.name, type=tensor_type(constant.dtype, constant.shape or ())
    )
