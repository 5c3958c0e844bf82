"""Every kind of Keras model runs through `exporter.run`, to both formats.

The expected outputs are the original's outputs in Keras: the kept columns, divided by their sum
after a softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import Input, Model, layers, ops

import exporter
from exporter.data.samples import synthetic_samples
from exporter.errors import ExporterError, ModelError, UsageError
from exporter.formats import KINDS, open_model
from exporter.formats.model import RunOptions
from exporter.graph import Array

UNITS, KEPT = 7, [1, 5, 6]
EDGE = tuple(name for name, kind in KINDS.items() if kind.converter)
FLOAT32, FLOAT16, BFLOAT16 = 1e-5, 3e-3, 2e-2  # tolerances


pytestmark = pytest.mark.usefixtures("jobs_share_child")


def head(x: Any, activation: str | None = "softmax", name: str = "y") -> Any:
    return layers.Dense(UNITS, activation=activation, name=name)(x)


# --- keras.ops ------------------------------------------------------------------------------------


def _ops_in_the_body() -> Any:
    x = Input((6,), name="x")
    mixed = ops.concatenate([ops.tanh(x * 2.0 - 1.0), ops.maximum(x, 0.5)], axis=-1)
    return Model(x, head(ops.sqrt(ops.abs(mixed) + 1.0)))


def _ops_after_the_head() -> Any:
    x = Input((6,), name="x")
    return Model(x, ops.softmax(head(x, None, "z") / 2.0, axis=-1))


def _ops_over_time() -> Any:
    x = Input((4, 6), name="x")
    return Model(x, ops.mean(head(x, None, "z"), axis=1))


def _ops_that_move_units() -> Any:
    x = Input((4, 6), name="x")
    return Model(x, ops.transpose(head(x, None, "z"), (0, 2, 1)))


# --- models inside models, calls ------------------------------------------------------------------


def _body() -> Any:
    parts = [Input((6,)), layers.Dense(8, activation="relu"), layers.BatchNormalization()]
    return keras.Sequential(parts, name="body")


def _body_in_a_model() -> Any:
    x = Input((6,), name="x")
    return Model(x, head(_body()(x)))


def _head_in_a_model_in_a_model() -> Any:
    inner = Input((6,))
    innermost = Model(inner, head(inner), name="innermost")
    middle = Input((6,))
    outer = Model(middle, innermost(layers.Dense(6, activation="tanh")(middle)), name="middle")
    x = Input((6,), name="x")
    return Model(x, outer(x))


def _called_twice() -> Any:
    one, other = Input((6,), name="one"), Input((6,), name="other")
    tower = _body()
    return Model([one, other], head(layers.Subtract()([tower(one), tower(other)])))


def _head_called_twice() -> Any:
    one, other = Input((6,), name="one"), Input((6,), name="other")
    dense = layers.Dense(UNITS, name="z")
    return Model([one, other], layers.Softmax(name="y")(layers.Add()([dense(one), dense(other)])))


# --- inputs and outputs ---------------------------------------------------------------------------


def _inputs_by_name() -> Any:
    inputs = {
        "image": Input((4, 4, 2), name="image"),
        "ids": Input((3,), dtype="int32", name="ids"),
    }
    image = layers.Flatten()(layers.Conv2D(3, 3)(inputs["image"]))
    words = layers.Flatten()(layers.Embedding(10, 4)(inputs["ids"]))
    return Model(inputs, head(layers.Concatenate()([image, words])))


def _two_heads() -> Any:
    x = Input((6,), name="x")
    features = layers.Dense(8, activation="relu")(x)
    return Model(x, [layers.Dense(4, name="other")(features), head(features)])


def _outputs_by_name() -> Any:
    x = Input((6,), name="x")
    z = head(x, None, "z")
    return Model(
        x, {"probability": layers.Softmax(name="y")(z), "rest": layers.Dense(2, name="r")(x)}
    )


def _steps() -> Any:
    x = Input((5, 3), name="x")
    return Model(x, head(layers.GRU(6)(layers.LSTM(4, return_sequences=True)(x))))


# --- policies -------------------------------------------------------------------------------------


def _under(policy: str) -> Callable[[], Any]:
    def build() -> Any:
        before = keras.mixed_precision.dtype_policy()
        keras.mixed_precision.set_dtype_policy(policy)
        try:
            x = Input((6, 6, 2), name="x")
            features = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(x))
            return Model(x, head(layers.GlobalAveragePooling2D()(features)))
        finally:
            keras.mixed_precision.set_dtype_policy(before)

    return build


def _head_in_float32() -> Any:
    """As in Keras' guide to mixed precision."""
    x = Input((6,), name="x")
    z = layers.Dense(UNITS, dtype="mixed_float16", name="z")(x)
    return Model(x, layers.Activation("softmax", dtype="float32", name="y")(z))


# --- refused --------------------------------------------------------------------------------------


class Own(keras.Model):  # type: ignore[misc] # Keras has no types
    """A subclassed model without a layer that makes units."""

    def call(self, inputs: Any) -> Any:
        return ops.cumsum(inputs, axis=-1)


