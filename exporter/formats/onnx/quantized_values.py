"""How the integer tensors of a file are quantized, followed from where the file states it."""

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
# Slots of the scale and the zero point. No scale: a later operator multiplies by it.
_Slots = tuple[int | None, int]


@dataclass(frozen=True)
class QuantizedSlots:
    """The inputs with which an operator states how its tensors are quantized.

    Attributes:
        inputs: slot of a quantized input -> slots of its scale and zero point.
        output: of the output; None where it is not quantized.
    """

    inputs: Mapping[int, _Slots] = field(default_factory=dict)
    output: _Slots | None = None


def add_quantization(graph: Graph) -> Graph:
    """The graph with the quantization of every tensor for which it is known."""
    if not any(node.operator in QUANTIZED_SLOTS for node in graph.nodes):
        return graph
    found = {
        **_of_outputs(graph.nodes, graph.tensors),
        **_of_inputs(graph.nodes, graph.tensors),
    }
    tensors = {
        name: replace(tensor, quantization=found[name]) if name in found else tensor
        for name, tensor in graph.tensors.items()
    }
    return replace(graph, tensors=tensors)


def quantize_fill(constant: Tensor, edit: Fill, shape: tuple[int, ...]) -> Array:
    """The value of a Fill, quantized as the constant is at the positions of the edit.

    Args:
        constant: real or quantized.
        edit: with a real value.
        shape: of the constant.

    Raises:
        ModelError: the file does not state the scale, or the value is out of range.
    """
    known = constant.quantization
    if known is None:
        return np.asarray(edit.value)
    scale, zero_point = (
        np.take(np.broadcast_to(each, shape), edit.positions, axis=edit.axis)
        for each in known.broadcast(shape)
    )
    values = zero_point + (np.rint(edit.value / scale) if edit.value else 0)
    if np.isnan(values).any():
        raise ModelError(
            f"the file does not state the scale or zero point of {constant.name!r}",
            "use --mode slice",
        )
    if values.min() < known.low or values.max() > known.high:
        raise ModelError(f"no quantized value of {constant.name!r} is {edit.value:g}")
    return np.asarray(values.astype(np.int64))


