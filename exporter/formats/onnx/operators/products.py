"""Products of operators, for counting their multiply-adds; also of two computed tensors.

A product with a constant kernel is a `Linear` operation, which defines its products; a transposed
convolution is the exception. An operator without a row has no products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.onnx.node_view import NodeView
from exporter.graph.operations import Linear, Operation
from exporter.graph.products import OUTPUT, Axis, Product, Products, axes, einsum, matmul

_CHANNELS = 1  # axis of images
_PAST = "it reads a cache of unknown length"


def products_of(operator: str, node: NodeView, operation: Operation) -> Products:
    """The products of a node; None if they are not known, () if the operation defines them."""
    if operator.startswith("TreeEnsemble"):
        return None
    if isinstance(operation, Linear) and operator != "ConvTranspose":
        return ()
    row = PRODUCTS.get(operator)
    if row is None:
        return None if "Attention" in operator or operator in _WITH_GRAPHS else ()
    try:
        return row(node)
    except (UntranslatableError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _output_rank(node: NodeView) -> int:
    shape = node.output_shape()
    if shape is None:
        raise UntranslatableError("the rank of its result is not known")
    return len(shape)


def _matmul(node: NodeView) -> Products:
    if node.attributes.get("transBatchA", 0):
        return None
    return (matmul(_output_rank(node), Axis(0, -2 if node.attributes.get("transA", 0) else -1)),)


def _einsum(node: NodeView) -> Products:
    product = einsum(str(node.attributes["equation"]), _output_rank(node))
    return None if product is None else (product,)


def _conv(node: NodeView) -> Products:
    """Each value of the kernel once at each position of the output."""
    kernel = axes(1, len(node.known_shape(1)))
    return ((*kernel, *axes(OUTPUT, _output_rank(node), without=_CHANNELS)),)


def _conv_transpose(node: NodeView) -> Products:
    """Each value of the kernel once at each position of the input."""
    kernel = axes(1, len(node.known_shape(1)))
    return ((*kernel, *axes(0, len(node.known_shape()), without=_CHANNELS)),)


# --- attention: scores = queries x keys, then scores x values -------------------------------------


def _attention(node: NodeView) -> Products:
    """Of the standard domain: [batch, length, heads * size], or [batch, heads, length, size]."""
    _require_no_cache(node, 4, 5)
    length = Axis(1, -2)
    return (*axes(0, len(node.known_shape())), length), (*axes(OUTPUT, _output_rank(node)), length)


def _multi_head_attention(node: NodeView) -> Products:
    """query [batch, length, features]; keys and values alike, or with an axis of heads."""
    _require_no_cache(node, 6, 7)
    query, value = axes(0, len(node.known_shape())), axes(2, len(node.known_shape(2)))
    return (*query, Axis(1, -2)), (*query[:2], *value[1:])


def _attention_with_projection(node: NodeView) -> Products:
    """input [batch, length, features], weights [features, 3 * size]"""
    _require_no_cache(node, 4, 8)
    width = (node.known_shape(1))[1]
    if width is None or width % 3 or "qkv_hidden_sizes" in node.attributes:
        return None
    tokens = Axis(0, 0), Axis(0, 1)
    product: Product = (*tokens, Axis(0, 1), width // 3)
    return (*tokens, Axis(0, 2), width), product, product


def _require_no_cache(node: NodeView, *slots: int) -> None:
    if any(node.has(slot) for slot in slots):
        raise UntranslatableError(_PAST)


_WITH_GRAPHS = {"If", "Loop", "Scan", "SequenceMap"}

PRODUCTS: Mapping[str, Callable[[NodeView], Products]] = {
    "Attention": lambda node: (
        _attention_with_projection(node) if node.is_constant(1) else _attention(node)
    ),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DynamicQuantizeMatMul": _matmul,
    "Einsum": _einsum,
    "FusedConv": _conv,
    "FusedMatMul": _matmul,
    "Gemm": lambda node: (matmul(2, Axis(0, 0 if node.attributes.get("transA", 0) else 1)),),
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "MultiHeadAttention": _multi_head_attention,
    "QAttention": _attention_with_projection,
    "QLinearMatMul": _matmul,
}
