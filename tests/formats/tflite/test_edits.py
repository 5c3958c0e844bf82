"""Every edit in TFLite files: refusals first, then results.

Expected values are computed with NumPy from the arrays that the test's builder wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.graph import Array, Use
from exporter.graph.edits import (
    AddInput,
    AddOutput,
    Edit,
    Fill,
    Insert,
    Plan,
    Replace,
    SetAttribute,
    SetShape,
    Take,
)
from tests.builders.tflite_builder import Builder, classifier, read


def f32(values: Any) -> Array:
    return np.array(values, np.float32)


X = np.random.default_rng(7).normal(size=(1, 4)).astype(np.float32)
KERNEL, BIAS = (Use("z", 1),), (Use("z", 2),)
TWO = np.array([3, 1])


def opened(builder: Builder, *outputs: str) -> TfliteModel:
    return from_bytes(builder.content(*outputs), "built.tflite")


def edited(model: TfliteModel, *edits: Edit) -> TfliteModel:
    """The result; the source must not change, and a second run must give the same bytes."""
    before = bytes(bytearray(model.content))
    result = model.apply(Plan(edits))
    assert model.content == before
    assert model.apply(Plan(edits)).content == result.content
    return result


def run(model: TfliteModel, **feeds: Array) -> dict[str, Array]:
    return model.runner(RunOptions())(feeds or {"x": X})


def constant(model: TfliteModel, name: str) -> Array:
    tensor = model.graph().tensors[name]
    assert tensor.read is not None
    return tensor.read()


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    result: Array = e / e.sum(axis=-1, keepdims=True)
    return result


def logits(builder: Builder) -> Array:
    result: Array = X @ builder.constants["z/kernel"].T + builder.constants["z/bias"]
    return result


# --- refused --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Refused:
    id: str
    edit: Edit
    message: str


REFUSED = [
    Refused("unknown constant", Take("other", 0, TWO, KERNEL), "no tensor 'other'"),
    Refused("unknown node", Take("z/kernel", 0, TWO, (Use("other", 1),)), "no operation 'other'"),
    Refused("shape of an unknown tensor", SetShape("other", (1,)), "'other'"),
    Refused("option of an unknown node", SetAttribute("other", "beta", 1.0), "'other'"),
    Refused("unknown option", SetAttribute("z", "units", 3), "no option 'units'"),
    Refused("too large for the type", Replace("z/bias", np.array([1e300]), BIAS), "cannot hold"),
    Refused("input that exists", AddInput("z", (5,), "float32"), "'z' already"),
    Refused("input of an unknown type", AddInput("gate", (5,), "complex64"), "type complex64"),
    Refused("output of an unknown tensor", AddOutput("other", "o"), "'other'"),
    Refused("output that exists", AddOutput("z", "y"), "output 'y' already"),
    Refused("unknown operation", Insert("fourier", "z"), "'fourier'"),
    Refused("too few operands", Insert("add", "z"), "0 operands"),
    Refused("too many operands", Insert("sigmoid", "z", (X,)), "1 operands"),
    Refused("missing attribute", Insert("gather", "z", (TWO,)), "needs the attribute 'axis'"),
    Refused("unknown attribute", Insert("relu", "z", (), {"axis": 1}), "has no attribute 'axis'"),
    Refused("axis outside", Insert("softmax", "z", (), {"axis": 2}), "no axis 2"),
    Refused(
        "not the last axis",
        Insert("softmax", "z", (), {"axis": 0}),
        "softmax cannot be inserted after 'z': .*, and the units are on axis 0",
    ),
    Refused(
        "pad without a value", Insert("pad", "z", (), {"axis": 1}), "needs the attribute 'value'"
    ),
    Refused("pad outside", Insert("pad", "z", (), {"axis": 2, "value": 0.0}), "no axis 2"),
    Refused("types differ", Insert("add", "z", (np.arange(5),)), "float32 and int64"),
    Refused(
        "cast to an unknown type", Insert("cast", "z", (), {"dtype": "complex64"}), "type complex64"
    ),
    Refused("after an unknown tensor", Insert("relu", "other"), "'other'"),
    Refused("a cycle", Insert("add", "z", ("y",)), "computed after an operation that reads"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_refused(case: Refused) -> None:
    model = opened(classifier(), "y")
    before = bytes(bytearray(model.content))
    with pytest.raises(ModelError, match=case.message):
        model.apply(Plan((case.edit,)))
    assert model.content == before


def test_operations_on_quantized_values_are_refused() -> None:
    model = opened(quantized(), "z")
    with pytest.raises(ModelError, match="quantized"):
        model.apply(Plan((Insert("sigmoid", "z"),)))


@pytest.mark.parametrize(
    ("value", "edit"),
    [
        (Fill("z/bias", 0, np.array([1]), 1e30, BIAS), "'z/bias' cannot hold 1e\\+30 as int32"),
        (Fill("z/kernel", 0, np.array([1]), 9.0, KERNEL), "'z/kernel' cannot hold 9 as int8"),
    ],
    ids=["bias", "kernel"],
)
def test_a_value_that_the_type_cannot_hold(value: Edit, edit: str) -> None:
    with pytest.raises(ModelError, match=edit):
        opened(quantized(), "z").apply(Plan((value,)))


def test_weights_of_two_bits_are_refused() -> None:
    """The schema does not say how they are packed, and no kernel of this LiteRT reads them."""
    builder = classifier()
    tensor = builder.at("z/kernel")
    tensor.type, tensor.buffer = schema.TensorType.INT2, builder.buffer(np.zeros(5, np.uint8))
    builder.quantize("z/kernel", 0.1, 0)
    with pytest.raises(ModelError, match="'z/kernel' is int2, which cannot be cut"):
        opened(builder, "y").apply(Plan((Take("z/kernel", 0, TWO, KERNEL),)))


@pytest.mark.parametrize(
    "edit", [Take("z/kernel", 0, TWO, KERNEL), Fill("z/kernel", 0, TWO, 0.0, KERNEL)]
)
def test_weights_in_blocks_are_refused(edit: Edit) -> None:
    builder = quantized()
    scales = builder.constant("scales", np.ones((5, 2), np.float16))
    blocks = schema.BlockwiseQuantizationT(builder.names[scales], -1, 2)
    quantization = builder.at("z/kernel").quantization
    quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    quantization.details = blocks
    with pytest.raises(ModelError, match="'z/kernel' is quantized in blocks"):
        opened(builder, "z").apply(Plan((edit,)))


# --- constants ------------------------------------------------------------------------------------


def test_take_cuts_kernel_and_bias() -> None:
    builder = classifier()
    narrow = edited(
        opened(builder, "y"),
        Take("z/kernel", 0, TWO, KERNEL),
        Take("z/bias", 0, TWO, BIAS),
        SetShape("z", (1, 2)),
        SetShape("y", (1, 2)),
    )
    np.testing.assert_array_equal(constant(narrow, "z/kernel"), builder.constants["z/kernel"][TWO])
    np.testing.assert_allclose(run(narrow)["y"], softmax(logits(builder)[:, TWO]), atol=1e-6)
    assert narrow.graph().tensors["y"].shape == (1, 2)
    assert builder.constants["z/kernel"][0].tobytes() not in narrow.content  # a removed row


def test_take_along_another_axis() -> None:
    narrow = edited(opened(classifier(), "y"), Take("z/kernel", 1, np.array([2, 0]), KERNEL))
    expected = classifier().constants["z/kernel"][:, [2, 0]]
    np.testing.assert_array_equal(constant(narrow, "z/kernel"), expected)


@pytest.mark.parametrize("value", [0.0, -1e4])
def test_fill(value: float) -> None:
    builder = classifier()
    filled = edited(
        opened(builder, "y"),
        Fill("z/kernel", 0, TWO, 0.0, KERNEL),
        Fill("z/bias", 0, TWO, value, BIAS),
        AddOutput("z", "z"),
    )
    expected = logits(builder)
    expected[:, TWO] = value
    answers = run(filled)
    np.testing.assert_array_equal(answers["z"][:, TWO], np.full((1, 2), value))
    np.testing.assert_allclose(answers["z"], expected, rtol=1e-6)
    np.testing.assert_allclose(answers["y"], softmax(expected), atol=1e-6)


def test_replace_keeps_the_type_of_a_shape() -> None:
    builder = classifier(units=6)
    shape = builder.constant("shape", np.array([1, 3, 2], np.int32))
    options: dict[str, Any] = {"newShape": np.array([1, 3, 2], np.int32)}
    builder.op("RESHAPE", ["y", shape], (1, 3, 2), "r", "ReshapeOptions", **options)
    result = edited(
        opened(builder, "r"),
        Replace("shape", np.array([-1, 2, 3]), (Use("r", 1),)),
        SetAttribute("r", "newShape", (-1, 2, 3)),
        SetShape("r", (1, 2, 3)),
    )
    assert constant(result, "shape").dtype == np.int32
    expected = softmax(logits(builder)).reshape(1, 2, 3)
    np.testing.assert_allclose(run(result)["r"], expected, atol=1e-6)
    options_read = read(result.content).subgraphs[0].operators[-1].builtinOptions
    assert options_read.newShape.tolist() == [-1, 2, 3]


def test_replace_of_another_shape() -> None:
    model = opened(classifier(), "y")
    result = edited(model, Replace("z/bias", np.zeros(7, np.float32), BIAS))
    assert result.graph().tensors["z/bias"].shape == (7,)


def test_an_option_that_is_a_single_number() -> None:
    result = edited(opened(classifier(), "y"), SetAttribute("y", "beta", 0.5))
    np.testing.assert_allclose(run(result)["y"], softmax(0.5 * logits(classifier())), atol=1e-6)


# --- quantized constants --------------------------------------------------------------------------

SCALES, ZEROS = f32([0.01, 0.02, 0.03, 0.04, 0.05]), np.zeros(5, np.int64)


def quantized(dtype: str = "int8") -> Builder:
    """x -> integer FULLY_CONNECTED "z"; int8 has per-channel scales, uint8 a per-tensor scale."""
    builder = Builder()
    builder.quantize(builder.feed("x", 1, 4, dtype=dtype), 0.02, 3)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    kernel = builder.random.integers(low + 1, high, (5, 4)).astype(dtype)
    builder.constant("z/kernel", kernel)
    bias = builder.random.integers(-500, 500, 5).astype(np.int32)
    builder.constant("z/bias", bias)
    if dtype == "int8":
        builder.quantize("z/kernel", SCALES, ZEROS)
        builder.quantize("z/bias", SCALES * f32(0.02), ZEROS)
    else:
        builder.quantize("z/kernel", 0.01, 120)
        builder.quantize("z/bias", 0.0002, 0)
    inputs = ["x", "z/kernel", "z/bias"]
    builder.op("FULLY_CONNECTED", inputs, (1, 5), "z", "FullyConnectedOptions", dtype, version=4)
    builder.quantize("z", 0.2, 5)
    return builder


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_take_is_bit_identical_in_integers(dtype: str) -> None:
    model = opened(quantized(dtype), "z")
    x = np.random.default_rng(3).integers(0, 100, (1, 4)).astype(dtype)
    edits = Take("z/kernel", 0, TWO, KERNEL), Take("z/bias", 0, TWO, BIAS), SetShape("z", (1, 2))
    narrow = edited(model, *edits)
    np.testing.assert_array_equal(run(narrow, x=x)["z"], run(model, x=x)["z"][:, TWO])
    kernel, bias = (read(narrow.content).subgraphs[0].tensors[i].quantization for i in (1, 2))
    if dtype == "int8":
        np.testing.assert_array_equal(kernel.scale, SCALES[TWO])
        np.testing.assert_array_equal(bias.scale, SCALES[TWO] * f32(0.02))
        assert len(kernel.zeroPoint) == len(bias.zeroPoint) == 2
    else:
        assert len(kernel.scale) == len(bias.scale) == 1


def test_take_along_another_axis_keeps_the_scales() -> None:
    narrow = edited(opened(quantized(), "z"), Take("z/kernel", 1, np.array([2, 0]), KERNEL))
    kernel = read(narrow.content).subgraphs[0].tensors[1].quantization
    np.testing.assert_array_equal(kernel.scale, SCALES)


@pytest.mark.parametrize(
    ("dtype", "axis", "positions", "value", "values"),
    [
        ("int8", 0, [0, 4], 0.0, [[0] * 4, [0] * 4]),
        ("uint8", 0, [0, 4], 0.0, [[120] * 4, [120] * 4]),
        ("int8", 0, [0, 4], 1.0, [[100] * 4, [20] * 4]),
        ("int8", 1, [2], 1.0, [[100], [50], [33], [25], [20]]),
        ("uint8", 1, [2], 0.5, [[170]] * 5),
    ],
)
def test_fill_quantizes_a_real_value(
    dtype: str, axis: int, positions: list[int], value: float, values: list[list[int]]
) -> None:
    model = opened(quantized(dtype), "z")
    edit = Fill("z/kernel", axis, np.array(positions), value, KERNEL)
    filled = constant(edited(model, edit), "z/kernel")
    np.testing.assert_array_equal(np.take(filled, positions, axis=axis), values)
    others = np.setdiff1d(np.arange(filled.shape[axis]), positions)
    kept = np.take(constant(model, "z/kernel"), others, axis=axis)
    np.testing.assert_array_equal(np.take(filled, others, axis=axis), kept)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_zeroed_rows_return_the_zero_point(dtype: str) -> None:
    filled = edited(
        opened(quantized(dtype), "z"),
        Fill("z/kernel", 0, TWO, 0.0, KERNEL),
        Fill("z/bias", 0, TWO, 0.0, BIAS),
    )
    for seed in range(5):
        x = np.random.default_rng(seed).integers(0, 127, (1, 4)).astype(dtype)
        assert run(filled, x=x)["z"][:, TWO].tolist() == [[5, 5]]


# --- shared constants -----------------------------------------------------------------------------


def two_heads(*, tensor: bool) -> Builder:
    """Two dense heads on x with one bias: the same tensor, or two tensors on one buffer."""
    builder = Builder()
    x = builder.feed("x", 1, 4)
    builder.dense(x, 5, "z")
    kernel = builder.normal("w/kernel", 5, 4)
    bias = "z/bias" if tensor else builder.constant("w/bias", builder.constants["z/bias"], "z/bias")
    builder.op("FULLY_CONNECTED", [x, kernel, bias], (1, 5), "w", "FullyConnectedOptions")
    return builder


@pytest.mark.parametrize("tensor", [True, False], ids=["one tensor", "one buffer"])
def test_a_constant_that_others_read_does_not_change(tensor: bool) -> None:
    builder = two_heads(tensor=tensor)
    model = opened(builder, "z", "w")
    cuts = Take("z/kernel", 0, TWO, KERNEL), Take("z/bias", 0, TWO, BIAS), SetShape("z", (1, 2))
    answers, before = run(edited(model, *cuts)), run(model)
    np.testing.assert_array_equal(answers["w"], before["w"])
    np.testing.assert_allclose(answers["z"], before["z"][:, TWO], atol=1e-6)


@pytest.mark.parametrize("tensor", [True, False], ids=["one tensor", "one buffer"])
def test_constants_that_are_cut_equally_stay_shared(tensor: bool) -> None:
    """The buffer that no tensor has any more is emptied."""
    model = opened(two_heads(tensor=tensor), "z", "w")
    other = (Use("w", 2),)
    cuts = [Take("z/bias", 0, TWO, (*BIAS, *other))]
    if not tensor:
        cuts = [Take("z/bias", 0, TWO, BIAS), Take("w/bias", 0, TWO, other)]
    kernels = Take("z/kernel", 0, TWO, KERNEL), Take("w/kernel", 0, TWO, (Use("w", 1),))
    shapes = SetShape("z", (1, 2)), SetShape("w", (1, 2))
    result = edited(model, *cuts, *kernels, *shapes)
    for name, values in run(result).items():
        np.testing.assert_allclose(values, run(model)[name][:, TWO], atol=1e-6)
    held = sorted(len(b.data) for b in read(result.content).buffers if b.data is not None)
    assert held == [8, 32, 32]


def test_an_edit_of_both_uses_after_an_edit_of_one() -> None:
    model = opened(two_heads(tensor=True), "z", "w")
    both = (Use("z", 2), Use("w", 2))
    one = Fill("z/bias", 0, np.array([0]), 7.0, BIAS)
    result = edited(model, one, Fill("z/bias", 0, np.array([1]), 8.0, both))
    before, answers = run(model), run(result)
    bias = constant(model, "z/bias")
    np.testing.assert_allclose(
        answers["z"] - before["z"], [[7 - bias[0], 8 - bias[1], 0, 0, 0]], atol=1e-5
    )
    np.testing.assert_allclose(answers["w"] - before["w"], [[0, 8 - bias[1], 0, 0, 0]], atol=1e-5)


def test_a_buffer_of_another_subgraph_does_not_change() -> None:
    builder = classifier()
    other = Builder()
    other.model = builder.model
    other.subgraph.name = "other"
    builder.model.subgraphs.append(other.subgraph)
    other.feed("x", 1, 4)
    for name in ("z/kernel", "z/bias"):
        other.tensor(name, builder.constants[name].shape, buffer=builder.at(name).buffer)
    inputs = ["x", "z/kernel", "z/bias"]
    other.op("FULLY_CONNECTED", inputs, (1, 5), "z", "FullyConnectedOptions")
    other.subgraph.inputs, other.subgraph.outputs = np.array([0], np.int32), np.array([3], np.int32)
    cuts = Take("z/kernel", 0, TWO, KERNEL), Take("z/bias", 0, TWO, BIAS)
    shapes = SetShape("z", (1, 2)), SetShape("y", (1, 2))
    model = read(edited(opened(builder, "y"), *cuts, *shapes).content)
    for index, name in ((1, "z/kernel"), (2, "z/bias")):
        tensor = model.subgraphs[1].tensors[index]
        data = model.buffers[tensor.buffer].data.view(np.float32)
        np.testing.assert_array_equal(data, builder.constants[name].reshape(-1))


def test_metadata_in_a_constants_buffer_does_not_change() -> None:
    builder = classifier()
    builder.metadata("mine", b"")
    builder.model.metadata[0].buffer = builder.at("z/bias").buffer
    result = read(edited(opened(builder, "y"), Fill("z/bias", 0, TWO, 0.0, BIAS)).content)
    kept = result.buffers[result.metadata[0].buffer].data.view(np.float32)
    np.testing.assert_array_equal(kept, builder.constants["z/bias"])


def test_a_constant_that_is_an_output_does_not_change() -> None:
    builder = classifier()
    model = opened(builder, "y", "z/bias")
    result = edited(model, Fill("z/bias", 0, TWO, 0.0, BIAS))
    np.testing.assert_array_equal(run(result)["z/bias"], builder.constants["z/bias"])


# --- shapes, inputs, outputs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "shape", "stated", "signature"),
    [
        (None, (None, 3), [1, 3], [-1, 3]),
        (1, (1, 3), [1, 3], None),
        (1, (None, 3), [1, 3], [-1, 3]),
        (None, (2, 3), [2, 3], [2, 3]),
    ],
)
def test_set_shape(
    before: int | None, shape: tuple[int, ...], stated: list[int], signature: list[int] | None
) -> None:
    result = edited(opened(classifier(batch=before), "y"), SetShape("y", shape))
    assert result.graph().tensors["y"].shape == shape
    tensor = read(result.content).subgraphs[0].tensors[-1]
    assert tensor.shape.tolist() == stated
    found = tensor.shapeSignature
    assert (None if found is None else found.tolist()) == signature


def named(builder: Builder) -> Builder:
    builder.signature({"features": "x"}, {"probabilities": "y"})
    builder.signature({"other_features": "x"}, {"other": "y"}, "second")
    return builder


def test_add_input_is_in_every_signature() -> None:
    model = opened(named(classifier()), "y")
    gate = f32([1, 0, 2, 0, 1])
    edits = AddInput("gate", (5,), "float32"), Insert("mul", "z", ("gate",))
    result = edited(model, *edits)
    assert result.graph().inputs == ("features", "gate")
    answers = run(result, features=X, gate=gate)
    expected = softmax(logits(classifier()) * gate)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-6)
    for signature in read(result.content).signatureDefs:
        assert signature.inputs[-1].name == b"gate"


def test_add_input_without_a_signature() -> None:
    edits = AddInput("gate", (None, 5), "float32"), Insert("mul", "z", ("gate",))
    result = edited(opened(classifier(), "y"), *edits)
    assert result.graph().inputs == ("x", "gate")
    assert result.graph().tensors["gate"].shape == (None, 5)
    gate = f32([[1, 0, 2, 0, 1]])
    expected = softmax(logits(classifier()) * gate)
    np.testing.assert_allclose(run(result, x=X, gate=gate)["y"], expected, atol=1e-6)
    assert read(result.content).signatureDefs is None


OUTPUTS: dict[str, tuple[str, str, Callable[[Builder], Array]]] = {
    "an inner tensor, with its name": ("z", "z", logits),
    "an inner tensor, with another name": ("z", "logits", logits),
    "an output again": ("y", "again", lambda b: softmax(logits(b))),
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("signatures", [True, False], ids=["signatures", "none"])
def test_add_output(name: str, signatures: bool) -> None:
    tensor, shown, expected = OUTPUTS[name]
    builder = named(classifier()) if signatures else classifier()
    first, fed = ("probabilities", "features") if signatures else ("y", "x")
    model = opened(builder, "y")
    result = edited(model, AddOutput(first if tensor == "y" else tensor, shown))
    answers = run(result, **{fed: X})
    np.testing.assert_allclose(answers[shown], expected(builder), atol=1e-6)
    np.testing.assert_array_equal(answers[first], run(model, **{fed: X})[first])
    for signature in read(result.content).signatureDefs:
        assert signature.outputs[-1].name == shown.encode()


def test_several_outputs() -> None:
    result = edited(opened(classifier(), "y"), AddOutput("z", "a"), AddOutput("z", "b"))
    answers = run(result)
    assert {"y", "a", "b"} <= set(answers)
    np.testing.assert_array_equal(answers["a"], answers["b"])
    assert result.graph().outputs == ("y", "a")
    assert len(read(result.content).subgraphs[0].outputs) == 2


# --- insertion ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Inserted:
    operation: str
    operands: tuple[str | Array, ...]
    expected: Callable[[Array], Array]
    attributes: dict[str, Any] = field(default_factory=dict)
    width: int | None = None  # where the shape changes


B = f32([0.5, -1, 2, 0.25, 3])
WHERE = np.array([True, False, True, True, False])
INSERTED = [
    Inserted("add", (B,), lambda z: z + B),
    Inserted("sub", (B,), lambda z: z - B),
    Inserted("mul", ("z",), lambda z: z * z),
    Inserted("div", (B,), lambda z: z / B),
    Inserted("maximum", (B,), lambda z: np.maximum(z, B)),
    Inserted("minimum", (B,), lambda z: np.minimum(z, B)),
    Inserted("where", (WHERE, B), lambda z: np.where(WHERE, z, B)),
    Inserted("gather", (TWO.astype(np.int32),), lambda z: z[:, TWO], {"axis": 1}, 2),
    Inserted("concat", ("z",), lambda z: np.concatenate([z, z], axis=1), {"axis": -1}, 10),
    *(
        Inserted(
            "pad",
            (),
            lambda z, value=value: np.pad(z, ((0, 0), (0, 1)), constant_values=value),  # type: ignore[misc] # bound now
            {"axis": axis, "value": value},
            6,
        )
        for axis, value in ((1, -1e4), (-1, 0.0))
    ),
    Inserted("softmax", (), softmax),
    Inserted("softmax", (), softmax, {"axis": 1}),
    Inserted("log_softmax", (), lambda z: np.log(softmax(z))),
    Inserted("sigmoid", (), lambda z: 1 / (1 + np.exp(-z))),
    Inserted("relu", (), lambda z: np.maximum(z, 0)),
]


@pytest.mark.parametrize("signatures", [True, False], ids=["signatures", "none"])
@pytest.mark.parametrize("case", INSERTED, ids=lambda c: f"{c.operation} {c.attributes or ''}")
def test_insert(case: Inserted, signatures: bool) -> None:
    """After a tensor that an operator reads and that is an output too."""
    builder = classifier()
    builder.op("RELU", ["z"], (1, 5), "r")
    if signatures:
        builder.signature({"x": "x"}, {"z": "z", "r": "r"})
    shape = None if case.width is None else (1, case.width)
    insert = Insert(case.operation, "z", case.operands, case.attributes, shape)
    follow = [] if shape is None else [SetShape("r", shape), SetShape("y", shape)]
    result = edited(opened(builder, "z", "r"), insert, *follow)
    answers = run(result)
    assert list(answers) == ["z", "r"]
    expected = case.expected(logits(builder))
    np.testing.assert_allclose(answers["z"], expected, atol=1e-5)
    np.testing.assert_allclose(answers["r"], np.maximum(expected, 0), atol=1e-5)


def dense() -> Builder:
    """x -> dense "z", which nothing reads."""
    builder = Builder()
    builder.dense(builder.feed("x", 1, 4), 5, "z")
    return builder


@pytest.mark.parametrize("operation", ["greater", "less"])
def test_insert_a_comparison(operation: str) -> None:
    builder = dense()
    result = edited(opened(builder, "z"), Insert(operation, "z", (B,)))
    z = logits(builder)
    expected = z > B if operation == "greater" else z < B
    np.testing.assert_array_equal(run(result)["z"], expected)


def test_insert_a_cast() -> None:
    builder = dense()
    insert = Insert("cast", "z", (), {"dtype": "int32"})
    answer = run(edited(opened(builder, "z"), insert))["z"]
    np.testing.assert_array_equal(answer, logits(builder).astype(np.int32))
    assert answer.dtype == np.int32


def test_the_later_insertion_comes_last() -> None:
    """The result takes over the tensor's name, so that later edits of the plan refer to it."""
    inserts = Insert("mul", "z", (B,)), Insert("add", "z", (B,))
    builder = classifier()
    result = edited(opened(builder, "y"), *inserts, AddOutput("z", "z"))
    np.testing.assert_allclose(run(result)["z"], logits(builder) * B + B, atol=1e-5)


def test_operator_codes_have_the_old_and_the_new_field() -> None:
    result = read(edited(opened(classifier(), "y"), Insert("add", "z", (B,))).content)
    code = result.operatorCodes[result.subgraphs[0].operators[1].opcodeIndex]
    assert (code.deprecatedBuiltinCode, code.builtinCode, code.version) == (0, 0, 1)
    softmaxes = sum(c.builtinCode == 25 for c in result.operatorCodes)  # SOFTMAX in the schema
    again = edited(opened(classifier(), "y"), Insert("softmax", "z"))
    assert sum(c.builtinCode == 25 for c in read(again.content).operatorCodes) == softmaxes


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_operations_that_only_move_quantized_values(dtype: str) -> None:
    model = opened(quantized(dtype), "z")
    x = np.random.default_rng(3).integers(0, 100, (1, 4)).astype(dtype)
    fill = np.full((1, 1), 5, dtype)
    insert = Insert("concat", "z", (fill,), {"axis": 1}, (1, 6))
    answer = run(edited(model, insert), x=x)["z"]
    np.testing.assert_array_equal(answer, np.append(run(model, x=x)["z"], fill, axis=1))
