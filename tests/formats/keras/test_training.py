"""A pruned model is compiled like its original, and can be trained further."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import losses, metrics, optimizers

import exporter
from exporter.graph import Array

UNITS, KEPT = 6, [1, 4, 5]
REMOVED = [0, 2, 3]
# `pytest.warns` emits other warnings again, without the module that the filters look for
ignores_keras_warning = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)


def network() -> Any:
    keras.utils.set_random_seed(3)
    x = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(5, activation="relu", name="hidden")(x)
    return keras.Model(x, keras.layers.Dense(UNITS, activation="softmax", name="y")(hidden))


def data(units: int = UNITS) -> tuple[Array, Array]:
    random = np.random.default_rng(4)
    return random.normal(size=(32, 4)).astype(np.float32), random.integers(0, units, 32)


def compiled(**options: Any) -> Any:
    model = network()
    loss = "sparse_categorical_crossentropy"
    model.compile(**{"optimizer": "sgd", "loss": loss, "run_eagerly": True} | options)
    return model


def optimizer_values(optimizer: Any) -> dict[str, Array]:
    return {v.path: np.array(keras.ops.convert_to_numpy(v.value)) for v in optimizer.variables}


def custom_loss(_true: Any, predicted: Any) -> Any:
    return keras.ops.mean((predicted - 1.0) ** 2, axis=-1)


# --- what is left out -----------------------------------------------------------------------------


def test_a_model_that_is_not_compiled() -> None:
    assert not exporter.prune(network(), keep=KEPT).compiled


UNFIT: dict[str, tuple[Callable[[], Any], str]] = {
    "one class": (lambda: metrics.Precision(class_id=2, name="p"), "class_id=2"),
    "chosen classes": (lambda: metrics.IoU(UNITS, [0, 1], name="p"), "target_class_ids"),
    "one weight per unit": (
        lambda: metrics.AUC(multi_label=True, num_labels=UNITS, label_weights=[1] * 6, name="p"),
        "label_weights",
    ),
}


@ignores_keras_warning
@pytest.mark.parametrize("case", UNFIT)
def test_a_metric_with_original_unit_indices_is_left_out(case: str) -> None:
    make, message = UNFIT[case]
    model = compiled(loss="categorical_crossentropy", metrics=["accuracy", make()])
    with pytest.warns(UserWarning, match=message):
        small = exporter.prune(model, keep=KEPT)
    x, y = data(len(KEPT))
    one_hot = np.eye(len(KEPT))[y]
    assert set(small.evaluate(x, one_hot, verbose=0, return_dict=True)) == {"loss", "accuracy"}


@ignores_keras_warning
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (losses.SparseCategoricalCrossentropy(ignore_class=3), "ignore_class=3"),
        (losses.CategoricalFocalCrossentropy(alpha=[0.2] * UNITS), "alpha with 6 entries"),
    ],
)
def test_without_its_loss_a_model_is_not_compiled(loss: Any, message: str) -> None:
    with pytest.warns(UserWarning, match=f"not compiled: .*{message}"):
        assert not exporter.prune(compiled(loss=loss), keep=KEPT).compiled


def test_mode_zero_keeps_the_loss() -> None:
    loss = losses.SparseCategoricalCrossentropy(ignore_class=3)
    small = exporter.prune(compiled(loss=loss), keep=KEPT, mode="zero")
    assert small.loss is loss


# --- what is kept ---------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: optimizers.SGD(0.5, momentum=0.25, nesterov=True, weight_decay=0.125),
    "adam": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.01, 7, 0.5)),
    "adam with averages": lambda: optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
    "adam with accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "adafactor": lambda: optimizers.Adafactor(0.01),
    "scaled loss": lambda: optimizers.LossScaleOptimizer(optimizers.RMSprop(0.01)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_is_kept(name: str) -> None:
    model = compiled(optimizer=OPTIMIZERS[name]())
    x, y = data()
    model.fit(x, y, verbose=0, batch_size=16)
    before = optimizer_values(model.optimizer)
    small = exporter.prune(model, keep=KEPT)
    assert type(small.optimizer) is type(model.optimizer)
    assert small.optimizer is not model.optimizer
    assert small.optimizer.get_config() == model.optimizer.get_config()
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations) > 0
    small.fit(x, np.clip(y, 0, 2), verbose=0)
    after = optimizer_values(model.optimizer)
    assert all(np.array_equal(after[path], values) for path, values in before.items())


def test_optimizer_values_are_cut_like_the_weights() -> None:
    model = compiled(optimizer=optimizers.SGD(0.1, momentum=0.9))
    model.fit(*data(), verbose=0, shuffle=False)
    original = optimizer_values(model.optimizer)
    sliced = optimizer_values(exporter.prune(model, keep=KEPT).optimizer)
    zeroed = optimizer_values(exporter.prune(model, keep=KEPT, mode="zero").optimizer)
    of_head = [path for path in original if path.rpartition("/")[2].startswith("y_")]
    assert len(of_head) == 2
    for path in of_head:
        expected, narrow, full = original[path], sliced[path], zeroed[path]
        assert np.abs(expected[..., REMOVED]).max() > 0
        np.testing.assert_array_equal(narrow, expected[..., KEPT])
        np.testing.assert_array_equal(full[..., KEPT], expected[..., KEPT])
        np.testing.assert_array_equal(full[..., REMOVED], 0.0)
    kernel = next(path for path in original if "hidden_kernel" in path)
    np.testing.assert_array_equal(sliced[kernel], original[kernel])


def test_keeping_everything_trains_like_the_original() -> None:
    model = compiled(optimizer=optimizers.Adam(0.05))
    x, y = data()
    model.fit(x, y, verbose=0, shuffle=False, epochs=2)
    same = exporter.prune(model, keep=range(UNITS))
    for each in (model, same):
        each.fit(x, y, verbose=0, shuffle=False, epochs=2)
    for one, other in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_losses_metrics_and_step_options() -> None:
    custom = metrics.MeanMetricWrapper(custom_loss, name="custom")
    model = compiled(
        loss=custom_loss,
        loss_weights=[0.5],
        metrics=[metrics.MeanIoU(UNITS, name="iou", sparse_y_pred=False), custom],
        weighted_metrics=["accuracy"],
        steps_per_execution=3,
    )
    small = exporter.prune(model, keep=KEPT)
    assert (small.steps_per_execution, small.run_eagerly) == (3, True)
    assert small.get_compile_config()["loss_weights"] == [0.5]
    assert small.loss is custom_loss
    x, y = data(len(KEPT))
    results = small.evaluate(x, y, verbose=0, return_dict=True)
    assert set(results) == {"loss", "iou", "custom", "accuracy"}
    np.testing.assert_allclose(results["custom"], 2 * results["loss"], rtol=1e-5)


def test_a_mixed_policy_keeps_its_scaled_loss() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(optimizer="adam")
    finally:
        keras.config.set_dtype_policy("float32")
    small = exporter.prune(model, keep=KEPT)
    assert isinstance(small.optimizer, optimizers.LossScaleOptimizer)
    assert isinstance(small.optimizer.inner_optimizer, optimizers.Adam)


def test_a_pruned_file_is_compiled_like_the_original(tmp_path: Path) -> None:
    model = compiled(optimizer=optimizers.SGD(0.5, momentum=0.25), metrics=["accuracy"])
    model.save(tmp_path / "net.keras")
    pruned = exporter.prune(exporter.open_model(tmp_path / "net.keras"), keep=KEPT)
    pruned.save(tmp_path / "small.keras")
    small = keras.models.load_model(tmp_path / "small.keras")
    assert small.optimizer.get_config() == model.optimizer.get_config()
    assert small.loss == model.loss
    assert {"loss", "accuracy"} == set(small.evaluate(*data(3), verbose=0, return_dict=True))


@pytest.mark.parametrize("loss", [custom_loss, "huber"])
def test_a_file_that_cannot_be_compiled_is_opened_uncompiled(loss: Any, tmp_path: Path) -> None:
    """A custom loss is not available; or this Keras lacks an argument of the optimizer."""
    path = tmp_path / "net.keras"
    compiled(loss=loss, optimizer=optimizers.SGD(0.5)).save(path)
    if loss == "huber":
        replace_in_config(path, '"learning_rate": 0.5', '"learning_rate": 0.5, "lr": 0.5')
    opened = exporter.open_model(path)
    assert not vars(opened)["model"].compiled
    exporter.prune(opened, keep=KEPT).save(tmp_path / "small.keras")
    assert not keras.models.load_model(tmp_path / "small.keras").compiled


def replace_in_config(path: Path, old: str, new: str) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    before = members["config.json"].decode()
    assert old in before
    members["config.json"] = before.replace(old, new).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_saved_pruned_model_can_be_trained_further(tmp_path: Path) -> None:
    model = compiled(optimizer=optimizers.Adam(0.05), metrics=["accuracy"])
    model.fit(*data(), verbose=0)
    small = exporter.prune(model, keep=KEPT)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    loaded = optimizer_values(again.optimizer)
    for path, values in optimizer_values(small.optimizer).items():
        np.testing.assert_array_equal(loaded[path], values)
    again.fit(*data(len(KEPT)), verbose=0)
