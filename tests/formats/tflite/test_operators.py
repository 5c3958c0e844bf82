"""Rows of the TFLite table beyond the dense classifier: each is cut, run and compared.

Expected values come from the original file in LiteRT, not from the oracle of the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.graph import Array
from exporter.graph.edits import Plan
from exporter.graph.operations import Activation
from exporter.modes import MODES, PLAIN, Semantics
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace
from exporter.trace.head import Head
from tests.builders.tflite_builder import Builder

Build = Callable[[Builder], Sequence[str]]  # returns the outputs
KEPT = (1, 3, 4)


def ints(*values: int) -> Array:
    return np.array(values, np.int32)


def built(build: Build, seed: int = 3) -> TfliteModel:
    builder = Builder(seed)
    return from_bytes(builder.content(*build(builder)), "built.tflite")


def answers(model: TfliteModel, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for name in model.graph().inputs:
        tensor = model.graph().tensors[name]
        shape = [n or 1 for n in tensor.shape or ()]
        values = random.normal(size=shape)
        integer = "int" in tensor.dtype
        feeds[name] = (random.integers(0, 100, shape) if integer else values).astype(tensor.dtype)
    return model.runner(RunOptions())(feeds)


def cut(model: TfliteModel, head: Head, mode: str, kept: Sequence[int]) -> TfliteModel:
    semantics = Semantics(gate="abs >= 0") if mode == "gate" else PLAIN  # all kept units pass
    return model.apply(Plan(MODES[mode].edits(head, kept, semantics)))


# --- helpers of the cases -------------------------------------------------------------------------


def dense(builder: Builder, name: str = "z", units: int = 6) -> str:
    """[2, units]"""
    x = "x" if "x" in builder.names else builder.feed("x", 2, 4)
    return builder.dense(x, units, name)


def picture(builder: Builder, name: str = "z", units: int = 6) -> str:
    """[1, 4, 4, units]"""
    x = "x" if "x" in builder.names else builder.feed("x", 1, 4, 4, 3)
    inputs = [x, builder.normal(f"{name}/k", units, 1, 1, 3), builder.normal(f"{name}/b", units)]
    stride: dict[str, Any] = {"strideW": 1, "strideH": 1}
    return builder.op("CONV_2D", inputs, (1, 4, 4, units), name, "Conv2DOptions", **stride)


Source = Callable[[Builder], str]
Shape = tuple[int, ...]


def op(
    source: Source, operator: str, shape: Shape, options: str = "", *others: Any, **fields: Any
) -> Build:
    """One operator after dense() or picture(); its other inputs are constants."""

    def build(builder: Builder) -> Sequence[str]:
        inputs = [source(builder)]
        inputs += [builder.constant(f"c{i}", other) for i, other in enumerate(others)]
        return [builder.op(operator, inputs, shape, "y", options, **fields)]

    return build


def several(
    builder: Builder,
    operator: str,
    inputs: Sequence[str],
    outputs: Sequence[tuple[str, Shape]],
    options: str = "",
    **fields: Any,
) -> list[str]:
    """One operator with several outputs."""
    (name, shape), *more = outputs
    builder.op(operator, inputs, shape, name, options, **fields)
    names = [name, *(builder.tensor(other, size) for other, size in more)]
    builder.subgraph.operators[-1].outputs = ints(*(builder.names[each] for each in names))
    return names


V = np.random.default_rng(9).uniform(0.5, 2.0, 6).astype(np.float32)

# --- refused --------------------------------------------------------------------------------------


def _depthwise(channels: int) -> Build:
    def build(builder: Builder) -> list[str]:
        inputs = [builder.feed("x", 1, 4, 4, channels), builder.normal("k", 1, 2, 2, 6)]
        inputs.append(builder.normal("b", 6))
        fields: dict[str, Any] = {"strideW": 1, "strideH": 1, "depthMultiplier": 6 // channels}
        shape = (1, 4, 4, 6)
        options = "DepthwiseConv2DOptions"
        return [builder.op("DEPTHWISE_CONV_2D", inputs, shape, "y", options, **fields)]

    return build


def _grouped(builder: Builder) -> list[str]:
    inputs = [builder.feed("x", 1, 4, 4, 4), builder.normal("k", 6, 1, 1, 2)]
    fields: dict[str, Any] = {"strideW": 1, "strideH": 1}
    return [builder.op("CONV_2D", [*inputs, ""], (1, 4, 4, 6), "y", "Conv2DOptions", **fields)]


def _computed_kernel(builder: Builder) -> list[str]:
    inputs = [builder.feed("x", 2, 4), builder.feed("k", 6, 4), ""]
    return [builder.op("FULLY_CONNECTED", inputs, (2, 6), "y", "FullyConnectedOptions")]


def _equal_parts(builder: Builder) -> Sequence[str]:
    inputs = [builder.constant("axis", ints(1)), dense(builder)]
    parts = [("a", (2, 3)), ("b", (2, 3))]
    return several(builder, "SPLIT", inputs, parts, "SplitOptions", numSplits=2)


def _computed_per_channel(builder: Builder) -> list[str]:
    dense(builder)
    builder.op("QUANTIZE", ["z"], (2, 6), "q", "QuantizeOptions", dtype="int8", version=2)
    builder.quantize("q", V, np.zeros(6), axis=1)
    return ["q"]


def _arithmetic_on_ids(builder: Builder) -> list[str]:
    inputs = [dense(builder), builder.constant("axis", ints(1))]
    builder.op("ARG_MAX", inputs, (2,), "i", "ArgMaxOptions", dtype="int32", outputType=2)
    one = builder.constant("one", ints(1))
    builder.op("ADD", ["i", one], (2,), "id", "AddOptions", dtype="int32")
    return ["z", "id"]


def _twice(builder: Builder) -> list[str]:
    dense(builder)
    axis: dict[str, Any] = {"axis": 1}
    return [builder.op("CONCATENATION", ["z", "z"], (2, 12), "y", "ConcatenationOptions", **axis)]


def _strided(begin: int, end: int, step: int, width: int, **masks: int) -> Build:
    bounds = [ints(0, begin), ints(2, end), ints(1, step)]
    fields: dict[str, Any] = {"beginMask": 1, "endMask": 1} | masks
    return op(dense, "STRIDED_SLICE", (2, width), "StridedSliceOptions", *bounds, **fields)


def _sliced(begin: int, size: int, width: int) -> Build:
    return op(dense, "SLICE", (2, width), "SliceOptions", ints(0, begin), ints(2, size))


def _one_of_many(builder: Builder) -> list[str]:
    shape = builder.constant("shape", ints(2, 2, 3))
    builder.op("RESHAPE", [dense(builder), shape], (2, 2, 3), "r")
    bounds = [ints(0, 1, 0), ints(2, 2, 3), ints(1, 1, 1)]
    inputs = ["r", *(builder.constant(f"c{i}", bound) for i, bound in enumerate(bounds))]
    fields: dict[str, Any] = {"beginMask": 5, "endMask": 5, "shrinkAxisMask": 2}
    return [builder.op("STRIDED_SLICE", inputs, (2, 3), "y", "StridedSliceOptions", **fields)]


def _maximum(builder: Builder) -> list[str]:
    """Next to the values themselves."""
    inputs = [dense(builder), builder.constant("axes", ints(1))]
    return ["z", builder.op("REDUCE_MAX", inputs, (2,), "y", "ReducerOptions")]


def _all_squeezed(builder: Builder) -> list[str]:
    shape = builder.constant("shape", ints(2, 1, 6))
    builder.op("RESHAPE", [dense(builder), shape], (2, 1, 6), "r")
    return [builder.op("SQUEEZE", ["r"], (2, 6), "y", "SqueezeOptions")]


def _transposed_convolution(builder: Builder) -> list[str]:
    """An input states the shape of its result."""
    shape = builder.feed("shape", 4, dtype="int32")
    inputs = [shape, builder.normal("k", 6, 2, 2, 3), builder.feed("x", 1, 4, 4, 3)]
    fields: dict[str, Any] = {"strideW": 2, "strideH": 2}
    return [
        builder.op("TRANSPOSE_CONV", inputs, (1, 8, 8, 6), "y", "TransposeConvOptions", **fields)
    ]


def _branch(builder: Builder) -> list[str]:
    """z goes into an IF whose branches return their input."""
    dense(builder)
    condition = builder.feed("c", dtype="bool")
    fields: dict[str, Any] = {"thenSubgraphIndex": 1, "elseSubgraphIndex": 1}
    builder.op("IF", [condition, "z"], (2, 6), "y", "IfOptions", **fields)
    inner = Builder()
    inner.feed("a", 2, 6)
    inner.subgraph.inputs = inner.subgraph.outputs = ints(0)
    builder.model.subgraphs.append(inner.subgraph)
    return ["y"]


REFUSED: dict[str, tuple[Build, str]] = {
    "a depthwise convolution": (_depthwise(3), "3 groups"),
    "a grouped convolution": (_grouped, "2 groups"),
    "a computed kernel": (_computed_kernel, "kernel is not a constant but computed"),
    "units in equal parts": (_equal_parts, "SPLIT 'a': it splits the units into equal parts"),
    "computed per-channel scales": (_computed_per_channel, "QUANTIZE 'q': .* per-channel scales"),
    "arithmetic on ids": (_arithmetic_on_ids, "ADD 'id': .* with unit indices"),
    "every unit twice": (_twice, "different positions"),
    "every second unit": (_strided(0, 6, 2, 3), "selects units by position"),
    "units from the back": (_strided(5, -7, -1, 6), "selects units by position"),
    "the last units": (_strided(-2, 6, 1, 2), "selects units by position"),
    "one row of many": (_one_of_many, "it adds or drops axes"),
    "padded units": (
        op(dense, "PAD", (2, 8), "PadOptions", np.array([[0, 0], [1, 1]], np.int32)),
        "PAD 'y': it repeats or pads the units",
    ),
    "repeated units": (
        op(dense, "TILE", (2, 12), "TileOptions", ints(1, 2)),
        "TILE 'y': it repeats or pads the units",
    ),
    "the norm of all units": (
        op(dense, "L2_NORMALIZATION", (2, 6), "L2NormOptions"),
        "L2_NORMALIZATION 'y': it divides by the norm",
    ),
    "axes that are not stated": (_all_squeezed, "SQUEEZE 'y': it does not state"),
    "a transposed convolution": (_transposed_convolution, "TRANSPOSE_CONV 'y': the shape of"),
    "a branch": (_branch, "IF 'y': it runs other subgraphs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    build, message = REFUSED[name]
    model = built(build)
    with pytest.raises(ModelError, match=message):
        trace(model.graph()).head()


# --- accepted -------------------------------------------------------------------------------------


def test_the_largest_value_is_that_of_the_kept_units() -> None:
    model = built(_maximum)
    cut = plan_cut(model, CutOptions(keep=KEPT, head="z"))
    logits = answers(model)["z"][:, list(KEPT)]
    found = answers(model.apply(cut.plan))
    np.testing.assert_allclose(found["z"], logits, atol=1e-6)
    np.testing.assert_allclose(found["y"], logits.max(axis=1), atol=1e-6)


@dataclass(frozen=True)
class Case:
    """A file with one head.

    Attributes:
        axis: of the units, in the first output.
        zero: z is the output, and a removed unit's is 0 in zero mode.
        kept: ascending.
    """

    build: Build
    axis: int = -1
    zero: bool = True
    kept: tuple[int, ...] = KEPT


def _add_n(builder: Builder) -> list[str]:
    return [builder.op("ADD_N", [dense(builder), dense(builder, "w")], (2, 6), "y", "AddNOptions")]


def _magnitudes(builder: Builder) -> str:
    return builder.op("SQUARE", [dense(builder)], (2, 6), "s", "SquareOptions")


def _compared(operator: str, options: str) -> Build:
    """1 where the comparison with a constant is true."""

    def build(builder: Builder) -> list[str]:
        inputs = [dense(builder), builder.constant("v", V - 1)]
        builder.op(operator, inputs, (2, 6), "c", options, dtype="bool")
        return [builder.op("CAST", ["c"], (2, 6), "y", "CastOptions", inDataType=6)]

    return build


def _combined(operator: str, options: str) -> Build:
    """1 where a logical function of two comparisons is true."""

    def build(builder: Builder) -> list[str]:
        dense(builder)
        for name, sign in (("above", 0.3), ("below", -0.3)):
            inputs = ["z", builder.constant(f"{name}/v", V * np.float32(sign))]
            builder.op("GREATER", inputs, (2, 6), name, "GreaterOptions", dtype="bool")
        inputs = ["above"] if operator == "LOGICAL_NOT" else ["above", "below"]
        builder.op(operator, inputs, (2, 6), "c", options, dtype="bool")
        return [builder.op("CAST", ["c"], (2, 6), "y", "CastOptions", inDataType=6)]

    return build


def _chosen(builder: Builder) -> list[str]:
    """The larger of two."""
    values = [dense(builder), dense(builder, "w")]
    builder.op("GREATER", values, (2, 6), "c", "GreaterOptions", dtype="bool")
    return [builder.op("SELECT_V2", ["c", *values], (2, 6), "y", "SelectV2Options")]


def _requantized_twice(builder: Builder) -> list[str]:
    dense(builder)
    builder.op("QUANTIZE", ["z"], (2, 6), "q", "QuantizeOptions", dtype="int8", version=2)
    builder.quantize("q", 0.05, 3)
    return [builder.op("DEQUANTIZE", ["q"], (2, 6), "y", "DequantizeOptions", version=2)]


def _joined(builder: Builder) -> list[str]:
    """Units 0 to 3 from one product and 4, 5 from another."""
    parts = [dense(builder, "a", 4), dense(builder, "b", 2)]
    fields: dict[str, Any] = {"axis": -1}
    return [builder.op("CONCATENATION", parts, (2, 6), "y", "ConcatenationOptions", **fields)]


def _taken_apart(operator: str, *parts: tuple[int, int]) -> Build:
    """Slices take the ranges of units, and a node joins them again."""

    def build(builder: Builder) -> list[str]:
        z, names = dense(builder), list[str]()
        for i, (start, stop) in enumerate(parts):
            is_strided, length = operator == "STRIDED_SLICE", stop - start
            end = ints(2, stop if is_strided else -1 if stop == 6 else length)
            bounds = [ints(0, start), end, *([ints(1, 1)] if is_strided else [])]
            inputs = [z, *(builder.constant(f"{i}{j}", each) for j, each in enumerate(bounds))]
            options, masks = "SliceOptions", dict[str, Any]()
            if is_strided:
                options, masks = "StridedSliceOptions", {"beginMask": 1, "endMask": 1}
            names.append(builder.op(operator, inputs, (2, length), f"part{i}", options, **masks))
        fields: dict[str, Any] = {"axis": 1}
        return [builder.op("CONCATENATION", names, (2, 6), "y", "ConcatenationOptions", **fields)]

    return build


def _stacked(builder: Builder) -> list[str]:
    """Two pictures joined along another axis than the unit axis."""
    parts = [picture(builder, "a"), picture(builder, "b")]
    fields: dict[str, Any] = {"axis": 1}
    shape = (1, 8, 4, 6)
    return [builder.op("CONCATENATION", parts, shape, "y", "ConcatenationOptions", **fields)]


def _boxes_and_units(builder: Builder) -> list[str]:
    """The first 4 of 10 channels are split off, for another output."""
    sizes, axis = builder.constant("sizes", ints(6, 4)), builder.constant("axis", ints(1))
    inputs = [dense(builder, units=10), sizes, axis]
    parts = [("y", (2, 6)), ("boxes", (2, 4))]
    several(builder, "SPLIT_V", inputs, parts, "SplitVOptions", numSplits=2)
    return ["y"]


def _halves(builder: Builder) -> list[str]:
    inputs = [builder.constant("axis", ints(1)), picture(builder)]
    parts = [("a", (1, 2, 4, 6)), ("b", (1, 2, 4, 6))]
    several(builder, "SPLIT", inputs, parts, "SplitOptions", numSplits=2)
    return ["b"]


def _first_token(builder: Builder) -> list[str]:
    """[:, 0, :] of an axis of length 1."""
    shape = builder.constant("shape", ints(2, 1, 6))
    builder.op("RESHAPE", [dense(builder), shape], (2, 1, 6), "r")
    bounds = [ints(0, 0, 0), ints(0, 1, 0), ints(1, 1, 1)]
    inputs = ["r", *(builder.constant(f"c{i}", bound) for i, bound in enumerate(bounds))]
    fields: dict[str, Any] = {"beginMask": 5, "endMask": 5, "shrinkAxisMask": 2}
    return [builder.op("STRIDED_SLICE", inputs, (2, 6), "y", "StridedSliceOptions", **fields)]


def _added_zeros(builder: Builder) -> list[str]:
    shape, value = builder.constant("shape", ints(2, 6)), builder.constant("v", np.float32(0))
    builder.op("FILL", [shape, value], (2, 6), "f", "FillOptions")
    return [builder.op("ADD", [dense(builder), "f"], (2, 6), "y", "AddOptions")]


def _broadcast(builder: Builder) -> list[str]:
    shape = builder.constant("r", ints(2, 1, 6))
    builder.op("RESHAPE", [dense(builder), shape], (2, 1, 6), "one")
    target = builder.constant("t", ints(2, 3, 6))
    options = "BroadcastToOptions"
    return [builder.op("BROADCAST_TO", ["one", target], (2, 3, 6), "y", options, version=2)]


def _voxels(builder: Builder) -> list[str]:
    inputs = [builder.feed("x", 1, 3, 3, 3, 2), builder.normal("k", 1, 1, 1, 2, 6)]
    inputs.append(builder.normal("b", 6))
    stride: dict[str, Any] = {"strideD": 1, "strideW": 1, "strideH": 1}
    return [builder.op("CONV_3D", inputs, (1, 3, 3, 3, 6), "y", "Conv3DOptions", **stride)]


def _four_axes(builder: Builder) -> list[str]:
    return [builder.dense(builder.feed("x", 2, 3, 2, 4), 6, "y")]


def _both_adjoint(builder: Builder) -> list[str]:
    inputs = [builder.feed("x", 2, 4, 3), builder.normal("k", 6, 4)]
    fields: dict[str, Any] = {"adjX": True, "adjY": True}
    return [builder.op("BATCH_MATMUL", inputs, (2, 3, 6), "y", "BatchMatMulOptions", **fields)]


def _kernels(builder: Builder) -> list[str]:
    """One kernel per sample of the batch."""
    inputs = [builder.feed("x", 2, 3, 4), builder.normal("k", 2, 4, 6)]
    return [builder.op("BATCH_MATMUL", inputs, (2, 3, 6), "y", "BatchMatMulOptions")]


def _half_precision(builder: Builder) -> list[str]:
    half = builder.constant("half", builder.random.normal(size=(4, 6)).astype(np.float16))
    builder.op("DEQUANTIZE", [half], (4, 6), "k", "DequantizeOptions", version=3)
    inputs = [builder.feed("x", 2, 3, 4), "k"]
    return [builder.op("BATCH_MATMUL", inputs, (2, 3, 6), "y", "BatchMatMulOptions")]


def _silu(*, swapped: bool) -> Build:
    def build(builder: Builder) -> list[str]:
        dense(builder)
        builder.op("LOGISTIC", ["z"], (2, 6), "s")
        inputs = ["s", "z"] if swapped else ["z", "s"]
        return [builder.op("MUL", inputs, (2, 6), "y", "MulOptions")]

    return build


def _pool(operator: str) -> Build:
    fields = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2, "padding": 1}
    return op(picture, operator, (1, 2, 2, 6), "Pool2DOptions", **fields)


def _reduced(operator: str, *axes: int, keep: bool = False) -> Build:
    shape = (1, 1, 1, 6) if keep else (1, 6)
    return op(picture, operator, shape, "ReducerOptions", ints(*axes), keepDims=keep)


WIDTHS = np.array([[0, 0], [1, 2], [1, 0], [0, 0]], np.int32)
ROWS: dict[str, Case] = {
    "HARD_SWISH": Case(op(dense, "HARD_SWISH", (2, 6), "HardSwishOptions")),
    "PRELU": Case(op(dense, "PRELU", (2, 6), "", V)),
    "PRELU of a picture": Case(op(picture, "PRELU", (1, 4, 4, 6), "", V[None, None])),
    "ABS": Case(op(dense, "ABS", (2, 6), "AbsOptions")),
    "NEG": Case(op(dense, "NEG", (2, 6), "NegOptions")),
    "SQUARE": Case(op(dense, "SQUARE", (2, 6), "SquareOptions")),
    "COS": Case(op(dense, "COS", (2, 6), "CosOptions"), zero=False),
    "POW": Case(op(dense, "POW", (2, 6), "PowOptions", np.float32(2)), zero=False),
    "MAXIMUM of 0": Case(op(dense, "MAXIMUM", (2, 6), "MaximumMinimumOptions", np.float32(0))),
    "MAXIMUM": Case(op(dense, "MAXIMUM", (2, 6), "MaximumMinimumOptions", V), zero=False),
    "MINIMUM": Case(op(dense, "MINIMUM", (2, 6), "MaximumMinimumOptions", V)),
    "SQUARED_DIFFERENCE": Case(
        op(dense, "SQUARED_DIFFERENCE", (2, 6), "SquaredDifferenceOptions", V)
    ),
    "CEIL": Case(op(dense, "CEIL", (2, 6))),
    "FLOOR": Case(op(dense, "FLOOR", (2, 6))),
    "ROUND": Case(op(dense, "ROUND", (2, 6))),
    "SIGN": Case(op(dense, "SIGN", (2, 6), "SignOptions")),
    "SIN": Case(op(dense, "SIN", (2, 6))),
    "SQRT": Case(op(_magnitudes, "SQRT", (2, 6))),
    "FAKE_QUANT": Case(
        op(dense, "FAKE_QUANT", (2, 6), "FakeQuantOptions", min=-3.0, max=3.0, numBits=8)
    ),
    "LOG": Case(op(_magnitudes, "LOG", (2, 6)), zero=False),
    "RSQRT": Case(op(_magnitudes, "RSQRT", (2, 6)), zero=False),
    "FLOOR_DIV": Case(op(dense, "FLOOR_DIV", (2, 6), "FloorDivOptions", V), zero=False),
    "FLOOR_MOD": Case(op(dense, "FLOOR_MOD", (2, 6), "FloorModOptions", V), zero=False),
    "EQUAL": Case(_compared("EQUAL", "EqualOptions"), zero=False),
    "GREATER": Case(_compared("GREATER", "GreaterOptions"), zero=False),
    "GREATER_EQUAL": Case(_compared("GREATER_EQUAL", "GreaterEqualOptions"), zero=False),
    "LESS": Case(_compared("LESS", "LessOptions"), zero=False),
    "LESS_EQUAL": Case(_compared("LESS_EQUAL", "LessEqualOptions"), zero=False),
    "NOT_EQUAL": Case(_compared("NOT_EQUAL", "NotEqualOptions"), zero=False),
    "LOGICAL_AND": Case(_combined("LOGICAL_AND", "LogicalAndOptions"), zero=False),
    "LOGICAL_OR": Case(_combined("LOGICAL_OR", "LogicalOrOptions"), zero=False),
    "LOGICAL_NOT": Case(_combined("LOGICAL_NOT", "LogicalNotOptions"), zero=False),
    "SELECT_V2": Case(_chosen, zero=False),
    "ADD_N": Case(_add_n),
    "QUANTIZE, DEQUANTIZE": Case(_requantized_twice),
    "AVERAGE_POOL_2D": Case(_pool("AVERAGE_POOL_2D")),
    "L2_POOL_2D": Case(_pool("L2_POOL_2D")),
    "MAX_POOL_2D": Case(_pool("MAX_POOL_2D")),
    "MEAN": Case(_reduced("MEAN", 1, 2)),
    "MEAN, axes kept": Case(_reduced("MEAN", 1, 2, keep=True)),
    "MEAN, negative axes": Case(_reduced("MEAN", -2, -3)),
    "SUM": Case(_reduced("SUM", 1, 2)),
    "REDUCE_MAX": Case(_reduced("REDUCE_MAX", 1, 2)),
    "REDUCE_MIN": Case(_reduced("REDUCE_MIN", 1, 2, keep=True)),
    "REDUCE_PROD": Case(_reduced("REDUCE_PROD", 1, 2)),
    "CONCATENATION of units": Case(_joined),
    "CONCATENATION of pictures": Case(_stacked),
    "SPLIT_V": Case(_boxes_and_units),
    "SPLIT": Case(_halves),
    "SLICE from the start": Case(_sliced(0, 4, 4), kept=(1, 3)),
    "SLICE after the background": Case(_sliced(1, 5, 5), kept=(0, 3)),
    "SLICE to the end": Case(_sliced(1, -1, 5), kept=(0, 3)),
    "SLICE of all": Case(_sliced(0, 6, 6)),
    "STRIDED_SLICE from the start": Case(_strided(0, 4, 1, 4), kept=(1, 3)),
    "STRIDED_SLICE after the background": Case(_strided(1, 6, 1, 5), kept=(0, 3)),
    "STRIDED_SLICE to the end": Case(_strided(1, 0, 1, 5, endMask=3), kept=(0, 3)),
    "STRIDED_SLICE of all": Case(_strided(0, 6, 1, 6)),
    "SLICE of each part": Case(_taken_apart("SLICE", (0, 2), (2, 4), (4, 6))),
    "STRIDED_SLICE of each part": Case(_taken_apart("STRIDED_SLICE", (0, 2), (2, 4), (4, 6))),
    "STRIDED_SLICE that drops an axis": Case(_first_token),
    "PAD": Case(op(picture, "PAD", (1, 7, 5, 6), "PadOptions", WIDTHS)),
    "PADV2 with 0": Case(op(picture, "PADV2", (1, 7, 5, 6), "PadV2Options", WIDTHS, np.float32(0))),
    "PADV2 with 1": Case(
        op(picture, "PADV2", (1, 7, 5, 6), "PadV2Options", WIDTHS, np.float32(1)), zero=False
    ),
    "MIRROR_PAD": Case(op(picture, "MIRROR_PAD", (1, 7, 5, 6), "MirrorPadOptions", WIDTHS)),
    "TILE": Case(op(picture, "TILE", (1, 4, 8, 6), "TileOptions", ints(1, 1, 2, 1))),
    "BROADCAST_TO": Case(_broadcast),
    "RESIZE_BILINEAR": Case(
        op(picture, "RESIZE_BILINEAR", (1, 8, 8, 6), "ResizeBilinearOptions", ints(8, 8))
    ),
    "RESIZE_NEAREST_NEIGHBOR": Case(
        op(
            picture,
            "RESIZE_NEAREST_NEIGHBOR",
            (1, 8, 8, 6),
            "ResizeNearestNeighborOptions",
            ints(8, 8),
        )
    ),
    "FILL": Case(_added_zeros),
    "CONV_3D": Case(_voxels),
    "DEPTHWISE_CONV_2D of one channel": Case(_depthwise(1)),
    "FULLY_CONNECTED on four axes": Case(_four_axes),
    "BATCH_MATMUL, both adjoint": Case(_both_adjoint),
    "BATCH_MATMUL with several kernels": Case(_kernels),
    "BATCH_MATMUL in half precision": Case(_half_precision),
    "LOGISTIC, MUL": Case(_silu(swapped=False)),
    "LOGISTIC, MUL swapped": Case(_silu(swapped=True)),
}


def opened(name: str) -> tuple[TfliteModel, Head]:
    model = built(ROWS[name].build)
    return model, trace(model.graph()).head()


@pytest.mark.parametrize("name", ROWS)
def test_slice_matches_the_original(name: str) -> None:
    row = ROWS[name]
    model, head = opened(name)
    small = cut(model, head, "slice", row.kept)
    for output, original in answers(model).items():
        expected = np.take(original, row.kept, axis=row.axis)
        np.testing.assert_allclose(answers(small)[output], expected, rtol=1e-5, atol=1e-6)
        assert small.graph().tensors[output].shape == expected.shape


@pytest.mark.parametrize("name", ROWS)
def test_zero_is_exact_or_refused(name: str) -> None:
    row = ROWS[name]
    model, head = opened(name)
    if not row.zero:
        with pytest.raises(ModelError, match=r"not map 0 to 0|would not be 0"):
            cut(model, head, "zero", row.kept)
        return
    answer, original = (
        answers(m)[head.output] for m in (cut(model, head, "zero", row.kept), model)
    )
    kept = np.isin(np.arange(head.units), row.kept)
    assert not answer[..., ~kept].any()
    np.testing.assert_allclose(answer[..., kept], original[..., kept], rtol=1e-5, atol=1e-6)


def test_stated_shapes_of_a_cut_file_are_right() -> None:
    """Wrong shapes of inner tensors would not show in the outputs."""
    for name, row in ROWS.items():
        model, head = opened(name)
        small = cut(model, head, "slice", row.kept)
        labeled = {
            tensor.name: len(tensor.unit_axis.positions(row.kept)) for tensor in head.tensors
        }
        for tensor in head.tensors:
            shape = small.graph().shape(tensor.name)
            assert shape[tensor.unit_axis.axis] == labeled[tensor.name], f"{name}: {tensor.name}"


def test_silu_is_one_activation() -> None:
    _, head = opened("LOGISTIC, MUL")
    assert (head.activation, head.z) == ("silu", "z")
    assert head.tail[0].operation == Activation("silu")


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_softmax_with_beta(beta: float) -> None:
    model = built(lambda builder: [dense(builder), builder.softmax("z", "y", beta=beta)])
    head = trace(model.graph()).head("y")
    small = cut(model, head, "slice", KEPT)
    original, answer = answers(model), answers(small)
    kept = np.exp(beta * original["z"][:, list(KEPT)].astype(np.float64))
    np.testing.assert_allclose(answer["y"], kept / kept.sum(axis=1, keepdims=True), atol=1e-6)
    expected = MODES["slice"].oracle(head, KEPT, original["z"]).y
    np.testing.assert_allclose(answer["y"], expected, atol=1e-6)


# --- ranks ----------------------------------------------------------------------------------------


def _ranked(operator: str, *, shown: bool, dtype: str = "int32") -> Build:
    def build(builder: Builder) -> list[str]:
        inputs = [dense(builder), builder.constant("axis", ints(-1))]
        kind = {"int32": 2, "int64": 4}[dtype]
        options = "ArgMaxOptions" if operator == "ARG_MAX" else "ArgMinOptions"
        builder.op(operator, inputs, (2,), "id", options, dtype=dtype, outputType=kind)
        return ["z", "id"] if shown else ["id"]

    return build


@pytest.mark.parametrize("shown", [True, False], ids=["with z", "alone"])
@pytest.mark.parametrize("operator", ["ARG_MAX", "ARG_MIN"])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_ids_become_new_ids(operator: str, dtype: str, *, shown: bool) -> None:
    original = built(_ranked(operator, shown=True, dtype=dtype))
    model = built(_ranked(operator, shown=shown, dtype=dtype))
    small = cut(model, trace(model.graph()).head(), "slice", KEPT)
    first = np.argmax if operator == "ARG_MAX" else np.argmin
    for seed in range(5):
        z = answers(original, seed)["z"][:, list(KEPT)]
        np.testing.assert_array_equal(answers(small, seed)["id"], first(z, axis=1))
        assert answers(small, seed)["id"].dtype == dtype


def _top(k: int) -> Build:
    def build(builder: Builder) -> list[str]:
        inputs = [dense(builder), builder.constant("k", np.int32(k))]
        parts = [("v", (2, k)), ("i", (2, k))]
        several(builder, "TOPK_V2", inputs, parts, "TopKV2Options")
        builder.at("i").type = 2
        return ["z", "v", "i"]

    return build


@pytest.mark.parametrize(("k", "left"), [(2, 2), (3, 3), (5, 3)])
def test_top_k_of_the_kept_units(k: int, left: int) -> None:
    model = built(_top(k))
    small = cut(model, trace(model.graph()).head("z"), "slice", KEPT)
    for seed in range(5):
        z = answers(model, seed)["z"][:, list(KEPT)]
        order = np.argsort(-z, axis=1, kind="stable")[:, :left]
        answer = answers(small, seed)
        np.testing.assert_array_equal(answer["i"], order)
        np.testing.assert_allclose(answer["v"], np.take_along_axis(z, order, 1), rtol=1e-6)


# --- quantized values -----------------------------------------------------------------------------


def _integer(dtype: str, tail: Callable[[Builder], str]) -> Build:
    """A quantized picture [1, 4, 4, 6] and its tail; int8 has per-channel scales."""

    def build(builder: Builder) -> list[str]:
        low = -128 if dtype == "int8" else 0
        builder.quantize(builder.feed("x", 1, 4, 4, 3, dtype=dtype), 0.02, low + 120)
        values = builder.random.integers(low + 5, low + 250, (6, 1, 1, 3)).astype(dtype)
        builder.constant("k", values)
        per_channel = np.linspace(0.004, 0.01, 6) if dtype == "int8" else 0.005
        zeros = np.zeros(6) if dtype == "int8" else 131
        builder.quantize("k", per_channel, zeros)
        builder.constant("b", builder.random.integers(-900, 900, 6).astype(np.int32))
        builder.quantize("b", np.float32(0.02) * np.float32(per_channel), np.zeros_like(zeros))
        stride: dict[str, Any] = {"strideW": 1, "strideH": 1}
        inputs = ["x", "k", "b"]
        shape = (1, 4, 4, 6)
        version = 3 if dtype == "int8" else 1
        builder.op("CONV_2D", inputs, shape, "z", "Conv2DOptions", dtype, version=version, **stride)
        builder.quantize("z", 0.05, low + 130)
        return [tail(builder)]

    return build


def _quantized_mean(builder: Builder) -> str:
    dtype = "int8" if builder.at("z").type == 9 else "uint8"
    inputs = ["z", builder.constant("axes", ints(1, 2))]
    builder.op("MEAN", inputs, (1, 6), "y", "ReducerOptions", dtype, version=2)
    return builder.quantize("y", 0.05, int(builder.at("z").quantization.zeroPoint[0]))


def _requantized(builder: Builder) -> str:
    dtype = "int8" if builder.at("z").type == 9 else "uint8"
    builder.op("QUANTIZE", ["z"], (1, 4, 4, 6), "y", "QuantizeOptions", dtype, version=2)
    return builder.quantize("y", 0.1, 7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("tail", [lambda _: "z", _quantized_mean, _requantized])
def test_quantized_values_are_bit_identical(
    tail: Callable[[Builder], str], dtype: str, mode: str
) -> None:
    model = built(_integer(dtype, tail))
    head = trace(model.graph()).head()
    answer, original = (answers(m)[head.output] for m in (cut(model, head, mode, KEPT), model))
    if mode == "slice":
        np.testing.assert_array_equal(answer, original[..., list(KEPT)])
        return
    kept = np.isin(np.arange(6), KEPT)
    quantization = model.graph().tensors[head.output].quantization
    assert quantization is not None
    lowest = np.iinfo(dtype).min
    removed = {"zero": int(quantization.zero_point[0]), "mask": lowest, "gate": lowest}
    assert set(np.unique(answer[..., ~kept])) == {removed[mode]}
    np.testing.assert_array_equal(answer[..., kept], original[..., kept])


def test_quantization_of_tensors() -> None:
    tensors = built(_integer("int8", lambda _: "z")).graph().tensors
    z, kernel, bias = (tensors[name].quantization for name in ("z", "k", "b"))
    assert z is not None
    assert kernel is not None
    assert bias is not None
    assert (z.low, z.high, bias.high) == (-128, 127, 2**31 - 1)
    np.testing.assert_allclose(z.dequantize(np.array([2, 3, -128])), [0.0, 0.05, -6.5], rtol=1e-6)
    values = np.ones((6, 1, 1, 3))
    expected = np.linspace(0.004, 0.01, 6).repeat(3).reshape(values.shape)
    np.testing.assert_allclose(kernel.dequantize(values), expected, rtol=1e-6)
    assert kernel.axis == 0
    assert tensors["x"].quantization is not None


def test_real_tensors_have_no_quantization() -> None:
    assert all(t.quantization is None for t in built(_four_axes).graph().tensors.values())


# --- subgraphs ------------------------------------------------------------------------------------


def _loop_before(builder: Builder) -> list[str]:
    """x is doubled while a counter is below 3; the head follows the loop."""
    builder.feed("x", 2, 4)
    builder.constant("i", np.int32(0))
    fields: dict[str, Any] = {"condSubgraphIndex": 1, "bodySubgraphIndex": 2}
    several(builder, "WHILE", ["i", "x"], [("n", ()), ("h", (2, 4))], "WhileOptions", **fields)
    builder.at("n").type = 2
    builder.dense("h", 6, "y")
    condition, body = Builder(), Builder()
    for inner in (condition, body):
        inner.model = builder.model
        inner.feed("i", dtype="int32")
        inner.feed("x", 2, 4)
    condition.constant("three", np.int32(3))
    condition.op("LESS", ["i", "three"], (), "go", "LessOptions", dtype="bool")
    body.constant("one", np.int32(1))
    body.op("ADD", ["i", "one"], (), "j", "AddOptions", dtype="int32")
    body.op("ADD", ["x", "x"], (2, 4), "double", "AddOptions")
    for inner, outputs in ((condition, ["go"]), (body, ["j", "double"])):
        inner.subgraph.inputs = ints(0, 1)
        inner.subgraph.outputs = ints(*(inner.names[name] for name in outputs))
        builder.model.subgraphs.append(inner.subgraph)
    return ["y"]


def test_a_loop_before_the_head_does_not_change() -> None:
    model = built(_loop_before)
    head = trace(model.graph()).head()
    small = cut(model, head, "slice", KEPT)
    expected = answers(model)["y"][:, list(KEPT)]
    np.testing.assert_allclose(answers(small)["y"], expected, rtol=1e-5)
