"""Name the precision of a model from its constants and operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from exporter.graph import Graph, Tensor
from exporter.graph.operations import Linear


def precision_of(graph: Graph, constants: Mapping[str, Tensor]) -> str:
    """One of "fp32", "fp16", "bf16", "fp64", "dynamic", "int8", "int16x8", "int4", "fp8", "fp4".

    The type of the quantized values if operators quantize; otherwise the float type with the most
    bytes of constants, or "fp32" if there are none.
    """
    operators = {node.operator for node in graph.nodes}
    if operators & _DYNAMIC:
        return "dynamic"
    if "MatMulNBits" in operators:
        return _packed_precision(graph)
    if operators & _QUANTIZING or any(o.startswith(("QLinear", "QGemm")) for o in operators):
        return _integer_precision(graph)
    sizes = Counter[str]()
    for tensor in constants.values():
        if tensor.dtype in _FLOATS:
            sizes[_FLOATS[tensor.dtype]] += tensor.size_bytes or 0
    return max(sizes, key=lambda name: sizes[name], default="fp32")


def _packed_precision(graph: Graph) -> str:
    """By the kernel with the fewest bits a value."""
    operations = (node.operation for node in graph.nodes)
    bits = [o.packed_bits for o in operations if isinstance(o, Linear) and o.packed_bits]
    return "dynamic" if min(bits, default=_INT4) >= _INT8 else "int4"


_INT4, _INT8 = 4, 8  # bits


def _integer_precision(graph: Graph) -> str:
    """By the dtypes of the weights, and of the zero points of activations."""
    read = [
        (node.operator, graph.tensors[name].dtype)
        for node in graph.nodes
        if node.operator in _QUANTIZING
        for name in node.inputs
        if name and graph.tensors[name].is_constant
    ]
    for start, precision in _SMALL_FLOATS.items():
        if any(dtype.startswith(start) for _, dtype in read):
            return precision
    if any(dtype in {"int4", "uint4"} for _, dtype in read):
        return "int4"
    if any(o == "QuantizeLinear" and dtype in {"int16", "uint16"} for o, dtype in read):
        return "int16x8"
    return "int8"


_DYNAMIC = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger"}
)
_QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_SMALL_FLOATS: Mapping[str, str] = {"float4": "fp4", "float8": "fp8"}  # starts of dtypes
_FLOATS: Mapping[str, str] = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float64": "fp64",
}