def _of_outputs(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> dict[str, Quantization]:
    """Quantization of node outputs: as an operator states it, then through nodes that only move."""
    found: dict[str, Quantization] = {}
    for node in nodes:
        slots = _slots(node).output
        if slots is not None:
            stated = _stated(node, tensors, node.outputs[0], slots)
            if stated is not None and not np.isnan(stated.scale).any():
                found[node.outputs[0]] = stated
        elif node.inputs and node.inputs[0] in found and only_moves(node, kinds=_MOVES):
            moved = _after_move(node, found)
            if moved is not None:
                found.update((name, moved) for name in node.outputs if name)
    return found


def _of_inputs(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> dict[str, Quantization]:
    """Quantization of node inputs, followed backward through nodes that only move values."""
    found: dict[str, Quantization] = {}
    for node in reversed(nodes):
        if node.outputs and node.outputs[0] in found and only_moves(node):
            found[node.inputs[0]] = _before_move(node, found[node.outputs[0]])
        found.update(_of_inputs_of(node, tensors))
    return found


def _of_inputs_of(node: Node, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Quantization]]:
    for slot, slots in _slots(node).inputs.items():
        name = node.inputs[slot] if slot < len(node.inputs) else ""
        stated = _stated(node, tensors, name, slots) if name else None
        if stated is not None:
            yield name, stated


_MOVES = REARRANGE | Pool | GatherConstant | Slice | Split | Concat | Expand


def _slots(node: Node) -> QuantizedSlots:
    """None where the operator is used in a way that the table does not cover, or in blocks."""
    found = QUANTIZED_SLOTS.get(node.operator)
    if found is None or isinstance(node.operation, Opaque):
        return _NONE
    in_blocks = isinstance(node.operation, Elementwise) and node.operation.block_axis is not None
    return _NONE if in_blocks else found


def _stated(
    node: Node, tensors: Mapping[str, Tensor], name: str, slots: _Slots
) -> Quantization | None:
    """The quantization of a tensor of a node; a scale that is not a constant is NaN.

    None if the tensor is not of integers, or its zero point is computed.
    """
    dtype = tensors[name].dtype
    scale, zero_point = (
        tensors[node.inputs[slot]]
        if slot is not None and slot < len(node.inputs) and node.inputs[slot]
        else None
        for slot in slots
    )
    if not dtype.startswith(_INTEGERS) or (zero_point is not None and zero_point.read is None):
        return None
    points = np.zeros(1)
    if zero_point is not None and zero_point.read is not None:
        points = zero_point.read().astype(np.int64)
    scales = np.full(points.shape, np.nan)
    if scale is not None and scale.read is not None:
        scales = np.asarray(scale.read(), np.float64)
    points, scales = map(np.asarray, np.broadcast_arrays(points.ravel(), scales.ravel()))
    bits = int(dtype.removeprefix("u").removeprefix("int"))
    low = 0 if dtype.startswith("u") else -(2 ** (bits - 1))
    return Quantization(scales, points, low, low + 2**bits - 1, _channel_axis(node, name))


def _channel_axis(node: Node, name: str) -> int:
    """The axis of a tensor along which per-channel scales run."""
    match node.operation:
        case Elementwise(channel_axis=int(axis)):
            return axis
        case Linear(kernel=kernel, kernel_axis=axis) if node.inputs[kernel] == name:
            return axis
        case _:
            return 0


def _after_move(node: Node, found: Mapping[str, Quantization]) -> Quantization | None:
    """A per-tensor scale moves with the values if all joined inputs have the same one."""
    joins = isinstance(node.operation, Concat)
    parts = [found.get(name) for name in (node.inputs if joins else node.inputs[:1])]
    first = parts[0]
    if first is None or first.scale.size != 1:
        return None
    return first if all(p is not None and _equal(p, first) for p in parts) else None


def _equal(left: Quantization, right: Quantization) -> bool:
    return np.array_equal(left.scale, right.scale) and np.array_equal(
        left.zero_point, right.zero_point
    )


def _before_move(node: Node, quantization: Quantization) -> Quantization:
    """The quantization of a node's input; NaN where a reshape moves the channels."""
    if quantization.scale.size == 1 or applies(node, "identity"):
        return quantization
    if isinstance(node.operation, Transpose):
        return replace(quantization, axis=node.operation.permutation[quantization.axis])
    unknown = np.array([np.nan])
    points = unknown if quantization.zero_point.any() else np.zeros(1)
    return replace(quantization, scale=unknown, zero_point=points, axis=0)


_NONE = QuantizedSlots()
_ONE_TO_ONE = QuantizedSlots({0: (1, 2)}, output=(3, 4))
_TWO_TO_ONE = QuantizedSlots({0: (1, 2), 3: (4, 5)}, output=(6, 7))
_INTEGER_PRODUCT = QuantizedSlots({1: (None, 3)})

QUANTIZED_SLOTS: Mapping[str, QuantizedSlots] = {
    "ConvInteger": _INTEGER_PRODUCT,
    "DequantizeLinear": QuantizedSlots({0: (1, 2)}),
    "DynamicQuantizeMatMul": QuantizedSlots({1: (2, 3)}),
    "MatMulInteger": _INTEGER_PRODUCT,
    "MatMulIntegerToFloat": QuantizedSlots({1: (3, 5)}),
    "QGemm": QuantizedSlots({0: (1, 2), 3: (4, 5)}, output=(7, 8)),
    "QLinearAdd": _TWO_TO_ONE,
    "QLinearAveragePool": _ONE_TO_ONE,
    "QLinearConv": _TWO_TO_ONE,
    "QLinearGlobalAveragePool": _ONE_TO_ONE,
    "QLinearLeakyRelu": _ONE_TO_ONE,
    "QLinearMatMul": _TWO_TO_ONE,
    "QLinearMul": _TWO_TO_ONE,
    "QLinearSigmoid": _ONE_TO_ONE,
    "QLinearSoftmax": _ONE_TO_ONE,
    "QuantizeLinear": QuantizedSlots(output=(1, 2)),
}
