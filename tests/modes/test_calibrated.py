"""Probabilities that a factor of each unit calibrates: it follows the cut, or is refused by name.

Expected values are NumPy's, of the logits that the same runtime gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto

from exporter.data.samples import synthetic_samples
from exporter.errors import ExporterError
from exporter.formats.model import Model, RunOptions
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders.onnx_models import classifier, model, node, numbers
from tests.builders.tflite_builder import Builder

UNITS, KEPT, DEAD = 5, [0, 2, 3], [1, 4]
C = np.array([0.5, 2.0, 1.25, 0.75, 4.0], np.float32)
X = numbers(1, 6, seed=3)


def softmax(z: Array) -> Array:
    e = np.exp(z.astype(np.float64))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z.astype(np.float64))))


def near(actual: Array, expected: Array) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def onnx_net(activation: str, *nodes_after: NodeProto, **constants: Array) -> Model:
    """z -> the activation "p" -> the factors "y"."""
    axis: dict[str, Any] = {} if activation in {"Sigmoid", "Relu"} else {"axis": 1}
    made = node(activation, ["z"], ["p"], "made", **axis)
    return classifier(made, *nodes_after, constants=constants)


def tflite_net(activation: str, operator: str, factor: Array, **fields: Any) -> Model:
    builder = Builder(3)
    builder.dense(builder.feed("x", 1, 6), UNITS, "z")
    if activation == "Softmax":
        builder.softmax("z", "p")
    else:
        builder.op("LOGISTIC", ["z"], (1, UNITS), "p")
    options = {"MUL": "MulOptions", "DIV": "DivOptions", "ADD": "AddOptions"}[operator]
    inputs = ["p", builder.constant("c", factor)]
    builder.op(operator, inputs, (1, UNITS), "y", options, **fields)
    return from_bytes(builder.content("y"), "calibrated.tflite")


def mul(*inputs: str) -> NodeProto:
    return node("Mul", list(inputs), ["y"], "scaled")


CALIBRATED: dict[str, tuple[Callable[[], Model], Callable[[Array], Array], Array]] = {
    "onnx": (lambda: onnx_net("Softmax", mul("p", "c"), c=C), softmax, C),
    "onnx, the factors in front": (lambda: onnx_net("Softmax", mul("c", "p"), c=C), softmax, C),
    "onnx, divided": (
        lambda: onnx_net("Softmax", node("Div", ["p", "c"], ["y"], "scaled"), c=C),
        softmax,
        1 / C,
    ),
    "onnx, percent": (
        lambda: onnx_net("Softmax", mul("p", "c"), c=np.array(100, np.float32)),
        softmax,
        np.full(UNITS, 100.0),
    ),
    "onnx, twice": (
        lambda: onnx_net(
            "Softmax", node("Mul", ["p", "c"], ["q"], "first"), mul("q", "d"), c=C, d=C[None]
        ),
        softmax,
        C * C,
    ),
    "onnx, half precision": (
        lambda: onnx_net(
            "Softmax",
            node("Cast", ["c"], ["wide"], "wide", to=1),
            mul("p", "wide"),
            c=C.astype(np.float16),
        ),
        softmax,
        C,
    ),
    "onnx, sigmoid": (lambda: onnx_net("Sigmoid", mul("p", "c"), c=C), sigmoid, C),
    "tflite": (lambda: tflite_net("Softmax", "MUL", C), softmax, C),
    "tflite, divided": (lambda: tflite_net("Softmax", "DIV", C), softmax, 1 / C),
    "tflite, sigmoid": (lambda: tflite_net("Sigmoid", "MUL", C), sigmoid, C),
}


def answers(net: Model) -> Array:
    (output,) = net.graph().outputs
    return net.runner(RunOptions())({"x": X})[output]


def logits(net: Model) -> Array:
    constants = {n: t.read() for n, t in net.graph().tensors.items() if t.read is not None}
    if "kernel" in constants:
        return np.asarray(X @ constants["kernel"] + constants["bias"])
    return np.asarray(X @ constants["z/kernel"].T + constants["z/bias"])


def cut(net: Model, **choice: Any) -> Array:
    """The output of the cut model, after its check has passed."""
    done = plan_cut(net, CutOptions(keep=KEPT, **choice))
    pruned = net.apply(done.plan)
    job = VerifyOptions(synthetic_samples(net.graph(), 4, 1))
    checks = verify_pair("cut", net, pruned, done.remap.heads, job).checks
    assert checks
    assert [check for check in checks if not check.passed] == []
    return answers(pruned)


@pytest.mark.parametrize("name", CALIBRATED)
def test_factors_are_cut_with_their_units(name: str) -> None:
    made, function, factors = CALIBRATED[name]
    net = made()
    z = logits(net)
    probable = {"softmax": function is softmax, "sigmoid": function is sigmoid}
    assert probable[trace(net.graph()).head().activation]
    sliced = function(z[:, KEPT]) * factors[KEPT]
    near(cut(net), sliced)
    zeroed = np.where(np.isin(np.arange(UNITS), KEPT), z, 0)
    near(cut(net, mode="zero"), function(zeroed) * factors)
    for wide in ({"mode": "mask"}, {"restore_width": True}):
        shown = cut(net, **wide)
        assert not shown[:, DEAD].any()
        near(shown[:, KEPT], sliced)
    if function is softmax:
        whole = (function(z) * factors)[:, KEPT]
        near(cut(net, probabilities="absolute"), whole)
        shown = cut(net, mode="mask", probabilities="absolute")
        assert not shown[:, DEAD].any()
        near(shown[:, KEPT], whole)


def test_ids_rank_the_calibrated_values() -> None:
    net = onnx_net("Softmax", mul("p", "c"), c=C)
    done = plan_cut(net, CutOptions(keep=KEPT, emit="ids"))
    shown = net.apply(done.plan).runner(RunOptions())({"x": X})
    best = KEPT[int(np.argmax(softmax(logits(net)[:, KEPT]) * C[KEPT]))]
    assert shown["ids"].tolist() == [best]


def test_wrong_factor_fails_verification() -> None:
    """The oracle uses the original's factors, not those of the pruned file."""
    net, other = (onnx_net("Softmax", mul("p", "c"), c=c) for c in (C, C[::-1].copy()))
    done = plan_cut(net, CutOptions(keep=KEPT))
    job = VerifyOptions(synthetic_samples(net.graph(), 4, 1))
    checks = verify_pair("cut", net, other.apply(done.plan), done.remap.heads, job).checks
    assert [check.output for check in checks if not check.passed]


