"""Heads followed by one of the layers: converted, and cut in every kind of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import exporter
from exporter.conversion import to_onnx, to_tflite
from exporter.errors import ModelError, UsageError
from exporter.formats.keras.model import KerasModel
from exporter.formats.model import RunOptions
from exporter.graph import Array
from tests.builders.keras_models import softmax
from tests.builders.layer_models import LABELS, UNITS, model_with

KEPT, ON = [1, 2, 3], [0, 1, 3]


def floored(z: Array, on: Array) -> Array:
    return softmax(np.where(on, z, -1e4))


Case = tuple[Callable[[], list[Any]], Callable[[Array], Array], Callable[[Array, Array], Array]]

FLAGS = np.isin(np.arange(UNITS), ON)
CASES: dict[str, Case] = {
    "a mask": (
        lambda: [exporter.UnitMask(labels=LABELS, name="own"), keras.layers.Softmax()],
        lambda z: np.broadcast_to(FLAGS, z.shape),
        floored,
    ),
    "a condition": (
        lambda: [exporter.ConditionalUnits("logit > 0", name="own"), keras.layers.Softmax()],
        lambda z: z > 0,
        floored,
    ),
}
MIXED: dict[str, Callable[[], list[Any]]] = {
    "the largest": lambda: [exporter.ConditionalUnits("top:2", "softmax", name="own")],
    "a probability": lambda: [exporter.ConditionalUnits("> 0.2", "softmax", name="own")],
}


def converted(model: Any, kind: str, folder: Path) -> Path:
    path = folder / f"model.{kind}"
    opened = KerasModel(model)
    if kind == "keras":
        opened.write(path)
    else:
        convert = {"onnx": to_onnx.convert, "tflite": to_tflite.convert}[kind]
        convert(opened, path)
    return path


def answer(model: Any, given: Array) -> Array:
    run = model.runner(RunOptions())
    each = [next(iter(run({"features": given[i : i + 1]}).values())) for i in range(len(given))]
    return np.concatenate(each)


def features() -> Array:
    return np.random.default_rng(6).normal(size=(5, 3)).astype(np.float32) * 2


@pytest.mark.parametrize("kind", ["keras", "onnx", "tflite"])
@pytest.mark.parametrize("case", CASES)
def test_mask_is_cut_with_its_units(case: str, kind: str, tmp_path: Path) -> None:
    layers, chosen, shown = CASES[case]
    model = model_with(*layers())
    if case == "a mask":
        model.get_layer("own").keep(ON)
    kernel, bias = model.get_layer("units").get_weights()
    given = features()
    z = given @ kernel + bias
    opened = exporter.open_model(converted(model, kind, tmp_path))
    assert np.allclose(answer(opened, given), shown(z, chosen(z)), atol=1e-6)
    small = exporter.prune(opened, keep=KEPT).model
    expected = shown(z[:, KEPT], chosen(z)[:, KEPT])
    assert np.allclose(answer(small, given), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("case", MIXED)
def test_conditions_on_all_units_are_exported_but_not_cut(
    case: str, kind: str, tmp_path: Path
) -> None:
    model = model_with(*MIXED[case]())
    given = features()
    opened = exporter.open_model(converted(model, kind, tmp_path))
    shapes = [opened.graph().shape(name)[1:] for name in opened.graph().outputs]
    assert shapes == [(UNITS,)]
    assert np.allclose(answer(opened, given), np.asarray(model(given)), atol=1e-6)
    with pytest.raises(ModelError, match="no head can be cut"):
        exporter.prune(opened, keep=KEPT)


def test_labels_of_a_mask_are_cut(tmp_path: Path) -> None:
    model = model_with(exporter.UnitMask(labels=LABELS, name="own"), keras.layers.Softmax())
    model.get_layer("own").keep(ON)
    small = exporter.prune(model, keep=[3, 1, 2], keep_order=True)
    small.save(tmp_path / "small.keras")
    for cut in (small, keras.saving.load_model(tmp_path / "small.keras")):
        mask = cut.get_layer("own")
        assert mask.labels == (LABELS[3], LABELS[1], LABELS[2])
        assert mask.kept == (0, 1)  # units 3 and 1 were on
        assert mask.keep(LABELS[2]).kept == (2,)


def test_selection_accepts_the_labels_of_a_mask() -> None:
    """The labels of the mask after the head are used, not those of earlier layers."""
    x = keras.Input((3,))
    features = exporter.UnitMask(labels=["p", "q"])(keras.layers.Dense(2)(x))
    z = keras.layers.Dense(UNITS)(features)
    shown = keras.layers.Softmax()(exporter.UnitMask(labels=LABELS, name="own")(z))
    small = exporter.prune(keras.Model(x, shown), keep=[LABELS[3], LABELS[1]])
    assert small.get_layer("own").labels == (LABELS[1], LABELS[3])
    assert small.remap.of().labels == (LABELS[1], LABELS[3])
    with pytest.raises(UsageError, match="there are no labels"):  # none after the head
        exporter.prune(keras.Model(x, keras.layers.Softmax()(z)), keep=[LABELS[3]])
    joined = keras.layers.Add()([z, keras.layers.Dense(UNITS)(features)])
    with pytest.raises(UsageError, match="there are no labels"):
        exporter.prune(keras.Model(x, joined), keep=[LABELS[3]])


@pytest.mark.parametrize("kind", ["keras", "onnx", "tflite"])
@pytest.mark.parametrize("condition", ["logit > 0", "> 0.6", "abs < 2"])
def test_conditions_on_single_units_are_cut(condition: str, kind: str, tmp_path: Path) -> None:
    model = model_with(exporter.ConditionalUnits(condition, "sigmoid", name="own"))
    kernel, bias = model.get_layer("units").get_weights()
    given = features()
    z = (given @ kernel + bias)[:, KEPT].astype(np.float64)
    shares = 1 / (1 + np.exp(-z))
    passed = {"logit > 0": z > 0, "> 0.6": shares > 0.6, "abs < 2": np.abs(z) < 2}
    small = exporter.prune(converted(model, kind, tmp_path), keep=KEPT).model
    assert np.allclose(answer(small, given), np.where(passed[condition], shares, 0.0), atol=1e-6)


@pytest.mark.parametrize(
    ("condition", "activation"),
    [("top:2", "linear"), ("logit > 0", "softmax"), ("> 0.2", "softmax")],
)
def test_keras_condition_on_all_units_is_refused(condition: str, activation: Any) -> None:
    model = model_with(exporter.ConditionalUnits(condition, activation, name="own"))
    with pytest.raises(ModelError, match=r"ConditionalUnits 'own': .* looks at other units"):
        exporter.prune(model, keep=KEPT)
