"""Calls of `keras.ops` between layers that a unit axis can pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from exporter.formats.keras.calls import KerasCall
from exporter.formats.keras.layer_parts import (
    CONVERT_HINT,
    Row,
    Translation,
    class_name,
    concatenate,
    rank_of,
    softmax,
)
from exporter.graph import operations
from exporter.graph.operations import Elementwise, Opaque, Reduce, Transpose


def _activation(call: KerasCall) -> Translation:
    return operations.Activation(class_name(call).lower())


def _arithmetic(call: KerasCall) -> Translation:
    """Of two computed values, or of one and a single number."""
    name = class_name(call)
    positional, named = call.fill({id(tensor): tensor for tensor in call.inputs})
    operands = [*positional, *named.values()]
    numbers = [value for value in operands if not keras.backend.is_keras_tensor(value)]
    if len(operands) != len(numbers) + len(call.inputs) or any(np.size(n) != 1 for n in numbers):
        return Opaque("it computes with an array that is not a weight", CONVERT_HINT)
    if name in {"Divide", "TrueDivide"} and not numbers:
        return Opaque("it divides by values that a cut may set to 0")
    keeps_zero = all(_keeps_zero(name, number, operands) for number in numbers)
    return Elementwise(keeps_zero=keeps_zero, function=name.lower())


def _keeps_zero(name: str, number: Any, operands: list[Any]) -> bool:
    if name in {"Divide", "TrueDivide"}:
        return operands[0] is not number
    return name == "Multiply" or float(np.ravel(number)[0]) == 0.0


def _negative(_: KerasCall) -> Translation:
    return Elementwise(function="negative")


def _reshape(call: KerasCall) -> Translation:
    target = tuple(-1 if n is None else int(n) for n in call.operation.newshape)
    return operations.Reshape(target, attribute="newshape")


def _squeeze(_: KerasCall) -> Translation:
    return operations.Reshape()


def _transpose(call: KerasCall) -> Translation:
    rank = rank_of(call)
    axes = call.operation.axes or tuple(reversed(range(rank)))
    return Transpose(tuple(int(n) % rank for n in axes))


def _reduce(call: KerasCall) -> Translation:
    operation, rank = call.operation, len(call.inputs[0].shape)
    if getattr(operation, "initial", None) is not None:
        return Opaque("it starts from an initial value")
    axes = range(rank) if operation.axis is None else np.ravel(operation.axis)
    return Reduce(
        tuple(int(axis) % rank for axis in axes),
        bool(operation.keepdims),
        class_name(call).lower(),
    )


_ACTIVATIONS = (
    *("Sigmoid", "Relu", "Relu6", "Selu", "Silu", "Softplus", "Softsign", "Tanh", "Exp"),
)

OPERATORS: Mapping[str, Row] = {
    **dict.fromkeys(_ACTIVATIONS, _activation),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Divide", "TrueDivide"), _arithmetic),
    "Negative": _negative,
    "Reshape": _reshape,
    **dict.fromkeys(("Squeeze", "ExpandDims"), _squeeze),
    "Transpose": _transpose,
    "Concatenate": concatenate,
    **dict.fromkeys(("Mean", "Sum", "Max", "Min"), _reduce),
}
