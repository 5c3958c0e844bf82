"""Several inputs and outputs, models inside models, and layers that are called twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, Model, Sequential, layers

from exporter.errors import ModelError
from exporter.formats import open_model
from exporter.formats.keras.model import KerasModel
from exporter.formats.model import Model as AnyModel
from exporter.formats.model import RunOptions
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Fill, Plan
from exporter.modes import MODES
from exporter.trace import trace

KEPT = [3, 0]


def seeded_model(build: Callable[[], Any]) -> KerasModel:
    keras.utils.set_random_seed(5)
    model = build()
    random = np.random.default_rng(6)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0.0, 0.5, variable.shape))
    return KerasModel(model)


def run(model: AnyModel) -> dict[str, Array]:
    graph, random = model.graph(), np.random.default_rng(7)
    shapes = {name: [n or 2 for n in graph.shape(name)] for name in sorted(graph.inputs)}
    values = {n: random.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}
    return model.runner(RunOptions())(values)


def cut(model: KerasModel, head: str) -> KerasModel:
    found = trace(model.graph()).head(head)
    return model.apply(Plan(MODES["slice"].edits(found, KEPT)))


# --- refused --------------------------------------------------------------------------------------


def _both_calls_are_outputs() -> Any:
    left, right, head = Input((3,), name="left"), Input((3,), name="right"), layers.Dense(4)
    head.name = "head"
    return Model([left, right], [head(left), head(right)])


def _in_and_out() -> Any:
    """The inner model computes the units, and the features of the units."""
    x = Input((3,), name="x")
    inner = Sequential([Input((3,)), layers.Dense(3, name="square")], name="inner")
    return Model(x, layers.Softmax(name="y")(inner(keras.ops.tanh(inner(x)))))


REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "two calls, two outputs": (_both_calls_are_outputs, "head", "Dense 'head' is called 2 times"),
    "a model called twice": (_in_and_out, "y", "Dense 'square' is called 2 times"),
}


@pytest.mark.parametrize(("build", "head", "message"), REFUSED.values(), ids=REFUSED)
def test_calls_that_would_need_different_weights(
    build: Callable[[], Any], head: str, message: str
) -> None:
    model = seeded_model(build)
    found = trace(model.graph()).head(head)
    kept = [0, 2]
    with pytest.raises(ModelError, match=message):
        model.apply(Plan(MODES["slice"].edits(found, kept)))


@pytest.mark.parametrize("tensor", ["separable/depthwise", "none"])
def test_tensors_inside_layers_cannot_be_outputs(tensor: str) -> None:
    x = Input((5, 5, 2), name="x")
    model = KerasModel(Model(x, layers.SeparableConv2D(3, 3, name="separable")(x)))
    with pytest.raises(ModelError, match="has no tensor"):
        model.apply(Plan((AddOutput(tensor, "shown"),)))


# --- accepted -------------------------------------------------------------------------------------


def _trunk() -> Any:
    left, right = Input((2,), name="left"), Input((3,), name="right")
    values = layers.Concatenate(name="both")([left, right])
    hidden = keras.ops.tanh(layers.Dense(5, name="hidden")(values) * 0.5)
    first = layers.Dense(4, activation="softmax", name="first")(hidden)
    second = layers.Dense(4, activation="sigmoid", name="second")(hidden - 1.0)
    return Model({"right": right, "left": left}, {"b": first, "a": second}, name="trunk")


def _nested_outputs() -> Any:
    inside, more = Input((3,)), Input((3,))
    hidden = layers.Add()([inside, more])
    ends = [layers.Dense(4, name="first")(hidden), layers.Dense(4, name="second")(hidden)]
    inner = Model([inside, more], ends, name="inner")
    x = Input((3,), name="x")
    one, two = inner([x, keras.ops.relu(x)])
    return Model(
        x, [layers.Softmax(name="first")(one), layers.Activation("relu", name="second")(two)]
    )


def _features_as_output() -> Any:
    x = Input((3,), name="x")
    features = layers.Dense(6, activation="relu", name="second")(x)
    return Model(x, [layers.Dense(4, name="first")(features), features])


SEVERAL: dict[str, Callable[[], Any]] = {
    "dictionaries in and out": _trunk,
    "outputs of an inner model": _nested_outputs,
    "an inner tensor as second output": _features_as_output,
}


@pytest.mark.parametrize("build", SEVERAL.values(), ids=SEVERAL)
def test_cutting_one_output_does_not_change_the_others(
    build: Callable[[], Any], tmp_path: Path
) -> None:
    model = seeded_model(build)
    head, before = trace(model.graph()).head("first"), run(model)
    z = run(model.apply(Plan((AddOutput(head.z, "z"),))))
    np.testing.assert_array_equal(z["second"], before["second"])
    pruned = cut(model, "first")
    after = run(pruned)
    assert list(after) == list(before)
    np.testing.assert_array_equal(after["second"], before["second"])
    expected = MODES["slice"].oracle(head, KEPT, z["z"]).y
    np.testing.assert_allclose(after["first"], expected, rtol=0, atol=1e-6)
    pruned.write(tmp_path / "small.keras")
    for name, values in run(open_model(tmp_path / "small.keras")).items():
        np.testing.assert_array_equal(values, after[name])


def test_inner_models_are_kept_and_frozen_layers_stay_frozen() -> None:
    model = seeded_model(_nested_outputs)
    inner = model.model.get_layer("inner")
    inner.get_layer("second").trainable = False
    pruned = cut(model, "first").model.get_layer("inner")
    assert type(pruned) is type(inner)
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in inner.layers]
    assert pruned.get_layer("first").units == 2
    assert not pruned.get_layer("second").trainable
    assert pruned.get_layer("first").trainable
    assert inner.get_layer("first").units == 4


def test_an_input_without_a_name() -> None:
    first = Input((3,))
    model = seeded_model(lambda: Model(first, layers.Dense(4, name="head")(first)))
    (name,) = model.graph().inputs
    assert name == model.model.layers[0].name
    assert cut(model, "head").graph().inputs == (name,)


def test_names_inside_an_inner_model() -> None:
    graph = seeded_model(_nested_outputs).graph()
    assert {"inner/first", "inner/first/kernel", "first", "second"} <= set(graph.tensors)
    assert graph.outputs == ("first", "second")


def test_a_layer_called_twice_is_built_once() -> None:
    x, y, head = Input((3,), name="x"), Input((3,), name="y"), layers.Dense(4, name="head")
    model = seeded_model(lambda: Model([x, y], layers.Average(name="mean")([head(x), head(y)])))
    pruned = cut(model, "mean")
    assert sum(isinstance(layer, layers.Dense) for layer in pruned.model.layers) == 1
    np.testing.assert_allclose(run(pruned)["mean"], run(model)["mean"][:, KEPT], atol=1e-6)


def test_a_model_called_twice_is_built_once() -> None:
    def build() -> Any:
        tower = Sequential([Input((3,)), layers.Dense(4, name="head")], name="tower")
        x, y = Input((3,), name="x"), Input((3,), name="y")
        return Model([x, y], layers.Maximum(name="most")([tower(x), tower(y)]))

    model = seeded_model(build)
    pruned = cut(model, "most")
    assert [layer.name for layer in pruned.model.layers].count("tower") == 1
    np.testing.assert_allclose(run(pruned)["most"], run(model)["most"][:, KEPT], atol=1e-6)
    values = run(model.apply(Plan((AddOutput("tower@1/head", "inner"),))))
    np.testing.assert_array_equal(values["most"], run(model)["most"])
    assert values["inner"].shape == (2, 4)


def test_the_output_of_a_second_call_gets_a_number() -> None:
    x, square = Input((3,), name="x"), layers.Dense(3, name="square")
    model = seeded_model(lambda: Model(x, square(square(x))))
    assert model.graph().outputs == ("square_1",)
    first = run(model.apply(Plan((AddOutput("square", "first"),))))
    again = np.asarray(square(first["first"]))
    np.testing.assert_allclose(first["square_1"], again, atol=1e-6)


def test_a_weight_can_be_changed_for_all_calls() -> None:
    x, y, head = Input((3,), name="x"), Input((3,), name="y"), layers.Dense(4, name="head")
    model = seeded_model(lambda: Model([x, y], layers.Add(name="sum")([head(x), head(y)])))
    uses = tuple(
        use
        for constant in trace(model.graph()).head().constants
        if constant.name == "head/bias"
        for use in constant.uses
    )
    filled = model.apply(Plan((Fill("head/bias", 0, np.array([1]), 9.0, uses),)))
    assert filled.model.get_layer("head").bias[1] == 9.0
