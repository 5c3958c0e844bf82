"""Which features and units the samples reach, next to NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.data.samples import Samples, synthetic_samples
from exporter.formats.onnx import from_proto
from exporter.formats.tflite import from_bytes
from exporter.planning.cut import CutOptions, plan_cut
from exporter.records import Coverage
from exporter.trace import trace
from exporter.verification.coverage import Covered
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders import onnx_models as onnx
from tests.builders.onnx_decoders import merged_decoder
from tests.builders.tflite_builder import Builder

FEATURES, UNITS, KEPT = 12, 5, (0, 1, 3)
INPUTS = onnx.numbers(4, 6, seed=2)
FIRST, SHIFT = onnx.numbers(6, FEATURES, seed=3), -2.0 * np.ones(FEATURES, np.float32)
KERNEL, BIAS = onnx.numbers(FEATURES, UNITS, seed=4), onnx.numbers(UNITS, seed=4)


def onnx_net() -> Any:
    nodes = [
        onnx.node("Gemm", ["x", "first", "shift"], ["h"], "hidden"),
        onnx.node("Relu", ["h"], ["f"], "relu"),
        onnx.node("Gemm", ["f", "kernel", "bias"], ["z"], "head"),
        onnx.node("Softmax", ["z"], ["y"], "softmax"),
    ]
    return onnx.model(nodes, {"first": FIRST, "shift": SHIFT, "kernel": KERNEL, "bias": BIAS})


def tflite_net() -> Any:
    builder = Builder()
    x = builder.feed("x", 1, 6)
    inputs = [x, builder.constant("first", FIRST.T), builder.constant("shift", SHIFT)]
    relu: dict[str, Any] = {"fusedActivationFunction": 1}
    builder.op("FULLY_CONNECTED", inputs, (1, FEATURES), "f", "FullyConnectedOptions", **relu)
    head = ["f", builder.constant("kernel", KERNEL.T), builder.constant("bias", BIAS)]
    builder.op("FULLY_CONNECTED", head, (1, UNITS), "z", "FullyConnectedOptions")
    builder.softmax("z", "y")
    return from_bytes(builder.content("y"), "net.tflite")


@pytest.mark.parametrize("build", [onnx_net, tflite_net])
def test_features_and_units_are_counted(build: Any) -> None:
    net = build()
    cut = plan_cut(net, CutOptions(keep=KEPT))
    samples = Samples({"x": INPUTS[:, np.newaxis]}, "made here")
    options = VerifyOptions(samples)
    done = verify_pair("cut", net, net.apply(cut.plan), cut.remap.heads, options)

    features = np.maximum(INPUTS @ FIRST + SHIFT, 0)
    first = set((features @ KERNEL + BIAS).argmax(axis=1).tolist())
    active = int((features != 0).any(axis=0).sum())
    assert 0 < active < FEATURES, "some features are never active"
    assert done.coverage == (
        Coverage("y", FEATURES, active, UNITS, len(first), 3, len(first & set(KEPT))),
    )
    assert done.coverage[0].misses_features


def test_channels_of_a_convolution_are_features() -> None:
    picture = np.zeros((2, 1, 3, 4, 4), np.float32)
    picture[0, 0, 1, 2, 2] = 1.0
    nodes = [
        onnx.node("Conv", ["x", "w"], ["c"], "conv"),
        onnx.node("GlobalAveragePool", ["c"], ["p"], "pool"),
        onnx.node("Flatten", ["p"], ["y"], "flat"),
    ]
    net = onnx.model(nodes, {"w": onnx.numbers(UNITS, 3, 1, 1)}, x=("batch", 3, 4, 4))
    cut = plan_cut(net, CutOptions(keep=KEPT))
    options = VerifyOptions(Samples({"x": picture}, "made here"))
    (row,) = verify_pair("cut", net, net.apply(cut.plan), cut.remap.heads, options).coverage
    assert (row.features, row.active_features) == (3, 1)


def test_samples_without_any_rows_reach_nothing() -> None:
    """For example if no box was found."""
    net = onnx.classifier()
    head = trace(net.graph()).head()
    empty = {"x": np.zeros((0, 6), np.float32), "z": np.zeros((0, 5), np.float32)}
    covered = Covered(head, KEPT, net.graph())
    covered.add(empty)
    row = covered.coverage
    assert (row.active_features, row.first_units) == (0, 0)


def test_a_product_that_flattens_reads_every_value() -> None:
    builder = Builder()
    picture = builder.feed("x", 1, 2, 3, 1)
    inputs = [picture, builder.constant("kernel", onnx.numbers(UNITS, 6))]
    builder.op("FULLY_CONNECTED", [*inputs, ""], (1, UNITS), "y", "FullyConnectedOptions")
    net = from_bytes(builder.content("y"), "net.tflite")
    values = np.zeros((1, 1, 2, 3, 1), np.float32)
    values[0, 0, 1, 2, 0] = 1.0
    cut = plan_cut(net, CutOptions(keep=KEPT))
    options = VerifyOptions(Samples({"x": values}, "made here"))
    (row,) = verify_pair("cut", net, net.apply(cut.plan), cut.remap.heads, options).coverage
    assert (row.features, row.active_features) == (6, 1)


def test_features_inside_a_branch_are_not_counted() -> None:
    """The runtime shows no tensor of a branch; the head is compared all the same."""
    net = from_proto(merged_decoder(), "decoder.onnx")
    cut = plan_cut(net, CutOptions(keep=(1, 3), head="logits"))
    pruned = net.apply(cut.plan)
    options = VerifyOptions(synthetic_samples(net.graph(), 3))
    done = verify_pair("cut", net, pruned, cut.remap.heads, options)
    assert all(check.passed for check in done.checks)
    assert "logits" in {check.output for check in done.checks}
    assert done.coverage == ()
    others = net.apply(plan_cut(net, CutOptions(keep=(1, 2), head="logits")).plan)
    wrong = verify_pair("cut", net, others, cut.remap.heads, options)
    assert {check.output for check in wrong.checks if not check.passed} == {"logits"}
