"""Live models with custom classes are converted, and the converted files are pruned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import exporter
from exporter.conversion.options import ConvertOptions
from exporter.conversion.process import Child
from exporter.conversion.remote import open_live
from exporter.errors import ExporterError, ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.graph.edits import Plan
from exporter.trace import trace
from tests.builders.keras_models import softmax

pytestmark = pytest.mark.usefixtures("jobs_share_child")


class Net(keras.Model):  # type: ignore[misc]  # Keras is untyped
    """A subclassed model as in tutorials."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.hidden = keras.layers.Dense(6, activation="relu")
        self.head = keras.layers.Dense(5, activation="softmax")

    def call(self, x: Any) -> Any:
        return self.head(self.hidden(x))


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """A registered custom layer."""

    def call(self, x: Any) -> Any:
        return x * 2.0


def _net() -> Any:
    keras.utils.set_random_seed(1)
    model = Net()
    model(np.zeros((2, 4), np.float32))
    return model


def _custom_body() -> Any:
    keras.utils.set_random_seed(2)
    x = keras.Input((4,), name="features")
    values = Doubled(name="odd")(x)
    other = keras.layers.Dense(3, name="other")(values)
    return keras.Model(x, [keras.layers.Dense(5, name="scores")(values), other], name="own")


X = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)


# --- refused --------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[Any], Any], type[ExporterError], str]] = {
    "pruned as Keras": (
        lambda model: model.apply(Plan(())),
        ModelError,
        "Net 'net' cannot be pruned before it is converted: layer 'net' is of the class 'Net'",
    ),
    "written": (lambda model: model.write(Path("x.keras")), ModelError, "Net 'net' cannot be writ"),
    "without values": (
        lambda model: model.runner(RunOptions())({}),
        UsageError,
        "no values for the input 'args_0'",
    ),
    "no head": (
        lambda model: trace(model.graph()).head(),
        ModelError,
        "Net 'net': layer 'net' is of the class 'Net', which is not of Keras",
    ),
}


@pytest.mark.parametrize(("do", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(
    child: Child, do: Callable[[Any], Any], error: type[ExporterError], message: str
) -> None:
    model = open_live(_net(), child)
    with pytest.raises(error, match=message):
        do(model)


def test_never_called(child: Child) -> None:
    with pytest.raises(ModelError, match="the model 'net' cannot be exported"):
        open_live(Net(), child)


def test_pruned_in_keras_is_refused_by_class() -> None:
    with pytest.raises(ModelError, match="class 'Net'"):
        exporter.prune(_net(), keep=[0])


# --- accepted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize(
    ("build", "outputs"), [(_net, ("output_0",)), (_custom_body, ("scores", "other"))]
)
def test_converted(
    child: Child, tmp_path: Path, build: Callable[[], Any], outputs: tuple[str, ...], kind: str
) -> None:
    live = build()
    path, model = tmp_path / f"net.{kind}", open_live(live, child)
    (name,) = model.graph().inputs
    assert model.graph().outputs == outputs
    model.convert(kind, path, ConvertOptions())
    expected = dict(zip(outputs, keras.tree.flatten(live(X, training=False)), strict=True))
    for runnable in (model, open_model(path)):
        results = runnable.runner(RunOptions())({name: X})
        assert set(results) == set(outputs)
        for output, values in expected.items():
            np.testing.assert_allclose(results[output], values, rtol=0, atol=1e-6)


def test_arrays_in_calls_are_cut_in_the_converted_file(tmp_path: Path) -> None:
    """Temperatures and calibrations: not weights in Keras, where the cut is refused."""
    temperature = np.array([1, 2, 0.5, 3, 1.5], np.float32)
    calibrated = np.array([0.5, 1, 2, 0.75, 1.25], np.float32)
    x = keras.Input((4,), name="x")
    keras.utils.set_random_seed(4)
    z = keras.layers.Dense(5, bias_initializer="normal")(x)
    y = keras.layers.Softmax()(z / temperature) * calibrated
    live, logits, kept = keras.Model(x, y), keras.Model(x, z), [1, 3]
    report = exporter.run(live, tmp_path / "out", keep=kept, bench=False, samples=2)
    assert report.ok
    values = np.asarray(logits(X), np.float64) / temperature
    for kind in ("onnx", "tflite"):
        model = open_model(tmp_path / "out" / f"pruned.fp32.{kind}")
        (output,) = model.runner(RunOptions())({"x": X}).values()
        expected = softmax(values[:, kept]) * calibrated[kept]
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


def test_run_prunes_the_files_of_a_subclassed_model(tmp_path: Path) -> None:
    live = _net()
    report = exporter.run(live, tmp_path / "out", keep=[3, 1], bench=False, samples=2)
    assert report.ok
    assert {check.stage for check in report.checks} == {"cut", "export"}
    logits = np.asarray(live.hidden(X), np.float64) @ np.asarray(live.head.kernel, np.float64)
    expected = softmax(logits[:, [1, 3]])  # its bias is 0
    for kind in ("onnx", "tflite"):
        model = open_model(tmp_path / "out" / f"pruned.fp32.{kind}")
        output = model.runner(RunOptions())({"args_0": X})["output_0"]
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)