def _subclassed() -> Any:
    model = Own(name="own")
    model(np.zeros((1, 6), np.float32))
    return model


def _sorted() -> Any:
    x = Input((6,), name="x")
    return Model(x, ops.sort(head(x), axis=-1))


def _code() -> Any:
    x = Input((6,), name="x")
    return Model(x, head(layers.Lambda(lambda values: values * 2.0, name="twice")(x)))


REFUSED: Mapping[str, tuple[Callable[[], Any], type[ExporterError], str]] = {
    "units are sorted": (_sorted, ModelError, "output 'sort(_\\d+)?'"),
    "a Lambda": (_code, ModelError, "layer 'twice' is a Lambda"),
    "a subclassed model without a head": (_subclassed, ModelError, "(?i)cumsum"),
    "two heads without a choice": (_two_heads, UsageError, "several heads: 'other', 'y'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, tmp_path: Path) -> None:
    build, error, fact = REFUSED[case]
    with pytest.raises(error, match=fact):
        exporter.run(build(), tmp_path / "out", keep=[0, 1], bench=False, samples=2)
    assert not (tmp_path / "out").exists()


# --- run ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A model, and the tolerance for the files.

    Attributes:
        renormalizes: the outputs are divided by the sum of the kept units.
        head: name of the output that is cut; None if there is only one.
        axis: unit axis of the output.
    """

    build: Callable[[], Any]
    limit: float = FLOAT32
    renormalizes: bool = True
    head: str | None = None
    axis: int = -1


CASES: Mapping[str, Case] = {
    "keras.ops in the body": Case(_ops_in_the_body),
    "keras.ops after the head": Case(_ops_after_the_head),
    "keras.ops over time": Case(_ops_over_time, renormalizes=False),
    "keras.ops that move units": Case(_ops_that_move_units, renormalizes=False, axis=1),
    "body in an inner model": Case(_body_in_a_model),
    "head in the innermost of three models": Case(_head_in_a_model_in_a_model),
    "inner model called twice": Case(_called_twice),
    "head called twice": Case(_head_called_twice),
    "inputs by name": Case(_inputs_by_name),
    "two heads": Case(_two_heads, head="y"),
    "outputs by name": Case(_outputs_by_name, head="y"),
    "LSTM and GRU": Case(_steps),
    "mixed_float16": Case(_under("mixed_float16"), FLOAT16),
    "float16": Case(_under("float16"), FLOAT16),
    "mixed_bfloat16": Case(_under("mixed_bfloat16"), BFLOAT16),
    "bfloat16": Case(_under("bfloat16"), BFLOAT16),
    "float16 with softmax in float32": Case(_head_in_float32, FLOAT16),
}


def seeded(build: Callable[[], Any]) -> Any:
    keras.utils.set_random_seed(3)
    model = build()
    random = np.random.default_rng(4)
    for variable in model.weights:
        low = 0.5 if "variance" in variable.path else -0.7
        variable.assign(random.uniform(low, 0.9, variable.shape))
    return model


def in_keras(model: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    values = [inputs[tensor.name] for tensor in model.inputs]
    packed = keras.tree.pack_sequence_as(model.input, values) if len(values) > 1 else values[0]
    results = keras.tree.flatten(model(packed, training=False))
    values = [np.asarray(ops.convert_to_numpy(each)).astype(np.float64) for each in results]
    return dict(zip(model.output_names, values, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_run_to_both_formats(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = seeded(case.build)
    head_option: dict[str, Any] = {"head": case.head} if case.head else {}
    report = exporter.run(model, tmp_path / "out", keep=KEPT, bench=False, samples=3, **head_option)
    assert report.ok
    assert report.remap is not None
    assert report.remap.heads[0].kept == tuple(KEPT)
    stages = {(check.stage, check.artifact) for check in report.checks}
    names = {f"pruned.fp32.{kind}" for kind in EDGE}
    assert stages == {(stage, file) for stage in ("cut", "export") for file in names}
    assert not any("went through tf2onnx" in warning for warning in report.warnings)
    for file in names:
        compare(model, tmp_path / "out" / file, case)


def compare(model: Any, path: Path, case: Case) -> None:
    opened = open_model(path)
    inputs = next(iter(synthetic_samples(opened.graph(), 1, 9).feeds()))
    originals = in_keras(model, inputs)
    outputs = opened.runner(RunOptions())(inputs)
    assert set(outputs) == set(originals)
    for output, values in originals.items():
        expected = values
        if output == (case.head or output):
            expected = np.take(values, KEPT, axis=case.axis)
            if case.renormalizes:
                expected = expected / expected.sum(axis=case.axis, keepdims=True)
        assert outputs[output].shape == expected.shape
        np.testing.assert_allclose(outputs[output], expected, rtol=0, atol=case.limit)


def test_units_in_another_order_fail(tmp_path: Path) -> None:
    model, case = seeded(_ops_in_the_body), CASES["keras.ops in the body"]
    exporter.run(model, tmp_path / "out", keep=[1, 5, 4], bench=False, samples=2, to="onnx")
    with pytest.raises(AssertionError):
        compare(model, tmp_path / "out" / "pruned.fp32.onnx", case)
