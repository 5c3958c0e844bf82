"""Lengths that a file computes: shapes inferred from them, folded constants, and cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, numpy_helper

from exporter.graph import Array, Shape, Use
from exporter.graph.edits import Plan, Replace
from exporter.graph.multiply_adds import multiply_adds
from exporter.graph.operations import Expand
from exporter.trace import trace
from tests.builders.onnx_models import cut, model, node, numbers, run

K, B = numbers(6, 8), numbers(8, seed=1)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def zeros_of(shape: str, made: str, value: float = 0) -> NodeProto:
    tensor = numpy_helper.from_array(np.array([value]), "v")
    return node("ConstantOfShape", [shape], [made], made, value=tensor)


@dataclass(frozen=True)
class Case:
    nodes: Sequence[NodeProto]
    y: Shape
    constants: dict[str, Array] = field(default_factory=dict)
    x: Sequence[int | str] = ("batch", 6)


CHUNK = (  # torch.chunk: the bounds are halves of a length
    node("Shape", ["z"], ["shape"]),
    node("Gather", ["shape", "one"], ["width"]),
    node("Add", ["width", "one"], ["more"]),
    node("Div", ["more", "two"], ["half"]),
    node("Mul", ["half", "two"], ["whole"]),
)
PADDING = (  # torch's ZeroPad2d reverses the widths
    zeros_of("two", "none"),
    node("Concat", ["widths", "none"], ["list"], axis=0),
    node("Reshape", ["list", "pairs"], ["table"]),
    node("Slice", ["table", "last", "lowest", "zero", "last"], ["turned"]),
    node("Transpose", ["turned"], ["across"], perm=[1, 0]),
    node("Reshape", ["across", "last"], ["pads"]),
)
REPEATS = (  # torch's repeat writes -1 where a length is kept
    zeros_of("two", "ones", 1),
    node("Mul", ["ones", "last"], ["missing"]),
    node("Equal", ["wanted", "missing"], ["stays"]),
    node("Where", ["stays", "ones", "wanted"], ["to"], "to"),
)
COUNTS = {"zero": ints(0), "one": ints(1), "two": ints(2), "last": ints(-1)}

KNOWN = {
    "half of a shape bounds a slice": Case(
        [*CHUNK, node("Slice", ["z", "half", "whole", "one"], ["y"])], (3, 4), x=(3, 6)
    ),
    "widths of a pad": Case(
        [*PADDING, node("Pad", ["z", "pads"], ["y"])],
        (4, 10),
        {"widths": ints(0, 2), "pairs": ints(-1, 2), "lowest": ints(-(2**62))},
        x=(4, 6),
    ),
    "a copied target with the batch open": Case(
        [
            node("Shape", ["z"], ["shape"]),
            node("Gather", ["shape", "zero"], ["batch"]),
            node("Concat", ["batch", "tail"], ["joined"], axis=0),
            node("Identity", ["joined"], ["to"]),
            node("Reshape", ["z", "to"], ["y"]),
        ],
        (None, 2, 4),
        {"tail": ints(2, 4)},
    ),
    "an expansion with the batch open": Case(
        [
            node("ReduceMax", ["z"], ["top"], axes=[1]),
            *REPEATS,
            node("Expand", ["top", "to"], ["y"]),
        ],
        (None, 8),
        {"wanted": ints(-1, 8)},
    ),
    "a range": Case(
        [
            node("Range", ["from", "count", "step"], ["ids"]),
            node("Unsqueeze", ["ids", "zero"], ["row"]),
            node("Cast", ["row"], ["real"], to=TensorProto.FLOAT),
            node("Add", ["z", "real"], ["y"]),
        ],
        (2, 8),
        {"from": np.array(0), "count": np.array(8), "step": np.array(1)},
        x=(2, 6),
    ),
}


def opened(case: Case) -> Any:
    constants = {"kernel": K, "bias": B, **COUNTS, **case.constants}
    read = {name for each in case.nodes for name in each.input}
    used = {n: v for n, v in constants.items() if n in read or n in {"kernel", "bias"}}
    gemm = node("Gemm", ["x", "kernel", "bias"], ["z"], "gemm")
    open_shape = {"y": [None] * len(case.y)}
    return model([gemm, *case.nodes], used, x=case.x, outputs=open_shape)


@pytest.mark.parametrize("name", KNOWN)
def test_shapes_after_computed_lengths_are_known(name: str) -> None:
    case = KNOWN[name]
    network = opened(case)
    assert network.graph().shape("y") == case.y
    x = numbers(*(n if isinstance(n, int) else 5 for n in case.x))
    found = run(network, {"x": x})["y"]  # as onnxruntime makes it
    assert all(n in (None, m) for n, m in zip(case.y, found.shape, strict=True))


NOT_FOLDED = {
    "more than lengths need": ([zeros_of("n", "c")], {"n": ints(2**26)}),
    "of an element type that lengths do not have": (
        [node("Add", ["a", "a"], ["c"])],
        {"a": numbers(3)},
    ),
    "quantized weights": (
        [node("Reshape", ["a", "to"], ["c"])],
        {"a": np.ones(4, np.int8), "to": ints(2, 2)},
    ),
    "a negative number divided": (
        [node("Div", ["a", "b"], ["c"])],
        {"a": ints(-7), "b": ints(2)},
    ),
    "divided by zero": ([node("Div", ["a", "b"], ["c"])], {"a": ints(7), "b": ints(0)}),
    "taken from outside": ([node("Gather", ["a", "b"], ["c"])], {"a": ints(7), "b": ints(9)}),
    "a product of weights": (
        [node("MatMul", ["a", "b"], ["c"])],
        {"a": np.ones((2, 2), np.int32), "b": np.ones((2, 2), np.int32)},
    ),
    "of an input's shape": (
        [node("Shape", ["x"], ["s"]), node("Add", ["s", "a"], ["c"])],
        {"a": ints(1)},
    ),
}


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_tensors_that_are_not_folded(name: str) -> None:
    nodes, constants = NOT_FOLDED[name]
    last = node("Identity", ["x"], ["y"])
    network = model([*nodes, last], constants, x=(2, 6))
    graph = network.graph()
    assert not graph.tensors["c"].is_constant
    assert [each.operator for each in graph.nodes] == [n.op_type for n in (*nodes, last)]


def repeated(wanted: Sequence[int]) -> Any:
    """x -> Gemm -> z[2, 8], minus the maximum of x, expanded to the units."""
    nodes = [
        node("ReduceMax", ["x"], ["top"], axes=[1]),
        *REPEATS,
        node("Expand", ["top", "to"], ["wide"], "expand"),
        node("Sub", ["z", "wide"], ["y"]),
    ]
    return opened(Case(nodes, (2, 8), {"wanted": ints(*wanted)}, x=(2, 6)))


def test_tensors_computed_from_constants_are_constants() -> None:
    graph = repeated([-1, 8]).graph()
    expand = next(each for each in graph.nodes if each.operator == "Expand")
    assert isinstance(expand.operation, Expand)
    assert expand.operation.target == (1, 8)
    read = graph.tensors["to"].read
    assert read is not None
    np.testing.assert_array_equal(read(), [1, 8])
    assert {each.operator for each in graph.nodes} == {"Gemm", "ReduceMax", "Expand", "Sub"}


def test_computed_width_is_cut() -> None:
    network, kept, x = repeated([-1, 8]), [1, 4, 6], numbers(2, 6, seed=4)
    small = cut(network, kept)
    z = (x.astype(np.float64) @ K + B)[:, kept]
    np.testing.assert_allclose(run(small, {"x": x})["y"], z - x.max(1, keepdims=True), atol=1e-5)
    assert "Where" not in {each.op_type for each in small.proto.graph.node}
    assert repeated([-1, 8]).to_bytes() == network.to_bytes()  # the source is not changed


def test_nodes_are_kept_if_their_result_is_not_edited() -> None:
    network = repeated([-1, 8])
    same = network.apply(Plan(()))
    assert [n.op_type for n in same.proto.graph.node] == [
        n.op_type for n in network.proto.graph.node
    ]


def test_one_of_two_consumers_gets_a_new_constant() -> None:
    nodes = [
        node("Add", ["one", "two"], ["to"], "to"),
        zeros_of("to", "left", 1.0),
        zeros_of("to", "right", 1.0),
        node("ReduceSum", ["left"], ["a"], keepdims=0),
        node("ReduceSum", ["right"], ["b"], keepdims=0),
        node("Sub", ["a", "b"], ["apart"]),
        node("Cast", ["apart"], ["real"], to=TensorProto.FLOAT),
        node("Add", ["z", "real"], ["y"]),
    ]
    network, x = opened(Case(nodes, (2, 8), x=(2, 6))), numbers(2, 6)
    edited = network.apply(Plan((Replace("to", ints(2), (Use("left", 0),)),)))
    z = x.astype(np.float64) @ K + B
    np.testing.assert_allclose(run(edited, {"x": x})["y"], z + 2 - 3, atol=1e-5)
    assert "to" in {made for each in edited.proto.graph.node for made in each.output}


# --- inputs with several dynamic dimensions -------------------------------------------------------


def flattened(name: str) -> list[NodeProto]:
    """[batch, channels, h, w] -> [batch, channels, h * w], as PyTorch's `view` writes it."""
    return [
        node("Shape", [name], [f"{name} shape"]),
        node("Gather", [f"{name} shape", "zero"], [f"{name} batch"]),
        node("Concat", [f"{name} batch", f"{name} rest"], [f"{name} to"], axis=0),
        node("Reshape", [name, f"{name} to"], [f"{name} flat"], f"{name} flat"),
    ]


