"""Parts of a unit axis that each have a softmax of their own, and are joined after it.

For example, one output with the probabilities of an age and of a gender. No single activation is
over all units: the values of each part add up to 1, before and after a cut.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exporter.graph.operations import Activation, Concat
from exporter.graph.walk import REARRANGE, only_moves
from exporter.trace.head import Head


def normalized_parts(head: Head) -> tuple[tuple[int, ...], ...]:
    """The units of each softmax that an output joins; () if units are mixed in another way.

    Quantized probabilities are too coarse to compute those of fewer units from them.
    """
    units = head.tensor(head.output).unit_axis.units
    quantized = any(tensor.quantization is not None for tensor in head.tensors)
    if head.z != head.output or quantized or not np.array_equal(np.sort(units), range(head.units)):
        return ()
    parts = tuple(_parts(head, head.output))
    joined = {part.name for part in parts}
    if len({unit for part in parts for unit in part.units}) < sum(len(p.units) for p in parts):
        return ()  # a softmax over the same units at each place
    mixing = {node.outputs[0] for node in head.body if head.mixes(node)}
    return tuple(part.units for part in parts) if mixing and joined == mixing else ()


class _Part:
    """The result of a softmax, and its units."""

    def __init__(self, head: Head, name: str) -> None:
        self.name = name
        self.units: tuple[int, ...] = tuple(head.tensor(name).unit_axis.units.tolist())


def _parts(head: Head, tensor: str) -> Iterator[_Part]:
    """The results of the softmaxes that a tensor joins or moves."""
    node, _ = head.producers[tensor]
    operation = node.operation
    if isinstance(operation, Activation) and head.mixes(node):
        if operation.function == "softmax":
            yield _Part(head, tensor)
    elif only_moves(node, kinds=REARRANGE | Concat):
        for name in node.inputs:
            if name in head.producers:  # not a constant, such as the shape of a Reshape
                yield from _parts(head, name)
