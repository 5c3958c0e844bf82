"""Whether an operation fits the ranks of its node, for every kind of operation that is checked."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from exporter.formats.check_operation import CHECKS, NodeRanks, fits
from exporter.graph.operations import (
    Activation,
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    GatherComputed,
    GatherConstant,
    Linear,
    NonMaxSuppression,
    Operation,
    PerChannel,
    Pool,
    Reduce,
    Reshape,
    Slice,
    Split,
    Stack,
    TopK,
    Transpose,
)


class Case(NamedTuple):
    """An operation with ranks that it fits, and with ranks that it does not fit."""

    operation: Operation
    good: tuple[NodeRanks, ...]
    bad: tuple[NodeRanks, ...]


def ranks(*inputs: int | None, to: int | None = 2, outputs: int = 1) -> NodeRanks:
    return NodeRanks(inputs, (to,) * outputs)


CASES = {
    "softmax": Case(
        Activation("softmax", axis=1), (ranks(2), ranks(1, to=None)), (ranks(2, to=1),)
    ),
    "joined inputs": Case(Concat(1), (ranks(2, 2),), (ranks(1, 1, to=1), ranks(None, 2))),
    "constant of a shape": Case(
        ConstantOfShape((2, 3), 0, 0.0), (ranks(1), ranks(1, to=None)), (ranks(1, to=3),)
    ),
    "broadcast": Case(Elementwise(channel_axis=1), (ranks(2, 0, None),), (ranks(2, 3),)),
    "per-channel axis": Case(Elementwise(channel_axis=2), (ranks(3, 1, to=3),), (ranks(2, 1),)),
    "expanded": Case(
        Expand((0,), target=(3, 1)), (ranks(1), ranks(None)), (ranks(3), ranks(1, to=3))
    ),
    "one position": Case(GatherConstant(1, (0,), keepdims=False), (ranks(3),), (ranks(2),)),
    "dense": Case(
        Linear(1, 1, 1, bias=2),
        (ranks(2, 2, 1), ranks(None, None, 1)),
        (ranks(2, 2), ranks(2, 1, 1)),
    ),
    "scales of a kernel": Case(
        Linear(1, 0, 1, along=(PerChannel(2),)), (ranks(2, 2, 1),), (ranks(2, 2, 0),)
    ),
    "suppression": Case(NonMaxSuppression(1, 1, ids=1), (ranks(3, 3, outputs=2),), (ranks(3, 3),)),
    "pooled": Case(Pool((2, 3)), (ranks(4, to=4),), (ranks(3, to=3), ranks(4, to=2))),
    "reduced": Case(
        Reduce((1,), keepdims=False, function="mean"), (ranks(3),), (ranks(2), ranks(None))
    ),
    "reshaped": Case(Reshape((0, -1)), (ranks(4), ranks(4, to=None)), (ranks(4, to=3),)),
    "sliced": Case(Slice((1,), (0,), (2,), (1,)), (ranks(2),), (ranks(1, to=1), ranks(3))),
    "bounds of two lengths": Case(Slice((1,), (0, 1), (2,), (1,)), (), (ranks(2),)),
    "parts": Case(Split(1, (2, 3)), (ranks(2, outputs=2),), (ranks(2, outputs=3),)),
    "stacked": Case(Stack(2), (ranks(2, 2, to=3),), (ranks(2, 2), ranks(1, to=2), ranks(None))),
    "unstacked": Case(Stack(1, unstacks=True), (ranks(3),), (ranks(2), ranks(1, to=0))),
    "a kernel and a shape": Case(
        Linear(1, 0, 3, shape=2), (ranks(4, 4, 1, to=4),), (ranks(4, 4, to=4),)
    ),
    "ranked": Case(TopK(1, ids=1), (ranks(2, outputs=2),), (ranks(2), ranks(1, outputs=2))),
    "transposed": Case(Transpose((1, 0)), (ranks(2), ranks(None, to=None)), (ranks(3, to=3),)),
    "a repeated axis": Case(Transpose((1, 1)), (), (ranks(2),)),
}


@pytest.mark.parametrize("name", CASES)
def test_ranks_of_a_node(name: str) -> None:
    case = CASES[name]
    assert [fits(case.operation, each) for each in case.good] == [True] * len(case.good)
    assert [fits(case.operation, each) for each in case.bad] == [False] * len(case.bad)


def test_every_check_is_tested() -> None:
    assert {type(case.operation) for case in CASES.values()} == set(CHECKS)


def test_operations_without_a_check_fit() -> None:
    assert fits(GatherComputed(), ranks(None, to=None))
