"""The calls of `keras.ops` between layers that a unit axis can pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from exporter.formats.keras.calls import Call
from exporter.formats.keras.layer_parts import CONVERTED, Part, Row, opaque, rank_of
from exporter.graph import operations
from exporter.graph.operations import Concat, Elementwise, Reduce, Transpose


def _activation(call: Call) -> tuple[Part, ...]:
    name = type(call.operation).__name__
    return (Part(name, operations.Activation(_FUNCTIONS[name])),)


def _competing(call: Call) -> tuple[Part, ...]:
    name, axis = type(call.operation).__name__, call.operation.axis
    if not isinstance(axis, int):
        return opaque(call, "it normalizes over several axes at once")
    return (Part(name, operations.Activation(_FUNCTIONS[name], axis % rank_of(call))),)


def _arithmetic(call: Call) -> tuple[Part, ...]:
    """Of two computed values, or of one and a single number."""
    name = type(call.operation).__name__
    positional, named = call.filled({id(tensor): tensor for tensor in call.inputs})
    given = [*positional, *named.values()]
    numbers = [value for value in given if not keras.backend.is_keras_tensor(value)]
    if len(given) != len(numbers) + len(call.inputs) or any(np.size(n) != 1 for n in numbers):
        return opaque(call, "it computes with an array that stands in no weight", CONVERTED)
    zero = all(_leaves_zero(name, number, given) for number in numbers)
    if name in {"Divide", "TrueDivide"} and not numbers:
        return opaque(call, "it divides by values that a cut may set to 0")
    return (Part(name, Elementwise(keeps_zero=zero, function=name.lower())),)


def _leaves_zero(name: str, number: Any, given: list[Any]) -> bool:
    if name in {"Divide", "TrueDivide"}:
        return given[0] is not number
    return name == "Multiply" or float(np.ravel(number)[0]) == 0.0


def _negative(_: Call) -> tuple[Part, ...]:
    return (Part("Negative", Elementwise(function="negative")),)


def _reshape(call: Call) -> tuple[Part, ...]:
    stated = tuple(-1 if n is None else int(n) for n in call.operation.newshape)
    return (Part("Reshape", operations.Reshape(stated, attribute="newshape")),)


def _squeeze(call: Call) -> tuple[Part, ...]:
    return (Part(type(call.operation).__name__, operations.Reshape()),)


def _transpose(call: Call) -> tuple[Part, ...]:
    rank = rank_of(call)
    axes = call.operation.axes or tuple(reversed(range(rank)))
    return (Part("Transpose", Transpose(tuple(int(n) % rank for n in axes))),)


def _concatenate(call: Call) -> tuple[Part, ...]:
    return (Part("Concatenate", Concat(call.operation.axis % rank_of(call))),)


def _reduce(call: Call) -> tuple[Part, ...]:
    operation, rank = call.operation, len(call.inputs[0].shape)
    if getattr(operation, "initial", None) is not None:
        return opaque(call, "it starts from a value of its own")
    given = range(rank) if operation.axis is None else np.ravel(operation.axis)
    axes = tuple(int(axis) % rank for axis in given)
    name = type(operation).__name__
    return (Part(name, Reduce(axes, bool(operation.keepdims), name.lower())),)


_FUNCTIONS: Mapping[str, str] = {
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
    "Relu": "relu",
    "Relu6": "relu6",
    "Selu": "selu",
    "Silu": "silu",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
    "Exp": "exp",
}

OPERATORS: Mapping[str, Row] = {
    **dict.fromkeys(_FUNCTIONS, _activation),
    "Softmax": _competing,
    "LogSoftmax": _competing,
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Divide", "TrueDivide"), _arithmetic),
    "Negative": _negative,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "ExpandDims": _squeeze,
    "Transpose": _transpose,
    "Concatenate": _concatenate,
    **dict.fromkeys(("Mean", "Sum", "Max", "Min"), _reduce),
}