def test_factors_on_channels_of_an_image() -> None:
    """[batch, classes, height, width]: one factor for each class."""
    nodes = [
        node("Conv", ["x", "kernel"], ["z"], "conv"),
        node("Softmax", ["z"], ["p"], "made", axis=1),
        mul("p", "c"),
    ]
    constants = {"kernel": numbers(UNITS, 3, 1, 1), "c": C[:, None, None]}
    net = model(nodes, constants, x=(1, 3, 4, 4))
    done = plan_cut(net, CutOptions(keep=KEPT))
    x = numbers(1, 3, 4, 4)
    shown = net.apply(done.plan).runner(RunOptions())({"x": x})["y"]
    z = np.moveaxis(np.einsum("bihw,oi->bohw", x, constants["kernel"][:, :, 0, 0]), 1, -1)
    expected = np.moveaxis(softmax(z[..., KEPT]) * C[KEPT], -1, 1)
    np.testing.assert_allclose(shown, expected, atol=1e-6)


# --- before the activation ------------------------------------------------------------------------

V = np.array([0.3, -1.0, 0.5, 0.0, 2.0], np.float32)


def log_softmax(z: Array) -> Array:
    return np.log(softmax(z))


def _warm_onnx(activation: str) -> Model:
    return classifier(
        node("Mul", ["z", "c"], ["m"], "m"),
        node("Add", ["m", "v"], ["w"], "w"),
        node(activation, ["w"], ["y"], "y", axis=1),
        constants={"c": C, "v": V},
    )


