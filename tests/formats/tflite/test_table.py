"""The neutral operation of each TFLite operator, and cuts of heads with the operator in their tail.

A tail of operators follows a dense head; the file is cut and run, and compared with the kept
positions of the original's output, renormalized in NumPy if the tail ends in a softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.formats.tflite.table import TABLE
from exporter.graph import Array, Node
from exporter.graph.edits import Plan
from exporter.graph.operations import Activation, Elementwise, Gather, Linear, Operation, Reshape
from exporter.modes import MODES, PLAIN, Semantics
from exporter.trace import trace
from exporter.trace.head import Head
from tests.builders.tflite_builder import Builder

Tail = Callable[[Builder], str]  # follows the tensor "z" [batch, 6]; returns the output
X = np.random.default_rng(5).normal(size=(2, 4)).astype(np.float32)
KEPT = [4, 0, 3]


def headed(tail: Tail, *, batch: int | None = 2) -> TfliteModel:
    builder = Builder(3)
    builder.dense(builder.feed("x", batch, 4), 6, "z")
    return from_bytes(builder.content(tail(builder)), "tail.tflite")


def answer(model: TfliteModel, x: Array = X) -> Array:
    (output,) = model.graph().outputs
    return model.runner(RunOptions(batch=len(x)))({"x": x})[output]


def head_of(model: TfliteModel) -> Head:
    return trace(model.graph()).head()


def ints(*values: int) -> Array:
    return np.array(values, np.int32)


def op(operator: str, options: str = "", *others: Any, **fields: Any) -> Tail:
    """One operator of "z" and constants."""

    def tail(builder: Builder) -> str:
        inputs = ["z", *(builder.constant(f"c{i}", other) for i, other in enumerate(others))]
        return builder.op(operator, inputs, builder.shape_of("z"), "y", options, **fields)

    return tail


def swapped(operator: str, options: str, other: Array) -> Tail:
    """One operator of a constant and "z"."""

    def tail(builder: Builder) -> str:
        inputs = [builder.constant("c", other), "z"]
        return builder.op(operator, inputs, builder.shape_of("z"), "y", options)

    return tail


# --- refused --------------------------------------------------------------------------------------


def _softmax_beta(builder: Builder) -> str:
    return builder.softmax("z", "y", beta=-2.0)


def _sign_bit(builder: Builder) -> str:
    return op("ADD", "AddOptions", np.float32(1), fusedActivationFunction=5)(builder)


def _second_softmax(builder: Builder) -> str:
    return builder.softmax(builder.softmax("z", "p"), "y")


def _centered(builder: Builder) -> str:
    inputs = ["z", builder.constant("axes", ints(1))]
    builder.op("MEAN", inputs, (2, 1), "m", "ReducerOptions", keepDims=True)
    return builder.op("SUB", ["z", "m"], (2, 6), "y", "SubOptions")


def _computed_shape(builder: Builder) -> str:
    builder.feed("shape", 2, dtype="int32")
    return builder.op("RESHAPE", ["z", "shape"], (2, 6), "y")


def _computed_order(builder: Builder) -> str:
    builder.feed("order", 2, dtype="int32")
    return builder.op("TRANSPOSE", ["z", "order"], (6, 2), "y", "TransposeOptions")


def _both_computed(builder: Builder) -> str:
    builder.feed("w", 6, 3)
    return builder.op("BATCH_MATMUL", ["z", "w"], (2, 3), "y", "BatchMatMulOptions")


def _shuffled(builder: Builder) -> str:
    builder.dense("z", 5, "y")
    builder.subgraph.operators[-1].builtinOptions.weightsFormat = 1
    return "y"


def _scrambled(builder: Builder) -> str:
    shape = builder.constant("shape", ints(3, 4))
    return builder.op("RESHAPE", ["z", shape], (3, 4), "y")


def _other_shape(builder: Builder) -> str:
    shape = builder.constant("shape", ints(2, 3, 2))
    return builder.op("RESHAPE", ["z", shape], (2, 6), "y")


REFUSED: dict[str, tuple[Tail, str]] = {
    "an operator without a row": (
        op("CUMSUM", "CumsumOptions", np.int32(1)),
        "CUMSUM 'y': there is no rule",
    ),
    "softmax with a negative beta": (_softmax_beta, "beta = -2"),
    "a fused sign": (_sign_bit, "keeps only the sign"),
    "a second softmax": (_second_softmax, "mixes the units"),
    "a mean of the units": (_centered, "MEAN 'm': it mixes the units"),
    "a shape that is fed": (_computed_shape, "shape is computed while the model runs"),
    "a permutation that is fed": (_computed_order, "permutation is computed"),
    "two computed sides": (_both_computed, "right side is not a constant"),
    "shuffled weights": (_shuffled, "shuffled"),
    "units mixed with the batch": (_scrambled, "RESHAPE 'y'"),
    "a shape that does not fit": (_other_shape, "do not fit together"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    tail, message = REFUSED[name]
    model = headed(tail)
    with pytest.raises(ModelError, match=message):
        head_of(model)


def test_a_grouped_convolution_is_refused() -> None:
    builder = Builder()
    builder.feed("x", 1, 3, 3, 4)
    inputs = ["x", builder.normal("k", 6, 1, 1, 2), builder.normal("b", 6)]
    builder.op("CONV_2D", inputs, (1, 3, 3, 6), "y", "Conv2DOptions", strideW=1, strideH=1)
    model = from_bytes(builder.content("y"), "grouped.tflite")
    with pytest.raises(ModelError, match="2 groups"):
        head_of(model)


def test_a_head_in_another_subgraph_is_refused() -> None:
    builder = Builder()
    builder.feed("x", 2, 4)
    builder.op("CALL_ONCE", [], (2, 6), "unused", "CallOnceOptions", initSubgraphIndex=1)
    builder.op(
        "WHILE", ["x"], (2, 4), "y", "WhileOptions", condSubgraphIndex=1, bodySubgraphIndex=2
    )
    for name in ("init", "cond", "body"):
        inner = Builder()
        inner.subgraph.name = name
        inner.model.buffers, inner.model.operatorCodes = [], []
        inner.feed("a", 2, 4)
        inner.subgraph.inputs = inner.subgraph.outputs = ints(0)
        builder.model.subgraphs.append(inner.subgraph)
    builder.model.subgraphs[1].inputs = builder.model.subgraphs[1].outputs = ints()
    model = from_bytes(builder.content("y"), "loop.tflite")
    with pytest.raises(ModelError, match="WHILE 'y': it runs other subgraphs"):
        head_of(model)


# --- elementwise and activations ------------------------------------------------------------------

V = np.random.default_rng(9).uniform(0.5, 2.0, 6).astype(np.float32)
KEEPS_ZERO: dict[str, Tail] = {
    "ADD a vector": op("ADD", "AddOptions", V),
    "ADD, fused": op("ADD", "AddOptions", -V, fusedActivationFunction=1),
    "ADD, constant first": swapped("ADD", "AddOptions", V),
    "SUB": op("SUB", "SubOptions", V),
    "SUB, constant first": swapped("SUB", "SubOptions", V),
    "MUL": op("MUL", "MulOptions", V),
    "MUL a matrix": op("MUL", "MulOptions", V[None]),
    "DIV": op("DIV", "DivOptions", V),
    "CAST": op("CAST", "CastOptions"),
    "ELU": op("ELU"),
    "GELU": op("GELU", "GeluOptions"),
    "GELU, approximate": op("GELU", "GeluOptions", approximate=True),
    "LEAKY_RELU": op("LEAKY_RELU", "LeakyReluOptions", alpha=0.3),
    "RELU": op("RELU"),
    "RELU6": op("RELU6"),
    "RELU_0_TO_1": op("RELU_0_TO_1"),
    "RELU_N1_TO_1": op("RELU_N1_TO_1"),
    "TANH": op("TANH"),
    "nothing": lambda _: "z",
}
NOT_ZERO: dict[str, Tail] = {
    "ADD a number": op("ADD", "AddOptions", np.float32(2)),
    "DIV, constant first": swapped("DIV", "DivOptions", V),
    "EXP": op("EXP", "ExpOptions"),
    "LOGISTIC": op("LOGISTIC"),
}


def cut(model: TfliteModel, mode: str) -> TfliteModel:
    return model.apply(Plan(MODES[mode].edits(head_of(model), KEPT)))


@pytest.mark.parametrize("name", [*KEEPS_ZERO, *NOT_ZERO])
@pytest.mark.parametrize("batch", [2, None], ids=["fixed", "open"])
def test_slice_matches_the_original(name: str, batch: int | None) -> None:
    model = headed((KEEPS_ZERO | NOT_ZERO)[name], batch=batch)
    narrow = cut(model, "slice")
    np.testing.assert_allclose(answer(narrow), answer(model)[:, KEPT], rtol=1e-6, atol=1e-6)
    (output,) = narrow.graph().outputs
    assert narrow.graph().tensors[output].shape == (batch, 3)


@pytest.mark.parametrize("name", KEEPS_ZERO)
def test_zero_is_exact_at_z(name: str) -> None:
    model = headed(KEEPS_ZERO[name])
    expected = answer(model)
    expected[:, [1, 2, 5]] = 0.0
    zeroed = answer(cut(model, "zero"))
    assert not zeroed[:, [1, 2, 5]].any()
    np.testing.assert_allclose(zeroed, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["ADD a number", "DIV, constant first"])
def test_zero_that_would_not_stay_zero_is_refused(name: str) -> None:
    model = headed(NOT_ZERO[name])
    with pytest.raises(ModelError, match="removed unit's value would not be 0"):
        cut(model, "zero")


def _silu(builder: Builder) -> str:
    builder.op("LOGISTIC", ["z"], (2, 6), "s")
    return builder.op("MUL", ["z", "s"], (2, 6), "y", "MulOptions")


def _two_branches(builder: Builder) -> str:
    builder.dense("x", 6, "other")
    return builder.op("ADD", ["z", "other"], (2, 6), "y", "AddOptions")


@pytest.mark.parametrize("tail", [_silu, _two_branches])
def test_joins(tail: Tail) -> None:
    model = headed(tail)
    expected = answer(model)[:, KEPT]
    np.testing.assert_allclose(answer(cut(model, "slice")), expected, rtol=1e-6, atol=1e-6)


def renormalized(y: Array, axis: int) -> Array:
    """Probabilities of the kept units, adding up to 1."""
    kept = np.take(y.astype(np.float64), KEPT, axis=axis)
    result: Array = kept / kept.sum(axis=axis, keepdims=True)
    return result


def test_softmax() -> None:
    model = headed(lambda builder: builder.softmax("z", "y"))
    assert head_of(model).activation == "softmax"
    expected = renormalized(answer(model), 1)
    np.testing.assert_allclose(answer(cut(model, "slice")), expected, atol=1e-6)


def test_per_unit_temperatures_are_cut() -> None:
    def tail(builder: Builder) -> str:
        warm = builder.op(
            "DIV", ["z", builder.constant("temperature", V)], (2, 6), "w", "DivOptions"
        )
        return builder.softmax(warm, "y")

    model = headed(tail)
    assert head_of(model).activation == "softmax"
    expected = renormalized(answer(model), 1)
    for mode in ("slice", "mask"):
        answered = answer(cut(model, mode))
        kept = answered if mode == "slice" else answered[:, KEPT]
        np.testing.assert_allclose(kept, expected, atol=1e-6)


def test_log_softmax() -> None:
    model = headed(op("LOG_SOFTMAX", "LogSoftmaxOptions"))
    assert head_of(model).activation == "log_softmax"
    expected = np.log(renormalized(np.exp(answer(model)), 1))
    np.testing.assert_allclose(answer(cut(model, "slice")), expected, atol=1e-6)


# --- positions ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moved:
    """A tail that moves the units: [batch, 6] -> shape, with the units along an axis."""

    tail: Tail
    axis: int


def _reshape(*target: int, slot: bool, option: bool) -> Tail:
    def tail(builder: Builder) -> str:
        inputs = ["z", builder.constant("shape", ints(*target))] if slot else ["z"]
        shape = tuple(2 if i == 0 else n for i, n in enumerate(target))
        if not option:
            return builder.op("RESHAPE", inputs, shape, "y")
        stated = ints(*target)
        return builder.op("RESHAPE", inputs, shape, "y", "ReshapeOptions", newShape=stated)

    return tail


def _stale_option(builder: Builder) -> str:
    """The runtime reads the input, not the option."""
    inputs = ["z", builder.constant("shape", ints(2, 6, 1))]
    stale = ints(9, 9)
    return builder.op("RESHAPE", inputs, (2, 6, 1), "y", "ReshapeOptions", newShape=stale)


def _squeeze(builder: Builder) -> str:
    _reshape(2, 1, 6, slot=True, option=False)(builder)
    return builder.op("SQUEEZE", ["y"], (2, 6), "s", "SqueezeOptions", squeezeDims=ints(1))


def _expand(builder: Builder) -> str:
    axis = builder.constant("axis", ints(1))
    return builder.op("EXPAND_DIMS", ["z", axis], (2, 1, 6), "y", "ExpandDimsOptions")


def _transpose(builder: Builder) -> str:
    _reshape(2, 6, 1, slot=True, option=False)(builder)
    order = builder.constant("order", ints(0, 2, 1))
    return builder.op("TRANSPOSE", ["y", order], (2, 1, 6), "t", "TransposeOptions")


def _open_batch(builder: Builder) -> str:
    """As converters write it: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    one, zero = builder.constant("one", ints(1)), builder.constant("zero", ints(0))
    builder.op("SHAPE", ["z"], (2,), "sizes", "ShapeOptions", dtype="int32", outType=2)
    options: dict[str, Any] = {"shrinkAxisMask": 1}
    inputs = ["sizes", zero, one, one]
    builder.op("STRIDED_SLICE", inputs, (), "n", "StridedSliceOptions", "int32", **options)
    width, last = builder.constant("six", np.int32(6)), builder.constant("last", np.int32(1))
    fields: dict[str, Any] = {"valuesCount": 3}
    builder.op("PACK", ["n", width, last], (3,), "shape", "PackOptions", "int32", **fields)
    return builder.op("RESHAPE", ["z", "shape"], (None, 6, 1), "y")


