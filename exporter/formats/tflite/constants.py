"""Constants: from a buffer's bytes to values and back, with their quantization."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite.layout import enumeration
from exporter.formats.tflite.schema import text
from exporter.graph import Array, Quantization

_TYPE_NAMES: dict[int, str] = {
    code: name.lower() for name, code in enumeration("TensorType").items()
}
_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_PLAIN = ("float32", "float16", "float64", "bool", *_INTEGERS)  # one value after the other

# NumPy's name of a type -> its code in the schema, for the types that NumPy has too
TYPE_CODES = {name: code for code, name in _TYPE_NAMES.items() if name in _PLAIN}

_INT4 = enumeration("TensorType")["INT4"]  # two values a byte, the first one in the low half

_RANGES = {name: (int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in _INTEGERS} | {
    "int4": (-8, 7)
}


def type_name(tensor: Any) -> str:
    """NumPy's name of the type, or the schema's in lower case."""
    return _TYPE_NAMES.get(tensor.type, f"type {tensor.type}")


def is_dense(tensor: Any) -> bool:
    """Does the buffer contain the values in the order of the shape, plain or as int4?"""
    known = tensor.type == _INT4 or type_name(tensor) in TYPE_CODES
    return known and tensor.sparsity is None


def stored_bytes(tensor: Any, count: int) -> int:
    """The size of `count` values of a dense tensor; int4 may leave half of the last byte unused."""
    return (count + 1) // 2 if tensor.type == _INT4 else count * _dtype(tensor).itemsize


def _dtype(tensor: Any) -> np.dtype[Any]:
    """Of the values in memory, where an int4 takes a byte."""
    return np.dtype("int8" if tensor.type == _INT4 else type_name(tensor))


def values(tensor: Any, buffer: Any) -> Array:
    """The values of a constant (quantized values if it is quantized), read-only unless int4.

    Returns:
        In the type's dtype; int4 as int8.

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
    view: Array = data.view(_dtype(tensor)).reshape(shape)
    return view


def _unpacked(data: Array, count: int) -> Array:
    """int4 as int8, without an unused half byte."""
    halves = np.stack([data << 4, data], axis=-1).reshape(-1)[:count]
    return halves.view(np.int8) >> 4


def stored(array: Array, tensor: Any) -> Array:
    """The bytes of a tensor's values as uint8, in the layout of its buffer."""
    if tensor.type != _INT4:
        return as_bytes(array)
    halves = array.reshape(-1).view(np.uint8) & 0x0F
    halves = np.append(halves, np.zeros(len(halves) % 2, np.uint8))
    return np.asarray(halves[0::2] | halves[1::2] << 4)


def as_bytes(array: Array) -> Array:
    """The bytes of an array as uint8."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8)


def take(array: Array, axis: int, positions: Array) -> Array:
    """Some positions along an axis.

    Data in a file need not be aligned, and NumPy would copy the whole array to align it. Items of a
    void dtype need no alignment.
    """
    unaligned = array.view(f"V{array.itemsize}")
    return np.take(unaligned, positions, axis=axis).view(array.dtype)


def take_scales(tensor: Any, axis: int, positions: Array) -> None:
    """Cut per-channel scales and zero points, if the channels are on this axis."""
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
    """Values in a constant's type; floats may lose digits, integers must stay equal.

    Args:
        shown: how the error shows the values; "" shows the array.

    Raises:
        ModelError: the type cannot represent the values.
    """
    dtype, kind = _dtype(tensor), type_name(tensor)
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
    lost = ~np.isfinite(result) & np.isfinite(array) if dtype.kind == "f" else result != array
    low, high = _RANGES.get(kind, (-np.inf, np.inf))
    if (lost | (result < low) | (result > high)).any():
        shown = shown or np.array2string(array, threshold=4, separator=", ").replace("\n", "")
        raise ModelError(f"the constant {text(tensor.name)!r} cannot hold {shown} as {kind}")
    return result


def encode(value: float, tensor: Any, axis: int, positions: Array) -> Array:
    """A real value in a constant's type, quantized if the constant is.

    Returns:
        Broadcasts against the values at these positions along the axis.

    Raises:
        ModelError: the type cannot represent the value.
    """
    if tensor.quantization is not None:
        _refuse_blocks(tensor)
    exact: Array = np.asarray(value, np.float64)
    if is_quantized(tensor) and "int" in type_name(tensor):
        scale, zero_point = _scales_at(tensor, axis, positions)
        exact = np.rint(value / scale) + zero_point
    return cast(exact, tensor, f"{value:g}")


def _scales_at(tensor: Any, axis: int, positions: Array) -> tuple[Array, Array]:
    """Scale and zero point, broadcasting against the values at positions along the axis."""
    scale, zero_point = _scale_and_zero_point(tensor)
    if len(scale) == 1:
        return scale.reshape(()), zero_point.reshape(())
    channels = int(tensor.quantization.quantizedDimension)
    if channels == axis:
        scale, zero_point = scale[positions], zero_point[positions]
    shape = [1] * len(tensor.shape)
    shape[channels] = -1
    return scale.reshape(shape), zero_point.reshape(shape)


def quantization(tensor: Any) -> Quantization | None:
    """How a tensor is quantized; None if its values are real.

    The runtime has compared the numbers of scales and zero points with the shape.
    """
    kind = type_name(tensor)
    if kind not in _RANGES or not is_quantized(tensor) or tensor.quantization.detailsType:
        return None
    axis = int(tensor.quantization.quantizedDimension)
    return Quantization(*_scale_and_zero_point(tensor), *_RANGES[kind], axis)


def _scale_and_zero_point(tensor: Any) -> tuple[Array, Array]:
    with np.errstate(invalid="ignore"):  # a signaling NaN
        scale = np.asarray(tensor.quantization.scale, np.float64)
    stated = tensor.quantization.zeroPoint
    zero_point = np.asarray([0] if _is_empty(stated) else stated, np.int64)
    return scale, np.broadcast_to(zero_point, scale.shape)


def _refuse_blocks(tensor: Any) -> None:
    if tensor.quantization.detailsType:
        raise ModelError(
            f"the constant {text(tensor.name)!r} is quantized in blocks, which cannot be cut"
        )


def is_quantized(tensor: Any) -> bool:
    return tensor.quantization is not None and not _is_empty(tensor.quantization.scale)


def _is_empty(entries: Any) -> bool:
    return entries is None or len(entries) == 0
