"""Constants: from a buffer's bytes to values and back, with the quantization that goes along."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.formats.tflite.schema import text
from exporter.graph import Array, Quantization

_NAMES: dict[int, str] = {
    code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)
}
_CUT = ("float32", "float16", "float64", "bool")
_CUT_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")

# type code -> NumPy's name, for the types whose values stand one by one in the buffer
DTYPES = {code: name for code, name in _NAMES.items() if name in (*_CUT, *_CUT_INTEGERS)}
CODES = {name: code for code, name in DTYPES.items()}

_INT4 = schema.TensorType.INT4  # two values a byte, the first in the low half

_CODES = {name: (int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in _CUT_INTEGERS} | {
    "int4": (-8, 7)
}


def type_name(tensor: Any) -> str:
    """NumPy's name of the type, or the schema's in small letters."""
    return _NAMES.get(tensor.type, f"type {tensor.type}")


def is_dense(tensor: Any) -> bool:
    """Do the values stand in the buffer in the order of the shape, one by one or packed?"""
    return (tensor.type in DTYPES or tensor.type == _INT4) and tensor.sparsity is None


def stored_bytes(tensor: Any, count: int) -> int:
    """How many bytes so many values of a dense tensor take; the last byte may be half empty."""
    return (count + 1) // 2 if tensor.type == _INT4 else count * _dtype(tensor).itemsize


def _dtype(tensor: Any) -> np.dtype[Any]:
    """Of the values in memory, where a packed one takes a byte."""
    return np.dtype("int8" if tensor.type == _INT4 else DTYPES[tensor.type])


def values(tensor: Any, buffer: Any) -> Array:
    """A constant's values (codes where it is quantized), read-only unless they were packed.

    Returns:
        In the type's dtype; int4 in int8.

    Raises:
        ModelError: the type is a string, unknown, or packed in another way than int4; or the
            values are sparse.
    """
    if not is_dense(tensor):
        kind = "sparse" if tensor.sparsity is not None else type_name(tensor)
        raise ModelError(f"the constant {text(tensor.name)!r} is {kind}, which cannot be cut")
    data = np.empty(0, np.uint8) if buffer.data is None else buffer.data
    shape = [] if tensor.shape is None else tensor.shape
    if tensor.type == _INT4:
        return _unpacked(data, int(np.prod(shape, dtype=np.int64))).reshape(shape)
    view: Array = data.view(DTYPES[tensor.type]).reshape(shape)
    return view


def _unpacked(data: Array, count: int) -> Array:
    """int4 as int8; a left-over half byte is dropped."""
    halves = np.stack([data << 4, data], axis=-1).reshape(-1)[:count]
    return halves.view(np.int8) >> 4


def stored(array: Array, tensor: Any) -> Array:
    """The bytes of a tensor's values as uint8, as its buffer holds them."""
    if tensor.type != _INT4:
        return as_bytes(array)
    codes = array.reshape(-1).view(np.uint8) & 0x0F
    codes = np.append(codes, np.zeros(len(codes) % 2, np.uint8))
    return np.asarray(codes[0::2] | codes[1::2] << 4)


def as_bytes(array: Array) -> Array:
    """The bytes of an array as uint8."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8)


def take(array: Array, axis: int, positions: Array) -> Array:
    """Some positions along an axis, without a copy of the whole.

    Data inside a file need not be aligned, and NumPy would first copy all of it; items seen as mere
    bytes have no alignment.
    """
    opaque = array.view(f"V{array.itemsize}")
    return np.take(opaque, positions, axis=axis).view(array.dtype)


def take_scales(tensor: Any, axis: int, positions: Array) -> None:
    """Cut per-channel scales and zero points that run along the axis."""
    quantization = tensor.quantization
    if quantization is None:
        return
    _refuse_blocks(tensor)
    if quantization.quantizedDimension != axis:
        return
    for field in ("scale", "zeroPoint", "min", "max"):
        entries = getattr(quantization, field)
        if entries is not None and len(entries) > 1:
            setattr(quantization, field, np.asarray(entries)[positions])


def cast(array: Array, tensor: Any, shown: str = "") -> Array:
    """The same values in a constant's type; floats may lose digits, integers must be equal.

    Raises:
        ModelError: the type cannot hold the values.
    """
    dtype, kind = _dtype(tensor), type_name(tensor)
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
    lost = ~np.isfinite(result) & np.isfinite(array) if dtype.kind == "f" else result != array
    low, high = _CODES.get(kind, (-np.inf, np.inf))
    if (lost | (result < low) | (result > high)).any():
        shown = shown or np.array2string(array, threshold=4, separator=", ").replace("\n", "")
        raise ModelError(f"the constant {text(tensor.name)!r} cannot hold {shown} as {kind}")
    return result


def encode(value: float, tensor: Any, axis: int, positions: Array) -> Array:
    """A real value as the tensor holds it, to be written at positions along an axis.

    Returns:
        Broadcasts against the chosen positions.

    Raises:
        ModelError: the type cannot hold the value.
    """
    if tensor.quantization is not None:
        _refuse_blocks(tensor)
    exact: Array = np.asarray(value, np.float64)
    if is_quantized(tensor) and "int" in type_name(tensor):
        scale, zero = _per_channel(tensor, axis, positions)
        exact = np.rint(value / scale) + zero
    return cast(exact, tensor, f"{value:g}")


def _per_channel(tensor: Any, axis: int, positions: Array) -> tuple[Array, Array]:
    """Scale and zero point, in a shape that broadcasts against the positions along the axis."""
    quantization = tensor.quantization
    scale = np.asarray(quantization.scale, np.float64)
    none = np.zeros(1, np.int64)
    zero = np.asarray(quantization.zeroPoint) if _length(quantization.zeroPoint) else none
    zero = np.broadcast_to(zero, scale.shape)
    if len(scale) == 1:
        return scale.reshape(()), zero.reshape(())
    along = [1] * len(tensor.shape)
    along[quantization.quantizedDimension] = -1
    if quantization.quantizedDimension == axis:
        scale, zero = scale[positions], zero[positions]
    return scale.reshape(along), zero.reshape(along)


def quantization(tensor: Any) -> Quantization | None:
    """What the codes of a tensor stand for; None where its values are real.

    The runtime has compared the numbers of scales and zero points with the shape.
    """
    kind = type_name(tensor)
    if kind not in _CODES or not is_quantized(tensor) or tensor.quantization.detailsType:
        return None
    stated = tensor.quantization
    scale = np.asarray(stated.scale, np.float64)
    zero = np.asarray(stated.zeroPoint if _length(stated.zeroPoint) else [0], np.int64)
    zero = np.broadcast_to(zero, scale.shape)
    return Quantization(scale, zero, *_CODES[kind], int(stated.quantizedDimension))


def _refuse_blocks(tensor: Any) -> None:
    if tensor.quantization.detailsType:
        raise ModelError(
            f"the constant {text(tensor.name)!r} is quantized in blocks, which cannot be cut"
        )


def is_quantized(tensor: Any) -> bool:
    return tensor.quantization is not None and _length(tensor.quantization.scale) > 0


def _length(entries: Any) -> int:
    return 0 if entries is None else len(entries)
