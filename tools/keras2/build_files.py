"""Build model files with a release of Keras 2, and the answers of that release.

Runs in an environment of its own, which contains the release: tf_keras, or TensorFlow up to 2.15.

    python tools/keras2/build_files.py FOLDER

For each model of `MODELS` it writes FOLDER/NAME.h5, FOLDER/NAME.keras and FOLDER/NAME.npz with the
inputs (by name) and the outputs (y0, y1, ...). A format that the release cannot write is reported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

try:
    import tf_keras as keras
except ImportError:
    from tensorflow import keras

layers = keras.layers
Model, Input, Sequential = keras.Model, keras.Input, keras.Sequential
CLASSES, SAMPLES = 7, 3
IMAGE = (8, 8, 3)


def scores(name: str | None = None) -> Any:
    return layers.Dense(CLASSES, activation="softmax", name=name)


def chain(shape: tuple[int, ...], *parts: Any, **input_options: Any) -> Any:
    """A Sequential model that ends with scores."""
    return Sequential([Input(shape, **input_options), *parts, layers.Flatten(), scores()])


def backbone(name: str = "base") -> Any:
    """A Functional model with batch normalization."""
    x = Input(IMAGE)
    y = layers.Conv2D(4, 3, activation="relu", name=f"{name}_conv")(x)
    y = layers.BatchNormalization(name=f"{name}_norm")(y)
    return Model(x, layers.Conv2D(4, 1, name=f"{name}_last")(y), name=name)


def extractor() -> Any:
    return Sequential(
        [Input(IMAGE), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()], name="extractor"
    )


# --- models inside models -------------------------------------------------------------------------


def transfer(*, frozen: bool) -> Any:
    """The usual recipe of transfer learning."""
    base, x = backbone(), Input(IMAGE)
    base.trainable = not frozen
    y = base(x, training=False)
    y = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(y))
    return Model(x, scores("classes")(y))


def partly_frozen() -> Any:
    """Fine tuning: the first layers of the inner model are frozen, the last are not."""
    base, x = backbone(), Input(IMAGE)
    y = layers.BatchNormalization(name="last_norm")(layers.Conv2D(4, 1)(base.outputs[0]))
    base = Model(base.inputs, layers.ReLU()(y), name="longer")
    for layer in base.layers[:3]:
        layer.trainable = False
    return Model(x, scores()(layers.GlobalAveragePooling2D()(base(x, training=False))))


def teachable_machine() -> Any:
    """Two Sequential models in a Sequential model, as Teachable Machine exports them."""
    base = Sequential([backbone(), layers.GlobalAveragePooling2D(name="pooled")], name="features")
    head = Sequential(
        [
            Input((4,)),
            layers.Dense(10, activation="relu", name="hidden"),
            layers.Dense(CLASSES, activation="softmax", use_bias=False, name="classes"),
        ],
        name="classifier",
    )
    return Sequential([base, head])


def levels() -> Any:
    """Three levels, Functional in Sequential in Functional."""
    x, y = Input(IMAGE), Input(IMAGE)
    inner = Sequential([backbone("deep"), layers.ReLU(), layers.Flatten()], name="middle")
    outer = Model(y, layers.Dense(6, name="outer_dense")(inner(y)), name="outer")
    return Model(x, scores()(layers.ReLU()(outer(x))))


def siamese() -> Any:
    """One inner model, called twice."""
    shared, left, right = backbone("shared"), Input(IMAGE, name="left"), Input(IMAGE, name="right")
    difference = layers.Subtract()([shared(left), shared(right)])
    return Model([left, right], scores()(layers.Flatten()(difference)))


def twice_in_a_row() -> Any:
    """An inner model that reads its own output; the last call is the output."""
    x, inner = Input((CLASSES,)), Sequential([Input((CLASSES,)), scores("again")], name="inner")
    return Model(x, inner(inner(x)))


def inner_output() -> Any:
    """The model's output is that of an inner model, which is also called for something else."""
    x = Input((5,))
    inner = Model(x, scores("inner_scores")(x), name="inner")
    first, second = Input((5,), name="first"), Input((5,), name="second")
    return Model([first, second], [inner(first), inner(second)])


def several_ends() -> Any:
    """An inner model with two inputs and two outputs."""
    a, b = Input((4,), name="a"), Input((3,), name="b")
    both = layers.Concatenate()([a, b])
    inner = Model([a, b], [layers.Dense(5)(both), layers.Dense(6)(both)], name="two")
    x, y = Input((4,), name="x"), Input((3,), name="y")
    first, second = inner([x, y])
    return Model([x, y], [scores("one")(second), scores("other")(first)])


