"""Removing channels and refitting what reads them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from exporter.data.samples import Samples
from exporter.errors import ModelError, UsageError
from exporter.formats.model import Model, RunOptions
from exporter.formats.onnx import OnnxModel
from exporter.graph import Array, Use
from exporter.graph.edits import Plan, Replace
from exporter.graph.multiply_adds import multiply_adds
from exporter.trimming.eliminate import Regression, eliminate
from exporter.trimming.moments import Moments
from exporter.trimming.outputs import Observed, Reference
from exporter.trimming.refit import refit
from exporter.trimming.trimmer import FitOptions, Trimmer
from tests.builders.channel_models import NETWORKS, SIDE, Network, network
from tests.builders.onnx_models import model as onnx_model
from tests.builders.onnx_models import node, numbers, run

EVERY_WIDTH = FitOptions(multiple=1)


def samples(count: int = 60, seed: int = 1) -> Samples:
    return Samples({"x": numbers(count, 1, 3, SIDE, SIDE, seed=seed)}, "noise")


def trimmer(model: OnnxModel, count: int = 60, fit: FitOptions = EVERY_WIDTH) -> Trimmer:
    return Trimmer(model, samples(count), RunOptions(), fit)


def outputs(model: Model) -> Array:
    assert isinstance(model, OnnxModel)
    return run(model, {"x": numbers(20, 3, SIDE, SIDE, seed=2)}, plain=True)["y"]


def test_trimming_nothing_is_the_identity() -> None:
    model = network("residual")
    whole = trimmer(model)
    assert whole.build(whole.path()[0].widths) is model


@pytest.mark.parametrize("activation", [False, True])
def test_combinations_of_other_channels_are_removed_exactly(activation: bool) -> None:
    """Zero channels, and channels that others give exactly, do not change the outputs."""
    net = Network()
    a = net.conv("x", 9)
    kernel, bias = net.constants["c0"], net.constants["c1"]
    kernel[3], bias[3] = 0.0, 0.0
    kernel[5], bias[5] = 2.0 * kernel[1], 2.0 * bias[1]  # ReLU keeps this
    if not activation:
        kernel[8] = kernel[0] - 0.5 * kernel[2] + kernel[7]
        bias[8] = bias[0] - 0.5 * bias[2] + bias[7]
    b = net.conv(net.relu(a) if activation else a, 6, strides=[2, 2])
    model = net.done(net.flat(net.mean(net.relu(b)), 6))
    removed = [3, 5] if activation else [3, 5, 8]
    found = trimmer(model)
    small = found.without({"t0": np.setdiff1d(np.arange(9), removed)})
    assert small.graph().shape("t0")[1] == 9 - len(removed)
    assert_allclose(outputs(small), outputs(model), atol=1e-6)
    group = found.scored[0]
    assert {3} <= set(group.elimination.order[: len(removed)].tolist())
    assert group.elimination.error(9 - len(removed)) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_refit_is_nearer_than_removal(name: str) -> None:
    model = network(name)
    fitted = trimmer(model, 150)
    step = next(step for step in fitted.path() if step.cost < 0.6)
    plain = trimmer(model, 150, FitOptions(multiple=1, refits=False))
    plain.__dict__["scored"] = fitted.scored
    new = samples(50, seed=5)
    reference = Reference(model, fitted.observed, new, RunOptions())
    small = fitted.build(step.widths)
    assert reference.compare(small).error < reference.compare(plain.build(step.widths)).error
    whole, counted = multiply_adds(model.graph()), multiply_adds(small.graph())
    assert counted == pytest.approx(step.cost * (whole or 0), rel=1e-6)


def test_greedy_elimination_removes_the_cheapest_unit() -> None:
    """The errors of single removals are those of a least-squares fit."""
    random = np.random.default_rng(0)
    rows, weights = random.normal(size=(200, 6)), random.normal(size=(6, 4))
    rows[:, 4] += rows[:, 1]
    units = np.array([0, 0, 1, 1, 2, 2])
    outputs = rows @ weights
    variance = float((outputs**2).sum())
    found = eliminate([Regression(rows.T @ rows, weights, units, variance)], 3)

    def error(removed: tuple[int, ...]) -> float:
        left = rows[:, ~np.isin(units, removed)]
        fitted = left @ np.linalg.lstsq(left, outputs)[0] if left.size else 0.0 * outputs
        return float(((outputs - fitted) ** 2).sum() / variance)

    first = min(range(3), key=lambda unit: error((unit,)))
    second = min(set(range(3)) - {first}, key=lambda unit: error((first, unit)))
    assert found.order[:2].tolist() == [first, second]
    expected = [0.0, error((first,)), error((first, second)), 1.0]
    assert_allclose(found.errors, expected, rtol=1e-6)


@pytest.mark.parametrize("has_bias", [False, True])
def test_refit_is_least_squares(has_bias: bool) -> None:
    random = np.random.default_rng(1)
    original, weights = random.normal(size=(500, 7)) + 1.0, random.normal(size=(7, 3))
    rows = original[:, [0, 2, 3, 5]] + 0.1 * random.normal(size=(500, 4))
    moments = Moments(4, 7)
    for start in range(0, 500, 90):
        moments.add(rows[start : start + 90], original[start : start + 90])
    target = original @ weights
    variance = float(((target - target.mean(0) * has_bias) ** 2).sum())
    left = np.array([0, 2, 3, 5])
    found, shift = refit(moments.finish(), weights, left, 1e-9, variance, has_bias=has_bias)
    ones = np.ones((500, int(has_bias)))
    expected = np.linalg.lstsq(np.hstack([rows, ones]), target)[0]
    assert_allclose(found, expected[:4], atol=1e-6)
    assert_allclose(shift, expected[4] if has_bias else np.zeros(3), atol=1e-6)


def reference(model: Model, rows: Array) -> Reference:
    rows = rows[:, None]
    return Reference(model, Observed.of(model.graph()), Samples({"x": rows}, "rows"), RunOptions())


def test_nan_agrees_with_nothing() -> None:
    model = network("plain")
    bias = model.graph().nodes[0].inputs[2]
    nan = Replace(bias, np.full(8, np.nan), (Use(model.graph().nodes[0].name, 2),))
    lost = model.apply(Plan((nan,)))
    x = numbers(9, 3, SIDE, SIDE)
    known = reference(model, x)
    assert known.is_finite
    assert not reference(lost, x).is_finite
    assert known.compare(lost).agreement == reference(lost, x).compare(lost).agreement == 0.0
    assert known.compare(lost).error > 100 * known.compare(network("plain", seed=1)).error


@pytest.mark.parametrize("kept_bytes", [1 << 26, 0])
def test_differences_are_those_of_the_outputs(
    kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy on the outputs of onnxruntime; with and without the original's outputs in memory."""
    monkeypatch.setattr("exporter.trimming.outputs._KEPT_BYTES", kept_bytes)
    x = numbers(40, 3, SIDE, SIDE, seed=7)
    models = network("plain"), network("plain", seed=1)
    found = reference(models[0], x).compare(models[1])
    y = [run(each, {"x": x}, plain=True)["y"].astype(np.float64) for each in models]
    assert found.agreement == (y[0].argmax(1) == y[1].argmax(1)).mean()
    z = [np.log(each) for each in y]
    z = [each - each.mean(1, keepdims=True) for each in z]  # softmax loses the mean
    variance = z[0].var(axis=0).mean()
    assert found.error == pytest.approx(np.square(z[1] - z[0]).mean() / variance, rel=1e-4)


