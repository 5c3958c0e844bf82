"""PACK, UNPACK, TRANSPOSE_CONV and constant variables: a cut file returns the kept units' values.

LiteRT runs the original, and NumPy takes the kept units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from exporter.errors import ModelError
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.graph.edits import Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders.tflite_builder import Builder

KEPT = [1, 3, 4]


def ran(content: bytes, shape: tuple[int, ...]) -> Array:
    interpreter = Interpreter(model_content=content)
    given, returned = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(given["index"], shape)
    interpreter.allocate_tensors()
    x = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(returned["index"]))


def cut(content: bytes, mode: str = "slice") -> bytes:
    model = from_bytes(content, "built.tflite")
    head = trace(model.graph()).head()
    return model.apply(Plan(MODES[mode].edits(head, KEPT))).content


def packed(axis: int) -> bytes:
    """One dense layer at each of three steps, joined along a new axis."""
    builder = Builder()
    builder.feed("x", 1, 3, 4)
    builder.op("UNPACK", ["x"], (1, 4), "s0", "UnpackOptions", num=3, axis=1)
    steps = ["s0", builder.tensor("s1", (1, 4)), builder.tensor("s2", (1, 4))]
    builder.subgraph.operators[-1].outputs = np.array([builder.names[s] for s in steps], np.int32)
    kernel, bias = builder.normal("k", 5, 4), builder.normal("b", 5)
    for i, step in enumerate(steps):
        inputs = [step, kernel, bias]
        builder.op("FULLY_CONNECTED", inputs, (1, 5), f"z{i}", "FullyConnectedOptions")
    shape = [1, 5]
    shape.insert(axis, 3)
    parts = ["z0", "z1", "z2"]
    builder.op("PACK", parts, tuple(shape), "y", "PackOptions", axis=axis, valuesCount=3)
    return builder.content("y")


def unpacked() -> bytes:
    """The rows of a dense layer, apart, and the second one returned."""
    builder = Builder()
    builder.feed("x", 2, 4)
    builder.dense("x", 5, "z")
    builder.op("UNPACK", ["z"], (5,), "y", "UnpackOptions", num=2, axis=0)
    first = builder.tensor("first", (5,))
    outputs = [builder.names[first], builder.names["y"]]
    builder.subgraph.operators[-1].outputs = np.array(outputs, np.int32)
    return builder.content("y")


def transposed(*, bias: bool, batch: int | None) -> bytes:
    """A transposed convolution, whose shape is a constant, or computed if the batch is open."""
    builder = Builder()
    builder.feed("x", batch, 4, 4, 3)
    shape = open_shape(builder)
    if batch is not None:
        shape = builder.constant("stated", np.array([batch, 8, 8, 5], np.int32))
    inputs = [shape, builder.normal("k", 5, 2, 2, 3), "x", *[builder.normal("b", 5)] * bias]
    fields: dict[str, Any] = {"strideW": 2, "strideH": 2, "padding": 1}
    result, options = (batch, 8, 8, 5), "TransposeConvOptions"
    builder.op("TRANSPOSE_CONV", inputs, result, "y", options, version=3, **fields)
    return builder.content("y")


def open_shape(builder: Builder) -> str:
    """The shape [batch of x, 8, 8, 5], as converters compute it."""
    builder.op("SHAPE", ["x"], (4,), "all", "ShapeOptions", "int32", outType=2)
    ends = [builder.constant(n, np.array([v], np.int32)) for n, v in (("0", 0), ("1", 1), ("s", 1))]
    fields: dict[str, Any] = {"shrinkAxisMask": 1}
    builder.op("STRIDED_SLICE", ["all", *ends], (), "n", "StridedSliceOptions", "int32", **fields)
    parts = [builder.constant(f"p{i}", np.array(v, np.int32)) for i, v in enumerate((8, 8, 5))]
    fields = {"valuesCount": 4, "axis": 0}
    return builder.op("PACK", ["n", *parts], (4,), "shape", "PackOptions", "int32", **fields)


def variables(*, assignments: int = 1) -> bytes:
    """A dense layer whose kernel is a variable; two assignments leave its value open."""
    main, first = Builder(), Builder()
    first.model = main.model
    main.model.subgraphs.append(first.subgraph)
    main.feed("x", 1, 4)
    main.op("CALL_ONCE", [], (), "unused", "CallOnceOptions", initSubgraphIndex=1)
    main.subgraph.operators[-1].outputs = np.array([], np.int32)
    value = first.constant("value", np.arange(20, dtype=np.float32).reshape(5, 4))
    for builder in (main, first):
        builder.op("VAR_HANDLE", [], (), "h", "VarHandleOptions", "resource", sharedName="kernel")
    for i in range(assignments):
        first.op("ASSIGN_VARIABLE", ["h", value], (), f"done{i}", "AssignVariableOptions")
        first.subgraph.operators[-1].outputs = np.array([], np.int32)
    first.subgraph.inputs = first.subgraph.outputs = np.array([], np.int32)
    main.op("READ_VARIABLE", ["h"], (5, 4), "kernel", "ReadVariableOptions")
    main.op("FULLY_CONNECTED", ["x", "kernel", ""], (1, 5), "y", "FullyConnectedOptions")
    return main.content("y")


CASES: dict[str, tuple[Callable[[], bytes], tuple[int, ...], int]] = {
    "packed before the units": (lambda: packed(1), (1, 3, 4), 2),
    "packed after the units": (lambda: packed(2), (1, 3, 4), 1),
    "unpacked": (unpacked, (2, 4), 0),
    "transposed": (lambda: transposed(bias=False, batch=1), (1, 4, 4, 3), 3),
    "transposed, with a bias": (lambda: transposed(bias=True, batch=1), (1, 4, 4, 3), 3),
    "transposed, open batch": (lambda: transposed(bias=True, batch=None), (2, 4, 4, 3), 3),
    "a constant variable": (variables, (1, 4), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_the_kept_units_keep_their_values(name: str) -> None:
    build, shape, axis = CASES[name]
    content = build()
    expected = np.take(ran(content, shape), KEPT, axis=axis)
    np.testing.assert_allclose(ran(cut(content), shape), expected, rtol=1e-6, atol=1e-6)


def test_the_weights_of_a_variable_do_not_stay_in_the_file() -> None:
    written = schema.ModelT.InitFromObj(schema.Model.GetRootAs(cut(variables())))
    sizes = [0 if buffer.data is None else len(buffer.data) for buffer in written.buffers]
    assert max(sizes) == 3 * 4 * 4  # three units of four float32


def test_a_variable_with_several_values_is_refused() -> None:
    model = from_bytes(variables(assignments=2), "built.tflite")
    with pytest.raises(ModelError, match="READ_VARIABLE 'kernel': its variable is not") as caught:
        trace(model.graph()).head()
    assert "from_saved_model" in caught.value.hint
