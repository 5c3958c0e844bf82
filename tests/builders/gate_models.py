"""Small models with a gate, what they must answer, in NumPy, and the checks of a cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.data.samples import synthetic_samples
from exporter.formats.model import RunOptions
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.planning.cut import Cut, plan_cut
from exporter.planning.options import CutOptions
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders import onnx_models as onnx
from tests.builders.tflite_builder import Builder

UNITS, COUNT = 5, 8


def gated(model: Any, gate: str, **choice: Any) -> tuple[Any, Cut]:
    cut = plan_cut(model, CutOptions(gate=gate, **choice))
    return model.apply(cut.plan), cut


def checks(original: Any, pruned: Any, cut: Cut) -> list[Any]:
    job = VerifyOptions(synthetic_samples(original.graph(), 16, 3))
    return list(verify_pair("cut", original, pruned, cut.remap.heads, job).checks)


def softmax_on(z: Array, on: Array) -> Array:
    """The softmax over the units that are on; all 0 if none is on."""
    powers = np.where(on, np.exp(z.astype(np.float64)), 0.0)
    total = powers.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(powers, total, out=np.zeros_like(powers), where=total > 0))


def sigmoid_on(z: Array, on: Array) -> Array:
    return np.where(on, 1 / (1 + np.exp(-z.astype(np.float64))), 0.0)


def linear_on(z: Array, on: Array) -> Array:
    return np.where(on, z.astype(np.float64), -1e4)


def onnx_net(activation: str = "softmax") -> Any:
    tails = {
        "softmax": [onnx.node("Softmax", ["z"], ["y"], "a", axis=1)],
        "sigmoid": [onnx.node("Sigmoid", ["z"], ["y"], "a")],
        "linear": [onnx.node("Identity", ["z"], ["y"], "a")],
    }
    return onnx.classifier(*tails[activation])


def tflite_builder(activation: str = "softmax", batch: int | None = 1) -> Builder:
    """x -> dense "z" -> the activation "y"; call `content("y")`."""
    builder = Builder()
    x = builder.feed("x", batch, 6)
    kernel = builder.constant("kernel", np.ascontiguousarray(onnx.numbers(6, 5).T))
    inputs = [x, kernel, builder.constant("bias", onnx.numbers(5))]
    name = "y" if activation == "linear" else "z"
    z = builder.op("FULLY_CONNECTED", inputs, (batch, UNITS), name, "FullyConnectedOptions")
    if activation == "softmax":
        builder.softmax(z, "y")
    elif activation == "sigmoid":
        builder.op("LOGISTIC", [z], (batch, UNITS), "y")
    return builder


def tflite_net(activation: str = "softmax", batch: int | None = 1) -> Any:
    return from_bytes(tflite_builder(activation, batch).content("y"), "network.tflite")


NETS: dict[str, Callable[[str], Any]] = {"onnx": onnx_net, "tflite": tflite_net}
SHOWN: dict[str, Callable[[Array, Array], Array]] = {
    "softmax": softmax_on,
    "sigmoid": sigmoid_on,
    "linear": linear_on,
}
each_kind = pytest.mark.parametrize("kind", NETS)
each_activation = pytest.mark.parametrize("activation", SHOWN)


def inputs() -> list[Array]:
    random = np.random.default_rng(4)
    return [random.normal(size=(1, 6)).astype(np.float32) * 2 for _ in range(COUNT)]


def content(model: Any, folder: Path) -> bytes:
    model.write(folder / "model")
    return (folder / "model").read_bytes()


def logits(given: Array) -> Array:
    return np.asarray(given @ onnx.numbers(6, 5) + onnx.numbers(5))


def answer(model: Any, **feeds: Array) -> Array:
    return np.asarray(model.runner(RunOptions())(feeds)["y"])