def _joined_shape(builder: Builder) -> str:
    """The same with GATHER and CONCATENATION."""
    chosen, rest = builder.constant("zero", ints(0)), builder.constant("rest", ints(6, 1))
    builder.op("SHAPE", ["z"], (2,), "sizes", "ShapeOptions", dtype="int32", outType=2)
    builder.op("GATHER", ["sizes", chosen], (1,), "n", "GatherOptions", "int32")
    builder.op("CONCATENATION", ["n", rest], (3,), "shape", "ConcatenationOptions", "int32")
    return builder.op("RESHAPE", ["z", "shape"], (None, 6, 1), "y")


MOVED: dict[str, Moved] = {
    "RESHAPE, shape as input": Moved(_reshape(2, 6, 1, slot=True, option=False), 1),
    "RESHAPE, shape as option": Moved(_reshape(2, 1, 6, slot=False, option=True), 2),
    "RESHAPE, both": Moved(_reshape(-1, 6, 1, slot=True, option=True), 1),
    "RESHAPE, width left open": Moved(_reshape(2, 1, 6, slot=True, option=False), 2),
    "RESHAPE, stale option": Moved(_stale_option, 1),
    "RESHAPE, shape computed": Moved(_open_batch, 1),
    "RESHAPE, shape joined": Moved(_joined_shape, 1),
    "SQUEEZE": Moved(_squeeze, 1),
    "EXPAND_DIMS": Moved(_expand, 2),
    "TRANSPOSE": Moved(_transpose, 2),
}


