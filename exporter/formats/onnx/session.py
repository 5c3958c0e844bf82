"""Load ONNX models into onnxruntime, and pass values of every dtype to it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto
from onnxruntime import OrtValue
from onnxruntime.capi import onnxruntime_pybind11_state as state

from exporter.errors import ModelError
from exporter.formats.onnx.constants import is_constant_node
from exporter.formats.onnx.external_data import ExternalData, is_external
from exporter.formats.onnx.lazy_parse import ARRAY_TYPES
from exporter.formats.onnx.protos import (
    dtype_name,
    element_type,
    file_content,
    model_without,
    names_read,
    numpy_dtype,
)
from exporter.graph import Array
from exporter.ondevice.providers import check_active, onnx_providers

# onnxruntime's exceptions share no base but Exception; a wrong feed is a plain ValueError.
RUNTIME_ERRORS = (
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NotImplemented,
    state.RuntimeException,
    RuntimeError,
    ValueError,
)
_FOLDER = "session.model_external_initializers_file_folder_path"
_LARGE = 1 << 20  # bytes

Session: TypeAlias = onnxruntime.InferenceSession


def load_session(
    model: ModelProto,
    name: str,
    options: onnxruntime.SessionOptions,
    external: ExternalData | None,
    provider: str = "",
) -> tuple[Session, list[Any]]:
    """A session, and the arrays of large constants, which must be kept alive as long as it.

    Args:
        model: the parsed file.
        name: of the model, for messages.
        options: changed: large constants are added.
        external: constants that are not in `model`. Large ones are passed to the session as
            arrays: a model of more than 2 GB cannot be serialized as one message.
        provider: see `exporter.ondevice.providers`.

    Raises:
        ModelError: the model is too large for one message.
        UsageError: onnxruntime does not have the provider.
        RUNTIME_ERRORS: onnxruntime refuses it.
    """
    providers = onnx_providers(provider, onnxruntime.get_available_providers())
    values: list[Any] = []
    if external is not None:
        options.add_session_config_entry(_FOLDER, str(external.folder))
        model, values = _pass_arrays(model, external, options)
    content = file_content(model, name)
    session = Session(content, options, providers=providers)
    check_active(session, providers)
    return session, values


def _pass_arrays(
    model: ModelProto, external: ExternalData, options: onnxruntime.SessionOptions
) -> tuple[ModelProto, list[Any]]:
    """The model without its large constants, and the arrays of these, which must be kept alive.

    onnxruntime itself reads the constants in files next to the model. It removes constants that
    nothing reads before it looks for those that were passed, so such ones are left out.
    """
    light = model_without(model, "initializer", "node")
    read = {name for node in model.graph.node for name in names_read(node)}
    read.update(output.name for output in model.graph.output)
    names, values = [], []

    def passed(tensor: TensorProto, name: str) -> TensorProto:
        names.append(name)
        values.append(_ort_value(name, dtype_name(tensor.data_type), external.read(tensor)))
        result = TensorProto(name=name, data_type=tensor.data_type, dims=tensor.dims)
        result.data_location = TensorProto.EXTERNAL
        result.external_data.add(key="location", value="passed as an array")
        return result

    unread = set[str]()
    for tensor in model.graph.initializer:
        if not _is_passed(tensor, external):
            light.graph.initializer.append(tensor)
        elif tensor.name in read:
            light.graph.initializer.append(passed(tensor, tensor.name))
        else:
            unread.add(tensor.name)
    for node in model.graph.node:
        if not (is_constant_node(node) and external.holds(node.attribute[0].t)):
            light.graph.node.append(node)
        elif node.output[0] in read:
            light.graph.initializer.append(passed(node.attribute[0].t, node.output[0]))
    for info in [each for each in light.graph.input if each.name in unread]:
        light.graph.input.remove(info)
    if names:
        options.add_external_initializers(names, values)
    return light, values


def _is_passed(tensor: TensorProto, external: ExternalData) -> bool:
    if is_external(tensor):
        return not external.is_in_file(tensor)
    return tensor.data_type in ARRAY_TYPES and len(tensor.raw_data) >= _LARGE


# --- values ---------------------------------------------------------------------------------------


def dtype_of_type(text: str) -> str:
    """The dtype of onnxruntime's type, such as tensor(float); "" if it is not a tensor's."""
    start, _, element = text.rstrip(")").partition("(")
    return _DTYPES.get(element, "") if start == "tensor" else ""


def is_plain(text: str) -> bool:
    """Does NumPy itself have the dtype of onnxruntime's type?"""
    return dtype_of_type(text) in _PLAIN


