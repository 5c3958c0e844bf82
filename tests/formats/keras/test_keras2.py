"""Files of Keras 2 are repaired if their outputs do not change, and refused by name otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import exporter
from exporter.errors import ModelError
from exporter.formats import open_model
from exporter.formats.keras.keras2 import DROPPED, is_keras_2, repaired
from exporter.formats.model import RunOptions
from exporter.graph.edits import Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders.keras_models import old_layer, old_sequential, write_old

# --- refused --------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "groups": ("DepthwiseConv2D", {"groups": 2}, "DepthwiseConv2D 'odd' has groups=2"),
    "time first": ("GRU", {"time_major": True}, "GRU 'odd' has time_major=True"),
    "causal": ("Attention", {"causal": True}, "Attention 'odd' has causal=True"),
    "virtual batch": (
        "BatchNormalization",
        {"virtual_batch_size": 4},
        "BatchNormalization 'odd' has virtual_batch_size=4",
    ),
    "changed function": (
        "LSTM",
        {"recurrent_activation": "hard_sigmoid"},
        "LSTM 'odd' has the recurrent_activation 'hard_sigmoid', which Keras 3 computes differ",
    ),
    "changed function as an activation": (
        "Activation",
        {"activation": "hard_sigmoid"},
        "Activation 'odd' has the activation 'hard_sigmoid'",
    ),
}


@pytest.mark.parametrize(("kind", "extra", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(kind: str, extra: dict[str, Any], message: str) -> None:
    inner = {"class_name": kind, "config": {"name": "odd", **extra}}
    around = {"class_name": "TimeDistributed", "config": {"name": "outer", "layer": inner}}
    with pytest.raises(ModelError, match=message):
        repaired(old_sequential((3,), around), "net.h5")


@pytest.mark.parametrize("kind", ["TFOpLambda", "SlicingOpLambda"])
@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_operations_of_keras_2_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    entry = {"class_name": kind, "config": {"name": "tf.math.add", "function": "math.add"}}
    write_old(tmp_path / "net.h5", model, old_sequential((3,), entry))
    with pytest.raises(ModelError, match=f"layer 'tf.math.add' is a {kind}"):
        open_model(tmp_path / "net.h5")


def _external_link(file: Any) -> None:
    del file["model_weights"]
    file["model_weights"] = h5py.ExternalLink("other.h5", "/")


def _external_values(file: Any) -> None:
    group = file.create_group("model_weights/more")
    group.create_dataset("values", (2,), "f4", external=[("other.bin", 0, 8)])


@pytest.mark.parametrize("change", [_external_link, _external_values])
@pytest.mark.parametrize("version", ["2.15.0", "3.15.1"])
@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_nothing_outside_the_file_is_read(
    tmp_path: Path, change: Callable[[Any], None], version: str
) -> None:
    path, model = tmp_path / "net.h5", keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    write_old(path, model, old_sequential((3,), old_layer(model.layers[0])), version)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ModelError, match=r"'/model_weights.* is stored in another file"):
        open_model(path)


# --- accepted -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "old"),
    [("2.0.5", True), ("2.15.0", True), ("1.2.0", True), (None, True), ("3.0.0", False)],
)
def test_versions(version: str | None, *, old: bool) -> None:
    assert is_keras_2(version) == old


def test_a_configuration_of_keras_3_does_not_change() -> None:
    config = old_sequential((3,), {"class_name": "Dense", "config": {"units": 3, "name": "d"}})
    assert repaired(config, "net.h5") == config


def test_an_old_list_of_layers_and_a_policy() -> None:
    policy = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    dense = {"class_name": "Dense", "config": {"units": 3, "dtype": policy}}
    copy = repaired({"class_name": "Sequential", "config": [dense]}, "net.h5")
    assert copy["config"]["layers"][0]["config"] == {"units": 3, "dtype": "mixed_float16"}


_KERNEL = {"kernel_initializer": None, "kernel_regularizer": None, "kernel_constraint": None}
OldLayer = tuple[tuple[int, ...], Callable[[], Any], dict[str, Any]]
REPAIRED: dict[str, OldLayer] = {
    "DepthwiseConv2D": ((5, 5, 2), lambda: layers.DepthwiseConv2D(3), {"groups": 1}),
    "Conv1DTranspose": ((5, 2), lambda: layers.Conv1DTranspose(2, 3), {"groups": 1}),
    "Conv2DTranspose": ((5, 5, 2), lambda: layers.Conv2DTranspose(2, 3), {"groups": 1}),
    "SeparableConv2D": (
        (5, 5, 2),
        lambda: layers.SeparableConv2D(3, 3),
        {"groups": 1, **_KERNEL},
    ),
    "LSTM": ((4, 2), lambda: layers.LSTM(3), {"time_major": False, "implementation": 2}),
    "GRU": ((4, 2), lambda: layers.GRU(3), {"time_major": False, "reset_after": True}),
    "SimpleRNN": ((4, 2), lambda: layers.SimpleRNN(3), {"time_major": False, "implementation": 1}),
    "BatchNormalization": (
        (4, 2),
        lambda: layers.BatchNormalization(momentum=0.9),
        {"virtual_batch_size": None, "fused": True, "axis": [2]},
    ),
    "SpatialDropout2D": (
        (3, 3, 2),
        lambda: layers.SpatialDropout2D(0.3),
        {"noise_shape": None, "seed": None, "data_format": "channels_last"},
    ),
    "LeakyReLU": ((3,), lambda: layers.LeakyReLU(0.4), {}),
}


@pytest.mark.parametrize("name", REPAIRED)
@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_a_repaired_file_matches_the_model(name: str, tmp_path: Path) -> None:
    shape, make, extra = REPAIRED[name]
    keras.utils.set_random_seed(4)
    body = make()
    head = layers.Dense(4, activation="softmax", name="y")
    model = keras.Sequential([keras.Input(shape, name="x"), body, layers.Flatten(), head])
    for variable in model.weights:
        variable.assign(np.random.default_rng(1).uniform(0.1, 0.9, variable.shape))
    entries = [old_layer(body, **extra), *(old_layer(layer) for layer in model.layers[1:])]
    if name == "LeakyReLU":
        entries[0]["config"]["alpha"] = entries[0]["config"].pop("negative_slope")
    path = tmp_path / "net.old"
    write_old(path.with_suffix(".h5"), model, old_sequential(shape, *entries))
    path.with_suffix(".h5").rename(path)  # the suffix is ignored
    x = np.random.default_rng(2).normal(size=(2, *shape)).astype(np.float32)
    output = open_model(path).runner(RunOptions())({"x": x})
    assert list(output) == ["y"]
    np.testing.assert_array_equal(output["y"], np.asarray(model(x, training=False)))


def test_a_gru_of_keras_2_has_one_bias() -> None:
    inner = {"class_name": "GRU", "config": {"name": "g", "units": 2}}
    copy = repaired(old_sequential((3, 2), inner), "net.h5")
    assert copy["config"]["layers"][1]["config"]["reset_after"] is False


def test_every_class_in_the_table_exists_in_keras() -> None:
    assert all(hasattr(layers, kind) for kind in DROPPED)


def test_a_file_of_2017(zoo: Path) -> None:
    """Keras can load it without a repair; both loaders give the same outputs."""
    path = zoo / "fer2013_mini_xception.hdf5"
    model = open_model(path)
    head = trace(model.graph()).head()
    assert (head.output, head.units, head.activation) == ("predictions", 7, "softmax")
    x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 1)).astype(np.float32)
    expected = np.asarray(keras.saving.load_model(path, compile=False)([x], training=False))
    output = model.runner(RunOptions())({"input_1": x})["predictions"]
    np.testing.assert_array_equal(output, expected)
    pruned = model.apply(Plan(MODES["slice"].edits(head, [0, 1, 2])))
    small = pruned.runner(RunOptions())({"input_1": x})["predictions"]
    kept = expected[:, :3].astype(np.float64)
    renormalized = kept / kept.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(small, renormalized, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("jobs_share_child")
def test_run_writes_every_kind_from_a_file_of_2017(zoo: Path, tmp_path: Path) -> None:
    path = zoo / "fer2013_mini_xception.hdf5"
    kinds = ["onnx", "tflite", "keras"]
    report = exporter.run(path, tmp_path / "out", keep="0-2", to=kinds, samples=2, bench=False)
    assert [artifact.kind for artifact in report.artifacts] == kinds
    stages = {(check.artifact, check.stage) for check in report.checks}
    assert len(stages) == 5  # the Keras file has no export check
    assert report.ok
    for kind in kinds:
        model = open_model(tmp_path / "out" / f"pruned.fp32.{kind}")
        assert trace(model.graph()).head().units == 3