def _warm_tflite(activation: str) -> Model:
    builder = Builder(3)
    builder.dense(builder.feed("x", 1, 6), UNITS, "z")
    shape = (1, UNITS)
    builder.op("MUL", ["z", builder.constant("c", C)], shape, "m", "MulOptions")
    builder.op("ADD", ["m", builder.constant("v", V)], shape, "w", "AddOptions")
    if activation == "Softmax":
        builder.softmax("w", "y")
    else:
        builder.op("LOG_SOFTMAX", ["w"], shape, "y", "LogSoftmaxOptions")
    return from_bytes(builder.content("y"), "warm.tflite")


@pytest.mark.parametrize("activation", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("made", [_warm_onnx, _warm_tflite], ids=["onnx", "tflite"])
def test_temperatures_and_offsets_before_the_activation_are_cut(
    made: Callable[[str], Model], activation: str
) -> None:
    net, function = made(activation), softmax if activation == "Softmax" else log_softmax
    w = logits(net) * C + V
    sliced = function(w[:, KEPT])
    near(cut(net), sliced)
    near(cut(net, mode="mask")[:, KEPT], sliced)
    zeroed = np.where(np.isin(np.arange(UNITS), KEPT), w, 0)
    near(cut(net, mode="zero"), function(zeroed))
    whole = function(w)[:, KEPT]
    near(cut(net, probabilities="absolute"), whole)


# --- refused --------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], Model], dict[str, Any], str]] = {
    "an offset": (
        lambda: onnx_net("Softmax", node("Add", ["p", "c"], ["y"], "moved"), c=C),
        {},
        "Softmax 'made': it mixes the units before the last activation",
    ),
    "tflite, an offset": (
        lambda: tflite_net("Softmax", "ADD", C),
        {},
        "it mixes the units before the last activation",
    ),
    "tflite, a product with a bound": (
        lambda: tflite_net("Softmax", "MUL", C, fusedActivationFunction=1),
        {},
        "it mixes the units before the last activation",
    ),
    "tflite, a quotient with a bound": (
        lambda: tflite_net("Softmax", "DIV", C, fusedActivationFunction=1),
        {},
        "it mixes the units before the last activation",
    ),
    "divided by nothing": (
        lambda: onnx_net(
            "Softmax", node("Div", ["p", "c"], ["y"], "scaled"), c=np.array([1, 0, 1, 1, 1.0], "f4")
        ),
        {},
        "it mixes the units before the last activation",
    ),
    "the probability divides": (
        lambda: onnx_net("Softmax", node("Div", ["c", "p"], ["y"], "scaled"), c=C),
        {},
        "it mixes the units before the last activation",
    ),
    "computed factors": (
        lambda: onnx_net("Softmax", node("Sin", ["z"], ["s"], "s"), mul("p", "s")),
        {},
        "it mixes the units before the last activation",
    ),
    "factors of the batch": (
        lambda: onnx_net("Softmax", mul("p", "c"), c=np.ones((3, 5), np.float32)),
        {},
        "it mixes the units before the last activation",
    ),
    "logarithms": (
        lambda: onnx_net("LogSoftmax", mul("p", "c"), c=C),
        {},
        "it mixes the units before the last activation",
    ),
    "merged": (
        lambda: onnx_net("Softmax", mul("p", "c"), c=C),
        {"merge": {"group": (0, 2)}},
        "cannot be merged: Mul 'scaled' changes the output",
    ),
    "a gate": (
        lambda: onnx_net("Softmax", mul("p", "c"), c=C),
        {"gate": "input"},
        "cannot have a gate: Mul 'scaled' scales its probabilities",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_calibrations_are_refused(name: str) -> None:
    made, choice, message = REFUSED[name]
    with pytest.raises(ExporterError, match=message) as raised:
        plan_cut(made(), CutOptions(keep=KEPT, **choice))
    assert raised.value.hint


def test_scale_after_a_relu_is_cut() -> None:
    """The scale after a Relu is cut, and a mask inserts its floor after the scale."""
    head = trace(onnx_net("Relu", mul("p", "c"), c=C).graph()).head()
    assert (head.activation, head.z, dict(head.factors)) == ("linear", "y", {})
