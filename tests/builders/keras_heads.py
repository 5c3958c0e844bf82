"""Every kind of head of Keras layers, with its output computed in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import Input, Model, Sequential, layers

from exporter.graph import Array
from tests.builders.keras_models import sigmoid, softmax

Weights = Mapping[str, list[Array]]  # layer's name -> its weights in float64


@dataclass(frozen=True)
class HeadCase:
    """A model with one head.

    Attributes:
        build: creates the model; its input is named x, and `values` uses its layers' names.
        values: weights and input in float64 -> z of all units.
        after: z -> output of the model, for any number of units.
        axis: unit axis of z.
        zero: can it be pruned in the mode `zero`?
    """

    build: Callable[[], Any]
    values: Callable[[Weights, Array], Array]
    after: Callable[[Array], Array]
    axis: int = 1
    zero: bool = True

    def made(self) -> Any:
        keras.utils.set_random_seed(2)
        model = self.build()
        random = np.random.default_rng(3)
        for variable in model.weights:
            low = 0.5 if "variance" in variable.path else -0.7
            variable.assign(random.uniform(low, 1.1, variable.shape))
        return model


def weights_of(model: Any) -> Weights:
    """Of every layer, also in inner models."""
    found: dict[str, list[Array]] = {}
    for layer in model._flatten_layers():
        found[layer.name] = [np.asarray(w, np.float64) for w in layer.get_weights()]
    return found


# --- in NumPy -----------------------------------------------------------------------------------


def windows(x: Array, size: tuple[int, ...]) -> Array:
    """(batch, positions..., channels, size...) of values (batch, space..., channels)."""
    axes = tuple(range(1, 1 + len(size)))
    return np.lib.stride_tricks.sliding_window_view(x, size, axis=axes)


def convolved(x: Array, kernel: Array, bias: Array) -> Array:
    """Without padding and strides."""
    if x.ndim == 3:
        return np.asarray(np.einsum("blck,kco->blo", windows(x, kernel.shape[:1]), kernel) + bias)
    spread = windows(x, kernel.shape[:2])
    return np.asarray(np.einsum("bhwckl,klco->bhwo", spread, kernel) + bias)


def padded(x: Array, by: int) -> Array:
    return np.pad(x, ((0, 0), (by, by), (by, by), (0, 0)))


def normalized(x: Array, weights: list[Array]) -> Array:
    gamma, beta, mean, variance = weights
    return np.asarray((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta)


def dense(x: Array, weights: list[Array]) -> Array:
    return np.asarray(x @ weights[0] + weights[1])


def same(z: Array) -> Array:
    return z


def softmax_on(z: Array, axis: int) -> Array:
    return np.moveaxis(softmax(np.moveaxis(z, axis, -1)), -1, axis)


# --- in Keras -----------------------------------------------------------------------------------


Layers = Callable[[], list[Callable[[Any], Any]]]


def chain(shape: tuple[int, ...], steps: Layers) -> Callable[[], Any]:
    """A function that builds a Functional model; `steps` creates new layers each time."""

    def build() -> Any:
        first = values = Input(shape, name="x")
        for step in steps():
            values = step(values)
        return Model(first, values, name="net")

    return build


def _mini_xception(x: Any) -> Any:
    x = layers.Conv2D(7, 3, padding="same", name="head")(x)
    return layers.Activation("softmax", name="y")(layers.GlobalAveragePooling2D()(x))


def _transposed(weights: Weights, x: Array) -> Array:
    """Each value adds its kernel to the output, and the mean of the output needs only sums."""
    kernel, bias = weights["head"]  # (2, 2, units, channels), stride 2: nothing overlaps
    total = np.einsum("bhwc,kloc->bo", x, kernel)
    return np.asarray(total / (x.shape[1] * x.shape[2] * 4) + bias)


def _separable(weights: Weights, x: Array) -> Array:
    depthwise, pointwise, bias = weights["head"]
    each = np.einsum("bhwckl,klcm->bhwcm", windows(x, (3, 3)), depthwise)
    flat = each.reshape(*each.shape[:3], -1)
    return np.asarray((flat @ pointwise[0, 0] + bias).max(axis=(1, 2)))


def _two_parts() -> Any:
    x = Input((4,), name="x")
    parts = [layers.Dense(3, name="left")(x), layers.Dense(4, name="right")(x)]
    return Model(x, layers.Softmax(name="y")(layers.Concatenate()(parts)))


def _summed() -> Any:
    x = Input((4,), name="x")
    both = layers.Add()([layers.Dense(7, name="left")(x), layers.Dense(7, name="right")(x)])
    return Model(x, layers.Activation("sigmoid", name="y")(both))


def _twins() -> Any:
    """One Dense called twice: on the values, and on twice the values."""
    x, head = Input((4,), name="x"), layers.Dense(7, name="head")
    return Model(x, layers.Softmax(name="y")(layers.Average()([head(x), head(x * 2.0)])))


def _nested() -> Any:
    hidden = layers.Dense(5, activation="relu", name="hidden")
    last = layers.Dense(7, activation="softmax", name="head")
    inner = Sequential([Input((4,)), hidden, last], name="inner")
    x = Input((4,), name="x")
    return Model(x, inner(layers.Rescaling(0.5)(x)), name="outer")


def _nested_twice() -> Any:
    """Two levels of inner models; the softmax is in the outer model."""
    features = Input((4,))
    deep = Model(features, layers.Dense(7, name="head")(features), name="deep")
    middle = Sequential([Input((4,)), deep, layers.Dropout(0.1)], name="middle")
    return Sequential([Input((4,), name="x"), middle, layers.Softmax(name="y")], name="outer")


def _hidden(weights: Weights, x: Array) -> Array:
    return dense(np.maximum(dense(x * 0.5, weights["hidden"]), 0.0), weights["head"])


HEADS: Mapping[str, HeadCase] = {
    "Conv2D 3x3, global mean, softmax": HeadCase(
        chain((5, 6, 2), lambda: [_mini_xception]),
        lambda w, x: convolved(padded(x, 1), *w["head"]).mean(axis=(1, 2)),
        softmax,
    ),
    "Conv2D with softmax inside, global mean": HeadCase(
        chain(
            (3, 4, 2),
            lambda: [
                layers.Conv2D(7, 1, activation="softmax", name="head"),
                layers.GlobalAveragePooling2D(name="y"),
            ],
        ),
        lambda w, x: convolved(x, *w["head"]),
        lambda z: softmax(z).mean(axis=(1, 2)),
        axis=3,
    ),
    "Conv2D over the whole image, Flatten": HeadCase(
        chain(
            (3, 4, 2),
            lambda: [
                layers.Conv2D(7, (3, 4), name="head"),
                lambda x: layers.Activation("sigmoid", name="y")(layers.Flatten()(x)),
            ],
        ),
        lambda w, x: convolved(x, *w["head"])[:, 0, 0],
        sigmoid,
    ),
    "Conv2D without a bias, pooled, padded, pooled": HeadCase(
        chain(
            (5, 5, 2),
            lambda: [
                layers.Conv2D(7, 2, use_bias=False, name="head"),
                lambda x: layers.ZeroPadding2D(1)(layers.AveragePooling2D(2)(x)),
                layers.GlobalMaxPooling2D(keepdims=True, name="y"),
            ],
        ),
        lambda w, x: np.maximum(
            convolved(x, w["head"][0], np.zeros(7))
            .reshape(-1, 2, 2, 2, 2, 7)
            .mean(axis=(2, 4))
            .max(axis=(1, 2), keepdims=True),
            0.0,
        ),
        same,
        axis=3,
    ),
    "Conv2D, Permute, Reshape": HeadCase(
        chain(
            (3, 3, 2),
            lambda: [
                layers.Conv2D(7, 3, name="head"),
                lambda x: layers.Reshape((7, 1), name="y")(layers.Permute((3, 1, 2))(x)),
            ],
        ),
        lambda w, x: convolved(x, *w["head"]).reshape(-1, 7, 1),
        same,
    ),
    "Conv1D with softmax inside, for each position": HeadCase(
        chain((6, 2), lambda: [layers.Conv1D(7, 3, activation="softmax", name="head")]),
        lambda w, x: convolved(x, *w["head"]),
        softmax,
        axis=2,
    ),
    "Conv1D, local maximum, upsampled": HeadCase(
        chain(
            (5, 2),
            lambda: [
                layers.Conv1D(7, 2, name="head"),
                lambda x: layers.UpSampling1D(2, name="y")(layers.MaxPooling1D(2)(x)),
            ],
        ),
        lambda w, x: convolved(x, *w["head"]).reshape(-1, 2, 2, 7).max(axis=2).repeat(2, axis=1),
        same,
        axis=2,
    ),
    "Conv2DTranspose, global mean": HeadCase(
        chain(
            (3, 3, 2),
            lambda: [
                layers.Conv2DTranspose(7, 2, strides=2, name="head"),
                layers.GlobalAveragePooling2D(name="y"),
            ],
        ),
        _transposed,
        same,
    ),
    "SeparableConv2D, global maximum": HeadCase(
        chain(
            (5, 5, 2),
            lambda: [
                layers.SeparableConv2D(7, 3, depth_multiplier=2, name="head"),
                layers.GlobalMaxPooling2D(name="y"),
            ],
        ),
        _separable,
        same,
    ),
    "EinsumDense on vectors": HeadCase(
        chain(
            (4,),
            lambda: [
                layers.EinsumDense("ab,bc->ac", 7, bias_axes="c", activation="sigmoid", name="head")
            ],
        ),
        lambda w, x: dense(x, w["head"]),
        sigmoid,
    ),
    "EinsumDense on the middle axis, softmax over steps": HeadCase(
        chain(
            (3, 4),
            lambda: [layers.EinsumDense("abc,cd->adb", (7, 3), activation="softmax", name="head")],
        ),
        lambda w, x: np.einsum("abc,cd->adb", x, w["head"][0]),
        softmax,
    ),
    "EinsumDense that sums over two axes": HeadCase(
        chain((3, 4), lambda: [layers.EinsumDense("abc,dbc->ad", (7,), name="head")]),
        lambda w, x: np.einsum("abc,dbc->ad", x, w["head"][0]),
        same,
    ),
    "Dense on sequences, Permute, softmax over units": HeadCase(
        chain(
            (3, 4),
            lambda: [
                layers.Dense(7, name="head"),
                lambda x: layers.Softmax(axis=1, name="y")(layers.Permute((2, 1))(x)),
            ],
        ),
        lambda w, x: np.swapaxes(dense(x, w["head"]), 1, 2),
        lambda z: softmax_on(z, 1),
    ),
    "Dense on sequences, mean over steps": HeadCase(
        chain(
            (3, 4),
            lambda: [
                layers.Dense(7, name="head"),
                lambda x: layers.Softmax(name="y")(layers.GlobalAveragePooling1D()(x)),
            ],
        ),
        lambda w, x: dense(x, w["head"]).mean(axis=1),
        softmax,
    ),
    "TimeDistributed Dense with softmax": HeadCase(
        chain(
            (3, 4),
            lambda: [
                layers.TimeDistributed(layers.Dense(7, activation="softmax", name="head"), name="y")
            ],
        ),
        lambda w, x: dense(x, w["head"]),
        softmax,
        axis=2,
    ),
    "TimeDistributed Conv2D": HeadCase(
        chain(
            (3, 2, 2, 2),
            lambda: [layers.TimeDistributed(layers.Conv2D(7, 2, name="head"), name="y")],
        ),
        lambda w, x: np.stack([convolved(x[:, step], *w["head"]) for step in range(3)], axis=1),
        same,
        axis=4,
    ),
    "batch normalization of each unit": HeadCase(
        chain(
            (4,),
            lambda: [
                layers.Dense(7, use_bias=False, name="head"),
                lambda x: layers.Softmax(name="y")(layers.BatchNormalization(name="norm")(x)),
            ],
        ),
        lambda w, x: normalized(x @ w["head"][0], w["norm"]),
        softmax,
    ),
    "batch normalization on a middle axis": HeadCase(
        chain(
            (3, 4),
            lambda: [
                lambda x: layers.Permute((2, 1))(layers.Dense(7, name="head")(x)),
                layers.BatchNormalization(axis=1, name="norm"),
            ],
        ),
        lambda w, x: np.swapaxes(normalized(dense(x, w["head"]), w["norm"]), 1, 2),
        same,
    ),
    "PReLU with a slope for each unit": HeadCase(
        chain(
            (4,),
            lambda: [
                layers.Dense(7, name="head"),
                layers.PReLU(alpha_initializer="ones", name="slopes"),
            ],
        ),
        lambda w, x: np.where(
            dense(x, w["head"]) > 0, dense(x, w["head"]), dense(x, w["head"]) * w["slopes"][0]
        ),
        same,
    ),
    "Rescaling": HeadCase(
        chain(
            (4,),
            lambda: [
                lambda x: layers.Rescaling(0.3)(layers.Dense(7, name="head")(x)),
                layers.Softmax(name="y"),
            ],
        ),
        lambda w, x: dense(x, w["head"]) * 0.3,
        softmax,
    ),
    "Rescaling with an offset": HeadCase(
        chain(
            (4,),
            lambda: [lambda x: layers.Rescaling(2.0, offset=1.5)(layers.Dense(7, name="head")(x))],
        ),
        lambda w, x: dense(x, w["head"]) * 2.0 + 1.5,
        same,
        zero=False,
    ),
    "Reshape to a fixed target, repeated": HeadCase(
        chain(
            (4,),
            lambda: [
                layers.Dense(7, name="head"),
                lambda x: layers.Reshape((1, 7))(layers.Flatten()(layers.RepeatVector(1)(x))),
            ],
        ),
        lambda w, x: dense(x, w["head"])[:, np.newaxis],
        same,
        axis=2,
    ),
    "keras.ops after the layer": HeadCase(
        chain(
            (3, 4),
            lambda: [
                lambda x: -keras.ops.transpose(layers.Dense(7, name="head")(x), (0, 2, 1)) / 3.0,
                lambda x: keras.ops.softmax(keras.ops.reshape(keras.ops.mean(x, axis=2), (-1, 7))),
            ],
        ),
        lambda w, x: -dense(x, w["head"]).mean(axis=1) / 3.0,
        softmax,
    ),
    "keras.ops that add a number": HeadCase(
        chain((4,), lambda: [lambda x: 1.0 - layers.Dense(7, name="head")(x)]),
        lambda w, x: 1.0 - dense(x, w["head"]),
        same,
        zero=False,
    ),
    "two parts of one axis": HeadCase(
        _two_parts,
        lambda w, x: np.concatenate([dense(x, w["left"]), dense(x, w["right"])], axis=1),
        softmax,
    ),
    "sum of two layers": HeadCase(
        _summed, lambda w, x: dense(x, w["left"]) + dense(x, w["right"]), sigmoid
    ),
    "one layer called twice": HeadCase(_twins, lambda w, x: dense(x * 1.5, w["head"]), softmax),
    "inner model": HeadCase(_nested, _hidden, softmax),
    "two inner models": HeadCase(_nested_twice, lambda w, x: dense(x, w["head"]), softmax),
}
