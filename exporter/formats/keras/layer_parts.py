"""Translate a Keras layer to neutral operations: one, or a chain of several (its parts)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from exporter.formats.keras.calls import KerasCall
from exporter.graph import operations
from exporter.graph.operations import Elementwise, Opaque, Operation
from exporter.graph.products import Products


class LayerPart(NamedTuple):
    """One neutral operation of a layer, which becomes one node.

    Attributes:
        operator: name in messages: the layer's class, or its activation function.
        suffix: the node is named after the layer, followed by this suffix.
        weights: Keras variables; inputs of the node, after the computed inputs.
        weights_first: the weights come before the computed inputs (a lookup table).
        setting: if the part is an activation, its path in the layer's configuration.
        channels: on the last axis of the part's input; None if the input has the output's shape.
        products: see `Node`.
    """

    operator: str
    operation: Operation
    suffix: str = ""
    weights: tuple[Any, ...] = ()
    weights_first: bool = False
    setting: str = ""
    channels: int | None = None
    products: Products = ()


Translation = Operation | tuple[LayerPart, ...]  # one Operation: the layer has one part
Row = Callable[[KerasCall], Translation]  # translates the calls of one class of layers

CONVERT_HINT = "`exporter run` prunes the converted model: --to onnx,tflite"
"""Hint for layers with constants that are not weights: only a converted file contains them."""

HINT_QUANTIZED = "cut the model before model.quantize; --precision int8 quantizes the result"


def parts(call: KerasCall, row: Row) -> tuple[LayerPart, ...]:
    """The parts of the layer that is called, in running order."""
    translation = row(call)
    if isinstance(translation, tuple):
        return translation
    return (LayerPart(class_name(call), translation),)


def class_name(call: KerasCall) -> str:
    return type(call.operation).__name__


def rank_of(call: KerasCall) -> int:
    """Rank of the first output; the batch axis counts."""
    return len(call.outputs[0].shape)


def is_of_keras(operation: Any) -> bool:
    """Is its class defined in Keras or in this package, not in the code of a user?"""
    packages = ("keras.src.layers.", "keras.src.ops.", "exporter.layers.")
    return str(type(operation).__module__).startswith(packages)


def with_weights(call: KerasCall, operation: Operation, *weights: Any) -> tuple[LayerPart, ...]:
    """A layer of one part, with these weights."""
    return (LayerPart(class_name(call), operation, weights=weights),)


def with_activation(
    call: KerasCall, before: tuple[LayerPart, ...], axis: int
) -> tuple[LayerPart, ...]:
    """The parts, followed by the layer's own activation if it has one.

    Args:
        axis: the axis along which a softmax normalizes.
    """
    function = call.operation.activation
    name = function_name(function)
    if name == "linear":
        return before
    return (*before, LayerPart(name, activation(function, axis), f"/{name}", setting="activation"))


def activation(function: Any, axis: int) -> Operation:
    """The neutral operation of an activation function of Keras."""
    name = function_name(function)
    if name == "linear":
        return Elementwise()
    if name not in FUNCTIONS or not str(function.__module__).startswith(("keras.", "exporter.")):
        return Opaque(f"the activation {name!r} has no rule")
    neutral_name, parameters = FUNCTIONS[name]
    normalized_axis = axis if neutral_name in {"softmax", "log_softmax"} else None
    return operations.Activation(neutral_name, normalized_axis, parameters)


def softmax(call: KerasCall) -> Translation:
    """Translate Softmax or LogSoftmax (a layer, or an operation of keras.ops)."""
    axis = call.operation.axis
    if not isinstance(axis, int):
        return Opaque("it normalizes over several axes at once")
    function = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[class_name(call)]
    return operations.Activation(function, axis % rank_of(call))


def concatenate(call: KerasCall) -> Translation:
    return operations.Concat(call.operation.axis % rank_of(call))


def function_name(function: Any) -> str:
    """Keras' name of an activation; "linear" for None."""
    if function is None:
        return "linear"
    return str(getattr(function, "__name__", type(function).__name__))


_SAME_NAME = (
    *("softmax", "log_softmax", "sigmoid", "relu", "relu6", "selu", "gelu", "silu"),
    *("softplus", "softsign", "tanh"),
)
# Keras' name -> name and parameters of the neutral activation
FUNCTIONS: Mapping[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    **{name: (name, ()) for name in _SAME_NAME},
    "exponential": ("exp", ()),
    "hard_sigmoid": ("hard_sigmoid", (("alpha", 1.0 / 6.0), ("beta", 0.5))),
    "hard_sigmoid_of_keras_2": ("hard_sigmoid", (("alpha", 0.2), ("beta", 0.5))),
    "leaky_relu": ("leaky_relu", (("alpha", 0.2),)),
    "elu": ("elu", ()),
}
