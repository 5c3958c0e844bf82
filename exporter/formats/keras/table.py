"""The translation table: Keras layer -> neutral operations.

A layer becomes one node or more: the activation of a layer is drawn as a separate node, so that the
values before it (z) have a name. A layer without a row is drawn as `Opaque`, and refused by name
only if a unit axis meets it: the body of a network may contain any layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras
import numpy as np

from exporter.formats.keras.calls import KerasCall
from exporter.formats.keras.layer_parts import (
    CONVERT_HINT,
    LayerPart,
    Row,
    Translation,
    activation,
    class_name,
    concatenate,
    is_of_keras,
    parts,
    rank_of,
    softmax,
    with_weights,
)
from exporter.formats.keras.linear import LINEAR, adapted, is_adapted
from exporter.formats.keras.operators import OPERATORS
from exporter.formats.keras.products import products_of
from exporter.graph import operations
from exporter.graph.operations import (
    Elementwise,
    Expand,
    Gather,
    Linear,
    Opaque,
    Pool,
    Reduce,
    Transpose,
)
from exporter.selection.conditions import Threshold


def translate(call: KerasCall) -> tuple[LayerPart, ...]:
    """The neutral operations of the call of a layer, or of another Keras operation."""
    translated = parts(call, _row)
    products = products_of(call)
    return (
        (translated[0]._replace(products=products), *translated[1:])
        if products != ()
        else translated
    )


def _row(call: KerasCall) -> Translation:
    operation, name = call.operation, class_name(call)
    is_layer = str(type(operation).__module__).startswith(("keras.src.layers.", "exporter.layers."))
    row = (TABLE if is_layer else OPERATORS).get(name)
    if row is None or not is_of_keras(operation):
        sort = "layers" if isinstance(operation, keras.Layer) else "operations"
        return Opaque(f"{sort} of class {name} are not cut")
    if name in _USE_MASK and any(getattr(t, "_keras_mask", None) is not None for t in call.inputs):
        return Opaque("it skips masked steps")
    if len(call.outputs) != 1 or (len(call.inputs) != 1 and name not in _SEVERAL_INPUTS):
        return Opaque("it has several computed inputs or outputs")
    return row(call)


# --- activations --------------------------------------------------------------------------------


def _activation(call: KerasCall) -> Translation:
    return activation(call.operation.activation, rank_of(call) - 1)


def _relu(call: KerasCall) -> Translation:
    layer = call.operation
    slope, maximum = float(layer.negative_slope), layer.max_value
    if layer.threshold or (slope and maximum is not None):
        return Opaque("its threshold, or slope with a maximum, has no rule")
    if slope:
        return operations.Activation("leaky_relu", None, (("alpha", slope),))
    if maximum is None:
        return operations.Activation("relu")
    return operations.Activation("clip", None, (("min", 0.0), ("max", float(maximum))))


def _leaky_relu(call: KerasCall) -> Translation:
    alpha = (("alpha", float(call.operation.negative_slope)),)
    return operations.Activation("leaky_relu", None, alpha)


def _elu(call: KerasCall) -> Translation:
    return operations.Activation("elu", None, (("alpha", float(call.operation.alpha)),))


def _prelu(call: KerasCall) -> Translation:
    """Its slopes have the shape of the values without the batch."""
    return with_weights(call, Elementwise(function="prelu"), call.operation.alpha)


# --- value by value -----------------------------------------------------------------------------


def _identity(_: KerasCall) -> Translation:
    return Elementwise()


def _batch_normalization(call: KerasCall) -> Translation:
    """(x - mean) * gamma / deviation + beta, each a vector along one axis."""
    layer = call.operation
    added = [*([layer.beta] if layer.center else []), layer.moving_mean]
    scaled = [*([layer.gamma] if layer.scale else []), layer.moving_variance]
    operation = Elementwise(
        offsets=tuple(range(1, len(added) + 1)),
        channel_axis=layer.axis % rank_of(call),
        function="batch_normalization",
    )
    return with_weights(call, operation, *added, *scaled)


def _rescaling(call: KerasCall) -> Translation:
    layer = call.operation
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        return Opaque("its configuration contains a number for each position", CONVERT_HINT)
    return Elementwise(keeps_zero=not layer.offset, function="rescaling")


def _unit_mask(call: KerasCall) -> Translation:
    """For each unit its value, or the mask value of a removed unit."""
    layer = call.operation
    if layer.renormalize:
        return Opaque("it divides by the sum of the units that are on")
    operation = Elementwise(
        keeps_zero=layer.values == "probabilities",
        channel_axis=layer.axis % rank_of(call),
        function="where",
    )
    return with_weights(call, operation, layer.mask)


def _conditional_units(call: KerasCall) -> Translation:
    """It works on each unit separately if the condition reads only the unit's own logit."""
    layer = call.operation
    separate = isinstance(layer.condition, Threshold) and layer.condition.subject != "probability"
    if layer.renormalize or layer.activation == "softmax" or not separate:
        return Opaque(f"{layer.condition} looks at other units than the one it chooses")
    return Elementwise(keeps_zero=False, function="where")


