"""What the integers of a QDQ file stand for, followed from where the file states it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from exporter.errors import ModelError
from exporter.graph import Array, Graph, Node, Quantization, Tensor
from exporter.operations import Concat, Elementwise, Pool, Reshape, Slice, Split, Transpose
from exporter.plan import Fill

_INTEGERS = ("int", "uint")


def with_codes(graph: Graph) -> Graph:
    """The graph with the quantisation of every tensor of codes whose scale is constant."""
    found = {**_made(graph.nodes, graph.tensors), **_read(graph.nodes, graph.tensors)}
    if not found:
        return graph
    tensors = {
        name: replace(tensor, quantization=found[name]) if name in found else tensor
        for name, tensor in graph.tensors.items()
    }
    return replace(graph, tensors=tensors)


def encode(constant: Tensor, edit: Fill, rank: int) -> Array:
    """A real value as a constant holds it at some positions, to be assigned to them.

    Raises:
        ModelError: it is not known what the codes stand for, or the value has no code.
    """
    known = constant.quantization
    if known is None:
        return np.asarray(edit.value)
    at = edit.positions if known.axis == edit.axis else slice(None)
    along = [1] * rank
    along[known.axis] = -1
    scale, point = (v.ravel() if v.size == 1 else v[at] for v in (known.scale, known.zero_point))
    codes = point + (np.rint(edit.value / scale) if edit.value else 0)
    if np.isnan(codes).any():
        raise ModelError(
            f"nothing tells what the codes of {constant.name!r} stand for", "use --mode slice"
        )
    if codes.min() < known.low or codes.max() > known.high:
        raise ModelError(f"{constant.name!r} has no code for {edit.value:g}")
    return np.asarray(codes.astype(np.int64).reshape(along))


def _made(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> dict[str, Quantization]:
    """Of what nodes make: as stated by a QuantizeLinear, then wherever codes only move."""
    found: dict[str, Quantization] = {}
    for node in nodes:
        stated = _stated(node, tensors, node.outputs[0]) if _is(node, "quantize") else None
        if stated is not None:
            found[node.outputs[0]] = stated
        elif isinstance(node.operation, _MOVING) or _is(node, "identity"):
            carried = _carried(node, found)
            if carried is not None:
                found.update((name, carried) for name in node.outputs if name)
    return found


def _read(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> dict[str, Quantization]:
    """Of constants that a DequantizeLinear reads, perhaps behind nodes that move them."""
    found: dict[str, Quantization] = {}
    for node in reversed(nodes):
        if _is(node, "dequantize"):
            stated = _stated(node, tensors, node.inputs[0])
            if stated is not None:
                found[node.inputs[0]] = stated
        elif _hands_on(node) and node.outputs[0] in found:
            found[node.inputs[0]] = _before(node, found[node.outputs[0]])
    return found


_MOVING = Reshape | Transpose | Pool | Slice | Split | Concat


def _hands_on(node: Node) -> bool:
    return isinstance(node.operation, Reshape | Transpose) or _is(node, "identity")


def _is(node: Node, function: str) -> bool:
    return isinstance(node.operation, Elementwise) and node.operation.function == function


def _stated(node: Node, tensors: Mapping[str, Tensor], codes: str) -> Quantization | None:
    dtype = tensors[codes].dtype
    scale = tensors[node.inputs[1]].read
    given = next((name for name in node.inputs[2:3] if name), None)
    point = tensors[given].read if given is not None else None
    if not dtype.startswith(_INTEGERS) or (given is not None and point is None):
        return None
    if scale is None and _is(node, "quantize"):
        return None
    points = np.zeros(1, np.int64) if point is None else point().astype(np.int64).ravel()
    values = np.full(points.shape, np.nan) if scale is None else np.asarray(scale(), np.float64)
    points, values = (np.asarray(v) for v in np.broadcast_arrays(points, values.ravel()))
    bits = int(dtype.removeprefix("u").removeprefix("int"))
    low = 0 if dtype.startswith("u") else -(2 ** (bits - 1))
    axis = node.operation.channel_axis if isinstance(node.operation, Elementwise) else None
    return Quantization(values, points, low, low + 2**bits - 1, axis or 0)


def _carried(node: Node, found: Mapping[str, Quantization]) -> Quantization | None:
    """One scale for all moves with the codes, if all that comes together has the same."""
    parts = [found.get(name) for name in node.inputs[: None if _joins(node) else 1]]
    first = parts[0]
    if first is None or first.scale.size != 1:
        return None
    same = all(p is not None and _equal(p, first) for p in parts)
    return first if same else None


def _joins(node: Node) -> bool:
    return isinstance(node.operation, Concat)


def _equal(left: Quantization, right: Quantization) -> bool:
    return np.array_equal(left.scale, right.scale) and np.array_equal(
        left.zero_point, right.zero_point
    )


def _before(node: Node, quantization: Quantization) -> Quantization:
    """What a node's input stands for, by its output; NaN where channels end up elsewhere."""
    if quantization.scale.size == 1:
        return quantization
    if _is(node, "identity"):
        return quantization
    if isinstance(node.operation, Transpose):
        return replace(quantization, axis=node.operation.permutation[quantization.axis])
    if not quantization.zero_point.any():
        return replace(quantization, scale=np.array([np.nan]), zero_point=np.zeros(1), axis=0)
    return replace(quantization, scale=np.array([np.nan]), zero_point=np.array([np.nan]), axis=0)
