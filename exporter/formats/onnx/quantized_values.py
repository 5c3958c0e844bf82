"""What the integers of a file stand for, followed from where the file states it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from exporter.errors import ModelError
from exporter.graph import Array, Graph, Node, Quantization, Tensor
from exporter.graph.edits import Fill
from exporter.graph.operations import (
    Concat,
    Elementwise,
    Expand,
    GatherConstant,
    Linear,
    Opaque,
    Pool,
    Slice,
    Split,
    Transpose,
)
from exporter.graph.walk import REARRANGE, applies, only_moves

_INTEGERS = ("int", "uint")
_Pair = tuple[int | None, int]  # slots of the scale (None: it stands elsewhere) and the zero point


@dataclass(frozen=True)
class Coded:
    """Where an operator's inputs state what its codes stand for.

    Attributes:
        read: slot of codes that it reads -> the slots of their scale and zero point.
        made: those of the codes that it makes; None where it makes none.
    """

    read: Mapping[int, _Pair] = field(default_factory=dict)
    made: _Pair | None = None


def with_codes(graph: Graph) -> Graph:
    """The graph with the quantization of every tensor of codes whose scale is constant."""
    found = {**_made(graph.nodes, graph.tensors), **_read(graph.nodes, graph.tensors)}
    if not found:
        return graph
    tensors = {
        name: replace(tensor, quantization=found[name]) if name in found else tensor
        for name, tensor in graph.tensors.items()
    }
    return replace(graph, tensors=tensors)


def encode(constant: Tensor, edit: Fill, shape: tuple[int, ...]) -> Array:
    """A real value as a constant of this shape holds it at some positions, to be assigned to them.

    Raises:
        ModelError: it is not known what the codes stand for, or the value has no code.
    """
    known = constant.quantization
    if known is None:
        return np.asarray(edit.value)
    scale, point = (
        np.take(np.broadcast_to(each, shape), edit.positions, axis=edit.axis)
        for each in known.broadcast(shape)
    )
    codes = point + (np.rint(edit.value / scale) if edit.value else 0)
    if np.isnan(codes).any():
        raise ModelError(
            f"nothing tells what the codes of {constant.name!r} stand for", "use --mode slice"
        )
    if codes.min() < known.low or codes.max() > known.high:
        raise ModelError(f"{constant.name!r} has no code for {edit.value:g}")
    return np.asarray(codes.astype(np.int64))


def _made(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> dict[str, Quantization]:
    """Of what nodes make: as they state it, then wherever codes only move."""
    found: dict[str, Quantization] = {}
    for node in nodes:
        made = _coded(node).made
        if made is not None:
            stated = _stated(node, tensors, node.outputs[0], made)
            if stated is not None and not np.isnan(stated.scale).any():
                found[node.outputs[0]] = stated
        elif only_moves(node, kinds=_MOVING):
            carried = _carried(node, found)
            if carried is not None:
                found.update((name, carried) for name in node.outputs if name)
    return found


def _read(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> dict[str, Quantization]:
    """Of what nodes read as codes, perhaps behind nodes that move them."""
    found: dict[str, Quantization] = {}
    for node in reversed(nodes):
        if only_moves(node) and node.outputs[0] in found:
            found[node.inputs[0]] = _before(node, found[node.outputs[0]])
        found.update(_read_by(node, tensors))
    return found


def _read_by(node: Node, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Quantization]]:
    for slot, pair in _coded(node).read.items():
        name = node.inputs[slot] if slot < len(node.inputs) else ""
        stated = _stated(node, tensors, name, pair) if name else None
        if stated is not None:
            yield name, stated


_MOVING = REARRANGE | Pool | GatherConstant | Slice | Split | Concat | Expand


def _coded(node: Node) -> Coded:
    """Nothing where the operator is used in a way that the table does not cover, or in blocks."""
    match node.operation:
        case Opaque():
            return _NONE
        case Elementwise(block_axis=int()):
            return _NONE
        case _:
            return CODED.get(node.operator, _NONE)


def _stated(
    node: Node, tensors: Mapping[str, Tensor], codes: str, pair: _Pair
) -> Quantization | None:
    """Scales that are computed while the model runs are NaN; without zero points nothing is."""
    dtype = tensors[codes].dtype
    scale, given = (
        tensors[node.inputs[slot]]
        if slot is not None and slot < len(node.inputs) and node.inputs[slot]
        else None
        for slot in pair
    )
    if not dtype.startswith(_INTEGERS) or (given is not None and given.read is None):
        return None
    points = np.zeros(1) if given is None or given.read is None else given.read().astype(np.int64)
    values = np.full(points.shape, np.nan)
    if scale is not None and scale.read is not None:
        values = np.asarray(scale.read(), np.float64)
    points, values = (
        np.asarray(each) for each in np.broadcast_arrays(points.ravel(), values.ravel())
    )
    bits = int(dtype.removeprefix("u").removeprefix("int"))
    low = 0 if dtype.startswith("u") else -(2 ** (bits - 1))
    return Quantization(values, points, low, low + 2**bits - 1, _channel_axis(node, codes))


def _channel_axis(node: Node, codes: str) -> int:
    """The axis along which scales may stand."""
    match node.operation:
        case Elementwise(channel_axis=int(axis)):
            return axis
        case Linear(kernel=kernel, kernel_axis=axis) if node.inputs[kernel] == codes:
            return axis
        case _:
            return 0


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
    if applies(node, "identity"):
        return quantization
    if isinstance(node.operation, Transpose):
        return replace(quantization, axis=node.operation.permutation[quantization.axis])
    nowhere = np.array([np.nan])
    points = nowhere if quantization.zero_point.any() else np.zeros(1)
    return replace(quantization, scale=nowhere, zero_point=points, axis=0)


_NONE = Coded()
_ONE_TO_ONE = Coded({0: (1, 2)}, made=(3, 4))
_TWO_TO_ONE = Coded({0: (1, 2), 3: (4, 5)}, made=(6, 7))
_INTEGER = Coded({1: (None, 3)})  # the scale is multiplied behind it

CODED: Mapping[str, Coded] = {
    "ConvInteger": _INTEGER,
    "DequantizeLinear": Coded({0: (1, 2)}),
    "DynamicQuantizeMatMul": Coded({1: (2, 3)}),
    "MatMulInteger": _INTEGER,
    "MatMulIntegerToFloat": Coded({1: (3, 5)}),
    "QGemm": Coded({0: (1, 2), 3: (4, 5)}, made=(7, 8)),
    "QLinearAdd": _TWO_TO_ONE,
    "QLinearAveragePool": _ONE_TO_ONE,
    "QLinearConv": _TWO_TO_ONE,
    "QLinearGlobalAveragePool": _ONE_TO_ONE,
    "QLinearLeakyRelu": _ONE_TO_ONE,
    "QLinearMatMul": _TWO_TO_ONE,
    "QLinearMul": _TWO_TO_ONE,
    "QLinearSigmoid": _ONE_TO_ONE,
    "QLinearSoftmax": _ONE_TO_ONE,
    "QuantizeLinear": Coded(made=(1, 2)),
}
