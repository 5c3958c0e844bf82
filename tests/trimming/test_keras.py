"""Keras models: channels are removed from layers, and the result is an ordinary Keras model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_allclose

import exporter
from exporter.data.samples import Samples
from exporter.errors import UsageError
from exporter.formats.keras.model import KerasModel
from exporter.formats.model import RunOptions
from exporter.graph import Array, Use
from exporter.graph.edits import Fill, Plan
from exporter.graph.operations import Linear
from exporter.trimming.trimmer import FitOptions, Trimmer
from tests.builders.onnx_models import numbers

SIDE = 7


def network() -> Any:
    """Convolutions with batch normalization, a residual, a depthwise one, a gate and a flatten."""
    keras.utils.set_random_seed(0)
    given = keras.Input((SIDE, SIDE, 3), name="x")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(given)
    past = x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 3, padding="same", groups=1)(x)
    x = layers.Add()([x, past])
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.BatchNormalization()(layers.Conv2D(12, 3, strides=2, dilation_rate=1)(x))
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Reshape((1, 1, 12))(layers.Dense(12, activation="sigmoid")(gate))
    x = layers.Flatten()(layers.Multiply()([x, gate]))
    x = layers.Dense(10, activation="relu")(x)
    return keras.Model(given, layers.Dense(4, activation="softmax", name="y")(x))


def randomized(model: Any) -> Any:
    """Values other than the initial ones, so that means and biases count."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        values = [each + 0.3 * random.normal(size=each.shape) for each in layer.get_weights()]
        if isinstance(layer, layers.BatchNormalization):
            values[3] = np.abs(values[3]) + 0.5
        layer.set_weights(values)
    return model


def samples(count: int = 60) -> Samples:
    return Samples({"x": numbers(count, 1, SIDE, SIDE, 3, seed=1)}, "noise")


def outputs(model: Any, x: Array) -> Array:
    return np.asarray(model(x))


def test_zero_channels_and_copies_are_removed_exactly() -> None:
    """The product before a batch normalization has no bias: its mean takes what the fit adds."""
    keras.utils.set_random_seed(0)
    given = keras.Input((SIDE, SIDE, 3), name="x")
    x = layers.Conv2D(9, 3, padding="same")(given)
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    model = randomized(keras.Model(given, layers.Dense(4, activation="softmax", name="y")(x)))
    kernel, bias = model.layers[1].get_weights()
    kernel[..., 3] = 0.0  # a constant channel
    kernel[..., 5], bias[5] = kernel[..., 1] - 2 * kernel[..., 2], bias[1] - bias[2] + 0.7
    model.layers[1].set_weights([kernel, bias])
    trimmer = Trimmer(KerasModel(model), samples(), RunOptions(), FitOptions(multiple=1))
    group = trimmer.channels.groups[0]
    assert set(group_order := trimmer.scored[0].elimination.order[:2].tolist()) <= {1, 2, 3, 5}
    assert 3 in group_order
    small = trimmer.without({group.name: np.setdiff1d(np.arange(9), [3, 5])})
    x = numbers(5, SIDE, SIDE, 3, seed=4)
    assert small.model.layers[1].get_weights()[0].shape[-1] == 7  # type: ignore[attr-defined]
    assert_allclose(outputs(small.model, x), outputs(model, x), atol=1e-5)  # type: ignore[attr-defined]


def test_every_kind_of_layer_becomes_narrower() -> None:
    """Without a fit: a removed unit has the effect of a zero in the kernels that read it."""
    model = randomized(network())
    trimmer = Trimmer(KerasModel(model), samples(), RunOptions(), FitOptions(refits=False))
    x = numbers(5, SIDE, SIDE, 3, seed=4)
    groups = trimmer.channels.groups
    assert [(each.units, len(each.consumers)) for each in groups] == [(8, 2), (12, 2), (10, 1)]
    for group in groups:
        removed = np.arange(0, group.units, 3)
        kept = {group.name: np.setdiff1d(np.arange(group.units), removed)}
        small = trimmer.without(kept)
        zeroed = trimmer.model
        for each in group.consumers:
            assert isinstance(each.node.operation, Linear)
            slot = each.node.operation.kernel
            use = Use(each.node.name, slot)
            positions = np.flatnonzero(np.isin(each.units, removed))
            fill = Fill(
                each.node.inputs[slot], each.contraction.kernel_axis, positions, 0.0, (use,)
            )
            zeroed = zeroed.apply(Plan((fill,)))
        assert isinstance(small, KerasModel)
        assert isinstance(zeroed, KerasModel)
        assert small.model.count_params() < model.count_params()
        assert_allclose(outputs(small.model, x), outputs(zeroed.model, x), atol=1e-5)


@pytest.mark.usefixtures("jobs_share_child")
def test_a_trimmed_keras_file_is_an_ordinary_model(tmp_path: Path) -> None:
    given = keras.Input((SIDE, SIDE, 3), name="x")
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False)(given))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    model = randomized(keras.Model(given, layers.Dense(4, activation="softmax", name="y")(x)))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "net.keras")
    values = numbers(32, SIDE, SIDE, 3, seed=1)
    np.savez(tmp_path / "data.npz", x=values[:, None])
    report = exporter.trim(
        tmp_path / "net.keras",
        tmp_path / "small.keras",
        data=tmp_path / "data.npz",
        keep=[0, 1, 3],
        target=0.6,
        multiple=4,
    )
    (row,) = report.trimmed
    assert (row.multiply_adds or 0) <= 0.6 * (row.original_multiply_adds or 0)
    small = keras.models.load_model(tmp_path / "small.keras")
    assert [type(each) for each in small.layers] == [type(each) for each in model.layers]
    assert small.layers[1].filters == 4
    assert small.output_shape == (None, 3)
    expected = outputs(model, values)[:, [0, 1, 3]].argmax(1)
    assert (outputs(small, values).argmax(1) == expected).mean() > 0.6
    before = small.evaluate(values, expected, verbose=0)
    small.fit(values, expected, batch_size=8, verbose=0)  # compiled as the original was
    assert small.evaluate(values, expected, verbose=0) < before


@pytest.mark.usefixtures("jobs_share_child")
def test_layers_that_cannot_be_narrowed_are_named(tmp_path: Path) -> None:
    """A separable convolution reads each channel with filters of its own."""
    given = keras.Input((SIDE, SIDE, 3), name="x")
    x = layers.SeparableConv2D(6, 3, name="apart")(layers.Conv2D(8, 3, name="first")(given))
    x = layers.GlobalAveragePooling2D()(x)
    keras.Model(given, layers.Dense(4, name="y")(x)).save(tmp_path / "net.keras")
    found = exporter.inspect(tmp_path / "net.keras", channels=True).channels or ()
    reasons = {each.name: each.reason for each in found}
    assert "works on each channel separately" in reasons["first"]


def test_the_latency_of_a_keras_model_is_not_measured(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((4,)), layers.Dense(2)]).save(tmp_path / "net.keras")
    given: dict[str, Any] = {"data": "x.npz", "target": 0.5, "by": "latency"}
    with pytest.raises(UsageError, match="latency of a Keras model is not measured"):
        exporter.trim(tmp_path / "net.keras", tmp_path / "small.keras", **given)


def test_a_saved_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be trimmed directly") as error:
        exporter.trim(tmp_path / "folder", tmp_path / "small.onnx", data="x.npz", target=0.5)
    assert "exporter convert" in (error.value.hint or "")
