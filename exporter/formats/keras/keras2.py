"""Repair configurations of Keras 2 so that Keras 3 can read them; imports no library.

1. An argument that Keras 3 lacks is dropped if it has its neutral value, with which the layer
   computes as without the argument. With another value the layer is refused.
2. An argument that Keras 2 did not write yet gets the value of that time.
3. A function that Keras 3 computes differently becomes one of `exporter.layers`, which computes as
   Keras 2 did.
4. A class that Keras 3 lacks becomes one that computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.errors import ModelError

HINT_EXPORT = (
    "save it as a SavedModel with the Keras that wrote it, and open that: "
    "tf.saved_model.save(model, folder)"
)

Config = dict[str, Any]


def counterpart(kind: str, layer: str) -> str:
    """The class of Keras 3 that computes as a class of Keras 2 does.

    Args:
        layer: file and layer, for the message.

    Raises:
        ModelError: Keras 3 has none.
    """
    if kind in LACKING:
        raise ModelError(f"{layer} is a {kind}, which Keras 3 lacks", HINT_EXPORT)
    return REPLACED.get(kind, kind)


def is_keras_2(version: str | None) -> bool:
    """Is this version older than 3? Files without a version are that old."""
    return version is None or version.partition(".")[0] in {"1", "2"}


def repaired(config: Any, source: str) -> Any:
    """Copy a model's configuration so that Keras 3 can read it.

    Args:
        config: as parsed from the file.
        source: the file's name, for messages.

    Raises:
        ModelError: Keras 3 lacks an argument or computes differently; names layer and argument.
    """
    if isinstance(config, list):
        return [repaired(entry, source) for entry in config]
    if not isinstance(config, dict):
        return config
    copy = {name: repaired(value, source) for name, value in config.items()}
    kind, inner = copy.get("class_name"), copy.get("config")
    if kind in _POLICIES and isinstance(inner, dict):
        return inner["name"]
    if kind == "Sequential" and isinstance(inner, list):
        return {**copy, "config": {"name": "sequential", "layers": inner}}
    if isinstance(kind, str) and isinstance(inner, dict):
        settings = _repaired_layer(kind, inner, source)
        return {**copy, "class_name": REPLACED.get(kind, kind), "config": settings}
    return copy


def _repaired_layer(kind: str, config: Config, source: str) -> Config:
    layer = f"{source}: {kind} {config.get('name', '')!r}"
    dropped, renamed = DROPPED.get(kind, {}), RENAMED.get(kind, {})
    for name, neutral in dropped.items():
        if name in config and neutral != ANY and config[name] not in neutral:
            raise ModelError(
                f"{layer} has {name}={config[name]!r}, which Keras 3 lacks", HINT_EXPORT
            )
    kept = {
        renamed.get(name, name): FUNCTIONS[v] if name in _ACTIVATIONS and v in [*FUNCTIONS] else v
        for name, v in config.items()
        if name not in dropped
    }
    axis = kept.get("axis")
    if kind in _ONE_AXIS and isinstance(axis, list):
        if len(axis) != 1:
            raise ModelError(
                f"{layer} normalizes along the axes {axis}, Keras 3 along one", HINT_EXPORT
            )
        kept["axis"] = axis[0]
    return {**MISSING.get(kind, {}), **kept}


ANY: tuple[Any, ...] = ("any value",)  # the argument never changes what a trained layer computes

_POLICIES = {"Policy", "PolicyV1"}
_ONE_AXIS = {"BatchNormalization", "SyncBatchNormalization"}
_ACTIVATIONS = {"activation", "recurrent_activation"}
_HARD_SIGMOID = "hard_sigmoid_of_keras_2"
FUNCTIONS: Mapping[Any, Any] = {
    "hard_sigmoid": {
        "class_name": "function",
        "module": "builtins",
        "config": f"exporter>{_HARD_SIGMOID}",
        "registered_name": f"exporter>{_HARD_SIGMOID}",
    }
}

_GROUPS = {"groups": (1,)}
_UNUSED_KERNEL = dict.fromkeys(
    ("kernel_initializer", "kernel_regularizer", "kernel_constraint"), ANY
)
_NOT_TIME_MAJOR = {"time_major": (False,)}
_SPATIAL_DROPOUT = dict.fromkeys(("noise_shape", "seed", "data_format"), ANY)
_IMPLEMENTATION = {"implementation": ANY}
_SEPARABLE = {**_GROUPS, **_UNUSED_KERNEL}
_CONV_LSTM = {**_NOT_TIME_MAJOR, **_IMPLEMENTATION, **_GROUPS}
_AUGMENTATIONS = (  # they change nothing in a trained network
    *("RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation"),
    *("RandomTranslation", "RandomZoom"),
)
_RANDOM = dict.fromkeys(("rng_type", "force_generator", "auto_vectorize"), ANY)
_RANDOM_SIZE = {**_RANDOM, "factor": ANY, "interpolation": ANY, "seed": ANY}
_CAUSAL = {"causal": (False,)}

# class -> argument -> its neutral values
DROPPED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _GROUPS),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _GROUPS),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _SEPARABLE),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _NOT_TIME_MAJOR),
    "SimpleRNN": {**_NOT_TIME_MAJOR, **_IMPLEMENTATION},
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _CONV_LSTM),
    "BatchNormalization": {"virtual_batch_size": (None,), "fused": ANY},
    **dict.fromkeys(("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"), _SPATIAL_DROPOUT),
    "Embedding": {"input_length": ANY},
    **dict.fromkeys(_AUGMENTATIONS, _RANDOM),
    "RandomCrop": {**_RANDOM, "seed": ANY},
    **dict.fromkeys(("RandomHeight", "RandomWidth"), _RANDOM_SIZE),
    "MultiHeadAttention": dict.fromkeys(("query_shape", "key_shape", "value_shape"), ANY),
    **dict.fromkeys(("Attention", "AdditiveAttention"), _CAUSAL),
}

# class -> argument -> its name in Keras 3
RENAMED: Mapping[str, Mapping[str, str]] = {
    "LeakyReLU": {"alpha": "negative_slope"},
    "ThresholdedReLU": {"theta": "threshold"},
}

# class -> the class of Keras 3 that computes the same
REPLACED: Mapping[str, str] = {
    "RandomCrop": "Resizing",  # in a trained network
    "RandomHeight": "Identity",
    "RandomWidth": "Identity",
    "ThresholdedReLU": "ReLU",
    "SyncBatchNormalization": "BatchNormalization",
}

# class -> argument -> value in files that do not state it
MISSING: Mapping[str, Mapping[str, Any]] = {
    "GRU": {"reset_after": False},
    "RandomCrop": {"crop_to_aspect_ratio": True},
}

# classes of Keras 2 without a counterpart
LACKING = {
    *("CuDNNGRU", "CuDNNLSTM", "DenseFeatures", "LocallyConnected1D", "LocallyConnected2D"),
    *("RandomFourierFeatures", "SequenceFeatures"),
}
