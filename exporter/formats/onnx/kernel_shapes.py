"""Types that follow from kernels and from results, where the type of an input is not known.

An operator that no library knows hides the shapes after it. The kernel of a product states the rank
of its result, and the width of its channels. The shape that an output states is that of the values
from which an activation makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import ModelProto, NodeProto, TypeProto

from exporter.formats.onnx.protos import (
    attributes_of,
    copy_of,
    dtype_of,
    merged_type,
    shape_of,
    tensor_type,
)
from exporter.formats.onnx.shape_inference_by_node import is_incomplete
from exporter.graph import Shape, Tensor

_MATRIX = 2
_CONVOLUTIONS = {"Conv": 0, "ConvTranspose": 1}  # operator -> the kernel's axis of channels
_KEEPS_SHAPE = frozenset(
    {
        *("Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity"),
        *("LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Softmax"),
        *("Softplus", "Softsign", "Sqrt", "Tanh"),
    }
)
_BROADCASTS = frozenset({"Add", "Div", "Mul", "Sub"})


def add_from_kernels(
    model: ModelProto, types: dict[str, TypeProto], constants: Mapping[str, Tensor]
) -> None:
    """Add the rank and the width of products to `types`."""
    for node in model.graph.node:
        shape = _product_shape(node, constants) if node.output else None
        if shape is not None and is_incomplete(types.get(node.output[0])):
            found = tensor_type(constants[node.input[1]].dtype, shape)
            types[node.output[0]] = merged_type(types.get(node.output[0]), found)


def add_from_results(
    model: ModelProto, types: dict[str, TypeProto], constants: Mapping[str, Tensor]
) -> None:
    """Add the types of inputs that have the shape of their node's result to `types`."""
    for node in reversed(model.graph.node):
        result = types.get(node.output[0]) if node.output else None
        shape = shape_of(result)
        if result is None or shape is None:
            continue
        for name, found in _inputs(node, shape, constants):
            if shape_of(types.get(name)) is None:
                if found == shape:
                    types[name] = copy_of(result)
                else:
                    types[name] = tensor_type(dtype_of(result), found)


def _product_shape(node: NodeProto, constants: Mapping[str, Tensor]) -> Shape | None:
    kernel = _kernel_shape(node, constants)
    if node.op_type == "Gemm" and kernel is not None and len(kernel) == _MATRIX:
        return None, kernel[0 if attributes_of(node).get("transB", 0) else 1]
    if node.op_type in _CONVOLUTIONS and kernel is not None and len(kernel) > _MATRIX:
        width = kernel[_CONVOLUTIONS[node.op_type]] or 0
        groups = attributes_of(node).get("group", 1) if node.op_type == "ConvTranspose" else 1
        return (None, width * groups, *(None,) * (len(kernel) - 2))
    return None


def _inputs(
    node: NodeProto, result: Shape, constants: Mapping[str, Tensor]
) -> Iterator[tuple[str, Shape]]:
    """The inputs whose shapes follow from the shape of the result."""
    if node.op_type in _KEEPS_SHAPE:
        yield node.input[0], result
    elif node.op_type in _BROADCASTS and any(name in constants for name in node.input):
        yield from ((name, result) for name in node.input if name not in constants)
    elif node.op_type == "MatMul":
        kernel = _kernel_shape(node, constants)
        if kernel is not None and len(kernel) == _MATRIX and result:
            yield node.input[0], (*result[:-1], kernel[0])


def _kernel_shape(node: NodeProto, constants: Mapping[str, Tensor]) -> Shape | None:
    kernel = constants.get(node.input[1]) if len(node.input) > 1 else None
    return None if kernel is None else kernel.shape
