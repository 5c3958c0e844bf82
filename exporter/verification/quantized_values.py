"""Quantized tensors, and dequantized copies of them, are compared in quantized steps."""

from __future__ import annotations

import numpy as np

from exporter.graph import Array, Graph, Quantization, walk

_BYTE = 255


def precision_of(known: Quantization | None) -> str:
    """The row of `LIMITS` for quantized values, "int8" or "int16x8"; "" for real values."""
    if known is None:
        return ""
    return "int8" if known.high - known.low <= _BYTE else "int16x8"


def quantization_of(graph: Graph, name: str) -> Quantization | None:
    """The quantization of a tensor, or of the tensor that it was dequantized, moved or copied from.

    None if there is none, or if it is per-channel: no axis can be cut alone then.
    """
    tensors = graph.tensors
    known = walk.quantization_of(graph.producers, lambda each: tensors[each].quantization, name)
    return known if known is not None and known.scale.size == 1 else None


def quantize(known: Quantization, values: Array) -> Array:
    """The quantized values of real ones, not clipped: a value out of range must show."""
    return np.asarray(np.rint(values / known.scale.item() + known.zero_point.item()))
