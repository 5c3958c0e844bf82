"""Weights of removed units stay 0 in further training, with every optimizer of Keras."""

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
from exporter.graph import Array

UNITS, REMOVED, KEPT = 5, [1, 3], [0, 2, 4]
STEPS = 100


def data(count: int = 64) -> tuple[Array, Array]:
    random = np.random.default_rng(2)
    given = random.normal(size=(count, 4)).astype(np.float32)
    return given, np.asarray(KEPT)[np.argmax(given[:, :3], axis=1)]


def network(*, conv: bool = False) -> Any:
    keras.utils.set_random_seed(9)
    hidden = keras.layers.Dense(6, "tanh")
    if conv:
        layers = keras.layers
        body: list[Any] = [layers.Reshape((1, 1, 4)), layers.Conv2D(UNITS, 1), layers.Flatten()]
        return keras.Sequential([keras.Input((4,)), *body, layers.Softmax()])
    return keras.Sequential(
        [keras.Input((4,)), hidden, keras.layers.Dense(UNITS, "softmax", name="head")]
    )


def zeroed(model: Any) -> Any:
    return exporter.prune(model, keep=KEPT, mode="zero")


def rows(model: Any) -> tuple[Array, Array]:
    """Kernel and bias of the head, with the units on the first axis."""
    (head,) = [layer for layer in model.layers if layer.weights and layer.weights[0].shape[-1] == 5]
    kernel, bias = head.get_weights()
    return np.moveaxis(kernel, -1, 0), bias


def check(model: Any, before: tuple[Array, Array]) -> None:
    """Check that removed rows are exactly 0 and kept rows have changed."""
    for now, then in zip(rows(model), before, strict=True):
        assert not now[REMOVED].any()
        assert np.isfinite(now).all()
        assert (now[KEPT] != then[KEPT]).any(axis=tuple(range(1, now.ndim))).all()


def optimizers() -> dict[str, Callable[..., Any]]:
    """Every optimizer of Keras; wrappers get an optimizer with momentum."""
    made: dict[str, Callable[..., Any]] = {}
    for name, kind in vars(keras.optimizers).items():
        if not isinstance(kind, type) or not issubclass(kind, keras.optimizers.Optimizer):
            continue
        made[name] = kind
    del made["Optimizer"]  # the base of all
    made["SGD with momentum"] = lambda **options: keras.optimizers.SGD(
        0.05, momentum=0.9, nesterov=True, **options
    )
    made["LossScaleOptimizer"] = lambda **options: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(**options), initial_scale=8.0
    )
    made["MultiOptimizer"] = _several
    return made


def _several(**options: Any) -> Any:
    """One optimizer for the head, another for the other layers."""
    made = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1, momentum=0.9, **options))
    made[".*head.*"] = keras.optimizers.Adam(**options)
    return keras.optimizers.MultiOptimizer(made)


OPTIMIZERS = optimizers()
AVERAGED = {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 7}


def test_all_keras_optimizers_are_tested() -> None:
    assert len(OPTIMIZERS) >= 17
    assert {"Adam", "SGD", "Muon", "Lion", "Ftrl", "ScheduleFreeAdamW"} <= OPTIMIZERS.keys()


def steps(model: Any, optimizer: Any, count: int = STEPS) -> None:
    """A custom training loop."""
    given, labels = data(16)
    trained = model.trainable_variables

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(labels, model(given, training=True))
            scaled = optimizer.scale_loss(keras.ops.mean(loss))
        found = tape.gradient(scaled, [variable.value for variable in trained])
        optimizer.apply(found, trained)

    optimizer.build(trained)
    for _ in range(count):
        step()


