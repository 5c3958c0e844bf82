"""Check that a translated operation is possible on the shapes of its node.

A damaged file can name an axis that a tensor does not have. The trace and the edits rely on the
axes, so `fits` rejects such a node before they see it. An unknown rank (None) never contradicts,
unless the operation needs it to name an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.graph import Shape
from exporter.graph.operations import (
    Activation,
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    GatherConstant,
    Linear,
    NonMaxSuppression,
    Operation,
    Pool,
    Reduce,
    Reshape,
    Slice,
    Split,
    Stack,
    TopK,
    Transpose,
)


class UntranslatableError(Exception):
    """No neutral operation does what an operator does; the argument is the reason."""


@dataclass(frozen=True)
class NodeRanks:
    """The ranks of a node's inputs and outputs; None where one is unknown or an input is absent."""

    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]

    @classmethod
    def of(cls, inputs: Sequence[Shape | None], outputs: Sequence[Shape | None]) -> NodeRanks:
        return cls(_ranks(inputs), _ranks(outputs))

    @property
    def source(self) -> int | None:
        return self.inputs[0]

    @property
    def result(self) -> int | None:
        return self.outputs[0]

    def have_axes(self, axes: Sequence[int]) -> bool:
        """Have the first input and the first output the same rank, and these axes?"""
        return self.source == self.result and _has(self.source, axes)

    def drop_axes(self, axes: Sequence[int], *, keepdims: bool) -> bool:
        """Has the first output the axes of the first input, without these unless they are kept?"""
        dropped = 0 if keepdims else len(axes)
        return _has(self.source, axes) and self.result == (self.source or 0) - dropped


def fits(operation: Operation, ranks: NodeRanks) -> bool:
    """Does each axis that the operation names exist?

    Lengths are not compared here: the trace compares them where a unit axis meets a tensor.
    """
    check = CHECKS.get(type(operation))
    return check is None or check(operation, ranks)


def _ranks(shapes: Sequence[Shape | None]) -> tuple[int | None, ...]:
    return tuple(None if shape is None else len(shape) for shape in shapes)


def _has(rank: int | None, axes: Sequence[int | None]) -> bool:
    return rank is not None and all(0 <= axis < rank for axis in axes if axis is not None)


def _broadcasts(ranks: NodeRanks, axes: Sequence[int | None]) -> bool:
    """No input has more axes than the result."""
    if ranks.result is None:
        return True
    return max(rank or 0 for rank in ranks.inputs) <= ranks.result and _has(ranks.result, axes)


def _expand(operation: Expand, ranks: NodeRanks) -> bool:
    stated = operation.target is None or len(operation.target) == ranks.result
    wider = (ranks.source or 0) <= (ranks.result or 0)
    return stated and wider and _has(ranks.result, operation.grown)


def _linear(operation: Linear, ranks: NodeRanks) -> bool:
    kernel = ranks.inputs[operation.kernel]
    return (
        (operation.bias is None or operation.bias < len(ranks.inputs))
        and all(each.axis < (ranks.inputs[each.slot] or 0) for each in operation.along)
        and (operation.shape is None or operation.shape < len(ranks.inputs))
        and (kernel is None or _has(kernel, [operation.kernel_axis]))
        and (ranks.result is None or _has(ranks.result, [operation.output_axis]))
    )


def _slice(operation: Slice, ranks: NodeRanks) -> bool:
    counts = map(len, (operation.axes, operation.starts, operation.stops, operation.steps))
    return len(set(counts)) == 1 and ranks.have_axes(operation.axes)


def _split(operation: Split, ranks: NodeRanks) -> bool:
    parts = len(ranks.outputs) if operation.sizes is None else len(operation.sizes)
    return parts == len(ranks.outputs) and ranks.have_axes([operation.axis])


def _stack(operation: Stack, ranks: NodeRanks) -> bool:
    whole, part = ranks.inputs[0], ranks.outputs[0]
    if not operation.unstacks:
        whole, part = part, whole
    return _has(whole, [operation.axis]) and part == (whole or 0) - 1


def _top_k(operation: TopK, ranks: NodeRanks) -> bool:
    has_ids = operation.ids < len(ranks.outputs)
    return has_ids and ranks.drop_axes([operation.axis], keepdims=operation.keepdims)


def _transpose(operation: Transpose, ranks: NodeRanks) -> bool:
    axes = operation.permutation
    same = {ranks.source, ranks.result} <= {None, len(axes)}
    return same and sorted(axes) == list(range(len(axes)))


def _is_rank(rank: int | None, wanted: Sequence[int] | None) -> bool:
    return rank is None or wanted is None or rank == len(wanted)


CHECKS: Mapping[type[Operation], Callable[[Any, NodeRanks], bool]] = {
    Activation: lambda o, ranks: _broadcasts(ranks, [o.axis]),
    Concat: lambda o, ranks: ranks.have_axes([o.axis]),
    ConstantOfShape: lambda o, ranks: _is_rank(ranks.result, o.shape),
    Elementwise: lambda o, ranks: _broadcasts(ranks, [o.channel_axis, o.block_axis]),
    Expand: _expand,
    GatherConstant: lambda o, ranks: ranks.drop_axes([o.axis], keepdims=o.keepdims),
    Linear: _linear,
    NonMaxSuppression: lambda o, ranks: o.ids < len(ranks.outputs),
    Pool: lambda o, ranks: ranks.have_axes(o.axes),
    Reduce: lambda o, ranks: ranks.drop_axes(o.axes, keepdims=o.keepdims),
    Reshape: lambda o, ranks: _is_rank(ranks.result, o.target),
    Slice: _slice,
    Split: _split,
    Stack: _stack,
    TopK: _top_k,
    Transpose: _transpose,
}
