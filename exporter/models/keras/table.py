"""The translation table: Keras layer -> neutral operations.

A layer becomes one node or two: an activation inside a Dense is drawn as a node of its own, so that
the values before it (z) have a name. What has no row is drawn as `Opaque` and refused by name if a
unit axis meets it; the table serves heads, and the body of a network may hold anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from exporter import operations
from exporter.operations import Elementwise, Gather, Linear, Opaque, Operation, Transpose


class Part(NamedTuple):
    """One neutral operation of a layer; the parts of a layer follow one another.

    Attributes:
        suffix: of the node's name behind the layer's; "" for the node that bears it.
        weights: names of the layer's weights, in the slots behind the layer's own inputs.
        constants_first: the weights stand before the inputs (a table that is looked up).
    """

    operator: str
    operation: Operation
    suffix: str = ""
    weights: tuple[str, ...] = ()
    constants_first: bool = False


Row = Callable[[Any, int], tuple[Part, ...]]  # layer, rank of its output -> parts


def translate(layer: Any, rank: int) -> tuple[Part, ...]:
    """The neutral operations of a layer (or another Keras operation) with one computed input.

    Args:
        layer: the Keras object.
        rank: of its output.
    """
    name = type(layer).__name__
    row = TABLE.get(name)
    if row is None or not is_builtin_layer(layer):
        return (Part(name, Opaque(f"layers of class {name} are not cut")),)
    return row(layer, rank)


def is_builtin_layer(layer: Any) -> bool:
    """Is it a layer of Keras itself, not one that inherits from it or shares its name?"""
    return str(type(layer).__module__).startswith("keras.src.layers.")


def _dense(layer: Any, rank: int) -> tuple[Part, ...]:
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return (Part("Dense", Opaque("its kernel is quantised or carries LoRA weights")),)
    has_bias = layer.bias is not None
    linear = Linear(
        kernel=1,
        kernel_axis=1,
        output_axis=rank - 1,
        bias=2 if has_bias else None,
        width_attribute="units",
    )
    weights = ("kernel", "bias") if has_bias else ("kernel",)
    function = function_name(layer.activation)
    if function == "linear":
        return (Part("Dense", linear, weights=weights),)
    activation = Part(function, _function(layer.activation, rank - 1), f"/{function}")
    return Part("Dense", linear, weights=weights), activation


def _activation(layer: Any, rank: int) -> tuple[Part, ...]:
    return (Part("Activation", _function(layer.activation, rank - 1)),)


def _softmax(layer: Any, rank: int) -> tuple[Part, ...]:
    if not isinstance(layer.axis, int):
        return (Part("Softmax", Opaque("it normalises over several axes at once")),)
    return (Part("Softmax", operations.Activation("softmax", layer.axis % rank)),)


def _relu(layer: Any, _: int) -> tuple[Part, ...]:
    slope, top = float(layer.negative_slope), layer.max_value
    if layer.threshold or (slope and top is not None):
        return (Part("ReLU", Opaque("its threshold, or slope with a maximum, has no rule")),)
    if slope:
        return (Part("ReLU", operations.Activation("leaky_relu", None, (("alpha", slope),))),)
    if top is None:
        return (Part("ReLU", operations.Activation("relu")),)
    bounds = (("min", 0.0), ("max", float(top)))
    return (Part("ReLU", operations.Activation("clip", None, bounds)),)


def _leaky_relu(layer: Any, _: int) -> tuple[Part, ...]:
    alpha = (("alpha", float(layer.negative_slope)),)
    return (Part("LeakyReLU", operations.Activation("leaky_relu", None, alpha)),)


def _elu(layer: Any, _: int) -> tuple[Part, ...]:
    return (Part("ELU", operations.Activation("elu", None, (("alpha", float(layer.alpha)),))),)


def _identity(layer: Any, _: int) -> tuple[Part, ...]:
    return (Part(type(layer).__name__, Elementwise()),)


def _reshape(layer: Any, _: int) -> tuple[Part, ...]:
    target = tuple(-1 if n is None else int(n) for n in layer.target_shape)
    operation = operations.Reshape(target, attribute="target_shape", leading=1)
    return (Part("Reshape", operation),)


def _flatten(layer: Any, _: int) -> tuple[Part, ...]:
    if layer.data_format != "channels_last":
        return (Part("Flatten", Opaque("it moves the channels behind the other axes first")),)
    return (Part("Flatten", operations.Reshape()),)


def _permute(layer: Any, _: int) -> tuple[Part, ...]:
    return (Part("Permute", Transpose((0, *(int(n) for n in layer.dims)))),)


def _embedding(layer: Any, _: int) -> tuple[Part, ...]:
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return (Part("Embedding", Opaque("its table is quantised or carries LoRA weights")),)
    return (Part("Embedding", Gather(0), weights=("embeddings",), constants_first=True),)


def _function(function: Any, axis: int) -> Operation:
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

TABLE: Mapping[str, Row] = {
    "Dense": _dense,
    "Activation": _activation,
    "Softmax": _softmax,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "Identity": _identity,
    "ActivityRegularization": _identity,
    "Dropout": _identity,
    "SpatialDropout1D": _identity,
    "SpatialDropout2D": _identity,
    "SpatialDropout3D": _identity,
    "AlphaDropout": _identity,
    "GaussianDropout": _identity,
    "GaussianNoise": _identity,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Permute": _permute,
    "Embedding": _embedding,
}