def named_inputs() -> Any:
    """An inner model that takes a dictionary."""
    a, b = Input((4,), name="a"), Input((4,), name="b")
    inner = Model({"a": a, "b": b}, layers.Add()([layers.Dense(4)(a), b]), name="by_name")
    x, y = Input((4,), name="x"), Input((4,), name="y")
    return Model([x, y], scores()(inner({"b": y, "a": x})))


def shared_layers() -> Any:
    """A layer with two calls, and a model that two other models contain."""
    dense, x = layers.Dense(5, activation="relu", name="shared"), Input((5,))
    a, b, c = Input((5,)), Input((5,)), Input((5,))
    core = Model(a, layers.Dense(5)(a), name="core")
    left = Model(b, layers.ReLU()(core(b)), name="left_side")
    right = Model(c, core(layers.Dense(5, name="own")(c)), name="right_side")
    return Model(x, scores()(layers.Add()([dense(dense(x)), left(x), right(x), core(x)])))


def features_of_a_layer() -> Any:
    """The outer model reads a tensor inside the inner one, and so contains its layers."""
    base = backbone()
    y = layers.Flatten()(base.get_layer("base_conv").output)
    return Model(base.input, scores()(y))


def not_started() -> Any:
    """A Sequential model without an input, which is built when it is called."""
    inner, x = Sequential([layers.Dense(6), layers.Dense(5)], name="lazy"), Input((4,))
    return Model(x, scores()(inner(x)))


def steps_of_a_model() -> Any:
    """A model for each step of time."""
    return Sequential(
        [Input((4, *IMAGE)), layers.TimeDistributed(extractor()), layers.LSTM(5), scores()]
    )


def lstm_in_model() -> Any:
    x = Input((6, 3))
    inner = Sequential([Input((6, 3)), layers.Bidirectional(layers.LSTM(4))], name="recurrent")
    return Model(x, scores()(inner(x)))


# --- layers ---------------------------------------------------------------------------------------


def attention() -> Any:
    x, y = Input((5, 8), name="x"), Input((6, 8), name="y")
    z = layers.MultiHeadAttention(2, 4)(x, y)
    z = layers.LayerNormalization()(layers.Add()([x, z]))
    z = layers.Attention()([z, y])
    return Model([x, y], scores()(layers.GlobalAveragePooling1D()(z)))


def normalization() -> Any:
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(5).normal(3, 2, (50, 4)).astype(np.float32))
    return chain((4,), layer, layers.Dense(6, activation="tanh"))


def image_normalization() -> Any:
    layer = layers.Normalization(axis=-1, mean=[1.0, 2.0, 3.0], variance=[4.0, 1.0, 9.0])
    return chain(IMAGE, layer, layers.Conv2D(4, 3))


def augmentation() -> Any:
    return chain(
        IMAGE,
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.1),
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomContrast(0.1),
        layers.Rescaling(1 / 127.5, offset=-1),
        layers.Conv2D(4, 3),
    )


def additive() -> Any:
    x, y = Input((5, 8), name="x"), Input((6, 8), name="y")
    z = layers.AdditiveAttention()([x, y])
    z = layers.LayerNormalization(axis=[1, 2])(z)
    z = layers.Attention(use_scale=True)([z, y])
    return Model([x, y], scores()(layers.GlobalMaxPooling1D()(z)))


def seq2seq() -> Any:
    """A decoder that starts from the state of an encoder."""
    x, y = Input((5, 3), name="x"), Input((4, 3), name="y")
    _, h, c = layers.LSTM(6, return_state=True)(x)
    z = layers.LSTM(6, return_sequences=True)(y, initial_state=[h, c])
    g = layers.GRU(6)(z, initial_state=h)
    both = layers.Bidirectional(layers.LSTM(6))(z, initial_state=[h, c, h, c])
    return Model([x, y], scores()(layers.Concatenate()([g, both])))


