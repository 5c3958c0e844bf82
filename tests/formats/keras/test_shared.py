"""The weights of a pruned live model are copied, or on request shared with the original.

The expected outputs are computed in NumPy from the weights at that time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import exporter
from exporter.errors import UsageError
from exporter.graph import Array
from tests.builders.keras_models import softmax

UNITS, KEPT = 6, [1, 4, 5]
X = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


def functional() -> Any:
    x = keras.Input((4,), name="x")
    features = layers.Dense(5, activation="tanh", name="body")(x)
    z = layers.Dense(UNITS, name="head")(layers.Dropout(0.1, name="drop")(features))
    return keras.Model(x, layers.Softmax(name="y")(z), name="net")


def sequential() -> Any:
    return keras.Sequential(
        [
            keras.Input((4,), name="x"),
            layers.Dense(5, activation="tanh", name="body"),
            layers.Dense(UNITS, activation="softmax", name="head"),
        ]
    )


def nested_body() -> Any:
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, activation="tanh", name="body")], name="inner"
    )
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(UNITS, activation="softmax", name="head")(inner(x)))


def nested_whole() -> Any:
    x = keras.Input((4,), name="x")
    return keras.Model(x, functional()(x))


def called_twice() -> Any:
    """One layer in both branches."""
    x = keras.Input((4,), name="x")
    body = layers.Dense(5, activation="tanh", name="body")
    both = layers.Average(name="mean")([body(x), body(x)])
    return keras.Model(x, layers.Dense(UNITS, activation="softmax", name="head")(both))


NETS: Mapping[str, Callable[[], Any]] = {
    "functional": functional,
    "sequential": sequential,
    "a model as the body": nested_body,
    "the head in a model": nested_whole,
    "a layer called twice": called_twice,
}


def layer(model: Any, name: str) -> Any:
    return next(each for each in model._flatten_layers() if each.name == name)


def expected(model: Any, pruned: Any = None) -> Array:
    """The output for the current weights; with the head of `pruned` if that is given."""
    kernel, bias = (np.asarray(w, np.float64) for w in layer(model, "body").get_weights())
    head = [np.asarray(w, np.float64) for w in layer(pruned or model, "head").get_weights()]
    return softmax(np.tanh(X @ kernel + bias) @ head[0] + head[1])


def output(model: Any) -> Array:
    return np.asarray(model(X, training=False))


def built(name: str) -> Any:
    keras.utils.set_random_seed(5)
    return NETS[name]()


def train(model: Any) -> None:
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    model.optimizer.learning_rate = 1.0
    model.fit(X, np.array([0, 1, 2]), verbose=0)


# --- copied ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_training_one_model_does_not_change_the_other(name: str) -> None:
    model = built(name)
    small = exporter.prune(model, keep=KEPT)
    assert not {id(v) for v in model.variables} & {id(v) for v in small.variables}
    before = output(small)
    train(model)
    np.testing.assert_array_equal(output(small), before)
    whole = output(model)
    train(small)
    np.testing.assert_array_equal(output(model), whole)


@pytest.mark.parametrize("source", ["a path", "an opened model"])
def test_files_cannot_share_weights(source: str, tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    functional().save(path)
    given = path if source == "a path" else exporter.open_model(path)
    with pytest.raises(UsageError, match=r"needs a live keras\.Model"):
        exporter.prune(given, keep=KEPT, share_weights=True)


# --- shared ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("name", NETS)
def test_the_body_is_shared_and_the_head_is_not(name: str, mode: str) -> None:
    model = built(name)
    old = [np.array(w) for w in layer(model, "head").get_weights()]
    small = exporter.prune(model, keep=KEPT, mode=mode, share_weights=True)
    assert layer(small, "body") is layer(model, "body")
    assert layer(small, "head") is not layer(model, "head")
    shared = {id(v) for v in model.weights} & {id(v) for v in small.weights}
    assert shared == {id(v) for v in layer(model, "body").weights}
    for now, then in zip(layer(model, "head").get_weights(), old, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_allclose(output(model), expected(model), atol=1e-6)
    np.testing.assert_allclose(output(small), expected(model, small), atol=1e-6)
    is_kept = np.isin(np.arange(UNITS), KEPT)
    kernel = layer(small, "head").get_weights()[0]
    wanted = old[0][:, KEPT] if mode == "slice" else old[0] * is_kept
    np.testing.assert_array_equal(kernel, wanted)


@pytest.mark.parametrize("name", NETS)
def test_training_one_model_trains_the_others_body(name: str) -> None:
    model = built(name)
    small = exporter.prune(model, keep=KEPT, share_weights=True)
    before, head = output(small), layer(small, "head").get_weights()
    train(model)
    assert np.abs(output(small) - before).max() > 1e-3
    np.testing.assert_allclose(output(small), expected(model, small), atol=1e-6)
    for now, then in zip(layer(small, "head").get_weights(), head, strict=True):
        np.testing.assert_array_equal(now, then)
    whole = output(model)
    train(small)
    assert np.abs(output(model) - whole).max() > 1e-3
    np.testing.assert_allclose(output(model), expected(model), atol=1e-6)


def test_a_trainable_layer_of_a_frozen_model_stays_trainable() -> None:
    model = built("functional")
    model.trainable = False
    layer(model, "body").trainable = True
    exporter.prune(model, keep=KEPT, share_weights=True)
    assert layer(model, "body").trainable
    assert not layer(model, "head").trainable


def test_the_pruned_model_can_be_saved_without_the_original(tmp_path: Path) -> None:
    model = built("functional")
    small = exporter.prune(model, keep=KEPT, share_weights=True)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(output(again), expected(model, small), atol=1e-6)
