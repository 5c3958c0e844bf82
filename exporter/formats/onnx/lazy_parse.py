"""Parse a large ONNX file without its large constants, whose values remain in the file.

Parsing a protobuf message with all weights takes twice its size in memory. Here the wire format is
read field by field, and the message is parsed without the values of large constants.

1. Such a constant becomes an external one with the location WITHIN, which no file can have.
2. Only initializers and Constant nodes of the graph itself, with values in the layout of an array:
   `raw_data`, or packed floats. The values must have the length that the shape needs. Any other
   constant is parsed, and rejected if it is damaged, as in a small file.
3. A file that contains the text WITHIN, or is not such a message, is parsed completely.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from exporter.formats.onnx.constants import is_constant_node
from exporter.formats.onnx.protos import serialized
from exporter.formats.onnx.wire import WITH_LENGTH, Field, WireError, field_start, fields, number_of

WITHIN = "\0within the model's own file"
LARGE_BYTES = 1 << 16  # smaller constants are parsed
ARRAY_TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8}
    | {TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.INT32, TensorProto.INT64}
)


def parse_without_values(content: memoryview) -> ModelProto | None:
    """The message without its large constants; None if it has to be parsed completely.

    Args:
        content: of the file.
    """
    model = ModelProto()
    try:
        model.ParseFromString(_light(content, ModelProto, 0, len(content)))
    except (DecodeError, WireError):
        return None
    return model


def _light(content: memoryview, kind: type[Message], start: int, stop: int) -> bytes:
    """The bytes of a message without the values of the large constants in it."""
    if kind is TensorProto:
        return _light_tensor(content, start, stop)
    parts, copied = list[bytes](), start
    if kind is AttributeProto and _has_several_tensors(content, start, stop):
        return _copied(content, start, stop)
    for field in fields(content, start, stop):
        inner_kind = _OPENED[kind].get(field.number)
        if inner_kind is None or not _is_large(field):
            continue
        inner = _light(content, inner_kind, field.inner, field.stop)
        parts += [_copied(content, copied, field.start), field_start(field.number, len(inner))]
        parts.append(inner)
        copied = field.stop
    light = b"".join([*parts, _copied(content, copied, stop)])
    if kind is NodeProto and not is_constant_node(NodeProto.FromString(light)):
        return _copied(content, start, stop)
    return light


def _has_several_tensors(content: memoryview, start: int, stop: int) -> bool:
    """Is the value of an attribute written more than once? Protobuf joins the parts to one."""
    tensors = _OPENED[AttributeProto]
    return sum(field.number in tensors for field in fields(content, start, stop)) > 1


def _is_large(field: Field) -> bool:
    return field.kind == WITH_LENGTH and field.stop - field.inner >= LARGE_BYTES


def _light_tensor(content: memoryview, start: int, stop: int) -> bytes:
    large = [f for f in fields(content, start, stop) if f.number in _VALUES and _is_large(f)]
    if len(large) == 1:
        (values,) = large
        rest = _copied(content, start, values.start) + _copied(content, values.stop, stop)
        length = values.stop - values.inner
        if _is_plain(TensorProto.FromString(rest), values.number, length):
            return rest + _location(values.inner, length)
    return _copied(content, start, stop)


def _is_plain(tensor: TensorProto, number: int, length: int) -> bool:
    """Has a tensor without values only the usual fields, and a shape that needs this length?"""
    names = {field.name for field, _ in tensor.ListFields()}
    kinds = _VALUES[number]
    if tensor.data_type not in kinds or names - _USUAL:
        return False
    item_bytes = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return min(tensor.dims, default=1) > 0 and prod(tensor.dims) * item_bytes == length


_USUAL = {"dims", "data_type", "name", "doc_string"}
_VALUES: Mapping[int, frozenset[int]] = {  # field that contains an array -> element types
    number_of(TensorProto, "raw_data"): ARRAY_TYPES,
    number_of(TensorProto, "float_data"): frozenset({TensorProto.FLOAT}),
    number_of(TensorProto, "double_data"): frozenset({TensorProto.DOUBLE}),
}
_OPENED: Mapping[type[Message], Mapping[int, type[Message]]] = {
    ModelProto: {number_of(ModelProto, "graph"): GraphProto},
    GraphProto: {
        number_of(GraphProto, "initializer"): TensorProto,
        number_of(GraphProto, "node"): NodeProto,
    },
    NodeProto: {number_of(NodeProto, "attribute"): AttributeProto},
    AttributeProto: {number_of(AttributeProto, "t"): TensorProto},
}


def _location(offset: int, length: int) -> bytes:
    """The fields that make a tensor external."""
    tensor = TensorProto(data_location=TensorProto.EXTERNAL)
    for key, value in {"location": WITHIN, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    return serialized(tensor)


def _copied(content: memoryview, start: int, stop: int) -> bytes:
    found = bytes(content[start:stop])
    if _WITHIN_BYTES in found:
        raise WireError
    return found


_WITHIN_BYTES = WITHIN.encode()