def spatial(*parts: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: chain(IMAGE, *(part() for part in parts))


def steps(*parts: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: chain((6, 3), *(part() for part in parts))


def volume(*parts: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: chain((4, 6, 6, 2), *(part() for part in parts))


def tokens() -> Any:
    x = Input((6,), dtype="int32", name="tokens")
    y = layers.Embedding(20, 5, mask_zero=True, input_length=6)(x)
    return Model(x, scores()(layers.GRU(4)(y)))


def cells() -> Any:
    stack = [layers.LSTMCell(4), layers.GRUCell(3)]
    return chain((6, 3), layers.RNN(stack, return_sequences=True), layers.SimpleRNN(4))


def merging() -> Any:
    x, y = Input((4,), name="x"), Input((4,), name="y")
    kinds = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
    found = [getattr(layers, kind)()([x, y]) for kind in kinds]
    found += [layers.Concatenate()([x, y]), layers.Dot(1)([x, y])]
    return Model([x, y], scores()(layers.Concatenate()(found)))


MODELS: dict[str, Callable[[], Any]] = {
    "nested_transfer": lambda: transfer(frozen=False),
    "nested_frozen": lambda: transfer(frozen=True),
    "nested_partly": partly_frozen,
    "nested_teachable": teachable_machine,
    "nested_levels": levels,
    "nested_siamese": siamese,
    "nested_twice": twice_in_a_row,
    "nested_output": inner_output,
    "nested_ends": several_ends,
    "nested_dict": named_inputs,
    "nested_shared": shared_layers,
    "nested_features": features_of_a_layer,
    "nested_lazy": not_started,
    "nested_steps": steps_of_a_model,
    "nested_lstm": lstm_in_model,
    "attention": attention,
    "normalization": normalization,
    "normalization_image": image_normalization,
    "augmentation": augmentation,
    "tokens": tokens,
    "cells": cells,
    "merging": merging,
    "batch_norm": spatial(
        lambda: layers.Conv2D(4, 3), layers.BatchNormalization, layers.ReLU, layers.MaxPooling2D
    ),
    "group_norm": spatial(lambda: layers.Conv2D(4, 3), lambda: layers.GroupNormalization(2)),
    "depthwise": spatial(
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: layers.LeakyReLU(0.2),
        lambda: layers.ZeroPadding2D(1),
        layers.AveragePooling2D,
    ),
    "separable": spatial(
        lambda: layers.SeparableConv2D(4, 3), layers.PReLU, lambda: layers.ELU(0.7)
    ),
    "transposed": spatial(
        lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
        lambda: layers.Cropping2D(1),
        layers.UpSampling2D,
        lambda: layers.SpatialDropout2D(0.2),
    ),
    "conv1d": steps(
        lambda: layers.Conv1D(4, 2, padding="causal"),
        lambda: layers.SeparableConv1D(4, 2),
        lambda: layers.Conv1DTranspose(3, 2),
        layers.MaxPooling1D,
    ),
    "depthwise1d": steps(lambda: layers.DepthwiseConv1D(2), layers.GlobalMaxPooling1D),
    "conv3d": volume(
        lambda: layers.Conv3D(3, 2), lambda: layers.Conv3DTranspose(2, 2), layers.AveragePooling3D
    ),
    "conv_lstm": volume(lambda: layers.ConvLSTM2D(3, 2, return_sequences=True)),
    "lstm": steps(lambda: layers.LSTM(5, return_sequences=True), lambda: layers.LSTM(4)),
    "gru": steps(
        lambda: layers.GRU(5, return_sequences=True),
        lambda: layers.GRU(4, reset_after=False, go_backwards=True),
    ),
    "bidirectional": steps(
        lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True)),
        lambda: layers.Bidirectional(layers.SimpleRNN(3), merge_mode="sum"),
    ),
    "time_distributed": steps(lambda: layers.TimeDistributed(layers.Dense(4, activation="gelu"))),
    "einsum": steps(
        lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d"),
        layers.GlobalAveragePooling1D,
    ),
    "positions": steps(
        lambda: layers.Permute((2, 1)),
        lambda: layers.Reshape((9, 2)),
        lambda: layers.GaussianNoise(0.1),
        lambda: layers.ActivityRegularization(0.1),
        lambda: layers.Softmax(axis=-1),
    ),
    "noise": steps(
        lambda: layers.Dropout(0.2, noise_shape=(None, 1, 3)),
        lambda: layers.GaussianDropout(0.1),
        lambda: layers.AlphaDropout(0.1),
        lambda: layers.SpatialDropout1D(0.1),
        lambda: layers.Masking(0.0),
        lambda: layers.LSTM(4),
    ),
    "sizes1d": steps(
        lambda: layers.ZeroPadding1D(1),
        lambda: layers.Cropping1D((0, 1)),
        lambda: layers.UpSampling1D(2),
        lambda: layers.AveragePooling1D(2),
        layers.GlobalAveragePooling1D,
        lambda: layers.RepeatVector(2),
    ),
    "sizes2d": spatial(
        lambda: layers.Resizing(6, 7),
        lambda: layers.CenterCrop(6, 6),
        lambda: layers.ZeroPadding2D(((1, 0), (0, 2))),
        lambda: layers.Conv2D(4, 3, dilation_rate=2, groups=1, activation=layers.ReLU(6.0)),
        lambda: layers.Activation("softplus"),
        lambda: layers.GlobalMaxPooling2D(keepdims=True),
    ),
    "sizes3d": volume(
        lambda: layers.ZeroPadding3D(1),
        lambda: layers.Cropping3D(1),
        lambda: layers.UpSampling3D(2),
        lambda: layers.MaxPooling3D(2),
        lambda: layers.SpatialDropout3D(0.1),
        layers.GlobalAveragePooling3D,
    ),
    "augmentation_more": spatial(
        lambda: layers.RandomCrop(6, 6),
        lambda: layers.RandomHeight(0.1),
        lambda: layers.RandomWidth(0.1),
        lambda: layers.Resizing(6, 6),
        lambda: layers.RandomBrightness(0.1),
        lambda: layers.GaussianNoise(0.2),
        lambda: layers.Conv2D(4, 3),
    ),
    "additive": additive,
    "seq2seq": seq2seq,
    "discretized": lambda: chain(
        (4,),
        layers.Discretization(bin_boundaries=[0.2, 0.5, 0.8]),
        layers.CategoryEncoding(num_tokens=4, output_mode="multi_hot"),
    ),
    "lookup": lambda: chain(
        (4,),
        layers.IntegerLookup(vocabulary=[3, 5, 9, 12]),
        layers.Embedding(5, 3),
        dtype="int64",
    ),
    "thresholded": steps(
        lambda: layers.Dense(4),
        lambda: layers.ThresholdedReLU(0.5),
        layers.LeakyReLU,
        lambda: layers.ReLU(max_value=3.0, negative_slope=0.1, threshold=0.2),
    ),
    "old_cells": steps(
        lambda: layers.LSTM(4, recurrent_activation="hard_sigmoid", return_sequences=True),
        lambda: layers.Dense(4, "hard_sigmoid"),
    ),
    "regularized": spatial(
        lambda: layers.Conv2D(
            4,
            3,
            kernel_regularizer=keras.regularizers.l2(1e-4),
            bias_constraint=keras.constraints.MaxNorm(2.0),
            kernel_initializer=keras.initializers.HeNormal(),
            activation=keras.activations.swish,
        ),
        lambda: layers.BatchNormalization(
            scale=False, beta_regularizer=keras.regularizers.L1L2(0.1, 0.2)
        ),
    ),
    "local": steps(lambda: layers.LocallyConnected1D(3, 2)),
    "mixed": lambda: chain(
        IMAGE,
        layers.Conv2D(4, 3, dtype=keras.mixed_precision.Policy("mixed_float16")),
        layers.Activation("relu", dtype="float32"),
    ),
    "unknown_size": lambda: Sequential(
        [Input((None, None, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), scores()]
    ),
    "unit_norm": steps(layers.UnitNormalization, lambda: layers.Dense(4, "swish")),
}


def randomize(model: Any) -> None:
    """Give every weight other values, so that two that change places are found."""
    random = np.random.default_rng(7)
    for variable in model.weights:
        if "int" not in str(variable.dtype):
            variable.assign(random.uniform(0.1, 0.9, variable.shape))


def inputs_of(model: Any) -> dict[str, Any]:
    random = np.random.default_rng(11)
    values = {}
    for name, tensor in zip(model.input_names, model.inputs, strict=True):
        shape = (SAMPLES, *(size or 9 for size in tensor.shape[1:]))
        whole = "int" in str(tensor.dtype)
        values[name] = (
            random.integers(0, 20, shape) if whole else random.uniform(0, 1, shape)
        ).astype(tensor.dtype.name)
    return values


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    print("keras", getattr(keras, "__version__", None) or __import__("keras").__version__)
    for name, make in MODELS.items():
        keras.backend.clear_session()
        try:
            model = make()
        except (AttributeError, ValueError) as error:
            print(f"{name}: not built: {error}")
            continue
        if "normalization" not in name:
            randomize(model)
        values = inputs_of(model)
        results = model([values[key] for key in model.input_names], training=False)
        results = results if isinstance(results, (list, tuple)) else [results]
        values |= {f"y{i}": np.asarray(result) for i, result in enumerate(results)}
        np.savez(folder / f"{name}.npz", **values)
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        for suffix in (".h5", ".keras"):
            try:
                model.save(folder / f"{name}{suffix}")
            except Exception as error:  # noqa: BLE001 - reported; the other files are still written
                first = str(error).partition("\n")[0]
                print(f"{name}{suffix}: not written: {type(error).__name__} {first}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