REMOVED = {"zero": 0.0, "mask": -1e4, "gate": -1e4}
MEANINGS = {"gate": Semantics(gate="abs >= 0")}  # all kept units pass


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MOVED)
def test_tails_that_move_the_unit_axis(name: str, mode: str) -> None:
    moved = MOVED[name]
    model = headed(moved.tail)
    head = head_of_axis(model, moved.axis)
    result = answer(model.apply(Plan(MODES[mode].edits(head, KEPT, MEANINGS.get(mode, PLAIN)))))
    original = answer(model)
    if mode == "slice":
        expected = np.take(original, KEPT, axis=moved.axis)
    else:
        kept = np.isin(np.arange(6), KEPT).reshape(
            [-1 if i == moved.axis else 1 for i in range(original.ndim)]
        )
        expected = np.where(kept, original, REMOVED[mode])
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


def head_of_axis(model: TfliteModel, axis: int) -> Head:
    (head,) = (head for head in trace(model.graph()).heads if head.axis == axis)
    return head


def test_a_computed_shape_still_depends_on_the_batch() -> None:
    narrow = cut(headed(_open_batch, batch=None), "slice")
    for count in (1, 3):
        x = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
        assert answer(narrow, x).shape == (count, 3, 1)


# --- linear ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Product:
    """A head and the axis of its units."""

    build: Callable[[Builder], str]
    axis: int


