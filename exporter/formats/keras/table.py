"""The translation table: Keras layer -> neutral operations.

A layer becomes one node or more: an activation inside a layer is drawn as a node of its own, so
that the values before it (z) have a name. What has no row is drawn as `Opaque` and refused by name
if a unit axis meets it; the table serves heads, and the body of a network may hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from exporter.formats.keras.calls import Call
from exporter.formats.keras.layer_parts import (
    CONVERTED,
    Part,
    Row,
    is_of_keras,
    neutral_function,
    opaque,
    rank_of,
)
from exporter.formats.keras.linear import LINEAR
from exporter.formats.keras.operators import OPERATORS
from exporter.graph import operations
from exporter.graph.operations import Concat, Elementwise, Expand, Gather, Pool, Reduce, Transpose
from exporter.selection.conditions import Threshold


def translate(call: Call) -> tuple[Part, ...]:
    """The neutral operations of the call of a layer, or of another Keras operation."""
    operation = call.operation
    name = type(operation).__name__
    is_layer = str(type(operation).__module__).startswith(("keras.src.layers.", "exporter.layers."))
    row = (TABLE if is_layer else OPERATORS).get(name)
    if row is None or not is_of_keras(operation):
        what = "layers" if isinstance(operation, keras.Layer) else "operations"
        return opaque(call, f"{what} of class {name} are not cut")
    if name in MASKED and any(getattr(t, "_keras_mask", None) is not None for t in call.inputs):
        return opaque(call, "it leaves masked steps out")
    if len(call.outputs) != 1 or (len(call.inputs) != 1 and name not in SEVERAL):
        return opaque(call, "it has several computed inputs or outputs")
    return row(call)


# --- activations --------------------------------------------------------------------------------


def _activation(call: Call) -> tuple[Part, ...]:
    return (Part("Activation", neutral_function(call.operation.activation, rank_of(call) - 1)),)


def _softmax(call: Call) -> tuple[Part, ...]:
    axis = call.operation.axis
    if not isinstance(axis, int):
        return opaque(call, "it normalizes over several axes at once")
    return (Part("Softmax", operations.Activation("softmax", axis % rank_of(call))),)


def _relu(call: Call) -> tuple[Part, ...]:
    layer = call.operation
    slope, top = float(layer.negative_slope), layer.max_value
    if layer.threshold or (slope and top is not None):
        return opaque(call, "its threshold, or slope with a maximum, has no rule")
    if slope:
        return (Part("ReLU", operations.Activation("leaky_relu", None, (("alpha", slope),))),)
    if top is None:
        return (Part("ReLU", operations.Activation("relu")),)
    bounds = (("min", 0.0), ("max", float(top)))
    return (Part("ReLU", operations.Activation("clip", None, bounds)),)


def _leaky_relu(call: Call) -> tuple[Part, ...]:
    alpha = (("alpha", float(call.operation.negative_slope)),)
    return (Part("LeakyReLU", operations.Activation("leaky_relu", None, alpha)),)


def _elu(call: Call) -> tuple[Part, ...]:
    alpha = (("alpha", float(call.operation.alpha)),)
    return (Part("ELU", operations.Activation("elu", None, alpha)),)


def _prelu(call: Call) -> tuple[Part, ...]:
    """Its slopes have one axis less than the values, which they lie along."""
    return (Part("PReLU", Elementwise(function="prelu"), weights=(call.operation.alpha,)),)


# --- value by value -----------------------------------------------------------------------------


def _identity(call: Call) -> tuple[Part, ...]:
    return (Part(type(call.operation).__name__, Elementwise()),)


def _batch_normalization(call: Call) -> tuple[Part, ...]:
    """(x - mean) * gamma / deviation + beta, each a vector along one axis."""
    layer = call.operation
    added = [
        each
        for each in (layer.beta if layer.center else None, layer.moving_mean)
        if each is not None
    ]
    scaled = [
        each
        for each in (layer.gamma if layer.scale else None, layer.moving_variance)
        if each is not None
    ]
    operation = Elementwise(
        offsets=tuple(range(1, len(added) + 1)),
        channel_axis=layer.axis % rank_of(call),
        function="batch_normalization",
    )
    return (Part("BatchNormalization", operation, weights=(*added, *scaled)),)


def _rescaling(call: Call) -> tuple[Part, ...]:
    layer = call.operation
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        return opaque(call, "its configuration holds a number for each position", CONVERTED)
    operation = Elementwise(keeps_zero=not layer.offset, function="rescaling")
    return (Part("Rescaling", operation),)


def _unit_mask(call: Call) -> tuple[Part, ...]:
    """A choice for each unit between its value and a number: the floor, or 0."""
    layer = call.operation
    if layer.renormalize:
        return opaque(call, "it divides by the sum of the units that are on")
    operation = Elementwise(
        keeps_zero=layer.values == "probabilities",
        channel_axis=layer.axis % rank_of(call),
        function="where",
    )
    return (Part("UnitMask", operation, weights=(layer.mask,)),)


def _conditional_units(call: Call) -> tuple[Part, ...]:
    """Each unit by itself, where the condition looks at its logit alone."""
    layer = call.operation
    alone = isinstance(layer.condition, Threshold) and layer.condition.subject != "probability"
    if layer.renormalize or layer.activation == "softmax" or not alone:
        return opaque(call, f"{layer.condition} looks at other units than the one it chooses")
    return (Part("ConditionalUnits", Elementwise(keeps_zero=False, function="where")),)


def _join(call: Call) -> tuple[Part, ...]:
    name = type(call.operation).__name__
    return (Part(name, Elementwise(function=name.lower())),)


# --- positions ----------------------------------------------------------------------------------


def _reshape(call: Call) -> tuple[Part, ...]:
    target = tuple(-1 if n is None else int(n) for n in call.operation.target_shape)
    operation = operations.Reshape(target, attribute="target_shape", leading=1)
    return (Part("Reshape", operation),)


def _flatten(call: Call) -> tuple[Part, ...]:
    if call.operation.data_format != "channels_last":
        return opaque(call, "it moves the channels behind the other axes first")
    return (Part("Flatten", operations.Reshape()),)


def _permute(call: Call) -> tuple[Part, ...]:
    return (Part("Permute", Transpose((0, *(int(n) for n in call.operation.dims)))),)


def _concatenate(call: Call) -> tuple[Part, ...]:
    return (Part("Concatenate", Concat(call.operation.axis % rank_of(call))),)


def _embedding(call: Call) -> tuple[Part, ...]:
    layer = call.operation
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return opaque(call, "its table is quantized or carries LoRA weights")
    table = (layer.embeddings,)
    return (Part("Embedding", Gather(0), weights=table, constants_first=True),)


# --- over space and time ------------------------------------------------------------------------


def _spatial(call: Call) -> tuple[int, ...]:
    """The axes between batch and channels."""
    rank = len(call.inputs[0].shape)
    if getattr(call.operation, "data_format", "channels_last") == "channels_last":
        return tuple(range(1, rank - 1))
    return tuple(range(2, rank))


def _global_mean(call: Call) -> tuple[Part, ...]:
    operation = Reduce(_spatial(call), bool(call.operation.keepdims), "mean")
    return (Part(type(call.operation).__name__, operation),)


def _global_max(call: Call) -> tuple[Part, ...]:
    operation = Reduce(_spatial(call), bool(call.operation.keepdims), "max")
    return (Part(type(call.operation).__name__, operation),)


def _pool(call: Call) -> tuple[Part, ...]:
    return (Part(type(call.operation).__name__, Pool(_spatial(call))),)


def _pad(call: Call) -> tuple[Part, ...]:
    return (Part(type(call.operation).__name__, Expand(_spatial(call))),)


def _repeat(_: Call) -> tuple[Part, ...]:
    return (Part("RepeatVector", Expand((1,))),)


MASKED = {"Softmax", "GlobalAveragePooling1D"}
_JOINS = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
SEVERAL = {"Concatenate", *_JOINS, "Divide"}

TABLE: Mapping[str, Row] = {
    **LINEAR,
    "Activation": _activation,
    "Softmax": _softmax,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "PReLU": _prelu,
    "Identity": _identity,
    "ActivityRegularization": _identity,
    "Dropout": _identity,
    "SpatialDropout1D": _identity,
    "SpatialDropout2D": _identity,
    "SpatialDropout3D": _identity,
    "AlphaDropout": _identity,
    "GaussianDropout": _identity,
    "GaussianNoise": _identity,
    "BatchNormalization": _batch_normalization,
    "Rescaling": _rescaling,
    "UnitMask": _unit_mask,
    "ConditionalUnits": _conditional_units,
    **dict.fromkeys(_JOINS, _join),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Permute": _permute,
    "Concatenate": _concatenate,
    "Embedding": _embedding,
    "GlobalAveragePooling1D": _global_mean,
    "GlobalAveragePooling2D": _global_mean,
    "GlobalAveragePooling3D": _global_mean,
    "GlobalMaxPooling1D": _global_max,
    "GlobalMaxPooling2D": _global_max,
    "GlobalMaxPooling3D": _global_max,
    "AveragePooling1D": _pool,
    "AveragePooling2D": _pool,
    "AveragePooling3D": _pool,
    "MaxPooling1D": _pool,
    "MaxPooling2D": _pool,
    "MaxPooling3D": _pool,
    "UpSampling1D": _pool,
    "UpSampling2D": _pool,
    "UpSampling3D": _pool,
    "Cropping1D": _pool,
    "Cropping2D": _pool,
    "Cropping3D": _pool,
    "ZeroPadding1D": _pad,
    "ZeroPadding2D": _pad,
    "ZeroPadding3D": _pad,
    "RepeatVector": _repeat,
}
