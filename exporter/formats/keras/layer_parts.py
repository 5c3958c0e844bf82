"""What a Keras layer becomes in the neutral graph: one part, or several behind each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from exporter.formats.keras.calls import Call
from exporter.graph import operations
from exporter.graph.operations import Elementwise, Opaque, Operation


class Part(NamedTuple):
    """One neutral operation of a layer; the parts of a layer follow one another.

    Attributes:
        suffix: of the node's name behind the layer's; "" for the node that bears it.
        weights: Keras variables, in the slots behind the computed inputs.
        constants_first: the weights stand before the inputs (a table that is looked up).
        setting: where the layer's configuration names the activation that this part is; a path
            with dots.
        reshapes: the part's input has another shape than the layer's output.
    """

    operator: str
    operation: Operation
    suffix: str = ""
    weights: tuple[Any, ...] = ()
    constants_first: bool = False
    setting: str = ""
    reshapes: bool = False


Row = Callable[[Call], tuple[Part, ...]]


def rank_of(call: Call) -> int:
    """Of the first output, the batch included."""
    return len(call.outputs[0].shape)


def is_of_keras(operation: Any) -> bool:
    """Is its class one of Keras itself, or of ours; not one that inherits from it?"""
    places = ("keras.src.layers.", "keras.src.ops.", "exporter.layers.")
    return str(type(operation).__module__).startswith(places)


CONVERTED = "`exporter run` cuts what it becomes: --to onnx,tflite"
"""What to do about numbers that a Keras file keeps elsewhere than in its weights."""


def opaque(call: Call, reason: str, hint: str = "") -> tuple[Part, ...]:
    return (Part(type(call.operation).__name__, Opaque(reason, hint)),)


def with_activation(call: Call, parts: tuple[Part, ...], axis: int) -> tuple[Part, ...]:
    """The parts, and behind them the layer's own activation, if it has one.

    Args:
        axis: along which it normalizes, if it does.
    """
    function = call.operation.activation
    name = function_name(function)
    if name == "linear":
        return parts
    operation = neutral_function(function, axis)
    return (*parts, Part(name, operation, f"/{name}", setting="activation"))


def neutral_function(function: Any, axis: int) -> Operation:
    """The neutral operation of an activation function of Keras."""
    name = function_name(function)
    if name == "linear":
        return Elementwise()
    if name not in FUNCTIONS or not str(function.__module__).startswith("keras."):
        return Opaque(f"the activation {name!r} has no rule")
    neutral, parameters = FUNCTIONS[name]
    along = axis if neutral in {"softmax", "log_softmax"} else None
    return operations.Activation(neutral, along, parameters)


def function_name(function: Any) -> str:
    """What Keras calls an activation; "linear" where there is none."""
    if function is None:
        return "linear"
    return str(getattr(function, "__name__", type(function).__name__))


FUNCTIONS: Mapping[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "softmax": ("softmax", ()),
    "log_softmax": ("log_softmax", ()),
    "sigmoid": ("sigmoid", ()),
    "hard_sigmoid": ("hard_sigmoid", (("alpha", 1.0 / 6.0), ("beta", 0.5))),
    "relu": ("relu", ()),
    "relu6": ("relu6", ()),
    "leaky_relu": ("leaky_relu", (("alpha", 0.2),)),
    "elu": ("elu", ()),
    "selu": ("selu", ()),
    "gelu": ("gelu", ()),
    "silu": ("silu", ()),
    "softplus": ("softplus", ()),
    "softsign": ("softsign", ()),
    "tanh": ("tanh", ()),
    "exponential": ("exp", ()),
}
