"""Read ONNX's protobuf messages as plain values: element types, shapes, attributes, arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from math import prod
from typing import Any, NamedTuple, TypeVar

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
LARGEST_MESSAGE = 2**31 - 1  # bytes
TOO_LARGE = "{} is larger than the 2 GB that an .onnx file can hold"

_M = TypeVar("_M", ModelProto, GraphProto, NodeProto, TensorProto, TypeProto)


# --- types ---------------------------------------------------------------------------------------


@cache
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
    """NumPy's dtype of that name, including those of `ml_dtypes` (raises as `element_type`)."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(element_type(dtype)))


def dtype_of(kind: TypeProto | None) -> str:
    if kind is None or not kind.HasField("tensor_type"):
        return UNKNOWN
    return dtype_name(kind.tensor_type.elem_type)


def shape_of(kind: TypeProto | None) -> Shape | None:
    """None where the rank is unknown; named and missing dimensions are None."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None
        for d in kind.tensor_type.shape.dim
    )


def symbols_of(kind: TypeProto) -> tuple[str, ...]:
    """The name of each dimension, "" where it has none; () if no dimension has one."""
    names = tuple(str(dim.dim_param) for dim in kind.tensor_type.shape.dim)
    return names if any(names) else ()


def merged_type(
    stated: TypeProto | None, found: TypeProto, *, trust_found: bool = False
) -> TypeProto:
    """The stated type, with its unknown lengths as they were found.

    Args:
        trust_found: where the two contradict each other, use what was found.
    """
    before, now = shape_of(stated), shape_of(found)
    if stated is None or before is None:
        return found
    if now is None:
        return stated
    if len(before) != len(now):
        return found if trust_found else stated
    result = copy_of(stated)
    pairs = zip(before, now, strict=True)
    lengths = [b if old is None or (trust_found and b is not None) else old for old, b in pairs]
    set_shape(result, tuple(lengths))
    return result


def set_shape(kind: TypeProto, shape: Shape) -> None:
    """State a shape; dimensions that remain unknown keep their names."""
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


def tensor_type_of(dtype: np.dtype[Any], shape: Shape) -> TypeProto:
    """The type of an array; NumPy's object dtype means strings."""
    return tensor_type(dtype_name(helper.np_dtype_to_tensor_dtype(dtype)), shape)


# --- nodes and graphs ----------------------------------------------------------------------------


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Numbers, strings and tuples of them, and the number in a tensor that contains just one.

    It leaves out other tensors, and graphs.
    """
    found = {a.name: _PLAIN[a.type](a) for a in node.attribute if a.type in _PLAIN}
    for attribute in node.attribute:
        tensor = attribute.t
        is_inside = tensor.data_location != TensorProto.EXTERNAL
        if attribute.type == AttributeProto.TENSOR and is_inside and prod(tensor.dims) == 1:
            found[attribute.name] = read_tensor(tensor).item()
    return found


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in a node: the branches of If, the bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured_names(node: NodeProto) -> list[str]:
    """The tensors outside that the graphs in a node read, each once."""
    bodies = [*subgraphs(node)] if node.attribute else []
    return [*dict.fromkeys(name for body in bodies for name in _free_names(body))]


def names_read(node: NodeProto) -> list[str]:
    """The tensors that a node reads, itself and in its graphs."""
    return [*filter(None, node.input), *(captured_names(node) if node.attribute else ())]


def _free_names(body: GraphProto) -> Iterator[str]:
    own = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
    own.update(sparse.values.name for sparse in body.sparse_initializer)
    own.update(name for node in body.node for name in node.output)
    read = [name for node in body.node for name in names_read(node)]
    read += [info.name for info in body.output]
    yield from (name for name in read if name and name not in own)


class FileNode(NamedTuple):
    """One node of a file, read once: reading a field of a message takes 20 times as long.

    Attributes:
        name: from the file, made unique by the index where one is missing or taken.
        inputs: tensor names, "" where an optional input is absent; then those that its graphs read.
        plain: it has no attributes, and so no graphs and no constants.
    """

    proto: NodeProto
    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    plain: bool


def file_nodes(graph: GraphProto) -> tuple[FileNode, ...]:
    """The nodes of a graph, in its order."""
    names = set[str]()
    found = []
    for index, node in enumerate(graph.node):
        name, plain, inputs = node.name, not node.attribute, tuple(node.input)
        while not name or name in names:
            name = f"{name}#{index}"
        names.add(name)
        read = inputs if plain else (*inputs, *captured_names(node))
        found.append(
            FileNode(node, name, node.op_type, node.domain, read, tuple(node.output), plain)
        )
    return tuple(found)


def rename_reads(node: NodeProto, old: str, new: str) -> None:
    """Make a node, and the graphs in it, read another tensor."""
    for slot, name in enumerate(node.input):
        if name == old:
            node.input[slot] = new
    for body in subgraphs(node):
        if old in _free_names(body):
            for inner in body.node:
                rename_reads(inner, old, new)
            for info in body.output:
                if info.name == old:
                    info.name = new


def all_names(graph: GraphProto) -> Iterator[str]:
    """All names of tensors in a graph and in the graphs of its nodes."""
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    yield from (info.name for infos in (graph.input, graph.output) for info in infos)
    for node in graph.node:
        yield from (*node.input, *node.output)
        for body in subgraphs(node):
            yield from all_names(body)


def all_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """All constants in a graph and in the graphs of its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for body in subgraphs(node):
            yield from all_tensors(body)


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside it."""
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from all_nodes(body)


def replace_messages(field: Any, messages: Iterable[Message]) -> None:
    """Give a repeated field other messages, some of which may be in it already."""
    copies = [type(each).FromString(each.SerializeToString()) for each in messages]
    del field[:]
    field.extend(copies)


# --- values, files, copies -----------------------------------------------------------------------


def read_tensor(tensor: TensorProto) -> Array:
    """The values; one entry an element for types below 8 bits (raises ModelError if damaged)."""
    try:
        values: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(
            f"the values of constant {tensor.name!r} do not fit its shape {list(tensor.dims)} and "
            f"type {dtype_name(tensor.data_type)}"
        ) from error
    return values


def serialized(message: Message) -> bytes:
    """The bytes of a message: the same for the same message in every process."""
    content: bytes = message.SerializeToString(deterministic=True)
    return content


def file_content(model: ModelProto, name: str) -> bytes:
    """The bytes of a model (raises ModelError if one message cannot hold them)."""
    try:
        return serialized(model)
    except (EncodeError, ValueError) as error:
        raise ModelError(TOO_LARGE.format(name)) from error


def opset_of(model: ModelProto) -> int:
    """The version of the standard operators; 0 where the model imports none."""
    versions = [o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS]
    return max(versions, default=0)


def set_metadata(model: ModelProto, key: str, value: str) -> None:
    """Replace the metadata entries of that key, or add one."""
    found = [entry for entry in model.metadata_props if entry.key == key]
    for entry in found or [model.metadata_props.add(key=key)]:
        entry.value = value


def copy_of(message: _M) -> _M:
    result = type(message)()
    result.CopyFrom(message)
    return result


def copy_without(source: _M, *skipped: str) -> _M:
    """A copy without some fields, which are not copied on the way."""
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


def model_without(source: ModelProto, *skipped: str) -> ModelProto:
    """A copy of a model without some fields of its graph."""
    result = copy_without(source, "graph")
    result.graph.CopyFrom(copy_without(source.graph, *skipped))
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
