"""The types of a file's tensors: as the file states them, completed by shape inference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from math import prod

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, numpy_helper

from exporter.errors import ModelError
from exporter.formats.isolation import call
from exporter.formats.onnx.constants import is_constant_node
from exporter.formats.onnx.contrib_shapes import replace_with_standard_ops
from exporter.formats.onnx.protos import (
    FIRST_IR_WITHOUT_INPUTS,
    model_without,
    shape_of,
    tensor_type,
)
from exporter.formats.onnx.shape_inference_by_node import (
    complete_types,
    fold_integers,
    is_incomplete,
)
from exporter.graph import Array, Tensor

_EQUATION = re.compile(rb"[A-Za-z,.\->\s]*")
_SMALL = 1024  # elements; larger constants state no shapes, and inference does not need them


def infer(
    model: ModelProto, constants: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, TypeProto]]:
    """The constants that nodes compute from constants, and the type of every tensor, by name.

    onnx infers in another process, if the job isolates libraries: a damaged file can crash it, or
    make it compute with lengths of 10^9.
    """
    size = model.ByteSize()
    found = dict(call("shape inference", size, partial(_infer, model, constants)))
    graph = GraphProto.FromString(found.pop(_TYPES).tobytes())
    folded = {name: _as_constant(name, value) for name, value in found.items()}
    types = {info.name: info.type for info in graph.value_info}
    for name, kind in types.items():
        longest = max((n or 0 for n in shape_of(kind) or ()), default=0)
        if longest > _LONGEST_AXIS and name not in constants:
            raise ModelError(
                f"the tensor {name!r} has an axis of {longest}: at most {_LONGEST_AXIS} is possible"
            )
    return folded, types


_LONGEST_AXIS = 2**26  # the trace has an array with an entry for each position of an axis
_TYPES = "\0types"  # no tensor of an ONNX file has this name


def _infer(model: ModelProto, constants: Mapping[str, Tensor]) -> Mapping[str, Array]:
    folded = fold_integers(model, constants)
    known = {**constants, **{name: _as_constant(name, value) for name, value in folded.items()}}
    graph = GraphProto()
    for name, kind in _types_of(model, known).items():
        graph.value_info.add(name=name, type=kind)
    return {**folded, _TYPES: np.frombuffer(graph.SerializeToString(), np.uint8)}


def _as_constant(name: str, value: Array) -> Tensor:
    return Tensor(name, value.shape, value.dtype.name, lambda: value)


def _types_of(model: ModelProto, constants: Mapping[str, Tensor]) -> dict[str, TypeProto]:
    """Tensor name -> type.

    1. onnx infers shapes over a copy of the model without its large constants. It does not follow
       all chains that compute lengths.
    2. Results that are still incomplete are inferred node by node.
    """
    skeleton = _skeleton(model, constants)
    types = _inferred(skeleton)
    if any(is_incomplete(types.get(name)) for node in skeleton.graph.node for name in node.output):
        complete_types(skeleton, types, constants)
    return types


def _inferred(skeleton: ModelProto) -> dict[str, TypeProto]:
    try:
        result = onnx.shape_inference.infer_shapes(skeleton, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):  # contradictions, unknown types
        result = skeleton  # only the stated types are known then
    graph = result.graph
    return {info.name: info.type for info in (*graph.value_info, *graph.input, *graph.output)}


def _skeleton(model: ModelProto, constants: Mapping[str, Tensor]) -> ModelProto:
    """The model with every large constant turned into an input of its type."""
    source = model.graph
    result = model_without(model, "node", "initializer")
    result.ir_version = max(result.ir_version, FIRST_IR_WITHOUT_INPUTS)
    large = {name for name, c in constants.items() if prod(n or 0 for n in c.shape or ()) > _SMALL}
    for name in sorted(large - {info.name for info in source.input}):
        kind = tensor_type(constants[name].dtype, constants[name].shape or ())
        result.graph.input.add(name=name, type=kind)
    small = (tensor for tensor in source.initializer if tensor.name not in large)
    result.graph.initializer.extend(_with_values(t, constants[t.name]) for t in small)
    for node in source.node:
        is_large = is_constant_node(node) and node.output[0] in large
        if not is_large and not _hangs_inference(node):
            result.graph.node.extend(replace_with_standard_ops(node, constants))
    return result


def _with_values(tensor: TensorProto, constant: Tensor) -> TensorProto:
    """The initializer with its values inside the model: inference opens no other file."""
    if tensor.data_location != TensorProto.EXTERNAL or constant.read is None:
        return tensor
    return numpy_helper.from_array(constant.read(), tensor.name)


def _hangs_inference(node: NodeProto) -> bool:
    """onnx 1.23's inference never ends on an Einsum with a character that no equation has."""
    equations = (a.s for a in node.attribute if a.name == "equation")
    return node.op_type == "Einsum" and not all(_EQUATION.fullmatch(text) for text in equations)
