"""Small neutral graphs for tests, and a NumPy interpreter that runs them.

The interpreter shares nothing with the code under test: it reads each operation's definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporter.graph import Array, Graph, Node, Shape, Tensor
from exporter.graph.operations import (
    Activation,
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    Linear,
    Operation,
    Pool,
    Reduce,
    Reshape,
    ShapeOf,
    Slice,
    Split,
    TopK,
    Transpose,
)


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

    def nodes_of(
        self, operation: Operation, inputs: Sequence[str], outputs: Mapping[str, Shape | None]
    ) -> list[str]:
        """A node that computes several tensors; it is named after the first."""
        self.tensors.update({n: Tensor(n, s, "float32") for n, s in outputs.items() if n})
        name, operator = next(iter(outputs)), type(operation).__name__
        self.nodes.append(Node(name, operator, operation, tuple(inputs), tuple(outputs)))
        return list(outputs)

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
        shapes = [graph.tensors[name].shape or () if name else () for name in node.outputs]
        results = _compute(node.operation, inputs, shapes)
        values.update(zip(node.outputs, results, strict=True))
    return values


def _compute(operation: Any, inputs: list[Array], shapes: list[Shape]) -> list[Array]:
    if isinstance(operation, Split):
        axis = operation.axis
        widths = [shape[axis] or 0 for shape in shapes]
        return np.split(inputs[0], np.cumsum(widths)[:-1], axis=axis)
    if isinstance(operation, TopK):
        return _first(operation, inputs[0], shapes)
    if isinstance(operation, Concat):
        return [np.concatenate(inputs, axis=operation.axis)]
    return [_single(operation, inputs, shapes[0])]


def _single(operation: Any, inputs: list[Array], shape: Shape) -> Array:
    match operation:
        case Linear():
            return linear(operation, inputs)
        case Elementwise():
            return elementwise(operation, inputs)
        case Reshape():
            return inputs[0].reshape([-1 if n is None else n for n in shape])
        case Transpose(permutation=permutation):
            return inputs[0].transpose(permutation)
        case ConstantOfShape(value=value):
            return np.full([n or 0 for n in shape], value)
        case _:
            return _of_shape(operation, inputs, shape)


def _of_shape(operation: Any, inputs: list[Array], shape: Shape) -> Array:
    match operation:
        case Reduce(axes=(axis,), keepdims=keep, function=function):
            return reduce(function, inputs[0], axis, keepdims=keep)
        case Pool(axes=(1,)):  # means of pairs
            return (inputs[0][:, ::2] + inputs[0][:, 1::2]) / 2
        case Slice(axes=(axis,), starts=(start,)):
            first = start if start >= 0 else start + inputs[0].shape[axis]
            return np.take(inputs[0], np.arange(first, first + (shape[axis] or 0)), axis=axis)
        case Expand():
            return np.broadcast_to(inputs[0], [2 if n is None else n for n in shape])
        case ShapeOf(axes=axes):
            return np.array([inputs[0].shape[axis] for axis in axes], np.float64)
        case _:
            return activate(operation, inputs[0])


def reduce(function: str, x: Array, axis: int, *, keepdims: bool) -> Array:
    match function:
        case "mean":
            return np.asarray(x.sum(axis, keepdims=keepdims) / x.shape[axis])
        case "max":
            return np.asarray(np.sort(x, axis).take([-1], axis).sum(axis, keepdims=keepdims))
        case "log_sum_exp":
            return np.asarray(np.log(np.exp(x).sum(axis, keepdims=keepdims)))
    raise AssertionError(function)


def _first(operation: TopK, x: Array, shapes: list[Shape]) -> list[Array]:
    """By counting, for each position, the positions that rank before it."""
    values = np.moveaxis(x if operation.largest else -x, operation.axis, -1)
    places = np.arange(values.shape[-1])
    earlier = (
        places[None, :] > places[:, None] if operation.last else places[None] < places[:, None]
    )
    above = values[..., None, :] > values[..., :, None]
    equal = values[..., None, :] == values[..., :, None]
    rank = (above | (equal & earlier)).sum(axis=-1)
    k = 1 if operation.k is None else shapes[0][operation.axis] or 0
    ids = np.stack([(rank == r).argmax(axis=-1) for r in range(k)], axis=-1)
    best = np.take_along_axis(np.moveaxis(x, operation.axis, -1), ids, -1)
    results = [np.moveaxis(each, -1, operation.axis) for each in (best, ids)]
    if not operation.keepdims:
        results = [each.squeeze(operation.axis) for each in results]
    order = [1, 0] if operation.ids == 0 else [0, 1]
    return [results[i] for i in order][: len(shapes)]


def linear(operation: Linear, inputs: list[Array]) -> Array:
    y = inputs[0] @ inputs[operation.kernel]
    return np.asarray(y if operation.bias is None else y + inputs[operation.bias])


def elementwise(operation: Elementwise, inputs: list[Array]) -> Array:
    match operation.function:
        case "add":
            return np.asarray(inputs[0] + inputs[1])
        case "add_channel":
            trailing = [1] * (inputs[0].ndim - 2)
            return np.asarray(inputs[0] + inputs[1].reshape(-1, *trailing))
        case "multiply":
            return np.asarray(inputs[0] * inputs[1])
        case "cast":
            return np.trunc(inputs[0])
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
