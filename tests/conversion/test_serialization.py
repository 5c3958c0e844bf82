"""Plans and graphs are equal after encoding and decoding."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from exporter.conversion.serialization import (
    decode_array,
    decode_graph,
    decode_plan,
    encode_array,
    encode_graph,
    encode_plan,
)
from exporter.graph import Array, Graph, Node, Tensor, Use
from exporter.graph.edits import (
    AddInput,
    AddOutput,
    Compute,
    ComputeStep,
    Edit,
    Fill,
    Insert,
    Plan,
    Replace,
    SetAttribute,
    SetShape,
    Take,
)
from exporter.graph.operations import (
    Activation,
    Elementwise,
    Gather,
    Linear,
    Opaque,
    Operation,
    Reshape,
    Transpose,
)

USES = (Use("head", 1), Use("other", 2))
POSITIONS = np.array([2, 0], np.int64)
EDITS: tuple[Edit, ...] = (
    Take("kernel", 1, POSITIONS, USES),
    Fill("bias", 0, POSITIONS, -np.inf, USES),
    Replace("shape", np.array([[1.5, np.nan]], np.float32), USES),
    SetShape("out", (None, 3)),
    SetAttribute("head", "units", 3),
    SetAttribute("reshape", "target_shape", (3, -1)),
    Insert("add", "out", ("left", np.float32(2.5) * np.ones(2, np.float32)), {"axis": 1}, (None,)),
    Insert("gather", "out"),
    Compute(
        "out",
        (
            ComputeStep("gather", (0,), (POSITIONS,), {"axis": 1}, (None, 2)),
            ComputeStep("reduce_sum", (1,), attributes={"axis": 1}, shape=(None, 1)),
        ),
    ),
    AddInput("gate", (None, 3), "float32", np.zeros((1, 3), np.float32)),
    AddInput("gate", (3,), "float32"),
    AddOutput("out", "z"),
)
OPERATIONS: tuple[Operation, ...] = (
    Linear(1, 0, -1, 2, 4, "units"),
    Elementwise((1,), keeps_zero=False, channel_axis=3, function="add"),
    Activation("clip", 1, (("min", 0.0), ("max", 6.0))),
    Reshape((3, -1), attribute="target_shape", leading=1),
    Transpose((0, 2, 1)),
    Gather(1),
    Opaque("because"),
)


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_edits(edit: Edit) -> None:
    (decoded,) = decode_plan(through_json(encode_plan(Plan((edit,))))).edits
    assert type(decoded) is type(edit)
    for name, value in vars(edit).items():
        assert_same(getattr(decoded, name), value)


def assert_same(decoded: Any, original: Any) -> None:
    if isinstance(original, np.ndarray):
        assert decoded.dtype == original.dtype
        np.testing.assert_array_equal(decoded, original)
    elif isinstance(original, tuple):
        assert isinstance(decoded, tuple)
        for one, other in zip(decoded, original, strict=True):
            assert_same(one, other)
    elif isinstance(original, ComputeStep):
        assert isinstance(decoded, ComputeStep)
        assert_same(tuple(vars(decoded).values()), tuple(vars(original).values()))
    else:
        assert decoded == original


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: type(o).__name__)
def test_operations(operation: Operation) -> None:
    node = Node("node", "Operator", operation, ("in", "", "constant"), ("out",))
    graph = Graph((node,), {}, ("in",), ("out",), {"out": ("cat", "dog")})
    decoded = decode_graph(through_json(encode_graph(graph)), no_values)
    assert decoded == graph


def no_values(name: str) -> Array:
    raise AssertionError(name)


def test_constants_are_read_on_demand() -> None:
    tensors = {
        "in": Tensor("in", (None, 2), "float32"),
        "unknown": Tensor("unknown", None, "string"),
        "kernel": Tensor("kernel", (2, 3), "float32", read=lambda: np.zeros((2, 3))),
    }
    original = through_json(encode_graph(Graph((), tensors, ("in",), ())))
    requested: list[str] = []

    def read(name: str) -> Array:
        requested.append(name)
        return np.ones((2, 3))

    decoded = decode_graph(original, read).tensors
    assert decoded == tensors
    assert not requested
    kernel = decoded["kernel"]
    assert kernel.read is not None
    assert kernel.read().sum() == 6.0
    assert requested == ["kernel"]


ARRAYS = {
    "0-d": np.float32(0.1) * np.ones(()),
    "empty": np.zeros((0, 3), np.int8),
    "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    "big-endian": np.arange(3, dtype=">f8"),
    "booleans": np.array([True, False]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_arrays(array: Array) -> None:
    assert_same(decode_array(through_json(encode_array(array))), array)
