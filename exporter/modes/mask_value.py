"""The value that stands for removed units which keep their place: none of them ever wins."""

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
"""Exactly 0 after softmax and sigmoid in float32 and float16, which both hold it exactly; an
infinity, or -1e9, would be NaN in float16 and ruin the scale of whoever quantizes it."""

_BFLOAT16_FLOOR = -9984.0  # the nearest value that bfloat16 holds exactly


def has_quantized_values(head: Head) -> bool:
    """Are the units' values codes anywhere on their way to the output?"""
    return any(tensor.quantization is not None for tensor in head.tensors)


def returns_probabilities(head: Head) -> bool:
    """Does the output hold probabilities, of which a removed unit's is 0?"""
    return head.activation in ACTIVATIONS and ACTIVATIONS[head.activation].probability


def joins_probabilities_of_parts(head: Head) -> bool:
    """Is the output put together of parts, each behind an activation of its own that gives
    probabilities? No activation follows then, and a removed unit's probability is 0 all the same.
    """

    def ends(tensor: str) -> bool:
        node, _ = head.producers[tensor]
        if isinstance(node.operation, Activation):
            return ACTIVATIONS[node.operation.function].probability
        moves = only_moves(node, "dequantize", "quantize", kinds=REARRANGE | Concat)
        return moves and all(ends(name) for name in node.inputs if name in head.producers)

    return head.z == head.output and ends(head.output)


def quantization_at(head: Head, tensor: str) -> Quantization | None:
    """The codes that a tensor holds, or that its real values come from; None where there are none.

    Args:
        head: labels the tensor.
        tensor: of values that nothing but moves changed since they were codes.
    """
    return quantization_of(head.producers, lambda name: head.tensor(name).quantization, tensor)


def quantization_attributes(tensor: UnitTensor) -> dict[str, Any]:
    """What an operation is told that makes or reads the codes of a tensor, which has one scale."""
    known = tensor.quantization
    assert known is not None  # noqa: S101 - narrows the type; values that are real have no codes
    return {
        "dtype": tensor.dtype,
        "scale": float(known.scale.item()),
        "zero_point": int(known.zero_point.item()),
    }


def lowest_value(head: Head, tensor: str) -> float:
    """The lowest value that has a code; where values are real, one that all of them hold."""
    known = quantization_at(head, tensor)
    if known is None or known.scale.size != 1:
        dtypes = {t.dtype for t in head.tensors} | {c.dtype for c in head.constants}
        return _BFLOAT16_FLOOR if "bfloat16" in dtypes else FLOOR
    return float(np.float32(known.low - known.zero_point.item()) * np.float32(known.scale.item()))