CLASSES = numbers(5, 3, 1, 1, seed=2)
BOXES = numbers(4, 3, 1, 1, seed=3)


def any_size() -> Any:
    """x[batch, 3, height, width] -> y[batch, 4 + 5, height * width]: boxes, then five classes."""
    nodes = [
        node("Conv", ["x", "class kernel"], ["classes"], "class head"),
        node("Conv", ["x", "box kernel"], ["boxes"], "box head"),
        *flattened("classes"),
        *flattened("boxes"),
        node("Sigmoid", ["classes flat"], ["scores"]),
        node("Concat", ["boxes flat", "scores"], ["y"], axis=1),
    ]
    constants = {
        "class kernel": CLASSES,
        "box kernel": BOXES,
        "zero": ints(0),
        "classes rest": ints(5, -1),
        "boxes rest": ints(4, -1),
    }
    outputs = {"y": ("batch", 9, "places")}
    return model(nodes, constants, x=("batch", 3, "height", "width"), outputs=outputs)


def of_any_size(x: Array, kept: Sequence[int]) -> Array:
    pixels = x.astype(np.float64).reshape(*x.shape[:2], -1)
    boxes, classes = (np.einsum("oi,bip->bop", k[:, :, 0, 0], pixels) for k in (BOXES, CLASSES))
    return np.asarray(np.concatenate([boxes, 1 / (1 + np.exp(-classes[:, kept]))], axis=1))


