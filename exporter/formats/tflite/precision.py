"""Name the precision of a file."""

from __future__ import annotations

from collections import Counter
from math import prod

from exporter.graph import Graph, Tensor
from exporter.graph.operations import Elementwise, NonMaxSuppression

_NOT_WEIGHTS = frozenset({"int32", "int64", "bool"})  # biases of quantized layers, shapes, masks
_FLOATS = {"float32": "fp32", "float16": "fp16", "float64": "fp64", "bfloat16": "bf16"}


def precision_of(graph: Graph) -> str:
    """The dtype of most weights; "dynamic" and "int16x8" depend on the activations too.

    The offsets and anchors of a detector do not count as weights: quantizers leave them float.
    """
    every = [t for t in graph.tensors.values() if t.is_constant]
    constants = [t for t in every if not _is_offset(graph, t)] or every
    computed = [graph.tensors[name] for node in graph.nodes for name in node.outputs]
    weights = (
        _most_common([t for t in constants if t.dtype not in _NOT_WEIGHTS])
        or _most_common(constants)
        or _most_common(computed)
        or "float32"
    )
    activations = {t.dtype for t in computed if t.quantization is not None}
    if weights == "int8" and "int16" in activations:
        return "int16x8"
    if weights == "int8" and not activations:
        return "dynamic"
    return _FLOATS.get(weights, weights)


def _is_offset(graph: Graph, tensor: Tensor) -> bool:
    """Is a constant only added to values, multiplied by them, or used to decode boxes?"""
    operations = [node.operation for node, _ in graph.consumers.get(tensor.name, ())]
    return bool(operations) and all(
        isinstance(o, NonMaxSuppression)
        or (isinstance(o, Elementwise) and o.function not in _CONVERSIONS)
        for o in operations
    )


_CONVERSIONS = frozenset({"identity", "cast", "dequantize", "quantize"})


def _most_common(tensors: list[Tensor]) -> str | None:
    """The dtype of most values; an open dimension counts as 1."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.dtype.removeprefix("sparse ")] += prod(n or 1 for n in tensor.shape or ())
    return max(counts, key=lambda dtype: counts[dtype], default=None)
