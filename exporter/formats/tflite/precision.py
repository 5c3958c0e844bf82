"""What people call the precision of a file."""

from __future__ import annotations

from collections import Counter
from math import prod

from exporter.graph import Graph, Tensor
from exporter.graph.operations import Elementwise, NonMaxSuppression

_WIDE = frozenset({"int32", "int64", "bool"})
_FLOATS = {"float32": "fp32", "float16": "fp16", "float64": "fp64", "bfloat16": "bf16"}


def precision(graph: Graph) -> str:
    """The dtype of most of the weights; "dynamic" and "int16x8" tell of the activations.

    Biases of wide integers and shapes are no weights, however many there are; nor are the places
    and anchors of a detector, which quantizers leave float.
    """
    every = [t for t in graph.tensors.values() if t.is_constant]
    constants = [t for t in every if not _is_place(graph, t)] or every
    computed = [graph.tensors[name] for node in graph.nodes for name in node.outputs]
    weights = (
        _commonest([t for t in constants if t.dtype in _FLOATS or t.dtype not in _WIDE])
        or _commonest(constants)
        or _commonest(computed)
        or "float32"
    )
    codes = {t.dtype for t in computed if t.quantization is not None}
    if weights == "int8" and "int16" in codes:
        return "int16x8"
    if weights == "int8" and not codes:
        return "dynamic"
    return _FLOATS.get(weights, weights)


def _is_place(graph: Graph, tensor: Tensor) -> bool:
    """Is all that is done with a constant to add or multiply values by it, or to decode boxes?"""
    readers = [node.operation for node, _ in graph.consumers.get(tensor.name, ())]
    return bool(readers) and all(
        isinstance(o, NonMaxSuppression)
        or (isinstance(o, Elementwise) and o.function not in _KEEPING)
        for o in readers
    )


_KEEPING = frozenset({"identity", "cast", "dequantize", "quantize"})


def _commonest(tensors: list[Tensor]) -> str | None:
    """The dtype of most values; open dimensions count once."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.dtype.removeprefix("sparse ")] += prod(n or 1 for n in tensor.shape or ())
    return max(counts, key=lambda dtype: counts[dtype], default=None)
