"""Small neutral graphs for tests, and a NumPy interpreter that runs them.

The interpreter shares nothing with the code under test: it reads each operation's definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporter.graph import Array, Graph, Node, Shape, Tensor
from exporter.operations import Activation, Elementwise, Linear, Operation, Reshape, Transpose


class Builder:
    """Add tensors and nodes in running order, then take `graph`."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.inputs: list[str] = []
        self.labels: dict[str, tuple[str, ...]] = {}

    def feed(self, name: str, *shape: int | None) -> str:
        self.tensors[name] = Tensor(name, shape, "float32")
        self.inputs.append(name)
        return name

    def constant(self, name: str, *shape: int) -> str:
        values = self.random.normal(size=shape).astype(np.float32)
        self.tensors[name] = Tensor(name, shape, "float32", read=lambda: values)
        return name

    def node(
        self, operation: Operation, inputs: Sequence[str], shape: Shape | None, name: str
    ) -> str:
        """A node of this name that computes the tensor of this name."""
        self.tensors[name] = Tensor(name, shape, "float32")
        operator = type(operation).__name__
        self.nodes.append(Node(name, operator, operation, tuple(inputs), (name,)))
        return name

    def dense(self, x: str, units: int, name: str, *, bias: bool = True) -> str:
        shape = self.tensors[x].shape or ()
        inputs = [x, self.constant(f"{name}/kernel", shape[-1] or 1, units)]
        if bias:
            inputs.append(self.constant(f"{name}/bias", units))
        operation = Linear(1, kernel_axis=1, output_axis=len(shape) - 1, bias=2 if bias else None)
        return self.node(operation, inputs, (*shape[:-1], units), name)

    def activation(self, x: str, function: str, name: str, axis: int | None = None) -> str:
        shape = self.tensors[x].shape or ()
        if axis is None and function in {"softmax", "log_softmax"}:
            axis = len(shape) - 1
        return self.node(Activation(function, axis), [x], shape, name)

    def graph(self, *outputs: str) -> Graph:
        return Graph(
            tuple(self.nodes), self.tensors, tuple(self.inputs), outputs, labels=self.labels
        )


def run(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the graph, in float64."""
    values: dict[str, Array] = {name: np.asarray(v, np.float64) for name, v in feeds.items()}
    for tensor in graph.tensors.values():
        if tensor.read is not None:
            values[tensor.name] = np.asarray(tensor.read(), np.float64)
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs if name]
        shape = graph.tensors[node.outputs[0]].shape or ()
        values[node.outputs[0]] = _compute(node.operation, inputs, shape)
    return values


def _compute(operation: Any, inputs: list[Array], shape: Shape) -> Array:
    if isinstance(operation, Linear):
        y = inputs[0] @ inputs[1]
        return np.asarray(y + inputs[2] if len(inputs) > 2 else y)
    if isinstance(operation, Elementwise):
        return elementwise(operation, inputs)
    if isinstance(operation, Reshape):
        return inputs[0].reshape([-1 if n is None else n for n in shape])
    if isinstance(operation, Transpose):
        return inputs[0].transpose(operation.permutation)
    return activate(operation, inputs[0])


def elementwise(operation: Elementwise, inputs: list[Array]) -> Array:
    match operation.function:
        case "add":
            return np.asarray(inputs[0] + inputs[1])
        case "add_channel":
            trailing = [1] * (inputs[0].ndim - 2)
            return np.asarray(inputs[0] + inputs[1].reshape(-1, *trailing))
        case "multiply":
            return np.asarray(inputs[0] * inputs[1])
    return inputs[0]


def activate(operation: Activation, x: Array) -> Array:
    """Textbook forms, good enough for values of ordinary size."""
    match operation.function:
        case "softmax":
            e = np.exp(x)
            return np.asarray(e / e.sum(axis=operation.axis, keepdims=True))
        case "log_softmax":
            return np.asarray(x - np.log(np.exp(x).sum(axis=operation.axis, keepdims=True)))
        case "sigmoid":
            return np.asarray(1 / (1 + np.exp(-x)))
        case "tanh":
            return np.asarray(np.tanh(x))
        case "relu":
            return np.asarray(x * (x > 0))
    raise AssertionError(operation.function)
