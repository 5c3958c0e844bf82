"""Name the precision of a model by what its constants and operators are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from exporter.graph import Graph
from exporter.graph.operations import Linear


def precision_of(graph: Graph) -> str:
    """One of "fp32", "fp16", "bf16", "fp64", "dynamic", "int8", "int16x8", "int4".

    Integer where the operators quantize; otherwise the float type that holds the most bytes,
    and "fp32" where there is none.
    """
    operators = {node.operator for node in graph.nodes}
    if operators & _DYNAMIC:
        return "dynamic"
    if "MatMulNBits" in operators:
        return _packed_precision(graph)
    if operators & _QUANTIZING or any(o.startswith(("QLinear", "QGemm")) for o in operators):
        return _integer_precision(graph)
    sizes = Counter[str]()
    for tensor in graph.tensors.values():
        if tensor.is_constant and tensor.dtype in _FLOATS:
            sizes[_FLOATS[tensor.dtype]] += tensor.size_bytes or 0
    return max(sizes, key=lambda name: sizes[name], default="fp32")


def _packed_precision(graph: Graph) -> str:
    """By the narrowest codes."""
    operations = (node.operation for node in graph.nodes)
    bits = [o.packed_bits for o in operations if isinstance(o, Linear) and o.packed_bits]
    return "dynamic" if min(bits, default=_BITS) >= _WHOLE_BYTE else "int4"


_BITS, _WHOLE_BYTE = 4, 8


def _integer_precision(graph: Graph) -> str:
    """By the weights' codes, and by the zero points of what is quantized while the model runs."""
    read = [
        (node.operator, graph.tensors[name].dtype)
        for node in graph.nodes
        if node.operator in _QUANTIZING
        for name in node.inputs
        if name and graph.tensors[name].is_constant
    ]
    if any(dtype in {"int4", "uint4"} for _, dtype in read):
        return "int4"
    if any(o == "QuantizeLinear" and dtype in {"int16", "uint16"} for o, dtype in read):
        return "int16x8"
    return "int8"


_DYNAMIC = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger"}
)
_QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_FLOATS: Mapping[str, str] = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float64": "fp64",
}