def _dense(*shape: int, bias: bool = True, activation: int = 0) -> Callable[[Builder], str]:
    def build(builder: Builder) -> str:
        builder.dense(builder.feed("x", *shape), 6, "y", bias=bias)
        builder.subgraph.operators[-1].builtinOptions.fusedActivationFunction = activation
        return "y"

    return build


def _flattening(builder: Builder) -> str:
    """Without keep_num_dims the input becomes a matrix."""
    inputs = [builder.feed("x", 2, 3, 4), builder.normal("k", 6, 4), builder.normal("b", 6)]
    return builder.op("FULLY_CONNECTED", inputs, (6, 6), "y", "FullyConnectedOptions")


def _convolution(size: int, activation: int = 0) -> Callable[[Builder], str]:
    def build(builder: Builder) -> str:
        inputs = [builder.feed("x", 1, 5, 5, 3)]
        inputs += [builder.normal("k", 6, size, size, 3), builder.normal("b", 6)]
        fields: dict[str, Any] = {"strideW": 1, "strideH": 1, "fusedActivationFunction": activation}
        return builder.op("CONV_2D", inputs, (1, 5, 5, 6), "y", "Conv2DOptions", **fields)

    return build


def _matmul(*, adjoint: bool) -> Callable[[Builder], str]:
    def build(builder: Builder) -> str:
        kernel = builder.normal("k", 6, 4) if adjoint else builder.normal("k", 4, 6)
        inputs = [builder.feed("x", 2, 3, 4), kernel]
        return builder.op(
            "BATCH_MATMUL", inputs, (2, 3, 6), "y", "BatchMatMulOptions", adjY=adjoint
        )

    return build