def run_session(
    session: Session,
    outputs: Sequence[str],
    feed: Mapping[str, Array],
) -> list[Any]:
    """The values of outputs; those of dtypes that NumPy does not have are those of `ml_dtypes`.

    Raises:
        ModelError: onnxruntime's Python interface cannot pass values of a dtype.
        RUNTIME_ERRORS: the run fails.
    """
    ends = {end.name: end.type for end in (*session.get_inputs(), *session.get_outputs())}
    dtypes = (dtype_of_type(ends[name]) for name in (*feed, *outputs) if name in ends)
    if all(dtype in _PLAIN or not dtype for dtype in dtypes):  # "": a sequence, or a map
        return list(session.run(outputs, {n: np.asarray(v) for n, v in feed.items()}))
    results = session.run_with_ort_values(outputs, ort_values(session, feed))
    return [_array(result) for result in results]


def ort_values(session: Session, feed: Mapping[str, Array]) -> dict[str, OrtValue]:
    """Inputs as onnxruntime's values (raises as `run_session`)."""
    dtypes = {each.name: dtype_of_type(each.type) for each in session.get_inputs()}
    return {name: _ort_value(name, dtypes.get(name, ""), value) for name, value in feed.items()}


def _ort_value(name: str, dtype: str, value: Array) -> OrtValue:
    array = np.require(value, requirements=["C", "ALIGNED"])
    if dtype == "string":
        raise ModelError(
            f"input {name!r} is string, and onnxruntime's Python interface passes no strings next "
            "to values that NumPy does not have"
        )
    if not dtype or dtype in _PLAIN:
        return OrtValue.ortvalue_from_numpy(array)
    element = element_type(dtype)
    if dtype not in _PACKED_BITS:
        return OrtValue.ortvalue_from_numpy_with_onnx_type(array, element)
    result = OrtValue.ortvalue_from_shape_and_type(list(array.shape), element)
    content = _packed(array, _PACKED_BITS[dtype])
    ctypes.memmove(result.data_ptr(), content.ctypes.data, content.size)
    return result


def _array(value: OrtValue) -> Any:
    dtype = dtype_of_type(value.data_type()) if value.is_tensor() else ""
    if not dtype or dtype in _PLAIN:
        return value.numpy()
    kind, shape = numpy_dtype(dtype), tuple(value.shape())
    count, bits = int(np.prod(shape, dtype=np.int64)), _PACKED_BITS.get(dtype, 8 * kind.itemsize)
    size = -(-count * bits // 8)
    content = np.frombuffer(bytearray(ctypes.string_at(value.data_ptr(), size)), np.uint8)
    if dtype in _PACKED_BITS:
        return (
            _unpacked(content, bits, count, signed=dtype.startswith("int"))
            .view(kind)
            .reshape(shape)
        )
    return content.view(kind).reshape(shape)


def _packed(values: Array, bits: int) -> Array:
    """The bytes of values of less than 8 bits; the first value is in the lowest bits."""
    flat = values.ravel().view(np.uint8) & ((1 << bits) - 1)
    per_byte = 8 // bits
    rows = np.pad(flat, (0, -flat.size % per_byte)).reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    return np.asarray(np.bitwise_or.reduce(rows << shifts, axis=1).astype(np.uint8))


def _unpacked(content: Array, bits: int, count: int, *, signed: bool) -> Array:
    """The values, one in a byte; negative ones as in two's complement."""
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    values = ((content[:, np.newaxis] >> shifts) & ((1 << bits) - 1)).ravel()[:count]
    if not signed:
        return np.asarray(values.astype(np.uint8))
    half = 1 << bits - 1
    return np.asarray(((values.astype(np.int16) ^ half) - half).astype(np.int8))


_DTYPES = {
    TensorProto.DataType.Name(element).lower(): dtype_name(element)
    for element in TensorProto.DataType.values()
    if element
}
_PACKED_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}
_PLAIN = frozenset(
    {"string", "bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
