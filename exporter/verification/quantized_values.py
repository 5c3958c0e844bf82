"""Which values count as codes: those of integer tensors, and real ones that lie where codes do."""

from __future__ import annotations

import numpy as np

from exporter.graph import Array, Graph, Quantization
from exporter.graph.walk import quantization_of


def width_of(known: Quantization | None) -> str:
    if known is None:
        return ""
    return "int8" if known.high - known.low <= _BYTE else "int16x8"


_BYTE = 255


def codes_of(graph: Graph, name: str) -> Quantization | None:
    """The codes that a tensor holds, or that its real values come from; None where there are none.

    One scale for all: of values along whose axis the scale varies no axis can be cut alone.
    """
    known = quantization_of(graph.producers, lambda each: graph.tensors[each].quantization, name)
    return known if known is not None and known.scale.size == 1 else None


def as_codes(known: Quantization, values: Array) -> Array:
    return np.asarray(np.rint(values / known.scale.item() + known.zero_point.item()))