def _without_options(builder: Builder) -> str:
    _dense(2, 4)(builder)
    operator = builder.subgraph.operators[-1]
    operator.builtinOptionsType, operator.builtinOptions = 0, None
    return "y"


PRODUCTS: dict[str, Product] = {
    "FULLY_CONNECTED": Product(_dense(2, 4), 1),
    "FULLY_CONNECTED without bias": Product(_dense(2, 4, bias=False), 1),
    "FULLY_CONNECTED, fused": Product(_dense(2, 4, activation=1), 1),
    "FULLY_CONNECTED on three axes": Product(_dense(2, 3, 4), 2),
    "FULLY_CONNECTED, flattening": Product(_flattening, 1),
    "CONV_2D 1x1": Product(_convolution(1), 3),
    "CONV_2D 3x3, fused": Product(_convolution(3, activation=3), 3),
    "BATCH_MATMUL": Product(_matmul(adjoint=False), 2),
    "BATCH_MATMUL, adjoint": Product(_matmul(adjoint=True), 2),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_linear_heads(name: str, mode: str) -> None:
    product = PRODUCTS[name]
    builder = Builder(11)
    model = from_bytes(builder.content(product.build(builder)), "linear.tflite")
    shape = builder.shape_of("x")
    x = np.random.default_rng(2).normal(size=[n or 1 for n in shape]).astype(np.float32)
    head = head_of(model)
    assert (head.axis, head.units) == (product.axis, 6)
    original = answer(model, x)
    result = answer(model.apply(Plan(MODES[mode].edits(head, KEPT, MEANINGS.get(mode, PLAIN)))), x)
    if mode == "slice":
        expected = np.take(original, KEPT, axis=product.axis)
    else:
        expected = np.where(np.isin(np.arange(6), KEPT), original, REMOVED[mode])
        assert set(np.unique(result[..., [1, 2, 5]])) == {REMOVED[mode]}
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


# --- the neutral operations -----------------------------------------------------------------------


def the_node(model: TfliteModel, operator: str) -> Node:
    return next(node for node in model.graph().nodes if node.operator == operator)


@pytest.mark.parametrize(
    ("tail", "operation"),
    [
        (op("ADD", "AddOptions", V), Elementwise(offsets=(1,), function="add")),
        (swapped("SUB", "SubOptions", V), Elementwise(offsets=(0,), function="sub")),
        (op("MUL", "MulOptions", V), Elementwise(function="mul")),
        (swapped("DIV", "DivOptions", V), Elementwise(keeps_zero=False, function="div")),
        (
            op("LEAKY_RELU", "LeakyReluOptions", alpha=0.5),
            Activation("leaky_relu", None, (("alpha", 0.5),)),
        ),
        (
            op("GELU", "GeluOptions", approximate=True),
            Activation("gelu", None, (("approximate", 1.0),)),
        ),
        (_reshape(2, 6, 1, slot=False, option=True), Reshape((2, 6, 1), None, "newShape")),
        (_reshape(2, 6, 1, slot=True, option=True), Reshape((2, 6, 1), 1, "newShape")),
        (_stale_option, Reshape((2, 6, 1), 1, None)),
        (_open_batch, Reshape((2, 6, 1), 1, None)),
    ],
    ids=[
        "ADD",
        "SUB",
        "MUL",
        "DIV",
        "LEAKY_RELU",
        "GELU",
        "RESHAPE, target as option",
        "RESHAPE, target as input",
        "RESHAPE, both, the option stale",
        "RESHAPE, open batch",
    ],
)
def test_translation(tail: Tail, operation: Operation) -> None:
    assert headed(tail).graph().nodes[-1].operation == operation


@pytest.mark.parametrize("operator", ["GATHER", "EMBEDDING_LOOKUP"])
def test_a_table_of_ids_is_the_first_input(operator: str) -> None:
    builder = Builder()
    ids, rows = builder.feed("ids", 3, dtype="int32"), builder.normal("rows", 9, 4)
    inputs = [rows, ids] if operator == "GATHER" else [ids, rows]
    options = "GatherOptions" if operator == "GATHER" else ""
    builder.op(operator, inputs, (3, 4), "e", options)
    builder.dense("e", 6, "y")
    node = the_node(from_bytes(builder.content("y"), "ids.tflite"), operator)
    assert node.operation == Gather(0)
    assert node.inputs == ("rows", "ids")


@pytest.mark.parametrize("through", ["DEQUANTIZE", "QUANTIZE"])
def test_dequantized_weights(through: str) -> None:
    """A kernel of half precision, as converters store it."""
    if through == "QUANTIZE":
        model = headed(op("QUANTIZE", "QuantizeOptions"))
        assert isinstance(the_node(model, "QUANTIZE").operation, Elementwise)
        return
    builder = Builder(4)
    builder.feed("x", 2, 4)
    half = builder.constant("half", builder.random.normal(size=(6, 4)).astype(np.float16))
    builder.op("DEQUANTIZE", [half], (6, 4), "k", "DequantizeOptions")
    builder.op("FULLY_CONNECTED", ["x", "k", ""], (2, 6), "y", "FullyConnectedOptions")
    model = from_bytes(builder.content("y"), "half.tflite")
    assert model.precision == "fp16"
    original = answer(model)
    np.testing.assert_allclose(answer(cut(model, "slice")), original[:, KEPT], rtol=1e-6)
    zeroed = answer(cut(model, "zero"))
    np.testing.assert_allclose(
        zeroed, np.where(np.isin(np.arange(6), KEPT), original, 0), rtol=1e-6
    )


def test_missing_options_have_their_defaults() -> None:
    builder = Builder()
    model = from_bytes(builder.content(_without_options(builder)), "bare.tflite")
    assert isinstance(the_node(model, "FULLY_CONNECTED").operation, Linear)
    assert head_of(model).units == 6


def test_sparse_weights_are_opaque() -> None:
    """The first of 6 rows dense, the others empty, as the schema's block-free CSR."""
    builder = Builder()
    _dense(2, 4)(builder)
    kernel = builder.at("y/kernel")
    kernel.buffer = builder.buffer(np.ones(4, np.float32))
    rows = schema.DimensionMetadataT(format=schema.DimensionType.DENSE, denseSize=6)
    columns = schema.DimensionMetadataT(
        format=schema.DimensionType.SPARSE_CSR,
        arraySegmentsType=schema.SparseIndexVector.Int32Vector,
        arraySegments=schema.Int32VectorT(ints(0, 4, 4, 4, 4, 4, 4)),
        arrayIndicesType=schema.SparseIndexVector.Int32Vector,
        arrayIndices=schema.Int32VectorT(ints(0, 1, 2, 3)),
    )
    kernel.sparsity = schema.SparsityParametersT(ints(0, 1), None, [rows, columns])
    model = from_bytes(builder.content("y"), "sparse.tflite")
    with pytest.raises(ModelError, match="FULLY_CONNECTED 'y': its constants are stored sparsely"):
        head_of(model)


def test_the_table_is_sorted() -> None:
    assert list(TABLE) == sorted(TABLE)
