"""Small SavedModels for the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

from exporter.graph import Array

FEATURES, UNITS = 64, 90  # a kernel of more than 16 KB, which bypasses tf2onnx
KERNEL = np.random.default_rng(8).normal(0.0, 0.2, (FEATURES, UNITS)).astype(np.float32)
BIAS = np.random.default_rng(9).normal(size=UNITS).astype(np.float32)


def logits(features: Array) -> Array:
    """The logits of `Scorer`, in float64."""
    return np.asarray(features.astype(np.float64) @ KERNEL.astype(np.float64) + BIAS)


_SPEC = tf.TensorSpec([None, FEATURES], tf.float32, name="features")


class Scorer(tf.Module):  # type: ignore[misc]  # TensorFlow is untyped
    """A model without Keras: variables and functions, as in TensorFlow's guides."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(KERNEL)
        self.bias = tf.Variable(BIAS)

    @tf.function(input_signature=[_SPEC])  # type: ignore[untyped-decorator]
    def scores(self, features: Any) -> Any:
        return {"scores": tf.nn.softmax(features @ self.kernel + self.bias)}

    @tf.function(input_signature=[_SPEC])  # type: ignore[untyped-decorator]
    def logits(self, features: Any) -> Any:
        return {"logits": features @ self.kernel + self.bias}

    @tf.function(input_signature=[_SPEC])  # type: ignore[untyped-decorator]
    def echo(self, features: Any) -> Any:
        return {"features": features @ self.kernel}


def save_scorer(folder: Path, **signatures: str) -> Path:
    """Save a `Scorer`; args: signature -> method."""
    scorer = Scorer()
    methods = {name: getattr(scorer, method) for name, method in signatures.items()}
    tf.saved_model.save(scorer, str(folder), signatures=methods or None)
    return folder


def give_optimizer(folder: Path) -> None:
    """Add the slot variables of an optimizer to a SavedModel, as Keras 2 does."""
    path = folder / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    nodes = proto.meta_graphs[0].object_graph_def.nodes
    trained = next(i for i, each in enumerate(nodes) if each.HasField("variable"))
    moments, optimizer = nodes.add(), nodes.add()
    moments.variable.CopyFrom(nodes[trained].variable)
    optimizer.user_object.identifier = "optimizer"
    optimizer.user_object.version.producer = optimizer.user_object.version.min_consumer = 1
    slot = optimizer.slot_variables.add()
    slot.original_variable_node_id, slot.slot_variable_node_id = trained, len(nodes) - 2
    slot.slot_name = "m"
    nodes[0].children.add(local_name="optimizer", node_id=len(nodes) - 1)
    path.write_bytes(proto.SerializeToString())


def export(build: Callable[[], Any], folder: Path) -> Any:
    """Export a seeded Keras model to the folder; returns the model."""
    keras.utils.set_random_seed(6)
    model, random = build(), np.random.default_rng(2)
    for weight in model.trainable_weights:  # a lost bias of zeros would not be noticed
        weight.assign(random.normal(0.0, 0.3, weight.shape))
    model.export(str(folder), verbose=False)
    return model


def several() -> Any:
    """Two inputs, and two outputs in a dictionary."""
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    both = layers.Concatenate()([right, left])
    first = layers.Dense(5, activation="softmax", name="first")(both)
    second = layers.Dense(7, activation="sigmoid", name="second")(both)
    return keras.Model([right, left], {"kind": first, "tags": second}, name="several")


def tf2onnx_failures(width: int) -> Any:
    """Layers that tf2onnx alone converts wrongly: grouped convolution, exact GELU, Normalization.

    Args:
        width: with 8 no weight is large, with 64 some are.
    """
    image = keras.Input((6, 6, width), name="image")
    known = layers.Normalization(mean=[0.1] * width, variance=[1.5] * width)(image)
    mixed = layers.Conv2D(width, 3, groups=4, padding="same")(known)
    mixed = layers.Dense(2 * width, activation="gelu")(mixed)
    pooled = layers.GlobalAveragePooling2D()(mixed)
    return keras.Model(image, layers.Dense(40, activation="softmax", name="y")(pooled))


def recurrent() -> Any:
    ids = keras.Input((6,), dtype="int32", name="ids")
    steps = layers.Embedding(80, 64)(ids)
    return keras.Model(ids, layers.Dense(70, name="y")(layers.LSTM(32)(steps)), name="recurrent")
