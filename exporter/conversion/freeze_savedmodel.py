"""Trace a SavedModel anew, so that converters can look into all of it.

Its functions were traced by somebody else: its variables cannot be replaced while that is done, as
those of a Keras model can (`to_onnx_trace`), and what was to be compiled is hidden in calls.

1. The variables are frozen into the graph, and what is left of its calls is opened.
2. For ONNX large constants that linear operators alone read, as they are or in another shape,
   become inputs: tf2onnx knows a recurrent layer only by its constants, and folds what is small or
   is added by itself.
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

from exporter.conversion.signature import Interface
from exporter.conversion.to_onnx_trace import LARGE_BYTES, Traced, trace


@dataclass(frozen=True)
class _Frozen:
    """A graph without variables.

    Attributes:
        graph: a `GraphDef`.
        inputs, outputs: its tensors, the model's inputs first.
        held: what the other inputs hold.
    """

    graph: Any
    inputs: list[str]
    outputs: list[str]
    held: list[Any]


def trace_frozen(interface: Interface) -> Traced:
    """Trace a model with its weights as constants."""
    frozen = _freeze(interface)
    return _imported(interface, frozen, frozen.held)


def trace_beside(interface: Interface) -> Traced | None:
    """Trace a model with its large weights as inputs; None where none can be one."""
    frozen = _freeze(interface)
    beside = _beside(frozen.graph, {name.removesuffix(":0") for name in frozen.outputs})
    if not beside:
        return None
    frozen.inputs.extend(f"{node.name}:0" for node in beside)
    return _imported(interface, frozen, frozen.held + [_taken_out(node) for node in beside])


def _freeze(interface: Interface) -> _Frozen:
    whole = trace(interface, ())
    frozen = convert_variables_to_constants_v2(whole.concrete(), lower_control_flow=False)
    graph = frozen.graph.as_graph_def()
    for function in graph.library.function:
        _open_up(function, *function.node_def)
    _open_up(*graph.node)
    _name_constants(graph)
    inputs = [tensor.name for tensor in frozen.inputs]
    held = [whole.array(name) for name in inputs[len(interface.input_names) :]]
    return _Frozen(graph, inputs, [tensor.name for tensor in frozen.outputs], held)


def _open_up(*parts: Any) -> None:
    """Drop what keeps a function from being taken apart where it is called."""
    for part in parts:
        for name in ("_XlaMustCompile", "_noinline"):
            part.attr.pop(name, None)


def _name_constants(graph: Any) -> None:
    """Captured variables are called by a counter of the process: let the file not show it."""
    counted = sorted(int(node.name) for node in graph.node if node.name.isdigit())
    names = {str(number): f"constant_{i}" for i, number in enumerate(counted)}
    for node in graph.node:
        node.name = names.get(node.name, node.name)
        for slot, source in enumerate(node.input):
            name, colon, output = source.removeprefix("^").partition(":")
            mark = "^" * source.startswith("^")  # it only has to run before
            node.input[slot] = f"{mark}{names.get(name, name)}{colon}{output}"


def _imported(interface: Interface, frozen: _Frozen, arrays: list[Any]) -> Traced:
    values = {f"weight_{i}": array for i, array in enumerate(arrays)}
    specs = interface.specs() + [
        tf.TensorSpec(array.shape, array.dtype, name=name) for name, array in values.items()
    ]

    def call(*given: Any) -> Any:
        fed = dict(zip(frozen.inputs, given, strict=True))
        return tuple(
            tf.graph_util.import_graph_def(frozen.graph, fed, frozen.outputs, name="saved")
        )

    return Traced(tf.function(call, input_signature=specs), specs, values)


# --- which constants ------------------------------------------------------------------------------


def _beside(graph: Any, outputs: set[str]) -> list[Any]:
    """The constants worth taking out, in the order of the graph."""
    readers: Mapping[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name.removesuffix(":0")].append(node)

    def is_linear(node: Any) -> bool:
        if node.op in _LINEAR:
            return True
        passes = node.op in _SAME_VALUES and node.name not in outputs
        return passes and all(map(is_linear, readers[node.name]))

    return [node for node in graph.node if _is_large(node) and is_linear(node)]


def _is_large(node: Any) -> bool:
    if node.op != "Const":
        return False
    tensor = node.attr["value"].tensor
    count = tf.TensorShape(tensor.tensor_shape).num_elements()
    is_float = tensor.dtype == tf.float32.as_datatype_enum
    return bool(is_float and count * np.dtype(np.float32).itemsize >= LARGE_BYTES)


def _taken_out(constant: Any) -> Any:
    """The values of a constant, which is a placeholder for them afterwards."""
    tensor = constant.attr["value"].tensor
    values = tf.make_ndarray(tensor)
    constant.op = "Placeholder"
    constant.attr["shape"].shape.CopyFrom(tensor.tensor_shape)
    del constant.attr["value"]
    return values


_LINEAR = {
    "MatMul",
    "BatchMatMul",
    "BatchMatMulV2",
    "Einsum",
    "Conv2D",
    "Conv3D",
    "Conv2DBackpropInput",
    "DepthwiseConv2dNative",
    "GatherV2",
    "ResourceGather",
}
_SAME_VALUES = {"Const", "Identity", "ExpandDims", "Reshape", "Squeeze", "Transpose"}
