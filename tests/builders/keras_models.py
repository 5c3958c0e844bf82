"""Small Keras classifiers for the tests, each with its known properties."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import Input, Model, Sequential, layers

from exporter.graph import Array


@dataclass(frozen=True)
class Architecture:
    """A classifier with one head.

    Attributes:
        build: creates the model.
        head: name of the Dense layer of the head.
        output: Keras' name of the output.
        units: number of units.
        activation: neutral name.
        compute: logits (batch, units) float64 -> output.
        inputs: name -> shape without the batch, and dtype.
    """

    name: str
    build: Callable[[], Any]
    head: str
    output: str
    units: int
    activation: str
    compute: Callable[[Array], Array]
    inputs: Mapping[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)

    def made(self) -> Any:
        keras.utils.set_random_seed(11)
        model = self.build()
        random = np.random.default_rng(5)
        for variable in model.trainable_variables:  # zero biases would hide a lost bias
            variable.assign(random.normal(0.0, 0.4, variable.shape))
        return model

    def samples(self, count: int = 4) -> dict[str, Array]:
        random = np.random.default_rng(7)
        return {
            name: (
                random.integers(0, 20, (count, *shape)).astype(dtype)
                if "int" in dtype
                else random.normal(size=(count, *shape)).astype(dtype)
            )
            for name, (shape, dtype) in self.inputs.items()
        }


def softmax(z: Array) -> Array:
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def log_softmax(z: Array) -> Array:
    return np.log(softmax(z))


def sigmoid(z: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-z)))


def linear(z: Array) -> Array:
    return z


def relu(z: Array) -> Array:
    return np.maximum(z, 0.0)


def _sequential() -> Any:
    return Sequential(
        [
            Input((6,), name="features"),
            layers.Dense(9, activation="relu", name="hidden"),
            layers.Dense(7, activation="softmax", name="probabilities"),
        ],
        name="sequential",
    )


def _functional() -> Any:
    features = Input((6,), name="features")
    hidden = layers.Dense(9, activation="tanh", name="hidden")(features)
    logits = layers.Dense(7, name="logits")(hidden)
    return Model(features, layers.Activation("softmax", name="probabilities")(logits), name="net")


def _no_bias() -> Any:
    head = layers.Dense(5, use_bias=False, activation="sigmoid", name="scores")
    return Sequential([Input((6,), name="features"), head], name="no_bias")


def _plain() -> Any:
    hidden = layers.Dense(4, activation="relu", name="hidden")
    return Sequential([Input((6,), name="features"), hidden, layers.Dense(5, name="values")])


def _log_softmax() -> Any:
    features = Input((6,), name="features")
    return Model(features, layers.Dense(5, activation="log_softmax", name="logs")(features))


def _dropout() -> Any:
    features = Input((6,), name="features")
    values = layers.Dropout(0.3, name="before")(layers.Dense(8, name="hidden")(features))
    logits = layers.Dropout(0.2, name="between")(layers.Dense(6, name="logits")(values))
    return Model(features, layers.Softmax(name="answer")(logits), name="dropout")


def _convolution() -> Any:
    return Sequential(
        [
            Input((8, 8, 1), name="image"),
            layers.Conv2D(4, 3, padding="same", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dropout(0.2, name="drop"),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="convolution",
    )


def _embedding() -> Any:
    ids = Input((5,), dtype="int32", name="ids")
    values = layers.Embedding(20, 4, name="table")(ids)
    values = layers.GlobalAveragePooling1D(name="mean")(values)
    return Model(ids, layers.Dense(6, activation="relu", name="topics")(values), name="embedding")


def _reshaped() -> Any:
    features = Input((6,), name="features")
    logits = layers.Dense(8, name="logits")(features)
    moved = layers.Reshape((8, 1), name="column")(logits)
    return Model(features, layers.Flatten(name="answer")(moved), name="reshaped")


_FEATURES = {"features": ((6,), "float32")}
_IMAGE = {"image": ((8, 8, 1), "float32")}
_IDS = {"ids": ((5,), "int32")}

ARCHITECTURES: Mapping[str, Architecture] = {
    each.name: each
    for each in (
        Architecture(
            "sequential, softmax inside",
            _sequential,
            "probabilities",
            "probabilities",
            7,
            "softmax",
            softmax,
            _FEATURES,
        ),
        Architecture(
            "functional, softmax layer",
            _functional,
            "logits",
            "probabilities",
            7,
            "softmax",
            softmax,
            _FEATURES,
        ),
        Architecture(
            "no bias, sigmoid", _no_bias, "scores", "scores", 5, "sigmoid", sigmoid, _FEATURES
        ),
        Architecture("linear", _plain, "values", "values", 5, "linear", linear, _FEATURES),
        Architecture(
            "log softmax", _log_softmax, "logs", "logs", 5, "log_softmax", log_softmax, _FEATURES
        ),
        Architecture(
            "dropout around", _dropout, "logits", "answer", 6, "softmax", softmax, _FEATURES
        ),
        Architecture(
            "convolutions", _convolution, "digit", "digit", 10, "softmax", softmax, _IMAGE
        ),
        Architecture("token ids, relu", _embedding, "topics", "topics", 6, "relu", relu, _IDS),
        Architecture(
            "reshape after the head", _reshaped, "logits", "answer", 8, "linear", linear, _FEATURES
        ),
    )
}


def logits_by_hand(model: Any, architecture: Architecture, inputs: Mapping[str, Array]) -> Array:
    """The head's logits in NumPy, in float64, from its features in Keras."""
    head = model.get_layer(architecture.head)
    body = keras.Model(model.inputs[0], head.input)
    features = np.asarray(body(next(iter(inputs.values()))), np.float64)
    weights = [np.asarray(w, np.float64) for w in head.get_weights()]
    return np.asarray(features @ weights[0] + (weights[1] if len(weights) > 1 else 0.0))


# --- files of Keras 2 -----------------------------------------------------------------------------


def old_layer(layer: Any, **extra: Any) -> dict[str, Any]:
    """A layer as Keras 2 writes it: no modules, functions by name, and additional arguments."""
    plain = {k: v for k, v in layer.get_config().items() if not isinstance(v, dict)}
    return {"class_name": type(layer).__name__, "config": {**plain, **extra}}


def old_sequential(shape: tuple[int, ...], *entries: dict[str, Any]) -> dict[str, Any]:
    first = {"batch_input_shape": [None, *shape], "name": "x", "sparse": False, "ragged": False}
    ends = {"class_name": "InputLayer", "config": {**first, "dtype": "float32"}}
    return {"class_name": "Sequential", "config": {"name": "net", "layers": [ends, *entries]}}


def write_old(path: Path, model: Any, config: Any, version: str | None = "2.15.0") -> None:
    """Write an HDF5 file of Keras 2; both versions write weights in the same way."""
    model.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(config)
        del file.attrs["keras_version"]
        if version is not None:
            file.attrs["keras_version"] = version
