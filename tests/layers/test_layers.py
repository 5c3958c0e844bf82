"""UnitMask and ConditionalUnits: outputs, gradients, saving and loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import exporter
from exporter.errors import ModelError, UsageError
from exporter.formats.keras.model import KerasModel
from exporter.formats.model import RunOptions
from exporter.graph import Array
from tests.builders.keras_models import sigmoid, softmax
from tests.builders.layer_models import LABELS, UNITS, model_with


@keras.saving.register_keras_serializable(package="tests")  # type: ignore[untyped-decorator]
def near_best(logits: Any) -> Any:
    """A condition: within 1 of the largest."""
    return logits >= keras.ops.max(logits, axis=-1, keepdims=True) - 1.0


def values(seed: int = 3, count: int = 6, units: int = UNITS) -> Array:
    return np.random.default_rng(seed).normal(0.0, 2.0, (count, units)).astype(np.float32)


def called(layer: Any, given: Array) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(layer(given)))


# --- output of UnitMask ---------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [[0], [1, 4], [0, 1, 2, 3, 4]])
def test_masked_logits_are_exactly_0_after_softmax_or_sigmoid(kept: list[int]) -> None:
    layer, z = exporter.UnitMask(), values()
    layer.build(z.shape)
    masked = called(layer.keep(kept), z)
    assert np.array_equal(masked[:, kept], z[:, kept])
    shown = np.asarray(keras.ops.softmax(masked))
    assert np.allclose(shown[:, kept], softmax(z[:, kept]), atol=1e-6)
    off = [unit for unit in range(UNITS) if unit not in kept]
    assert not shown[:, off].any()
    assert not np.asarray(keras.ops.sigmoid(masked))[:, off].any()
    assert set(masked.argmax(axis=1)) <= set(kept)


@pytest.mark.parametrize("renormalize", [False, True])
def test_masked_probabilities_are_0(*, renormalize: bool) -> None:
    layer, p = exporter.UnitMask("probabilities", renormalize=renormalize), softmax(values())
    p = p.astype(np.float32)
    layer.build(p.shape)
    shown = called(layer.keep("1,3-4"), p)
    expected = p * np.array([0, 1, 0, 1, 1], np.float32)
    if renormalize:
        expected = expected / expected.sum(axis=1, keepdims=True)
    assert np.allclose(shown, expected, atol=1e-7)
    assert not called(layer.switch(np.zeros(UNITS, bool)), p).any()  # and not NaN


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_units_on_any_axis_except_the_batch(axis: int) -> None:
    given = np.random.default_rng(0).normal(size=(2, 5, 5, 5)).astype(np.float32)
    layer = exporter.UnitMask(axis=axis)
    layer.build(given.shape)
    shown = np.moveaxis(called(layer.keep([2]), given), axis, 0)
    assert np.array_equal(shown[2], np.moveaxis(given, axis, 0)[2])
    assert (shown[[0, 1, 3, 4]] == -1e4).all()


def test_mask_changes_between_calls_of_a_compiled_model() -> None:
    layer = exporter.UnitMask(labels=LABELS)
    model = model_with(layer, keras.layers.Softmax())
    given = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    before = model.predict(given, verbose=0)
    for kept in ([1, 3], [0], [2, 3, 4]):
        layer.keep([LABELS[unit] for unit in kept])
        assert layer.kept == tuple(kept)
        shown = model.predict(given, verbose=0)
        part = before[:, kept]
        assert np.allclose(shown[:, kept], part / part.sum(axis=1, keepdims=True), atol=1e-6)
        assert np.count_nonzero(shown) == shown[:, kept].size
    layer.remove("bee")
    assert layer.kept == (0, 2, 3, 4)
    layer.reset()
    assert np.array_equal(model.predict(given, verbose=0), before)


# --- gradients ------------------------------------------------------------------------------------


def gradients(model: Any, given: Array, labels: Array) -> dict[str, Array]:
    """The gradients of the kernel and bias of the head."""
    with tf.GradientTape() as tape:
        shown = model(given, training=True)
        loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, shown))
    head = model.get_layer("units")
    found = tape.gradient(loss, [head.kernel.value, head.bias.value])
    return {"kernel": np.asarray(found[0]), "bias": np.asarray(found[1])}


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_gradients_of_masked_units_are_exactly_0(dtype: str) -> None:
    layer = exporter.UnitMask(dtype=dtype)
    model = model_with(layer, keras.layers.Softmax(dtype=dtype))
    layer.keep([0, 2])
    given = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)
    found = gradients(model, given, np.array([0, 2] * 4))
    assert not found["kernel"][:, [1, 3, 4]].any()
    assert not found["bias"][[1, 3, 4]].any()
    assert found["kernel"][:, [0, 2]].all()
    assert found["bias"][[0, 2]].all()


def test_masked_probabilities_have_no_gradient() -> None:
    layer = exporter.UnitMask("probabilities")
    p = tf.constant(softmax(values()).astype(np.float32))
    layer.build(p.shape)
    layer.keep([1])
    with tf.GradientTape() as tape:
        tape.watch(p)
        total = keras.ops.sum(layer(p))
    found = np.asarray(tape.gradient(total, p))
    assert (found[:, 1] == 1.0).all()
    assert np.count_nonzero(found) == len(found)


def test_weights_of_masked_units_do_not_change_in_training() -> None:
    layer = exporter.UnitMask()
    model = model_with(layer, keras.layers.Softmax())
    model.compile("sgd", "sparse_categorical_crossentropy")
    head = model.get_layer("units")
    before = head.get_weights()
    random = np.random.default_rng(2)
    given, labels = random.normal(size=(32, 3)).astype(np.float32), random.choice([1, 4], 32)
    layer.keep([1, 4])
    model.fit(given, labels, epochs=3, verbose=0)
    kernel, bias = head.get_weights()
    off, on = [0, 2, 3], [1, 4]
    assert np.array_equal(kernel[:, off], before[0][:, off])
    assert np.array_equal(bias[off], before[1][off])
    assert (kernel[:, on] != before[0][:, on]).all()
    layer.reset()  # and learn again, in the same compiled function
    model.fit(given, labels, epochs=1, verbose=0)
    assert (head.get_weights()[0][:, off] != kernel[:, off]).all()


# --- output of ConditionalUnits -------------------------------------------------------------------


def largest(z: Array, count: int) -> Array:
    """The largest; of equal ones the first (a stable sort)."""
    on = np.zeros(z.shape, bool)
    np.put_along_axis(on, np.argsort(-z, axis=-1, kind="stable")[..., :count], values=True, axis=-1)
    return on


CONDITIONS: dict[str, Callable[[Array], Array]] = {
    "logit > 0.5": lambda z: z > 0.5,
    "logit >= 0": lambda z: z >= 0,
    "logit < 0": lambda z: z < 0,
    "abs <= 1": lambda z: np.abs(z) <= 1,
    "probability > 0.2": lambda z: softmax(z) > 0.2,
    "> 0.2": lambda z: softmax(z) > 0.2,
    "top:1": lambda z: largest(z, 1),
    "top:3": lambda z: largest(z, 3),
    "top:5": lambda z: largest(z, 5),
    "logit > 99": lambda z: np.zeros(z.shape, bool),
}


def chosen_softmax(z: Array, on: Array) -> Array:
    """The softmax over the units that are on; all 0 if none is on."""
    powers = np.where(on, np.exp(z.astype(np.float64)), 0.0)
    total = powers.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(powers, total, out=np.zeros_like(powers), where=total > 0))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_softmax_over_the_chosen_units(condition: str) -> None:
    z = values(count=20)
    z[0], z[1, [1, 3]] = 1.5, 4.0  # equal ones
    on = CONDITIONS[condition](z)
    shown = called(exporter.ConditionalUnits(condition, activation="softmax"), z)
    assert np.allclose(shown, chosen_softmax(z, on), atol=1e-6)
    assert not shown[~on].any()


@pytest.mark.parametrize("condition", ["probability >= 0.5", ">= 0.5"])
def test_sigmoid_of_each_chosen_unit(condition: str) -> None:
    z = values()
    shown = called(exporter.ConditionalUnits(condition, activation="sigmoid"), z)
    assert np.allclose(shown, np.where(z >= 0, sigmoid(z), 0.0), atol=1e-6)


def test_other_units_get_the_floor_without_an_activation() -> None:
    z = values()
    shown = called(exporter.ConditionalUnits("> 0", floor=-50.0), z)
    assert np.array_equal(shown, np.where(z > 0, z, np.float32(-50.0)))


@pytest.mark.parametrize("condition", ["> 0.3", "probability > 0.3"])
def test_conditions_on_probabilities(condition: str) -> None:
    p = softmax(values()).astype(np.float32)
    shown = called(exporter.ConditionalUnits(condition, values="probabilities"), p)
    assert np.array_equal(shown, np.where(p > 0.3, p, np.float32(0.0)))
    layer = exporter.ConditionalUnits(condition, values="probabilities", renormalize=True)
    kept = np.where(p > 0.3, p.astype(np.float64), 0.0)
    total = kept.sum(axis=1, keepdims=True)
    expected = np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)
    assert np.allclose(called(layer, p), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("condition", ["top:2", "logit > 0"])
def test_conditions_hold_in_every_precision(condition: str, dtype: str) -> None:
    z = np.round(values() * 4) / 4  # exact in all of them
    layer = exporter.ConditionalUnits(condition, activation="softmax", dtype=dtype)
    shown = layer(z)
    assert keras.backend.standardize_dtype(shown.dtype) == layer.compute_dtype
    expected = chosen_softmax(z, largest(z, 2) if condition == "top:2" else z > 0)
    found = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(shown, "float64")))
    assert np.allclose(found, expected, atol=1e-2)
    assert np.array_equal(found > 0, expected > 1e-7)


@pytest.mark.parametrize("axis", [1, 2])
def test_largest_units_along_any_axis(axis: int) -> None:
    z = np.random.default_rng(5).integers(0, 3, (3, 4, 6)).astype(np.float32)
    on = np.moveaxis(largest(np.moveaxis(z, axis, -1), 2), -1, axis)
    layer = exporter.ConditionalUnits("top:2", axis=axis)
    assert np.array_equal(called(layer, z), np.where(on, z, np.float32(-1e4)))


def test_registered_function_as_condition() -> None:
    z = values()
    shown = called(exporter.ConditionalUnits(near_best, activation="softmax"), z)
    assert np.allclose(shown, chosen_softmax(z, z >= z.max(axis=1, keepdims=True) - 1), atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "linear"])
def test_gradients_of_other_units_are_exactly_0(activation: Any) -> None:
    z = tf.constant(values())
    layer = exporter.ConditionalUnits("logit > 0", activation=activation)
    with tf.GradientTape() as tape:
        tape.watch(z)
        total = keras.ops.sum(keras.ops.square(layer(z)))
    found = np.asarray(tape.gradient(total, z))
    assert not found[np.asarray(z) <= 0].any()
    assert found[np.asarray(z) > 0].any()


@pytest.mark.parametrize("condition", [*CONDITIONS, "function"])
def test_shapes_are_static(condition: str) -> None:
    given: Any = near_best if condition == "function" else condition
    layer = exporter.ConditionalUnits(given, activation="softmax")
    traced = tf.function(layer).get_concrete_function(tf.TensorSpec((1, UNITS), tf.float32))
    shapes = [
        tensor.shape
        for operation in traced.graph.get_operations()
        for tensor in operation.outputs
        if tensor.dtype != tf.resource
    ]
    assert shapes
    assert all(shape.is_fully_defined() for shape in shapes)


# --- saving and loading ---------------------------------------------------------------------------


TRAVELLERS: dict[str, Callable[[], Any]] = {
    "mask": lambda: exporter.UnitMask(labels=LABELS, floor=-30.0, name="own"),
    "probabilities": lambda: exporter.UnitMask("probabilities", renormalize=True, name="own"),
    "softmax": lambda: exporter.ConditionalUnits("probability >= 0.25", "softmax", name="own"),
    "top": lambda: exporter.ConditionalUnits("top:2", name="own"),
    "function": lambda: exporter.ConditionalUnits(near_best, "sigmoid", name="own"),
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("case", TRAVELLERS)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_saved_model_is_loaded(case: str, suffix: str, tmp_path: Path) -> None:
    layer = TRAVELLERS[case]()
    model = model_with(layer)
    if isinstance(layer, exporter.UnitMask):
        layer.keep([0, 3])
    given = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    path = tmp_path / f"model{suffix}"
    KerasModel(model).write(path)
    loaded = keras.saving.load_model(path)
    assert np.array_equal(loaded(given), model(given))
    again = loaded.get_layer(layer.name)
    assert again.get_config() == layer.get_config()
    assert keras.saving.get_registered_name(type(again)) == f"exporter>{type(layer).__name__}"
    opened = exporter.open_model(path).runner(RunOptions())({"features": given})
    assert np.array_equal(next(iter(opened.values())), model(given))


def test_loading_names_an_unregistered_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.keras"
    model_with(exporter.ConditionalUnits(near_best)).save(path)
    registered = keras.saving.get_custom_objects()
    monkeypatch.delitem(registered, "tests>near_best")
    with pytest.raises(TypeError, match="the function 'tests>near_best' is not registered"):
        keras.saving.load_model(path)
    with pytest.raises(ModelError, match="the function 'tests>near_best' is not registered"):
        exporter.open_model(path)
    with keras.saving.custom_object_scope({"tests>near_best": near_best}):
        assert keras.saving.load_model(path)


def test_command_line_names_an_unregistered_function(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    model_with(exporter.ConditionalUnits(near_best)).save(path)
    with pytest.raises(ModelError, match="the function 'tests>near_best' is not registered"):
        exporter.inspect(path)


# --- refused --------------------------------------------------------------------------------------


def unbuilt_function(logits: Any) -> Any:
    return logits > 0


@keras.saving.register_keras_serializable(package="tests")  # type: ignore[untyped-decorator]
def not_bool(logits: Any) -> Any:
    return keras.ops.cast(logits > 0, "float32")


@keras.saving.register_keras_serializable(package="tests")  # type: ignore[untyped-decorator]
def one_for_all(logits: Any) -> Any:
    return keras.ops.any(logits > 0, axis=-1, keepdims=True)


def built(layer: Any, units: int | None = UNITS) -> Any:
    layer.build((None, units))
    return layer


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a condition that does not parse": (
        lambda: exporter.ConditionalUnits("logit >> 1"),
        "the condition 'logit >> 1', at character 8: expected a number",
    ),
    "top:0": (lambda: exporter.ConditionalUnits("top:0"), "at character 5: at least one unit"),
    "more than there are": (
        lambda: built(exporter.ConditionalUnits("top:6")),
        "'top:6' chooses 6 of 5 units",
    ),
    "a probability of nothing": (
        lambda: exporter.ConditionalUnits("probability > 0.5"),
        "compares a probability; linear returns none",
    ),
    "a logit of probabilities": (
        lambda: exporter.ConditionalUnits("abs > 1", values="probabilities"),
        "'abs > 1.0' compares a logit, but the input contains probabilities",
    ),
    "an activation of probabilities": (
        lambda: exporter.ConditionalUnits("> 0", "softmax", "probabilities"),
        "the activation is 'softmax' on probabilities",
    ),
    "an unknown activation": (
        lambda: exporter.ConditionalUnits("> 0", "tanh"),  # type: ignore[arg-type]
        "the activation is 'tanh' on logits",
    ),
    "no condition": (
        lambda: exporter.ConditionalUnits(3),  # type: ignore[arg-type]
        "the condition is 3",
    ),
    "an unregistered function": (
        lambda: exporter.ConditionalUnits(unbuilt_function),
        "the function 'unbuilt_function' is not registered",
    ),
    "a function that gives numbers": (
        lambda: exporter.ConditionalUnits(not_bool, name="c")(values()),
        r"c: the function 'tests>not_bool' returns float32 of shape \(6, 5\)",
    ),
    "a function that gives another shape": (
        lambda: exporter.ConditionalUnits(one_for_all, name="c")(values()),
        r"c: the function 'tests>one_for_all' returns bool of shape \(6, 1\)",
    ),
    "unknown values": (
        lambda: exporter.UnitMask("scores"),  # type: ignore[arg-type]
        "values is 'scores'",
    ),
    "renormalized logits": (
        lambda: exporter.UnitMask(renormalize=True),
        "renormalize needs probabilities",
    ),
    "the batch": (lambda: built(exporter.UnitMask(axis=0)), "has no unit axis 0"),
    "no such axis": (lambda: built(exporter.UnitMask(axis=2)), "of rank 2 has no unit axis 2"),
    "an open width": (lambda: built(exporter.UnitMask(), None), "units is unknown"),
    "an open width with a top": (
        lambda: built(exporter.ConditionalUnits("top:1"), None),
        "units is unknown",
    ),
    "too few labels": (lambda: built(exporter.UnitMask(labels=["a"])), "1 labels for 5 units"),
    "a mask before its units are known": (
        lambda: exporter.UnitMask(name="m").keep([0]),
        "m does not know its units yet",
    ),
    "no such unit": (lambda: built(exporter.UnitMask()).keep([5]), "there is no unit 5"),
    "no unit": (lambda: built(exporter.UnitMask()).keep([]), "none of the 5 units"),
    "a label without labels": (
        lambda: built(exporter.UnitMask()).keep(["owl"]),
        "it is a label, and there are no labels",
    ),
    "a mask of another width": (
        lambda: built(exporter.UnitMask(name="m")).switch(np.ones(4, bool)),
        r"m: the mask has dtype bool and shape \(4,\)",
    ),
    "a mask of numbers": (
        lambda: built(exporter.UnitMask(name="m")).switch([1, 0, 1, 1, 0]),
        r"m: the mask has dtype int64 and shape \(5,\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        make()