def selecting(limit: float) -> OnnxModel:
    """It returns the rows of a product whose largest value is above a limit, and their indices."""
    nodes = [
        node("MatMul", ["x", "kernel"], ["z"], "product"),
        node("ReduceMax", ["z"], ["most"], "most", axes=[1], keepdims=0),
        node("Greater", ["most", "limit"], ["chosen"], "chosen"),
        node("Compress", ["z", "chosen"], ["y"], "rows", axis=0),
    ]
    constants = {"kernel": numbers(6, 5), "limit": np.array(limit, np.float32)}
    return onnx_model(nodes, constants, x=("batch", 6), outputs={"y": ("found", 5)})


def test_outputs_whose_shape_depends_on_values_cannot_be_compared() -> None:
    rows = numbers(20, 6)
    with pytest.raises(ModelError, match="shape of 'y' depends"):
        reference(selecting(0.5), rows).compare(selecting(1.5))
    nodes = [
        node("Greater", ["x", "limit"], ["above"], "above"),
        node("NonZero", ["above"], ["places"], "places"),
        node("Cast", ["places"], ["y"], "cast", to=1),
    ]
    limit = {"limit": np.array(0.5, np.float32)}
    places = onnx_model(nodes, limit, x=(1, 6), outputs={"y": (2, "found")})
    with pytest.raises(ModelError, match="shape of 'y' depends"):
        reference(places, rows)


def test_a_cost_that_is_not_known_is_not_zero() -> None:
    """The images have any size, so that the file does not tell the multiply-adds."""
    net = Network()
    logits = net.conv(net.relu(net.conv("x", 8)), 5)
    nodes = [*net.nodes, node("GlobalAveragePool", [logits], ["y"], "mean")]
    model = onnx_model(nodes, net.constants, x=("batch", 3, "height", "width"))
    with pytest.raises(UsageError, match="not known"):
        trimmer(model).path()
    assert trimmer(model).path("parameters")[-1].cost < 0.3
