"""The value of removed units that keep their position: no removed unit may ever win."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.graph import Quantization
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.operations import Activation, Concat
from exporter.graph.walk import REARRANGE, only_moves, quantization_of
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitTensor

FLOOR = -1e4
"""Exact in float32 and float16, and exactly 0 after softmax and sigmoid. Negative infinity or -1e9
would become NaN in float16, and make the scale of a quantizer useless."""

_BFLOAT16_FLOOR = -9984.0  # the nearest value that bfloat16 represents exactly

_FLOATS = ("float16", "float32", "float64")
_INTEGERS = ("uint8", "int8", "int16")


def has_quantized_values(head: Head) -> bool:
    """Whether the units' values are quantized anywhere on their way to the output."""
    return any(tensor.quantization is not None for tensor in head.tensors)


def returns_probabilities(head: Head) -> bool:
    """Does the last activation return probabilities, or shares of them? A removed unit's is 0."""
    if head.activation == "l1_normalize":
        return contains_probabilities(head, head.z)
    return head.activation in ACTIVATIONS and ACTIVATIONS[head.activation].probability


def joins_probabilities_of_parts(head: Head) -> bool:
    """Whether the output joins parts that each have their own activation to probabilities.

    Then there is no last activation, but a removed unit's probability is 0 as well.
    """
    return head.z == head.output and contains_probabilities(head, head.output)


def contains_probabilities(head: Head, tensor: str) -> bool:
    """Whether a tensor contains results of activations to probabilities, moved or joined."""
    node, _ = head.producers[tensor]
    if isinstance(node.operation, Activation):
        return ACTIVATIONS[node.operation.function].probability
    if not only_moves(node, "dequantize", "quantize", kinds=REARRANGE | Concat):
        return False
    return all(contains_probabilities(head, each) for each in node.inputs if each in head.producers)


def divides_by_a_norm(head: Head) -> bool:
    """Whether the last activation divides by a norm of the values, which a floor would dominate."""
    return head.activation.endswith("_normalize")


def quantization_at(head: Head, tensor: str) -> Quantization | None:
    """How a tensor is quantized, or the tensor that its real values are dequantized from."""
    known = {each.name: each.quantization for each in head.tensors}
    return quantization_of(head.producers, known.get, tensor)


def quantization_attributes(tensor: UnitTensor) -> dict[str, Any]:
    """The attributes of an operation that quantizes or dequantizes a tensor with one scale."""
    known = tensor.quantization
    assert known is not None  # noqa: S101 - narrows the type; the caller has checked it
    return {
        "dtype": tensor.dtype,
        "scale": float(known.scale.item()),
        "zero_point": int(known.zero_point.item()),
    }


def why_not_computable(tensor: UnitTensor) -> str:
    """Why inserted operations cannot compute with the values of a tensor; "" if they can."""
    known = tensor.quantization
    if known is not None and known.scale.size > 1:
        return f"{tensor.name!r} has a scale for each unit"
    supported = tensor.dtype in (_FLOATS if known is None else _INTEGERS)
    return "" if supported else f"{tensor.name!r} is {tensor.dtype}"


def lowest_value(head: Head, tensor: str) -> float:
    """The lowest quantized value; of real values, a floor that all dtypes of the head represent."""
    known = quantization_at(head, tensor)
    if known is None or known.scale.size != 1:
        dtypes = {t.dtype for t in head.tensors} | {c.dtype for c in head.constants}
        return _BFLOAT16_FLOOR if "bfloat16" in dtypes else FLOOR
    return float(np.float32(known.low - known.zero_point.item()) * np.float32(known.scale.item()))
