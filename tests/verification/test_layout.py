"""The logits of a converted model are brought into the original's order of axes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exporter.graph import Graph, Node, Tensor
from exporter.graph.operations import Activation, Elementwise, Linear, Pool, Transpose
from exporter.verification.layout import logits_order

UNITS, SIZE = 5, 4
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # to channels first, to channels last


def chain(axis: int, *operations: Any, size: int = SIZE) -> Graph:
    """A convolution with its units on an axis, and further operations; `z` is its result."""
    shape = [1, size, size, size]
    shape[axis] = UNITS
    kernel = np.ones((UNITS, 3, 1, 1), np.float32)
    tensors = {
        "x": Tensor("x", (1, 3, size, size), "float32"),
        "kernel": Tensor("kernel", kernel.shape, "float32", lambda: kernel),
        "z": Tensor("z", tuple(shape), "float32"),
    }
    nodes = [Node("head", "Conv", Linear(1, 0, axis), ("x", "kernel"), ("z",))]
    name = "z"
    for i, operation in enumerate(operations):
        if isinstance(operation, Transpose):
            shape = [shape[axis] for axis in operation.permutation]
        if isinstance(operation, Pool):
            shape = [n * 2 if i in operation.axes else n for i, n in enumerate(shape)]
        result = f"t{i}" if i < len(operations) - 1 else "y"
        tensors[result] = Tensor(result, tuple(shape), "float32")
        nodes.append(Node(f"n{i}", type(operation).__name__, operation, (name,), (result,)))
        name = result
    return Graph(tuple(nodes), tensors, ("x",), (name,))


SOFTMAX = Activation("softmax", 3)
CASES: dict[str, tuple[Graph, Graph, tuple[int, ...] | None]] = {
    "the same": (chain(3, SOFTMAX), chain(3, SOFTMAX), (0, 1, 2, 3)),
    "channels first": (chain(3, SOFTMAX), chain(1, Transpose(LAST), SOFTMAX), (0, 2, 3, 1)),
    "activation before the layout": (
        chain(3, Elementwise(), SOFTMAX),
        chain(1, Activation("softmax", 1), Elementwise(), Transpose(LAST)),
        (0, 2, 3, 1),
    ),
    "channels last": (
        chain(1, Activation("softmax", 1)),
        chain(3, Transpose(FIRST), Activation("softmax", 1)),
        (0, 3, 1, 2),
    ),
    "after a resize": (chain(3, SOFTMAX), chain(3, Pool((1, 2)), SOFTMAX, size=2), None),
    "both before a resize": (
        chain(3, Pool((1, 2)), SOFTMAX),
        chain(3, Pool((1, 2)), SOFTMAX),
        (0, 1, 2, 3),
    ),
    "both before a resize, in two layouts": (
        chain(3, Pool((1, 2)), SOFTMAX),
        chain(1, Pool((2, 3)), Transpose(LAST), SOFTMAX),
        None,
    ),
}


def order_of(original: Graph, pruned: Graph, new_z: str = "z") -> tuple[int, ...] | None:
    """The order for the logits `z` of the original."""
    axis = (original.tensors["z"].shape or ()).index(UNITS)
    tensor = SimpleNamespace(unit_axis=SimpleNamespace(axis=axis))
    head: Any = SimpleNamespace(z="z", output="y", tensor=lambda _: tensor)
    pair: Any = SimpleNamespace(graphs=(original, pruned))
    return logits_order(pair, head, "y", new_z)


@pytest.mark.parametrize(("original", "pruned", "order"), CASES.values(), ids=CASES)
def test_order(original: Graph, pruned: Graph, order: tuple[int, ...] | None) -> None:
    assert order_of(original, pruned) == order


def test_a_tensor_that_does_not_reach_the_output() -> None:
    graph = chain(3, SOFTMAX)
    far = Tensor("far", (1, 9, 9, UNITS), "float32")
    graph = replace(graph, tensors={**graph.tensors, "far": far})
    assert order_of(graph, graph, "far") is None


def test_values_are_equal_in_the_order() -> None:
    """The order is that of NumPy's transpose."""
    order = order_of(chain(3, SOFTMAX), chain(1, Transpose(LAST), SOFTMAX))
    last = np.arange(2 * 3 * 4 * UNITS).reshape(2, 3, 4, UNITS)
    np.testing.assert_array_equal(np.transpose(last, FIRST).transpose(order), last)
