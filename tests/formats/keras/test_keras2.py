"""Files of Keras 2 are repaired if their outputs do not change, and refused by name otherwise."""

from __future__ import annotations

import io
import zipfile
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
from exporter.formats.keras.keras2 import DROPPED, LACKING, REPLACED, is_keras_2, repaired
from exporter.formats.model import RunOptions
from exporter.graph.edits import Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders.keras2_configs import keras_2_config, write_keras_2
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
    "several axes": (
        "BatchNormalization",
        {"axis": [1, 2]},
        r"BatchNormalization 'odd' normalizes along the axes \[1, 2\], Keras 3 along one",
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
    assert all(hasattr(layers, REPLACED.get(kind, kind)) for kind in [*DROPPED, *REPLACED])
    assert not any(hasattr(layers, kind) for kind in LACKING)


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


# --- classes and functions that Keras 3 lacks or computes differently -----------------------------


def _opened(path: Path, model: Any, config: dict[str, Any], x: Any) -> Any:
    write_keras_2(path, model, config)
    opened = open_model(path)
    return next(iter(opened.runner(RunOptions())({opened.graph().inputs[0]: x}).values()))


def _one_layer(kind: str, **settings: Any) -> dict[str, Any]:
    entry = {"class_name": kind, "config": {"name": "odd", "trainable": True, **settings}}
    return old_sequential((5,), entry)


X = np.random.default_rng(3).normal(size=(2, 5)).astype(np.float32) * 4
COMPUTED = {
    "hard sigmoid": ("Activation", {"activation": "hard_sigmoid"}, np.clip(0.2 * X + 0.5, 0, 1)),
    "threshold": ("ThresholdedReLU", {"theta": 0.7}, np.where(X > 0.7, X, 0)),
    "trained away": ("RandomHeight", {"factor": 0.1, "interpolation": "nearest", "seed": 3}, X),
}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(("kind", "settings", "expected"), COMPUTED.values(), ids=COMPUTED)
@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_computes_as_keras_2_did(
    tmp_path: Path, suffix: str, kind: str, settings: dict[str, Any], expected: Any
) -> None:
    empty = keras.Sequential([keras.Input((5,)), layers.Identity()])
    answer = _opened(tmp_path / f"net{suffix}", empty, _one_layer(kind, **settings), X)
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_a_class_without_a_counterpart_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    empty = keras.Sequential([keras.Input((5,)), layers.Identity()])
    message = "net.*: layer 'odd' is a LocallyConnected1D, which Keras 3 lacks\nhint: save it as a"
    with pytest.raises(ModelError, match=message):
        _opened(tmp_path / f"net{suffix}", empty, _one_layer("LocallyConnected1D", filters=2), X)


# --- models inside models -------------------------------------------------------------------------

IMAGE = (6, 6, 3)


def _base(name: str = "base") -> Any:
    x = keras.Input(IMAGE)
    y = layers.BatchNormalization(name=f"{name}_norm")(layers.Conv2D(4, 3)(x))
    return keras.Model(x, layers.ReLU()(y), name=name)


def _scores(values: Any) -> Any:
    return layers.Dense(5, activation="softmax")(layers.Flatten()(values))


def _transfer() -> Any:
    base, x = _base(), keras.Input(IMAGE)
    base.trainable = False
    return keras.Model(x, _scores(base(x, training=False)))


def _sequential_parts() -> Any:
    base = keras.Sequential([keras.Input(IMAGE), _base(), layers.Flatten()], name="features")
    head = [keras.Input((64,)), layers.Dense(6), layers.Dense(5, activation="softmax")]
    return keras.Sequential([keras.Input(IMAGE), base, keras.Sequential(head, name="classifier")])


def _siamese() -> Any:
    base, left, right = _base(), keras.Input(IMAGE), keras.Input(IMAGE)
    return keras.Model([left, right], _scores(layers.Subtract()([base(left), base(right)])))


def _calls_of_output() -> Any:
    """Two outputs are two calls of one inner model, the second on the first one's result."""
    a, x = keras.Input((5,)), keras.Input((5,))
    inner = keras.Model(a, layers.Dense(5, activation="softmax")(a), name="inner")
    first = inner(x)
    return keras.Model(x, [first, inner(layers.Dense(5)(first))])


def _several_ends() -> Any:
    a, b = keras.Input((4,)), keras.Input((3,))
    both = layers.Concatenate()([a, b])
    inner = keras.Model([a, b], [layers.Dense(5)(both), layers.Dense(6)(both)], name="two")
    x, y = keras.Input((4,)), keras.Input((3,))
    first, second = inner([x, y])
    return keras.Model([x, y], [_scores(second), _scores(first)])


def _shared_layer() -> Any:
    x, dense = keras.Input((5,)), layers.Dense(5)
    return keras.Model(x, _scores(layers.Add()([dense(dense(x)), x])))


def _each_step() -> Any:
    parts = [layers.TimeDistributed(_base()), layers.Flatten(), layers.Dense(5)]
    return keras.Sequential([keras.Input((2, *IMAGE)), *parts])


def _states() -> Any:
    x, y = keras.Input((4, 3)), keras.Input((2, 3))
    _, h, c = layers.LSTM(6, return_state=True)(x)
    return keras.Model([x, y], _scores(layers.LSTM(6)(y, initial_state=[h, c])))


def _keywords() -> Any:
    x, y = keras.Input((4, 3)), keras.Input((2, 3))
    return keras.Model([x, y], _scores(layers.MultiHeadAttention(2, 3)(x, value=y)))


NESTED: list[Callable[[], Any]] = [
    *(_transfer, _sequential_parts, _siamese, _calls_of_output, _several_ends, _shared_layer),
    *(_each_step, _states, _keywords),
]


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("make", NESTED)
@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_calls_are_repeated(tmp_path: Path, make: Callable[[], Any], suffix: str) -> None:
    keras.utils.set_random_seed(5)
    model, random = make(), np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(random.uniform(0.1, 0.9, variable.shape))
    inputs = [random.normal(size=(2, *t.shape[1:])).astype(np.float32) for t in model.inputs]
    write_keras_2(tmp_path / f"net{suffix}", model, keras_2_config(model))
    opened = open_model(tmp_path / f"net{suffix}")
    values = dict(zip(opened.graph().inputs, inputs, strict=True))
    answers = opened.runner(RunOptions())(values)
    expected = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=False))
    for answer, array in zip(answers.values(), expected, strict=True):
        np.testing.assert_array_equal(answer, np.asarray(array))


