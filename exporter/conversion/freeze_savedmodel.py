"""Trace a SavedModel again, so that converters can look into all of it.

Its functions are traced already: their variables cannot be replaced by inputs as in a Keras model
(`to_onnx_trace`), and parts that were to be compiled are hidden in calls.

1. The variables are frozen into the graph, and remaining calls are inlined.
2. For ONNX, a large constant becomes an input if only linear operators read it, as it is or in
   another shape. tf2onnx recognizes a recurrent layer only by its constants, and folds constants
   that are small or added.
3. The graph is imported into a new function.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from exporter.conversion.signature import Signature
from exporter.conversion.to_onnx_trace import LARGE_BYTES, Traced, trace_function


@dataclass(frozen=True)
class _Frozen:
    """A graph without variables.

    Attributes:
        graph: a `GraphDef`.
        inputs, outputs: names of its tensors, the model's inputs first.
        values: of the other inputs.
    """

    graph: Any
    inputs: list[str]
    outputs: list[str]
    values: list[Any]


def trace_frozen(signature: Signature) -> Traced:
    """Trace a model with its weights as constants."""
    return _imported(signature, _freeze(signature))


def trace_with_weight_inputs(signature: Signature) -> Traced | None:
    """Trace a model with its large weights as inputs; None if no weight can be an input."""
    frozen = _freeze(signature)
    constants = _large_constants(frozen.graph, {n.removesuffix(":0") for n in frozen.outputs})
    if not constants:
        return None
    frozen.inputs.extend(f"{node.name}:0" for node in constants)
    frozen.values.extend(map(_make_input, constants))
    return _imported(signature, frozen)


def _freeze(signature: Signature) -> _Frozen:
    traced = trace_function(signature, ())
    frozen = convert_variables_to_constants_v2(traced.concrete(), lower_control_flow=False)
    graph = frozen.graph.as_graph_def()
    for function in graph.library.function:
        _allow_inlining(function, *function.node_def)
    _allow_inlining(*graph.node)
    _rename_constants(graph)
    inputs = [tensor.name for tensor in frozen.inputs]
    values = [traced.array(name) for name in inputs[len(signature.inputs) :]]
    return _Frozen(graph, inputs, [tensor.name for tensor in frozen.outputs], values)


def _allow_inlining(*parts: Any) -> None:
    """Drop the attributes that prevent a function from being inlined."""
    for part in parts:
        for name in ("_XlaMustCompile", "_noinline"):
            part.attr.pop(name, None)


def _rename_constants(graph: Any) -> None:
    """Number captured variables from 0: TensorFlow numbers them by a counter of the process."""
    counted = sorted(int(node.name) for node in graph.node if node.name.isdigit())
    names = {str(number): f"constant_{i}" for i, number in enumerate(counted)}
    for node in graph.node:
        node.name = names.get(node.name, node.name)
        for slot, source in enumerate(node.input):
            name, colon, output = source.removeprefix("^").partition(":")
            mark = "^" * source.startswith("^")  # a control dependency
            node.input[slot] = f"{mark}{names.get(name, name)}{colon}{output}"


def _imported(signature: Signature, frozen: _Frozen) -> Traced:
    values = {f"weight_{i}": array for i, array in enumerate(frozen.values)}
    specs = signature.specs() + [
        tf.TensorSpec(array.shape, array.dtype, name=name) for name, array in values.items()
    ]

    def call(*inputs: Any) -> Any:
        fed = dict(zip(frozen.inputs, inputs, strict=True))
        return tuple(
            tf.graph_util.import_graph_def(frozen.graph, fed, frozen.outputs, name="saved")
        )

    return Traced(tf.function(call, input_signature=specs), specs, values)


# --- constants that become inputs -----------------------------------------------------------------


def _large_constants(graph: Any, outputs: set[str]) -> list[Any]:
    """The large constants that only linear operators read, in the order of the graph."""
    consumers: Mapping[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            consumers[name.removesuffix(":0")].append(node)

    def is_linear(node: Any) -> bool:
        if node.op in _LINEAR:
            return True
        passes = node.op in _SAME_VALUES and node.name not in outputs
        return passes and all(map(is_linear, consumers[node.name]))

    return [node for node in graph.node if _is_large(node) and is_linear(node)]


def _is_large(node: Any) -> bool:
    if node.op != "Const":
        return False
    tensor = node.attr["value"].tensor
    count = tf.TensorShape(tensor.tensor_shape).num_elements()
    is_float = tensor.dtype == tf.float32.as_datatype_enum
    return bool(is_float and count * np.dtype(np.float32).itemsize >= LARGE_BYTES)


def _make_input(constant: Any) -> Any:
    """Turn a constant into a placeholder; returns its values."""
    tensor = constant.attr["value"].tensor
    values = tf.make_ndarray(tensor)
    constant.op = "Placeholder"
    constant.attr["shape"].shape.CopyFrom(tensor.tensor_shape)
    del constant.attr["value"]
    return values


_LINEAR = {
    *("MatMul", "BatchMatMul", "BatchMatMulV2", "Einsum", "GatherV2", "ResourceGather"),
    *("Conv2D", "Conv3D", "Conv2DBackpropInput", "DepthwiseConv2dNative"),
}
_SAME_VALUES = {"Const", "Identity", "ExpandDims", "Reshape", "Squeeze", "Transpose"}
