"""The model that inference reads: without large constants and operators that it does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod

from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from exporter.formats.onnx.contrib_shapes import replace_with_standard_ops
from exporter.formats.onnx.protos import (
    DEFAULT_DOMAINS,
    FIRST_IR_WITHOUT_INPUTS,
    FileNode,
    file_nodes,
    model_without,
    tensor_type,
)
from exporter.graph import Tensor

_EQUATION = re.compile(rb"[A-Za-z,.\->\s]*")
_SMALL = 1024  # elements; larger constants state no shapes, and inference does not need them


def skeleton_of(
    model: ModelProto,
    nodes: Sequence[FileNode],
    constants: Mapping[str, Tensor],
    *,
    replace: bool = True,
) -> tuple[ModelProto, Sequence[FileNode]]:
    """The model with every large constant turned into an input of its type, and its nodes.

    Args:
        replace: use standard operators in place of onnxruntime's.
    """
    source, large = model.graph, {n for n, each in constants.items() if _is_large(each)}
    kept: list[FileNode] = []
    changed = False
    for node in nodes:
        if node.plain and node.domain in DEFAULT_DOMAINS:
            kept.append(node)
        elif _hangs_inference(node) or (node.operator == "Constant" and node.outputs[0] in large):
            changed = True
        else:
            standard = replace_with_standard_ops(node.proto, constants) if replace else [node.proto]
            is_same = standard[0] is node.proto
            kept += [node] if is_same else file_nodes(GraphProto(node=standard))
            changed |= not is_same
    result = model_without(model, "initializer", *(["node"] if changed else []))
    result.graph.node.extend(node.proto for node in kept if changed)
    result.ir_version = max(result.ir_version, FIRST_IR_WITHOUT_INPUTS)
    for name in sorted(large - {info.name for info in source.input}):
        kind = tensor_type(constants[name].dtype, constants[name].shape or ())
        result.graph.input.add(name=name, type=kind)
    small = (tensor for tensor in source.initializer if tensor.name not in large)
    result.graph.initializer.extend(_with_values(t, constants[t.name]) for t in small)
    return result, kept


def _is_large(constant: Tensor) -> bool:
    return prod(n or 0 for n in constant.shape or ()) > _SMALL


def _with_values(tensor: TensorProto, constant: Tensor) -> TensorProto:
    """The initializer with its values inside the model: inference opens no other file."""
    if tensor.data_location != TensorProto.EXTERNAL or constant.read is None:
        return tensor
    return numpy_helper.from_array(constant.read(), tensor.name)


def _hangs_inference(node: FileNode) -> bool:
    """onnx 1.23's inference never ends on an Einsum with a character that no equation has."""
    if node.operator != "Einsum":
        return False
    equations = (a.s for a in node.proto.attribute if a.name == "equation")
    return not all(_EQUATION.fullmatch(text) for text in equations)
