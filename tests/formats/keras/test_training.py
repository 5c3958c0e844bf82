"""What a model was compiled with, in the model that is cut out of it: ready to train on."""

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
# pytest tells again what it has caught, and Keras' own is then nobody's
caught = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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


def remembered(optimizer: Any) -> dict[str, Array]:
    return {v.path: np.array(keras.ops.convert_to_numpy(v.value)) for v in optimizer.variables}


def own_loss(_true: Any, predicted: Any) -> Any:
    return keras.ops.mean((predicted - 1.0) ** 2, axis=-1)


# --- what stays away ------------------------------------------------------------------------------


def test_a_model_that_is_not_compiled_stays_so() -> None:
    assert not exporter.prune(network(), keep=KEPT).compiled


UNFIT: dict[str, tuple[Callable[[], Any], str]] = {
    "one class": (lambda: metrics.Precision(class_id=2, name="p"), "class_id=2"),
    "chosen classes": (lambda: metrics.IoU(UNITS, [0, 1], name="p"), "target_class_ids"),
    "a weight a unit": (
        lambda: metrics.AUC(multi_label=True, num_labels=UNITS, label_weights=[1] * 6, name="p"),
        "label_weights",
    ),
}


@caught
@pytest.mark.parametrize("case", UNFIT)
def test_a_metric_that_names_old_units_is_left_out(case: str) -> None:
    make, told = UNFIT[case]
    model = compiled(loss="categorical_crossentropy", metrics=["accuracy", make()])
    with pytest.warns(UserWarning, match=told):
        small = exporter.prune(model, keep=KEPT)
    x, y = data(len(KEPT))
    one_hot = np.eye(len(KEPT))[y]
    assert set(small.evaluate(x, one_hot, verbose=0, return_dict=True)) == {"loss", "accuracy"}


@caught
@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (losses.SparseCategoricalCrossentropy(ignore_class=3), "ignore_class=3"),
        (losses.CategoricalFocalCrossentropy(alpha=[0.2] * UNITS), "alpha with 6 entries"),
    ],
)
def test_without_its_loss_a_model_is_not_compiled(loss: Any, told: str) -> None:
    with pytest.warns(UserWarning, match=f"not compiled: .*{told}"):
        assert not exporter.prune(compiled(loss=loss), keep=KEPT).compiled


def test_what_does_not_narrow_keeps_them_all() -> None:
    loss = losses.SparseCategoricalCrossentropy(ignore_class=3)
    small = exporter.prune(compiled(loss=loss), keep=KEPT, mode="zero")
    assert small.loss is loss


# --- what is carried ------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: optimizers.SGD(0.5, momentum=0.25, nesterov=True, weight_decay=0.125),
    "adam": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.01, 7, 0.5)),
    "adam, averaged": lambda: optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
    "adam, accumulated": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "adafactor": lambda: optimizers.Adafactor(0.01),
    "a number of steps at a scaled loss": lambda: optimizers.LossScaleOptimizer(
        optimizers.RMSprop(0.01)
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_goes_on(name: str) -> None:
    model = compiled(optimizer=OPTIMIZERS[name]())
    x, y = data()
    model.fit(x, y, verbose=0, batch_size=16)
    before = remembered(model.optimizer)
    small = exporter.prune(model, keep=KEPT)
    assert type(small.optimizer) is type(model.optimizer)
    assert small.optimizer is not model.optimizer
    assert small.optimizer.get_config() == model.optimizer.get_config()
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations) > 0
    small.fit(x, np.clip(y, 0, 2), verbose=0)
    after = remembered(model.optimizer)
    assert all(np.array_equal(after[path], values) for path, values in before.items())


def test_what_it_remembers_is_cut_as_the_weights_are() -> None:
    model = compiled(optimizer=optimizers.SGD(0.1, momentum=0.9))
    model.fit(*data(), verbose=0, shuffle=False)
    held = remembered(model.optimizer)
    sliced = remembered(exporter.prune(model, keep=KEPT).optimizer)
    zeroed = remembered(exporter.prune(model, keep=KEPT, mode="zero").optimizer)
    of_head = [path for path in held if path.rpartition("/")[2].startswith("y_")]
    assert len(of_head) == 2
    for path in of_head:
        expected, narrow, whole = held[path], sliced[path], zeroed[path]
        assert np.abs(expected[..., REMOVED]).max() > 0
        np.testing.assert_array_equal(narrow, expected[..., KEPT])
        np.testing.assert_array_equal(whole[..., KEPT], expected[..., KEPT])
        np.testing.assert_array_equal(whole[..., REMOVED], 0.0)
    kernel = next(path for path in held if "hidden_kernel" in path)
    np.testing.assert_array_equal(sliced[kernel], held[kernel])


