"""Gates: units that are chosen while the model runs, by an input or by their values.

Expected values are NumPy's, of the logits that a runtime gives for the whole model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from exporter.formats.tflite import from_bytes
from exporter.graph import Array, Use
from exporter.graph.edits import AddOutput, Plan, Replace
from tests.builders import onnx_models as onnx
from tests.builders.gate_models import (
    COUNT,
    NETS,
    SHOWN,
    UNITS,
    answer,
    checks,
    each_activation,
    each_kind,
    gated,
    inputs,
    logits,
    onnx_net,
    softmax_on,
)
from tests.builders.tflite_builder import Builder

# --- gate by input --------------------------------------------------------------------------------

MASKS: dict[str, list[int]] = {"all": [0, 1, 2, 3, 4], "some": [1, 3], "one": [4], "none": []}


@each_kind
@each_activation
@pytest.mark.parametrize("gate", ["input", "input:float"])
def test_gate_by_input(kind: str, activation: str, gate: str) -> None:
    original = NETS[kind](activation)
    pruned, cut = gated(original, gate, keep=[0, 1, 3, 4])
    dtype = "bool" if gate == "input" else "float32"
    tensor = pruned.graph().tensors["unit_mask"]
    assert tensor.dtype == dtype
    for mask in MASKS.values():
        flags = np.isin(np.arange(UNITS), mask)
        fed = flags.astype(dtype).reshape([1] * (len(tensor.shape or ()) - 1) + [UNITS])
        for x in inputs()[:3]:
            on = flags & np.isin(np.arange(UNITS), [0, 1, 3, 4])
            shown = answer(pruned, x=x, unit_mask=fed)
            assert np.allclose(shown, SHOWN[activation](logits(x), on), atol=2e-6)
            if activation != "linear":
                assert not shown[:, ~on].any()
    assert all(check.passed for check in checks(original, pruned, cut))


def test_default_of_the_onnx_input_switches_all_units_on() -> None:
    original = onnx_net()
    pruned, _ = gated(original, "input")
    x = np.concatenate(inputs())
    shown = onnx.run(pruned, {"x": x})["y"]
    assert np.array_equal(shown, onnx.run(original, {"x": x})["y"])


def test_each_sample_of_a_batch_has_its_mask() -> None:
    pruned, _ = gated(onnx_net(), "input")
    dims = pruned.proto.graph.input[-1].type.tensor_type.shape.dim
    assert [dim.dim_value if dim.HasField("dim_value") else None for dim in dims] == [None, UNITS]
    x = np.concatenate(inputs())
    masks = np.random.default_rng(1).random((COUNT, UNITS)) < 0.5
    masks[0] = False
    shown = onnx.run(pruned, {"x": x, "unit_mask": masks})["y"]
    assert np.allclose(shown, softmax_on(logits(x), masks), atol=1e-6)
    for_all = onnx.run(pruned, {"x": x, "unit_mask": masks[1:2]})["y"]
    assert np.allclose(for_all, softmax_on(logits(x), masks[1]), atol=1e-6)


# --- conditions -----------------------------------------------------------------------------------


def first_largest(z: Array, count: int, kept: list[int]) -> Array:
    on = np.zeros(z.shape, bool)
    allowed = np.where(np.isin(np.arange(UNITS), kept), z, -np.inf)
    np.put_along_axis(
        on, np.argsort(-allowed, axis=-1, kind="stable")[..., :count], values=True, axis=-1
    )
    return on


CONDITIONS: dict[str, Callable[[Array], Array]] = {
    "logit > 0.5": lambda z: z > 0.5,
    "logit >= 0.5": lambda z: z >= 0.5,
    "logit < 0.5": lambda z: z < 0.5,
    "logit <= 0.5": lambda z: z <= 0.5,
    "abs > 1": lambda z: np.abs(z) > 1,
    "logit > 1e6": lambda z: np.zeros(z.shape, bool),
    "top:1": lambda z: first_largest(z, 1, [0, 1, 2, 4]),
    "top:3": lambda z: first_largest(z, 3, [0, 1, 2, 4]),
}


@each_kind
@each_activation
@pytest.mark.parametrize("condition", CONDITIONS)
def test_condition_chooses_among_the_kept_units(kind: str, activation: str, condition: str) -> None:
    original = NETS[kind](activation)
    pruned, cut = gated(original, condition, remove=[3])
    for x in inputs():
        z = logits(x)
        on = CONDITIONS[condition](z) & np.isin(np.arange(UNITS), [0, 1, 2, 4])
        assert np.allclose(answer(pruned, x=x), SHOWN[activation](z, on), atol=2e-6)
    assert all(check.passed for check in checks(original, pruned, cut))


@each_kind
@pytest.mark.parametrize("condition", ["probability > 0.2", "> 0.2"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_condition_compares_the_original_probability(
    kind: str, condition: str, activation: str
) -> None:
    original = NETS[kind](activation)
    pruned, cut = gated(original, condition)
    for x in inputs():
        z = logits(x)
        before = SHOWN[activation](z, np.ones(z.shape, bool))
        shown = SHOWN[activation](z, before > 0.2)
        assert np.allclose(answer(pruned, x=x), shown, atol=2e-6)
    assert all(check.passed for check in checks(original, pruned, cut))


@each_kind
@pytest.mark.parametrize("count", [1, 2, 3])
def test_top_chooses_the_lowest_index_of_equal_units(kind: str, count: int) -> None:
    """Units 1, 2 and 4 have the same kernel and bias, so that they always tie."""
    original = NETS[kind]("softmax")
    graph = original.graph()
    changed = []
    for name in ("kernel", "bias"):
        tensor = graph.tensors[name]
        assert tensor.read is not None
        values = np.array(tensor.read())
        units = np.moveaxis(values, values.shape.index(UNITS), 0)
        units[[1, 2, 4]] = units[1]
        uses = tuple(Use(node.name, slot) for node, slot in graph.consumers[name])
        changed.append(Replace(name, values, uses))
    tied = original.apply(Plan(tuple(changed)))
    pruned, _ = gated(tied, f"top:{count}")
    for x in inputs():
        z = answer(tied.apply(Plan((AddOutput("z", "z"),))), x=x)
        shown = answer(pruned, x=x)
        ranks = np.argsort(-np.log(z), axis=-1, kind="stable")[0, :count]
        assert set(np.flatnonzero(shown[0])) == set(ranks.tolist())


@each_kind
def test_gate_on_another_axis(kind: str) -> None:
    """A convolution with a reshape after z."""
    model: Any
    if kind == "onnx":
        model = onnx.model(
            [
                onnx.node("Conv", ["x", "kernel", "bias"], ["c"], "conv"),
                onnx.node("Softmax", ["c"], ["s"], "softmax", axis=1),
                onnx.node("Flatten", ["s"], ["y"], "flatten"),
            ],
            {"kernel": onnx.numbers(5, 6, 1, 1), "bias": onnx.numbers(5)},
            x=(1, 6, 1, 1),
        )
        x = inputs()[0].reshape(1, 6, 1, 1)
        z = np.einsum("nchw,uchw->nu", x, onnx.numbers(5, 6, 1, 1)) + onnx.numbers(5)
    else:
        builder = Builder()
        given = builder.feed("x", 1, 1, 1, 6)
        kernel = builder.constant("kernel", np.ascontiguousarray(onnx.numbers(5, 1, 1, 6)))
        c = builder.op(
            "CONV_2D",
            [given, kernel, builder.constant("bias", onnx.numbers(5))],
            (1, 1, 1, UNITS),
            "c",
            "Conv2DOptions",
            strideW=1,
            strideH=1,
            dilationWFactor=1,
            dilationHFactor=1,
        )
        s = builder.softmax(c, "s")
        builder.op("RESHAPE", [s, builder.constant("to", np.array([1, 5], np.int32))], (1, 5), "y")
        model = from_bytes(builder.content("y"), "conv.tflite")
        x = inputs()[0].reshape(1, 1, 1, 6)
        z = np.einsum("nhwc,uhwc->nu", x, onnx.numbers(5, 1, 1, 6)) + onnx.numbers(5)
    flags = np.array([True, False, True, True, False])
    switched, cut = gated(model, "input")
    assert np.allclose(answer(switched, x=x, unit_mask=flags), softmax_on(z, flags), atol=1e-6)
    assert all(check.passed for check in checks(model, switched, cut))
    chosen, cut = gated(model, "logit > 0")
    assert np.allclose(answer(chosen, x=x), softmax_on(z, z > 0), atol=1e-6)
    assert all(check.passed for check in checks(model, chosen, cut))


def test_each_image_of_a_batch_has_its_mask() -> None:
    soft = onnx.node("Softmax", ["c"], ["y"], "softmax", axis=1)
    conv = onnx.node("Conv", ["x", "kernel", "bias"], ["c"], "conv")
    constants = {"kernel": onnx.numbers(5, 6, 1, 1), "bias": onnx.numbers(5)}
    outputs = {"y": ("batch", 5, 2, 2)}
    original = onnx.model([conv, soft], constants, x=("batch", 6, 2, 2), outputs=outputs)
    pruned, cut = gated(original, "input")
    x = np.random.default_rng(3).normal(size=(4, 6, 2, 2)).astype(np.float32)
    masks = np.random.default_rng(4).random((4, UNITS)) < 0.6
    z = np.einsum("nchw,uchw->nuhw", x, onnx.numbers(5, 6, 1, 1)[..., :1, :1] * np.ones((2, 2)))
    z = np.moveaxis(z + onnx.numbers(5).reshape(5, 1, 1), 1, -1)
    shown = onnx.run(pruned, {"x": x, "unit_mask": masks})["y"]
    expected = softmax_on(z, np.broadcast_to(masks[:, None, None], z.shape))
    assert np.allclose(np.moveaxis(shown, 1, -1), expected, atol=1e-6)
    assert all(check.passed for check in checks(original, pruned, cut))


@each_kind
def test_gate_with_all_units_on_matches_the_original(kind: str) -> None:
    original = NETS[kind]("softmax")
    pruned, cut = gated(original, "abs >= 0")
    for x in inputs():
        assert np.allclose(answer(pruned, x=x), answer(original, x=x), atol=1e-7)
    found = checks(original, pruned, cut)
    assert all(check.passed for check in found)
    assert not any("(off)" in check.output for check in found)


# --- verification ---------------------------------------------------------------------------------


@each_kind
def test_wrong_gate_fails_verification(kind: str) -> None:
    original = NETS[kind]("softmax")
    _, right = gated(original, "logit > 0.5", keep=[0, 1, 2])
    for gate, keep in (("logit > 0.6", [0, 1, 2]), ("logit > 0.5", [0, 1, 3])):
        wrong, _ = gated(original, gate, keep=keep)
        assert not all(check.passed for check in checks(original, wrong, right))
    _, right = gated(original, "input", keep=[0, 1, 2])
    for wrong in (gated(original, "input")[0], gated(original, "input:float", keep=[0, 1])[0]):
        assert not all(check.passed for check in checks(original, wrong, right))


def test_masks_of_a_verification_include_all_on_and_all_off() -> None:
    from exporter.verification.gate_masks import make_masks  # noqa: PLC0415 - of this test alone

    masks = make_masks(6, 16)
    sums = masks.sum(axis=1)
    assert (sums[0], sums[1], sums[2], sums[3]) == (6, 0, 1, 5)
    assert np.array_equal(masks, make_masks(6, 16))
    assert make_masks(6, 2).shape == (2, 6)
    assert len(np.unique(masks, axis=0)) > 8
