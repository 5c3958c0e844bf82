"""Files of Keras 3. The environment variable KERAS_BACKEND names the backend."""

from __future__ import annotations

import sys

import keras
import numpy as np
from keras import layers
from recorder import FOLDER, answers, attempt, record

BACKEND = keras.backend.backend()
LIBRARY = sys.modules[{"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}[BACKEND]]
VERSION = f"Keras {keras.__version__}, {BACKEND} {LIBRARY.__version__}"
UNITS = 10
RANDOM = np.random.default_rng(7)


def randomize(model) -> None:
    for weight in model.weights:
        if len(weight.shape) == 1 and "float" in str(weight.dtype):
            weight.assign(
                np.abs(
                    np.asarray(keras.ops.convert_to_numpy(weight))
                    + RANDOM.normal(0, 0.2, weight.shape)
                )
                + 0.05
            )


def save(model, label: str, head: str, inputs, kinds=("keras",), units: int = UNITS, **row) -> None:
    randomize(model)
    found = model(inputs, training=False)
    found = list(found.values()) if isinstance(found, dict) else found
    outputs = [
        np.asarray(keras.ops.convert_to_numpy(y))
        for y in (found if isinstance(found, (list, tuple)) else [found])
    ]
    names = [tensor.name for tensor in model.inputs]
    feeds = dict(zip(names, inputs if isinstance(inputs, list) else [inputs]))
    for kind in kinds:
        file = f"{label}_{BACKEND}" + {"savedmodel": "", "onnx": ".onnx"}.get(kind, "." + kind)
        if kind in ("keras", "h5"):
            model.save(FOLDER / file)
        elif kind == "savedmodel":
            model.export(FOLDER / file, verbose=False)
        else:
            model.export(FOLDER / file, format="onnx", verbose=False)
        answers(file, feeds, outputs)
        producer = "Keras 3" if kind in ("keras", "h5") else f"Keras 3 export({kind})"
        record(
            producer,
            VERSION,
            file,
            head,
            units,
            **row,
            **({"to": "keras"} if kind == "keras" and row.get("same") else {}),
        )


def pictures(size: int = 32):
    return RANDOM.uniform(-1, 1, (4, size, size, 3)).astype("float32")


def normal(*shape: int):
    return RANDOM.normal(size=shape).astype("float32")


def classify(x, y, label: str, head: str, inputs, *kinds, **row) -> None:
    """Save a model with a Dense layer and a softmax over its features y."""
    model = keras.Model(x, layers.Dense(UNITS, activation="softmax")(y))
    save(model, label, head, inputs, *kinds, **row)


def cnn() -> None:
    x = keras.Input((32, 32, 3), name="image")
    y = layers.Conv2D(8, 3, activation="relu")(x)
    y = layers.BatchNormalization()(y)
    y = layers.GlobalAveragePooling2D()(y)
    classify(x, y, "cnn", "Dense, softmax", pictures(), ("keras", "h5", "savedmodel", "onnx"))


def kept_as_keras() -> None:
    x = keras.Input((32, 32, 3), name="image")
    y = layers.Flatten()(layers.Conv2D(8, 3, 4, activation="relu")(x))
    classify(x, y, "same", "Dense, softmax; cut as .keras", pictures(), same=True)


def transfer() -> None:
    base = keras.applications.MobileNetV3Small(
        (64, 64, 3), include_top=False, weights=None, minimalistic=True
    )
    x = keras.Input((64, 64, 3), name="image")
    y = layers.GlobalAveragePooling2D()(base(x, training=False))
    save(
        keras.Model(x, layers.Dense(UNITS)(y)),
        "transfer",
        "Dense over a nested MobileNetV3",
        pictures(64),
    )


def transformer() -> None:
    x = keras.Input((8, 12), name="steps")
    y = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 6)(x, x))
    y = layers.GlobalAveragePooling1D()(y)
    classify(
        x, y, "attention", "Dense over MultiHeadAttention", normal(4, 8, 12), ("keras", "onnx")
    )


def recurrent() -> None:
    x = keras.Input((12, 5), name="steps")
    y = layers.GRU(7)(layers.Bidirectional(layers.LSTM(6, return_sequences=True))(x))
    classify(x, y, "recurrent", "Dense over LSTM and GRU", normal(4, 12, 5))


def einsum() -> None:
    x = keras.Input((6, 8), name="steps")
    save(
        keras.Model(
            x,
            layers.EinsumDense("btd,du->btu", (None, UNITS), bias_axes="u", activation="softmax")(
                x
            ),
        ),
        "einsum",
        "EinsumDense, softmax",
        normal(4, 6, 8),
    )


def spectral() -> None:
    x = keras.Input((8,), name="values")
    y = layers.SpectralNormalization(layers.Dense(UNITS))(layers.Dense(9, activation="relu")(x))
    save(
        keras.Model(x, layers.Softmax()(y)),
        "spectral",
        "SpectralNormalization(Dense), softmax",
        normal(4, 8),
    )


def multi() -> None:
    x = keras.Input((8,), name="values")
    y = layers.Dense(9, activation="relu")(x)
    model = keras.Model(
        x,
        {
            "kind": layers.Dense(UNITS, activation="softmax", name="kind")(y),
            "age": layers.Dense(1, name="age")(y),
        },
    )
    save(
        model,
        "dictionary",
        "Dense, softmax; outputs in a dictionary",
        normal(4, 8),
        name="kind",
    )


def embedding() -> None:
    x = keras.Input((6,), dtype="int32", name="tokens")
    embed = layers.ReversibleEmbedding(40, 8) if hasattr(layers, "ReversibleEmbedding") else None
    y = layers.GRU(8, return_sequences=True)(embed(x))
    save(
        keras.Model(x, embed(y, reverse=True)),
        "tied",
        "ReversibleEmbedding as head",
        RANDOM.integers(0, 40, (4, 6)).astype("int32"),
        units=40,
    )


def quantized(mode: str) -> None:
    x = keras.Input((32,), name="values")
    model = keras.Model(x, layers.Dense(UNITS)(layers.Dense(16, activation="relu")(x)))
    randomize(model)
    model.quantize(mode)
    inputs = normal(4, 32)
    outputs = np.asarray(keras.ops.convert_to_numpy(model(inputs)))
    file = f"quantized_{mode}_{BACKEND}.keras"
    model.save(FOLDER / file)
    answers(file, {"values": inputs}, [outputs])
    record("Keras 3 quantize", VERSION, file, f"Dense, {mode}", UNITS, limit=2e-2)


def lora() -> None:
    x = keras.Input((16,), name="values")
    model = keras.Model(x, layers.Dense(UNITS, name="head")(layers.Dense(12, activation="relu")(x)))
    model.get_layer("head").enable_lora(2)
    save(model, "lora", "Dense with LoRA", normal(4, 16))


FOLDER.mkdir(parents=True, exist_ok=True)
for build in (
    cnn,
    kept_as_keras,
    transfer,
    transformer,
    recurrent,
    einsum,
    spectral,
    multi,
    embedding,
    lora,
):
    attempt(build.__name__, build)
for mode in ("int8", "int4", "float8"):
    attempt("quantize " + mode, lambda: quantized(mode))