def test_keeping_everything_trains_like_the_original() -> None:
    """With all units kept in order, a cut model's next steps are the original's own."""
    model = compiled(optimizer=optimizers.Adam(0.05))
    x, y = data()
    model.fit(x, y, verbose=0, shuffle=False, epochs=2)
    same = exporter.prune(model, keep=range(UNITS))
    for each in (model, same):
        each.fit(x, y, verbose=0, shuffle=False, epochs=2)
    for one, other in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_losses_metrics_and_how_steps_are_made() -> None:
    own = metrics.MeanMetricWrapper(own_loss, name="own")
    model = compiled(
        loss=own_loss,
        loss_weights=[0.5],
        metrics=[metrics.MeanIoU(UNITS, name="iou", sparse_y_pred=False), own],
        weighted_metrics=["accuracy"],
        steps_per_execution=3,
    )
    small = exporter.prune(model, keep=KEPT)
    assert (small.steps_per_execution, small.run_eagerly) == (3, True)
    assert small.get_compile_config()["loss_weights"] == [0.5]
    assert small.loss is own_loss
    x, y = data(len(KEPT))
    told = small.evaluate(x, y, verbose=0, return_dict=True)
    assert set(told) == {"loss", "iou", "own", "accuracy"}
    np.testing.assert_allclose(told["own"], 2 * told["loss"], rtol=1e-5)


def test_a_mixed_policy_keeps_its_scaled_loss() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(optimizer="adam")
    finally:
        keras.config.set_dtype_policy("float32")
    small = exporter.prune(model, keep=KEPT)
    assert isinstance(small.optimizer, optimizers.LossScaleOptimizer)
    assert isinstance(small.optimizer.inner_optimizer, optimizers.Adam)


def test_a_file_keeps_what_it_was_compiled_with(tmp_path: Path) -> None:
    model = compiled(optimizer=optimizers.SGD(0.5, momentum=0.25), metrics=["accuracy"])
    model.save(tmp_path / "net.keras")
    pruned = exporter.prune(exporter.open_model(tmp_path / "net.keras"), keep=KEPT)
    pruned.save(tmp_path / "small.keras")
    small = keras.models.load_model(tmp_path / "small.keras")
    assert small.optimizer.get_config() == model.optimizer.get_config()
    assert small.loss == model.loss
    assert {"loss", "accuracy"} == set(small.evaluate(*data(3), verbose=0, return_dict=True))


@pytest.mark.parametrize("loss", [own_loss, "huber"])
def test_a_file_that_cannot_be_compiled_is_opened_all_the_same(loss: Any, tmp_path: Path) -> None:
    """Its own loss is not at hand; or the optimizer is of a Keras that knew more arguments."""
    path = tmp_path / "net.keras"
    compiled(loss=loss, optimizer=optimizers.SGD(0.5)).save(path)
    if loss == "huber":
        damage(path, '"learning_rate": 0.5', '"learning_rate": 0.5, "lr": 0.5')
    opened = exporter.open_model(path)
    assert not vars(opened)["model"].compiled
    exporter.prune(opened, keep=KEPT).save(tmp_path / "small.keras")
    assert not keras.models.load_model(tmp_path / "small.keras").compiled


def damage(path: Path, old: str, new: str) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    before = members["config.json"].decode()
    assert old in before
    members["config.json"] = before.replace(old, new).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_saved_and_loaded_it_trains_on(tmp_path: Path) -> None:
    model = compiled(optimizer=optimizers.Adam(0.05), metrics=["accuracy"])
    model.fit(*data(), verbose=0)
    small = exporter.prune(model, keep=KEPT)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    held = remembered(again.optimizer)
    for path, values in remembered(small.optimizer).items():
        np.testing.assert_array_equal(held[path], values)
    again.fit(*data(len(KEPT)), verbose=0)
