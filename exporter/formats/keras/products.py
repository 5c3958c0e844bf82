"""Products of layers and operations, for counting their multiply-adds; also of computed tensors.

Inputs of a node are the computed inputs of the call, then the weights of the layer. A call without
a row has the products that its neutral operation defines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exporter.formats.keras.calls import KerasCall
from exporter.graph.products import OUTPUT, Axis, Products, axes, einsum, matmul

_SEQUENCE = 3  # rank: batch, length, features


def products_of(call: KerasCall) -> Products:
    """The products of a call, drawn as one node; None if they are not known."""
    row = PRODUCTS.get(type(call.operation).__name__)
    return () if row is None else row(call)


def _rank(tensor: Any) -> int:
    return len(tensor.shape)


def _channels(call: KerasCall) -> int:
    return -1 if call.operation.data_format == "channels_last" else 1


def _depthwise(call: KerasCall) -> Products:
    """Each value of the kernel once at each position of the output."""
    kernel, output = call.operation.kernel, call.outputs[0]
    return ((*axes(1, _rank(kernel)), *axes(OUTPUT, _rank(output), without=_channels(call))),)


def _transposed_convolution(call: KerasCall) -> Products:
    """Each value of the kernel once at each position of the input."""
    kernel, image = call.operation.kernel, call.inputs[0]
    return ((*axes(1, _rank(kernel)), *axes(0, _rank(image), without=_channels(call))),)


def _matmul(call: KerasCall) -> Products:
    if len(call.inputs) != 2:  # noqa: PLR2004 - one side is an array in the call
        return None
    return (matmul(_rank(call.outputs[0]), Axis(0, -1)),)


def _einsum(call: KerasCall) -> Products:
    equation = str(call.operation.subscripts)
    if equation.count(",") + 1 != len(call.inputs) or len(call.inputs) > 2:  # noqa: PLR2004
        return None
    product = einsum(equation, _rank(call.outputs[0]))
    return None if product is None else (product,)


def _dot(call: KerasCall) -> Products:
    """The layer Dot, which sums one axis."""
    summed = call.operation.axes
    axis = summed if isinstance(summed, int) else summed[0]
    return (matmul(_rank(call.outputs[0]), Axis(0, axis)),)


# --- attention: scores = queries x keys, then scores x values -------------------------------------


def _attention(_: KerasCall) -> Products:
    """query [batch, queries, size], value [batch, keys, size]; additive scores cost the same."""
    query, value = axes(0, _SEQUENCE), axes(1, _SEQUENCE)
    return (*query, Axis(1, 1)), (*query[:2], *value[1:])


def _multi_head_attention(call: KerasCall) -> Products:
    """Three projections, two products for each head, and a projection of the result.

    Kernels: query [features, heads, size], key and value alike, output [heads, size, features].
    """
    layer, ranks = call.operation, [_rank(tensor) for tensor in call.inputs]
    if set(ranks) != {_SEQUENCE} or getattr(layer, "_use_gate", False):
        return None
    slot = {
        str(weight.path).split("/")[-2]: len(call.inputs) + i
        for i, weight in enumerate(layer.weights)
        if str(weight.path).endswith("/kernel")
    }
    key = 2 if len(call.inputs) > 2 else 1  # noqa: PLR2004 - without a key, the value is the key
    query, heads = axes(0, _SEQUENCE), Axis(slot["query"], 1)
    projections = (
        (*axes(tensor, _SEQUENCE), Axis(slot[name], 1), Axis(slot[name], 2))
        for tensor, name in ((0, "query"), (key, "key"), (1, "value"))
    )
    pairs = (*query[:2], heads, Axis(key, 1))
    scores = (*pairs, Axis(slot["query"], 2)), (*pairs, Axis(slot["value"], 2))
    return *projections, *scores, (*query[:2], *axes(slot["attention_output"], _SEQUENCE))


PRODUCTS: Mapping[str, Callable[[KerasCall], Products]] = {
    **dict.fromkeys(("Attention", "AdditiveAttention"), _attention),
    **dict.fromkeys(
        ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed_convolution
    ),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    "Dot": _dot,
    "Einsum": _einsum,
    "Matmul": _matmul,
    **dict.fromkeys(("MultiHeadAttention", "GroupedQueryAttention"), _multi_head_attention),
    **dict.fromkeys(("DotProductAttention", "Tensordot", "Inner"), lambda _: None),
}
