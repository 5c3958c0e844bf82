"""The constants of a file: its initializers and the values of Constant nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from exporter.errors import ModelError
from exporter.formats.onnx.protos import DEFAULT_DOMAINS, dtype_name, read_tensor
from exporter.graph import Array, Tensor

ReadTensor = Callable[[TensorProto], Array]


def constants_of(graph: GraphProto, read: ReadTensor = read_tensor) -> dict[str, Tensor]:
    """All constants by name; values are read each time they are needed, and never kept.

    Args:
        graph: of the file.
        read: gives the values of a constant, wherever they are stored.

    Raises:
        ModelError: two of one name.
    """
    found: dict[str, Tensor] = {}
    for constant in _all(graph, read):
        if constant.name in found:
            raise ModelError(f"two constants are named {constant.name!r}")
        found[constant.name] = constant
    return found


def is_constant_node(node: NodeProto) -> bool:
    """Is it a Constant? The neutral graph has a constant tensor instead of such a node."""
    return (
        node.op_type == "Constant"
        and node.domain in DEFAULT_DOMAINS
        and len(node.attribute) == 1
        and node.attribute[0].type in _VALUES
    )


def _all(graph: GraphProto, read: ReadTensor) -> Iterator[Tensor]:
    for tensor in graph.initializer:
        yield _from_tensor(tensor.name, tensor, read)
    for node in graph.node:
        if is_constant_node(node):
            yield _from_node(node, read)


def _from_tensor(name: str, tensor: TensorProto, read: ReadTensor) -> Tensor:
    dtype = dtype_name(tensor.data_type)
    return Tensor(name, tuple(tensor.dims), dtype, lambda: read(tensor))


def _from_node(node: NodeProto, read: ReadTensor) -> Tensor:
    (attribute,) = node.attribute
    (name,) = node.output
    if attribute.type == AttributeProto.TENSOR:
        return _from_tensor(name, attribute.t, read)
    values = _VALUES[attribute.type](attribute)
    dtype = "string" if values.dtype == object else values.dtype.name
    return Tensor(name, values.shape, dtype, lambda: values)


def _strings(values: list[bytes]) -> Array:
    return np.array([value.decode("utf-8", "replace") for value in values], dtype=object)


_VALUES: Mapping[int, Any] = {
    AttributeProto.TENSOR: lambda a: read_tensor(a.t),
    AttributeProto.FLOAT: lambda a: np.array(a.f, np.float32),
    AttributeProto.FLOATS: lambda a: np.array(a.floats, np.float32),
    AttributeProto.INT: lambda a: np.array(a.i, np.int64),
    AttributeProto.INTS: lambda a: np.array(a.ints, np.int64),
    AttributeProto.STRING: lambda a: _strings([a.s]).reshape(()),
    AttributeProto.STRINGS: lambda a: _strings(list(a.strings)),
}