def test_head_is_found_for_any_image_size() -> None:
    graph = any_size().graph()
    head = trace(graph).head()
    assert (head.units, head.axis) == (5, 1)
    assert [(part.name, part.start, part.stop) for part in head.axis_parts] == [
        ("box", 0, 4),
        ("classes", 4, 9),
    ]
    assert graph.shape("x") == (None, 3, None, None)
    assert multiply_adds(graph) is None, "the size is unknown"


def test_dynamic_dimensions_stay_dynamic() -> None:
    kept = [0, 3]
    small = cut(any_size(), kept)
    (output,) = small.proto.graph.output
    dims = output.type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 6, "places"]
    for shape in ((1, 3, 4, 6), (2, 3, 5, 2)):
        x = numbers(*shape)
        np.testing.assert_allclose(run(small, {"x": x})["y"], of_any_size(x, kept), atol=1e-6)
    assert trace(small.graph()).head().units == 2  # the cut file shows its head too


def test_masked_classes_score_0_for_any_image_size() -> None:
    """Each joined part is a probability already, so a masked class is 0."""
    masked = cut(any_size(), [0, 3], "mask")
    for shape in ((1, 3, 4, 6), (2, 3, 5, 2)):
        x = numbers(*shape)
        expected = of_any_size(x, range(5))
        expected[:, [5, 6, 8]] = 0.0
        shown = run(masked, {"x": x})["y"]
        assert not shown[:, [5, 6, 8]].any()
        np.testing.assert_allclose(shown, expected, atol=1e-6)


# --- axes without positions -----------------------------------------------------------------------


def test_empty_axis_is_not_a_unit_axis() -> None:
    network = model([node("Relu", ["x"], ["y"])], {}, x=(2, 3, 0), outputs={"y": (2, 3, 0)})
    (refusal,) = trace(network.graph()).refusals
    assert refusal.reason == "axis 2 has no positions"
