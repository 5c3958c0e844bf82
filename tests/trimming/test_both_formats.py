"""One network as ONNX and as TFLite: the same channels are removed, and the fits agree."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from exporter.data.samples import Samples
from exporter.formats.model import Model, RunOptions
from exporter.formats.onnx import OnnxModel
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.graph import Array
from exporter.trimming.trimmer import FitOptions, Trimmer
from tests.builders.onnx_models import model, node, numbers
from tests.builders.tflite_channels import SIDE, as_tflite

FIT = FitOptions(multiple=1)


def as_onnx(tflite: TfliteModel) -> OnnxModel:
    """The same network, with the values of the TFLite file in ONNX's layout."""

    def value(name: str) -> Array:
        read = tflite.graph().tensors[name].read
        assert read is not None
        return np.array(read())

    same = {"auto_pad": "SAME_UPPER"}
    constants = {
        "ak": value("a/k").transpose(0, 3, 1, 2),
        "dk": value("d/k").transpose(3, 0, 1, 2),
        "ek": value("e/k").transpose(0, 3, 1, 2),
        "ck": value("c/k").transpose(0, 3, 1, 2),
        "sk": value("scores/kernel"),
        "sb": value("scores/bias"),
        **{f"{each}b": value(f"{each}/b") for each in "adec"},
    }
    nodes = [
        node("Conv", ["x", "ak", "ab"], ["a0"], name="a", strides=[2, 2], **same),
        node("Relu", ["a0"], ["a1"], name="ra"),
        node("Conv", ["a1", "dk", "db"], ["d1"], name="d", group=8, **same),
        node("Conv", ["d1", "ek", "eb"], ["e0"], name="e", **same),
        node("Relu", ["e0"], ["e1"], name="re"),
        node("Conv", ["e1", "ck", "cb"], ["c0"], name="c", **same),
        node("Relu", ["c0"], ["c1"], name="rc"),
        node("ReduceMean", ["c1"], ["m"], name="m", axes=[2, 3], keepdims=0),
        node("Gemm", ["m", "sk", "sb"], ["s"], name="s", transB=1),
        node("Softmax", ["s"], ["y"], name="y", axis=-1),
    ]
    return model(nodes, constants, x=(1, 2, SIDE, SIDE), outputs={"y": (1, 4)})


@pytest.fixture(scope="module")
def pair() -> tuple[Trimmer, Trimmer]:
    tflite = from_bytes(as_tflite().content("y"), "net.tflite")
    x = numbers(40, 1, SIDE, SIDE, 2)
    images = Samples({"x": x}, "noise")
    channels_first = Samples({"x": x.transpose(0, 1, 4, 2, 3)}, "noise")
    return (
        Trimmer(tflite, images, RunOptions(), FIT),
        Trimmer(as_onnx(tflite), channels_first, RunOptions(), FIT),
    )


def outputs(network: Model, x: Array) -> Array:
    runner = network.runner(RunOptions())
    return np.concatenate([runner({"x": each})["y"] for each in x])


def test_same_selection_and_fit(pair: tuple[Trimmer, Trimmer]) -> None:
    tflite, onnx = pair
    for one, other in zip(tflite.scored, onnx.scored, strict=True):
        assert one.elimination.order.tolist() == other.elimination.order.tolist()
        assert_allclose(one.elimination.errors, other.elimination.errors, rtol=1e-3, atol=1e-6)
    steps = [each.path() for each in pair]
    widths = [[list(step.widths.values()) for step in path] for path in steps]
    assert widths[0] == widths[1]
    middle = len(steps[0]) // 2
    small = [each.build(path[middle].widths) for each, path in zip(pair, steps, strict=True)]
    x = numbers(5, 1, SIDE, SIDE, 2, seed=3)
    first, second = outputs(small[0], x), outputs(small[1], x.transpose(0, 1, 4, 2, 3))
    assert_allclose(first, second, atol=1e-4)


def test_the_networks_are_one(pair: tuple[Trimmer, Trimmer]) -> None:
    x = numbers(5, 1, SIDE, SIDE, 2, seed=4)
    tflite, onnx = (each.model for each in pair)
    assert_allclose(outputs(tflite, x), outputs(onnx, x.transpose(0, 1, 4, 2, 3)), atol=1e-5)