def test_name_scope_contains_the_optimizer() -> None:
    """`ZeroedUnits` depends on this internal behavior of Keras."""
    from exporter.layers.zeroed_units import _averages  # noqa: PLC0415 - of this test alone

    found: list[Any] = []

    class Spy(keras.constraints.Constraint):  # type: ignore[misc]  # Keras has no types
        def __call__(self, w: Any) -> Any:
            found.extend(_averages(w))
            return w

    model = network()
    kernel = model.layers[-1].kernel
    kernel.constraint = Spy()
    optimizer = keras.optimizers.Adam(use_ema=True)
    steps(model, optimizer, 1)
    place = [id(v) for v in model.trainable_variables].index(id(kernel))
    told = (
        f"Keras {keras.__version__} no longer opens the optimizer's name scope while it asks a "
        "constraint, or keeps its averages elsewhere: ZeroedUnits has to find them another way, or "
        "removed units come back under use_ema"
    )
    assert found, told
    assert found[0] is optimizer._model_variables_moving_average[place], told
    assert not list(_averages(kernel)), "outside of an optimizer there is none"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_removed_rows_are_0_after_a_hundred_steps(name: str) -> None:
    """Also with an average that overwrites the weights during and after training."""
    zero = zeroed(network())
    before = rows(zero)
    exporter.freeze_pruned(zero)
    optimizer = OPTIMIZERS[name](**AVERAGED)
    steps(zero, optimizer)
    check(zero, before)
    for each in getattr(optimizer, "optimizers", [optimizer]):
        each.finalize_variable_values(each._trainable_variables)
    check(zero, before)


def test_removed_rows_change_without_the_constraint() -> None:
    """Sabotage: the tests above detect a missing constraint."""
    zero = zeroed(network())
    steps(zero, keras.optimizers.Adam(), 1)
    with pytest.raises(AssertionError):
        check(zero, rows(network()))


FITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 4},
    "averaged to the end": {"use_ema": True, "ema_momentum": 0.9},
    "all at once": {**AVERAGED, "gradient_accumulation_steps": 2, "weight_decay": 0.01},
}


@pytest.mark.parametrize("case", FITS)
def test_removed_rows_are_0_after_fit(case: str) -> None:
    zero = zeroed(network())
    before = rows(zero)
    exporter.freeze_pruned(zero)
    zero.compile(keras.optimizers.Adam(0.01, **FITS[case]), "sparse_categorical_crossentropy")
    given, labels = data()
    first = float(zero.evaluate(given, labels, verbose=0))
    zero.fit(given, labels, epochs=8, batch_size=16, verbose=0)
    check(zero, before)
    assert float(zero.evaluate(given, labels, verbose=0)) < first  # it learns


def test_compiled_and_trained_model_is_frozen_at_once() -> None:
    """Also the average, which contains the rows before the cut."""
    model = network()
    options = {"use_ema": True, "ema_momentum": 0.99}
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, **options), "mse")
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, **options), "sparse_categorical_crossentropy"
    )
    model.fit(*data(), epochs=2, verbose=0)
    head = model.layers[-1]
    kernel, bias = head.get_weights()
    kernel[:, REMOVED], bias[REMOVED] = 0.0, 0.0
    head.set_weights([kernel, bias])
    before = rows(model)
    exporter.freeze_pruned(model)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    assert not rows(model)[0][REMOVED].any()
    model.fit(*data(), epochs=2, verbose=0)
    check(model, before)