@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_a_head_in_an_inner_model_is_cut(tmp_path: Path) -> None:
    model, x = _sequential_parts(), np.random.default_rng(2).normal(size=(2, *IMAGE))
    write_keras_2(tmp_path / "net.h5", model, keras_2_config(model), "2.8.0")
    opened = open_model(tmp_path / "net.h5")
    head = trace(opened.graph()).head()
    pruned = opened.apply(Plan(MODES["slice"].edits(head, [1, 3])))
    (small,) = pruned.runner(RunOptions())({opened.graph().inputs[0]: x}).values()
    kept = np.asarray(model(x, training=False), np.float64)[:, [1, 3]]
    np.testing.assert_allclose(small, kept / kept.sum(axis=1, keepdims=True), rtol=0, atol=1e-6)


def test_a_call_that_reads_an_unknown_output_is_refused(tmp_path: Path) -> None:
    model = _shared_layer()
    config = keras_2_config(model)
    config["config"]["layers"][1]["inbound_nodes"][0] = [[model.layers[-1].name, 0, 0, {}]]
    write_keras_2(tmp_path / "net.keras", model, config)
    with pytest.raises(ModelError, match="read outputs that no call makes"):
        open_model(tmp_path / "net.keras")


def test_an_argument_that_keras_3_lacks_is_named(tmp_path: Path) -> None:
    model = _shared_layer()
    config = keras_2_config(model)
    config["config"]["layers"][-1]["inbound_nodes"][0][0][3] = {"odd": 1}
    write_keras_2(tmp_path / "net.keras", model, config)
    with pytest.raises(ModelError, match=r"Dense '.*' is called with odd, and Keras 3 reports"):
        open_model(tmp_path / "net.keras")


def _write_with_old_groups(path: Path, step: int) -> None:
    """Rename the groups of a fixed archive; a layer with weights counts as often as `step`."""
    names = {
        "layers/sequential": "sequential",
        "layers/sequential_1": f"sequential_{step}",
        "layers/sequential/layers/dense": "dense",
        "layers/sequential/layers/dense_1": f"dense_{step}",
        "layers/sequential_1/layers/time_distributed": "time_distributed",
    }
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        for old in sorted(names, key=len, reverse=True):
            group, name = file[old].parent.parent, old.rpartition("/")[2]
            group.move(f"layers/{name}", f"_layer_checkpoint_dependencies/{names[old]}")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "model.weights.h5": weights.getvalue()}.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(("release", "step"), [("2.13.1", 2), ("2.14.0", 1)])
def test_weights_in_groups_of_older_releases(tmp_path: Path, release: str, step: int) -> None:
    keras.utils.set_random_seed(3)
    first = keras.Sequential([keras.Input((4, 3)), layers.Dense(5), layers.Dense(2)], name="first")
    each = layers.TimeDistributed(layers.Dense(3))
    model = keras.Sequential([keras.Input((4, 3)), first, keras.Sequential([each], name="second")])
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    expected = np.asarray(model(x))
    write_keras_2(tmp_path / "net.keras", model, keras_2_config(model), release)
    _write_with_old_groups(tmp_path / "net.keras", step)
    opened = open_model(tmp_path / "net.keras")
    (answer,) = opened.runner(RunOptions())({opened.graph().inputs[0]: x}).values()
    np.testing.assert_array_equal(answer, expected)