def _merge(call: KerasCall) -> Translation:
    return Elementwise(function=class_name(call).lower())


# --- positions ----------------------------------------------------------------------------------


def _reshape(call: KerasCall) -> Translation:
    target = tuple(-1 if n is None else int(n) for n in call.operation.target_shape)
    return operations.Reshape(target, attribute="target_shape", leading=1)


def _flatten(call: KerasCall) -> Translation:
    if call.operation.data_format != "channels_last":
        return Opaque("it moves the channels after the other axes first")
    return operations.Reshape()


def _permute(call: KerasCall) -> Translation:
    return Transpose((0, *(int(n) for n in call.operation.dims)))


def _embedding(call: KerasCall) -> Translation:
    layer = call.operation
    if is_adapted(layer):
        return adapted(layer, "table")
    gather = Gather(0, width_attribute="input_dim", masks_zero=bool(layer.mask_zero))
    (part,) = with_weights(call, gather, layer.embeddings)
    return (part._replace(weights_first=True),)


def _reversible_embedding(call: KerasCall) -> Translation:
    """Called with `reverse`, it multiplies with the same table, or with a kernel of its own."""
    layer = call.operation
    reverse = call.arguments.kwargs.get("reverse", (*call.arguments.args, False)[1])
    if not reverse or is_adapted(layer):
        return _embedding(call)
    if layer.logit_soft_cap is not None:
        return Opaque("it limits its logits (logit_soft_cap)", CONVERT_HINT)
    kernel = layer.embeddings if layer.tie_weights else layer.reverse_embeddings
    axis = 0 if layer.tie_weights else 1
    linear = Linear(1, axis, rank_of(call) - 1, width_attribute="input_dim")
    return with_weights(call, linear, kernel)


# --- over space and time ------------------------------------------------------------------------


def _spatial_axes(call: KerasCall) -> tuple[int, ...]:
    """The axes between batch and channels."""
    rank = len(call.inputs[0].shape)
    if getattr(call.operation, "data_format", "channels_last") == "channels_last":
        return tuple(range(1, rank - 1))
    return tuple(range(2, rank))


def _global_pool(call: KerasCall) -> Translation:
    function = "mean" if class_name(call).startswith("GlobalAverage") else "max"
    return Reduce(_spatial_axes(call), bool(call.operation.keepdims), function)


def _pool(call: KerasCall) -> Translation:
    return Pool(_spatial_axes(call))


def _pad(call: KerasCall) -> Translation:
    return Expand(_spatial_axes(call))


def _repeat(_: KerasCall) -> Translation:
    return Expand((1,))


def _all_ranks(*names: str) -> Iterable[str]:
    """Each layer's variants for one, two and three spatial axes."""
    return [f"{name}{rank}D" for name in names for rank in (1, 2, 3)]


_USE_MASK = {"Softmax", "GlobalAveragePooling1D"}
_MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
_SEVERAL_INPUTS = {"Concatenate", *_MERGES, "Divide"}
_IDENTITIES = (
    *("Identity", "ActivityRegularization", "Dropout", *_all_ranks("SpatialDropout")),
    *("AlphaDropout", "GaussianDropout", "GaussianNoise"),
)
_POOLS = _all_ranks("AveragePooling", "MaxPooling", "UpSampling", "Cropping")

TABLE: Mapping[str, Row] = {
    **LINEAR,
    "Activation": _activation,
    "Softmax": softmax,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "PReLU": _prelu,
    **dict.fromkeys(_IDENTITIES, _identity),
    "BatchNormalization": _batch_normalization,
    "Rescaling": _rescaling,
    "UnitMask": _unit_mask,
    "ConditionalUnits": _conditional_units,
    **dict.fromkeys(_MERGES, _merge),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Permute": _permute,
    "Concatenate": concatenate,
    "Embedding": _embedding,
    "ReversibleEmbedding": _reversible_embedding,
    **dict.fromkeys(_all_ranks("GlobalAveragePooling", "GlobalMaxPooling"), _global_pool),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_all_ranks("ZeroPadding"), _pad),
    "RepeatVector": _repeat,
}