def test_averages_used_for_evaluation_are_0() -> None:
    zero = zeroed(network())
    exporter.freeze_pruned(zero)
    zero.compile(keras.optimizers.Adam(0.01, use_ema=True), "sparse_categorical_crossentropy")
    seen: list[Array] = []

    class Look(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        def on_test_batch_end(self, *_: Any, **__: Any) -> None:
            seen.append(rows(self.model)[0][REMOVED])

    swap = keras.callbacks.SwapEMAWeights()
    zero.fit(*data(), epochs=2, verbose=0, validation_data=data(), callbacks=[swap, Look()])
    assert seen
    assert not np.any(seen)


def test_half_precision_training() -> None:
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        zero = zeroed(network())
    finally:
        keras.mixed_precision.set_dtype_policy(policy)
    before = rows(zero)
    exporter.freeze_pruned(zero)
    zero.compile("adam", "sparse_categorical_crossentropy")
    assert isinstance(zero.optimizer, keras.optimizers.LossScaleOptimizer)
    zero.fit(*data(), epochs=3, verbose=0)
    check(zero, before)


def test_constraint_is_saved_and_loaded(tmp_path: Path) -> None:
    zero = zeroed(network(conv=True))
    exporter.freeze_pruned(zero)
    zero.compile(keras.optimizers.Adam(0.01, **AVERAGED), "sparse_categorical_crossentropy")
    zero.fit(*data(), epochs=1, verbose=0)
    zero.save(tmp_path / "zero.keras")
    loaded = keras.saving.load_model(tmp_path / "zero.keras")
    head = loaded.layers[1]
    for held in (head.kernel_constraint, head.bias_constraint, head.kernel.constraint):
        assert isinstance(held, exporter.ZeroedUnits)
        assert held.removed == (1, 3)
    before = rows(loaded)
    loaded.fit(*data(), epochs=4, verbose=0)
    check(loaded, before)
    again = exporter.open_model(tmp_path / "zero.keras")
    assert isinstance(again, KerasModel)
    assert isinstance(again.model.layers[1].kernel_constraint, exporter.ZeroedUnits)


def test_existing_constraint_is_kept() -> None:
    model = network()
    limit = keras.constraints.MaxNorm(0.05, axis=0)
    model.layers[-1].kernel.constraint = model.layers[-1].kernel_constraint = limit
    zero = zeroed(model)
    exporter.freeze_pruned(zero)
    before = rows(zero)
    zero.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    zero.fit(*data(), epochs=2, verbose=0)
    check(zero, before)
    norms = np.linalg.norm(rows(zero)[0][KEPT], axis=1)
    assert (norms < 0.0501).all()
    held = zero.layers[-1].kernel_constraint
    again = keras.constraints.get(keras.constraints.serialize(held))
    assert again.get_config() == held.get_config()
    assert again.also.max_value == 0.05


def test_weights_after_the_kernel_are_frozen() -> None:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    head = [layers.Dense(UNITS, use_bias=False), layers.BatchNormalization(), layers.Softmax()]
    zero = zeroed(keras.Sequential([keras.Input((4,)), *head]))
    exporter.freeze_pruned(zero)
    zero.compile("adam", "sparse_categorical_crossentropy")
    zero.fit(*data(), epochs=3, verbose=0)
    inner = keras.Model(zero.inputs, zero.layers[1].output)
    z = inner.predict(data()[0], verbose=0)
    assert not z[:, REMOVED].any()
    assert z[:, KEPT].all()
    assert isinstance(zero.layers[1].beta_constraint, exporter.ZeroedUnits)


def test_head_inside_nested_layers_is_frozen() -> None:
    layers = keras.layers
    each = layers.TimeDistributed(layers.Dense(UNITS, "sigmoid"))
    inner = keras.Sequential([keras.Input((2, 4)), each])
    given = keras.Input((2, 4))
    zero = zeroed(keras.Model(given, inner(given)))
    exporter.freeze_pruned(zero)
    zero.compile(keras.optimizers.SGD(0.5), "mse")
    zero.fit(np.ones((8, 2, 4), np.float32), np.ones((8, 2, UNITS), np.float32), verbose=0)
    kernel, bias = zero.get_weights()
    assert not kernel[:, REMOVED].any()
    assert not bias[REMOVED].any()
    assert kernel[:, KEPT].all()


def test_positions_of_a_sliced_model_are_its_own() -> None:
    small = exporter.prune(network(), keep=[0, 2, 3, 4])
    made = exporter.prune(small, keep=[0, 3], mode="zero")
    exporter.freeze_pruned(made)
    assert made.layers[-1].kernel_constraint.removed == (1, 2)


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(network, "no unit of the model is zeroed", id="nothing was cut"),
        pytest.param(
            lambda: exporter.prune(network(), keep=KEPT),
            "no unit of the model is zeroed",
            id="width was cut",
        ),
    ],
)
def test_models_without_removed_units_are_refused(model: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        exporter.freeze_pruned(model())


def test_remap_of_another_model_is_refused() -> None:
    table = zeroed(network()).remap
    small = exporter.prune(network(), keep=[0, 1])
    with pytest.raises(ModelError, match="the remap has 5 units, and head 'head'"):
        exporter.freeze_pruned(small, remap=table)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: exporter.ZeroedUnits([-1]), "a removed position is -1"),
        (lambda: exporter.ZeroedUnits([4])(np.ones((2, 4))), "has no position 4 on axis -1"),
        (lambda: exporter.ZeroedUnits([0], axis=2)(np.ones((2, 4))), "has no axis 2"),
    ],
)
def test_missing_positions_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_nan_is_replaced_by_0() -> None:
    weight = np.array([[1.0, np.nan], [np.inf, np.nan]], np.float32)
    held = np.asarray(exporter.ZeroedUnits([1])(weight))
    assert np.array_equal(held, np.array([[1.0, 0.0], [np.inf, 0.0]], np.float32))
