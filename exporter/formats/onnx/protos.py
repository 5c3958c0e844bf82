"""The file's own messages as plain values: element types, shapes, attributes, arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import EncodeError, Message
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    helper,
    numpy_helper,
)

from exporter.errors import ModelError
from exporter.graph import Array, Shape

DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})
FIRST_IR_WITHOUT_INPUTS = 4  # before, every initializer had to be an input too
UNKNOWN = "undefined"

_M = TypeVar("_M", ModelProto, GraphProto, NodeProto, TensorProto)


def dtype_name(element: int) -> str:
    """NumPy's name of an element type; "undefined" where the file states none that is known."""
    if element == TensorProto.STRING:
        return "string"
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(element)).name
    except KeyError:
        return UNKNOWN


def element_type(dtype: str) -> int:
    """The element type of a dtype's name (raises ModelError if ONNX has none)."""
    if dtype not in _ELEMENTS:
        raise ModelError(f"ONNX has no element type {dtype!r}")
    return _ELEMENTS[dtype]


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """NumPy's dtype of that name, those of `ml_dtypes` included (raises as `element_type`)."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(element_type(dtype)))


def dtype_of(kind: TypeProto | None) -> str:
    if kind is None or not kind.HasField("tensor_type"):
        return UNKNOWN
    return dtype_name(kind.tensor_type.elem_type)


def shape_of(kind: TypeProto | None) -> Shape | None:
    """Named and missing dimensions are None; so is the shape of an unknown rank."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None
        for d in kind.tensor_type.shape.dim
    )


def set_shape(kind: TypeProto, shape: Shape) -> None:
    """State a shape; dimensions that stay unknown keep their names."""
    dims = kind.tensor_type.shape.dim
    if len(dims) != len(shape) or not kind.tensor_type.HasField("shape"):
        del dims[:]
        kind.tensor_type.shape.SetInParent()
        for _ in shape:
            dims.add()
    for dim, length in zip(dims, shape, strict=True):
        if length is not None:
            dim.dim_value = length
        elif dim.HasField("dim_value"):
            dim.ClearField("dim_value")


def tensor_type(dtype: str, shape: Shape) -> TypeProto:
    kind = TypeProto()
    kind.tensor_type.elem_type = element_type(dtype)
    set_shape(kind, shape)
    return kind


def tensor_type_of(value: Array) -> TypeProto:
    """The type of an array; NumPy's object stands for strings."""
    return tensor_type(dtype_name(helper.np_dtype_to_tensor_dtype(value.dtype)), tuple(value.shape))


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Numbers, strings and tuples of them, and what one tensor of one number holds.

    Other tensors, and graphs, are left out.
    """
    found = {a.name: _PLAIN[a.type](a) for a in node.attribute if a.type in _PLAIN}
    held = (a for a in node.attribute if a.type == AttributeProto.TENSOR)
    inside = (a for a in held if a.t.data_location != TensorProto.EXTERNAL)
    single = (a for a in inside if prod(a.t.dims) == 1)
    return found | {a.name: read_tensor(a.t).item() for a in single}


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node: the branches of If, the bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured(node: NodeProto) -> list[str]:
    """Names from outside that the graphs inside a node read, each once."""
    return list(dict.fromkeys(name for body in bodies(node) for name in _free_names(body)))


def _free_names(body: GraphProto) -> Iterator[str]:
    own = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
    own.update(sparse.values.name for sparse in body.sparse_initializer)
    own.update(name for node in body.node for name in node.output)
    read = [name for node in body.node for name in (*node.input, *captured(node))]
    read += [info.name for info in body.output]
    yield from (name for name in read if name and name not in own)


def node_names(graph: GraphProto) -> tuple[str, ...]:
    """The file's names where they are there and not yet taken; the index tells the others apart."""
    names: dict[str, None] = {}
    for index, node in enumerate(graph.node):
        name = node.name
        while not name or name in names:
            name += f"#{index}"
        names[name] = None
    return tuple(names)


def rename_reads(node: NodeProto, old: str, new: str) -> None:
    """Have a node, and the graphs inside it, read another tensor from outside."""
    for slot, name in enumerate(node.input):
        if name == old:
            node.input[slot] = new
    for body in bodies(node):
        if old in _free_names(body):
            for inner in body.node:
                rename_reads(inner, old, new)
            for info in body.output:
                if info.name == old:
                    info.name = new


def every_name(graph: GraphProto) -> Iterator[str]:
    """All names of tensors in a graph and in the graphs inside it."""
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    yield from (info.name for infos in (graph.input, graph.output) for info in infos)
    for node in graph.node:
        yield from (*node.input, *node.output)
        for body in bodies(node):
            yield from every_name(body)


def every_tensor(graph: GraphProto) -> Iterator[TensorProto]:
    """All constants in a graph and in the graphs inside it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for body in bodies(node):
            yield from every_tensor(body)


def is_text_whole(message: Message) -> bool:
    """Is every text in a message, and in those inside it, valid UTF-8? Protobuf does not look."""
    if isinstance(message, TensorProto):  # its fields would be copied to be listed
        return isinstance(message.name, str) and isinstance(message.doc_string, str)
    for field, value in message.ListFields():
        if field.type not in {field.TYPE_STRING, field.TYPE_MESSAGE}:
            continue
        for entry in value if hasattr(value, "extend") else [value]:
            if isinstance(entry, bytes) or not (isinstance(entry, str) or is_text_whole(entry)):
                return False
    return True


def read_tensor(tensor: TensorProto) -> Array:
    """The values; sub-byte types one entry an element (raises ModelError if damaged)."""
    try:
        values: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(
            f"constant {tensor.name!r} does not hold what its shape {list(tensor.dims)} and type "
            f"{dtype_name(tensor.data_type)} say"
        ) from error
    return values


def content_of(model: ModelProto, name: str) -> bytes:
    """A model as bytes (raises ModelError if they are more than one message can hold)."""
    try:
        content: bytes = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelError(f"{name} is larger than the 2 GB that an .onnx file can hold") from error
    return content


def opset_of(model: ModelProto) -> int:
    """The version of the standard operators; 0 where the model imports none."""
    versions = [o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS]
    return max(versions, default=0)


def copy_without(source: _M, *skipped: str) -> _M:
    """A copy that lacks some fields, so that what they hold is not copied."""
    result = type(source)()
    for descriptor, value in source.ListFields():
        name = descriptor.name
        if name in skipped:
            continue
        if hasattr(value, "extend"):
            getattr(result, name).extend(value)
        elif hasattr(value, "ListFields"):
            getattr(result, name).CopyFrom(value)
        else:
            setattr(result, name, value)
    return result


_ELEMENTS: Mapping[str, int] = {
    dtype_name(element): element for element in TensorProto.DataType.values() if element
}

_PLAIN: Mapping[int, Any] = {
    AttributeProto.INT: lambda a: int(a.i),
    AttributeProto.FLOAT: lambda a: float(a.f),
    AttributeProto.STRING: lambda a: a.s.decode("utf-8", "replace"),
    AttributeProto.INTS: lambda a: tuple(a.ints),
    AttributeProto.FLOATS: lambda a: tuple(a.floats),
}
