"""Reductions, parts, ranges and ranks in classifiers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import ModelError
from exporter.graph import Graph, Quantization, Tensor
from exporter.graph.edits import Edit, Replace, SetAttribute
from exporter.graph.operations import (
    Activation,
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    Gather,
    Linear,
    Opaque,
    Operation,
    Pool,
    Reduce,
    Reshape,
    ShapeOf,
    ShapeSource,
    Slice,
    Split,
    TopK,
    Transpose,
)
from exporter.modes import MODES
from exporter.trace import trace
from exporter.trace.rules.protocol import Refused
from exporter.trace.rules.rankings import find_ranking, ranked_ids
from exporter.trace.unit_axis import UnitAxis
from tests.builders.cut_graphs import apply, check_slice, feeds
from tests.builders.graphs import Builder, run

UNITS = 6


def start(*inner: int) -> tuple[Builder, str]:
    """Logits of 6 units from a dense layer on [batch, *inner, 4]."""
    b = Builder()
    return b, b.dense(b.feed("x", None, *inner, 4), UNITS, "fc")


# --- accepted ------------------------------------------------------------------------------------


def mean() -> Graph:
    b, z = start(3)
    x = b.node(Reduce((1,), keepdims=False, function="mean"), [z], (None, UNITS), "r")
    b.activation(x, "softmax", "y")
    return b.graph("y")


def maximum_that_keeps_its_axis() -> Graph:
    b, z = start(3)
    x = b.node(Reduce((1,), keepdims=True, function="max"), [z], (None, 1, UNITS), "r")
    b.activation(x, "sigmoid", "y")
    return b.graph("y")


def mean_of_probabilities() -> Graph:
    b, z = start(3)
    x = b.activation(z, "softmax", "soft")
    b.node(Reduce((1,), keepdims=False, function="mean"), [x], (None, UNITS), "y")
    return b.graph("y")


def windows() -> Graph:
    b, z = start(4)
    b.activation(b.node(Pool((1,)), [z], (None, 2, UNITS), "pool"), "softmax", "y")
    return b.graph("y")


def two_heads_joined() -> Graph:
    b = Builder()
    x = b.feed("x", None, 4)
    parts = [b.dense(x, 2, "left"), b.dense(x, 4, "right")]
    b.activation(b.node(Concat(1), parts, (None, UNITS), "both"), "softmax", "y")
    return b.graph("y")


def stacked_rows() -> Graph:
    """Joined along another axis, all parts have the units, constants too."""
    b, z = start(1)
    other = b.dense("x", UNITS, "other")
    row = b.constant("row", 2, 1, UNITS)
    b.node(Concat(1), [z, other, row], (None, 3, UNITS), "y")
    return b.graph("y")


def untraceable_background() -> Graph:
    """The first position is dropped again: the walk does not enter its producer."""
    b, z = start()
    strange = b.node(Opaque(), ["x"], (None, 1), "strange")
    b.node(Concat(1), [strange, z], (None, 1 + UNITS), "all")
    cut = Slice((1,), (1,), (1 + UNITS,), (1,), slot=1)
    b.node(cut, ["all", b.constant("stops", 1)], (None, UNITS), "z")
    b.activation("z", "softmax", "y")
    return b.graph("y")


def read_by_a_join() -> Graph:
    """Another output joins logits and probabilities."""
    b, z = start()
    y = b.activation(z, "softmax", "y")
    b.node(Concat(1), [z, y, "x"], (None, 2 * UNITS + 4), "all")
    return b.graph("y", "all")


def gated() -> Graph:
    b = Builder()
    z = b.dense(b.feed("x", None, 4), 2 * UNITS, "fc")
    sizes = Split(1, (UNITS, UNITS), attribute="split")
    value, gate = b.nodes_of(sizes, [z], {"value": (None, UNITS), "gate": (None, UNITS)})
    both = [value, b.activation(gate, "tanh", "open")]
    b.node(Elementwise(function="multiply"), both, (None, UNITS), "y")
    return b.graph("y")


def one_part_of_a_split() -> Graph:
    b = Builder()
    z = b.dense(b.feed("x", None, 4), 2 + UNITS, "fc")
    sizes = Split(1, (2, UNITS), slot=1)
    inputs = [z, b.constant("sizes", 2)]
    b.nodes_of(sizes, inputs, {"box": (None, 2), "z": (None, UNITS)})
    b.node(Opaque(), ["box"], (None, 2), "boxes")
    b.activation("z", "softmax", "y")
    return b.graph("y")


def rows_split() -> Graph:
    b, z = start(2)
    rows: dict[str, tuple[int | None, ...] | None] = {"a": (None, 1, UNITS), "b": (None, 1, UNITS)}
    b.nodes_of(Split(1), [z], rows)
    b.node(Elementwise(function="add"), ["a", "b"], (None, 1, UNITS), "y")
    return b.graph("y")


def logits_split_elsewhere() -> Graph:
    """Parts of the logits are further outputs, with stated sizes."""
    b, z = start()
    b.activation(z, "softmax", "y")
    parts: dict[str, tuple[int | None, ...] | None] = {"low": (None, 4), "high": (None, 2)}
    b.nodes_of(Split(1, (4, 2), slot=1), [z, b.constant("sizes", 2)], parts)
    return b.graph("y", "low", "high")


def without_background() -> Graph:
    b = Builder()
    z = b.dense(b.feed("x", None, 4), 1 + UNITS, "fc")
    cut = Slice((1,), (1,), (1 + UNITS,), (1,), attribute="ends")
    b.activation(b.node(cut, [z], (None, UNITS), "cut"), "softmax", "y")
    return b.graph("y")


def without_background_open_end() -> Graph:
    b = Builder()
    z = b.dense(b.feed("x", None, 4), 1 + UNITS, "fc")
    cut = Slice((1,), (1,), (2**31 - 1,), (1,), attribute="ends")
    b.activation(b.node(cut, [z], (None, UNITS), "cut"), "softmax", "y")
    return b.graph("y")


def rows_cut() -> Graph:
    b, z = start(3)
    b.node(Slice((1,), (-2,), (9,), (1,), slot=None), [z], (None, 2, UNITS), "y")
    return b.graph("y")


def whole_range() -> Graph:
    b, z = start()
    b.activation(z, "softmax", "y")
    b.node(Slice((1,), (0,), (UNITS,), (1,), attribute="ends"), [z], (None, UNITS), "copy")
    return b.graph("y", "copy")


def repeated_rows() -> Graph:
    b, z = start(1)
    z = b.node(Reshape(), [z], (None, 1, UNITS), "z")
    b.node(Expand((1,)), [z], (None, 5, UNITS), "y")
    return b.graph("y")


def broadcast_bias() -> Graph:
    """A vector for each unit is broadcast to a stated shape before it is added."""
    b, z = start()
    inputs = [b.constant("o", 1, UNITS), b.constant("target", 2)]
    wide = b.node(Expand((0,), target=(1, UNITS), slot=1), inputs, (1, UNITS), "wide")
    b.node(Elementwise(offsets=(1,), function="add"), [z, wide], (None, UNITS), "y")
    return b.graph("y")


def filled_kernel() -> Graph:
    b = Builder()
    kernel = b.node(ConstantOfShape((4, UNITS), 0, 0.0), [b.constant("s", 2)], (4, UNITS), "kernel")
    z = b.node(Linear(1, 1, 1), [b.feed("x", None, 4), kernel], (None, UNITS), "z")
    other = b.dense("x", UNITS, "other")
    b.node(Elementwise(function="add"), [z, other], (None, UNITS), "y")
    return b.graph("y")


def batch_is_read() -> Graph:
    b, z = start()
    b.activation(z, "softmax", "y")
    b.node(ShapeOf((0,)), [z], (1,), "batch")
    return b.graph("y")


def computed_target() -> Graph:
    """The width is in a constant of another node."""
    b, z = start()
    length = b.constant("length", 1)
    b.node(Opaque(), [length], (2,), "target")
    origins = (None, ShapeSource("target", 0, (UNITS,), None))
    b.node(Reshape((0, UNITS), origins=origins), [z, "target"], (None, UNITS), "y")
    return b.graph("y")


def argmax_over_rows() -> Graph:
    """An argmax over rows returns one index for each unit, and narrows with the units."""
    b, z = start(3)
    b.node(TopK(1, keepdims=False), [z], (None, UNITS), "where")
    b.activation(z, "sigmoid", "y")
    return b.graph("y", "where")


def maximum_over_rows() -> Graph:
    """The model returns the largest value of each unit, without its row."""
    b, z = start(3)
    b.nodes_of(TopK(1, k=1, ids=1), [z], {"best": (None, 1, UNITS), "": None})
    b.node(Reshape((-1, UNITS), attribute="shape"), ["best"], (None, UNITS), "y")
    return b.graph("y")


ACCEPTED: dict[str, Callable[[], Graph]] = {
    f.__name__: f
    for f in (
        mean,
        maximum_that_keeps_its_axis,
        mean_of_probabilities,
        windows,
        two_heads_joined,
        stacked_rows,
        untraceable_background,
        read_by_a_join,
        gated,
        one_part_of_a_split,
        rows_split,
        logits_split_elsewhere,
        without_background,
        without_background_open_end,
        rows_cut,
        whole_range,
        repeated_rows,
        broadcast_bias,
        filled_kernel,
        batch_is_read,
        computed_target,
        argmax_over_rows,
        maximum_over_rows,
    )
}
UNRUN = {  # they contain operations that the interpreter cannot run
    "untraceable_background",
    "one_part_of_a_split",
    "computed_target",
}
RUN = [name for name in ACCEPTED if name not in UNRUN]


# --- refused -------------------------------------------------------------------------------------


def consumed_by(operation: Operation, *shape: int | None, inner: tuple[int, ...] = ()) -> Graph:
    """An operation reads the logits of a classifier."""
    b, z = start(*inner)
    b.activation(z, "softmax", "y")
    b.node(operation, [z], shape, "other")
    return b.graph("y", "other")


def between(operation: Operation, *shape: int | None) -> Graph:
    """An operation between a dense layer and the output."""
    b, z = start()
    b.activation(b.node(operation, [z], shape, "other"), "softmax", "y")
    return b.graph("y")


def join_of_unknown_width() -> Graph:
    b, z = start()
    b.node(Concat(1), [z, b.feed("u", None, None)], (None, 9), "y")
    return b.graph("y")


def join_of_wrong_widths() -> Graph:
    b, z = start()
    b.node(Concat(1), [z, "x"], (None, 11), "y")
    return b.graph("y")


def join_of_another_axis() -> Graph:
    """One part has the units on the axis of the join, the other on another axis."""
    b, z = start(UNITS)
    turned = b.node(Transpose((0, 2, 1)), [z], (None, UNITS, UNITS), "turned")
    b.activation(z, "softmax", "y")
    b.node(Concat(2), [z, turned], (None, UNITS, 2 * UNITS), "all")
    b.node(Elementwise(), ["all"], (None, UNITS, 2 * UNITS), "copy")
    return b.graph("y", "copy")


def middle_unknown() -> Graph:
    b = Builder()
    z = b.dense(b.feed("x", None, 4), UNITS, "fc")
    b.node(Slice((1,), (0,), (4,), (1,)), [z], (None, None), "other")
    b.activation(z, "softmax", "y")
    return b.graph("y", "other")


def only_length() -> Graph:
    b = Builder()
    b.node(ShapeOf((0, 1)), [b.feed("x", None, 4)], (2,), "y")
    return b.graph("y")


def stale_shape() -> Graph:
    b = Builder()
    inputs = [b.feed("x", None, 4), b.constant("k", 4, UNITS)]
    b.node(Linear(1, 1, 1), inputs, (None, UNITS + 1), "y")
    return b.graph("y")


def ranks_alone() -> Graph:
    """Ranks of a model input are not units."""
    b = Builder()
    b.nodes_of(TopK(1, k=3, ids=1), [b.feed("x", None, 9)], {"values": (None, 3), "y": (None, 3)})
    return b.graph("y", "values")


def top_of(follower: Operation, *more: str) -> Graph:
    """An operation computes with the ids."""
    b, z = start()
    b.activation(z, "softmax", "y")
    b.node(TopK(1, keepdims=False), [z], (None,), "id")
    b.constant("table", UNITS, 2)
    b.node(follower, [*more, "id"], (None, 2), "other")
    return b.graph("y", "other")


def arithmetic_with_table_entries() -> Graph:
    """An operation computes with the table entry of the best unit."""
    b, z = start()
    b.activation(z, "softmax", "y")
    b.node(TopK(1, keepdims=False), [z], (None,), "id")
    b.constant("table", UNITS, 2)
    b.node(Gather(0), ["table", "id"], (None, 2), "row")
    b.node(Elementwise(function="add"), ["row", "x"], (None, 2), "other")
    return b.graph("y", "other")


def best_value_is_subtracted() -> Graph:
    """The best logit is subtracted from all logits: each then depends on all."""
    b, z = start()
    b.nodes_of(TopK(1, k=1, ids=1), [z], {"best": (None, 1), "id": (None, 1)})
    shifted = Elementwise(offsets=(1,), function="add")
    b.activation(b.node(shifted, [z, "best"], (None, UNITS), "z"), "sigmoid", "y")
    return b.graph("y")


def ranked_anchors() -> Graph:
    b = Builder()
    x = b.dense(b.feed("x", None, 4), 2 * UNITS, "fc")
    b.node(Reshape((2, UNITS), attribute="target", leading=1), [x], (None, 2, UNITS), "r")
    b.activation("r", "softmax", "y")
    b.node(TopK(1, keepdims=False), [x], (None,), "best")
    return b.graph("y", "best")


REFUSED = [
    pytest.param(
        partial(consumed_by, Reduce((1,), keepdims=True, function="sum"), None, 1),
        "Reduce 'other'",
        "mixes the units",
        id="reduced over the units",
    ),
    pytest.param(
        partial(consumed_by, Pool((1,)), None, 3), "Pool 'other'", "mixes the units", id="pooled"
    ),
    pytest.param(
        partial(consumed_by, Expand((1,)), None, 2 * UNITS),
        "Expand 'other'",
        "repeats or pads",
        id="tiled units",
    ),
    pytest.param(
        partial(consumed_by, Split(1), None, UNITS),
        "Split 'other'",
        "equal parts",
        id="equal parts",
    ),
    pytest.param(
        partial(consumed_by, Split(1, (6,)), None, UNITS),
        "Split 'other'",
        "equal parts",
        id="sizes without a place in the file",
    ),
    pytest.param(
        partial(consumed_by, Slice((1,), (0,), (6,), (2,)), None, 3),
        "Slice 'other'",
        "by position",
        id="every second unit",
    ),
    pytest.param(
        partial(consumed_by, Slice((1,), (-2,), (9,), (1,)), None, 2),
        "Slice 'other'",
        "by position",
        id="the last units",
    ),
    pytest.param(
        partial(consumed_by, Slice((1,), (0,), (9,), (2,)), None, 3),
        "Slice 'other'",
        "by position",
        id="every other unit",
    ),
    pytest.param(
        partial(consumed_by, Slice((1,), (5,), (-9,), (-1,)), None, 6),
        "Slice 'other'",
        "by position",
        id="reversed",
    ),
    pytest.param(middle_unknown, "Slice 'other'", "not known", id="a range of unknown width"),
    pytest.param(
        partial(consumed_by, ShapeOf((1,)), 1),
        "ShapeOf 'other'",
        "number of units",
        id="width is read",
    ),
    pytest.param(only_length, "ShapeOf 'y'", "number of units", id="only a length"),
    pytest.param(join_of_unknown_width, "Concat 'y'", "'u' is not known", id="unknown part"),
    pytest.param(join_of_wrong_widths, "Concat 'y'", "do not add up", id="parts too short"),
    pytest.param(join_of_another_axis, "Concat 'all'", "different positions", id="other axis"),
    pytest.param(
        partial(consumed_by, Reshape((-1, -2)), None, UNITS),
        "Reshape 'other'",
        "computed while the model runs",
        id="computed target",
    ),
    pytest.param(stale_shape, "Linear 'y'", "'k' has the shape [4, 6], not 7", id="stale shape"),
    pytest.param(ranks_alone, None, "model's input 'x'", id="ranks of an input"),
    pytest.param(
        partial(top_of, Gather(1), "table"), "Gather 'other'", "unit indices", id="id as an index"
    ),
    pytest.param(
        partial(top_of, Elementwise(function="add"), "x"),
        "Elementwise 'other'",
        "unit indices",
        id="arithmetic with ids",
    ),
    pytest.param(
        arithmetic_with_table_entries,
        "Elementwise 'other'",
        "a table contains for unit indices",
        id="arithmetic with table entries",
    ),
    pytest.param(
        best_value_is_subtracted,
        "Elementwise 'z'",
        "values of other units",
        id="subtracted best",
    ),
    pytest.param(ranked_anchors, "TopK 'best'", "positions among all units", id="ranked anchors"),
]


@pytest.mark.parametrize(("make", "operation", "reason"), REFUSED)
def test_refused_by_name(make: Callable[[], Graph], operation: str | None, reason: str) -> None:
    found = trace(make())
    assert not [head for head in found.heads if head.output == "y"]
    refusal = found.refusals[0]
    assert refusal.output == "y"
    assert refusal.operation == operation
    assert reason in refusal.reason


def test_ranked_units_must_be_in_order() -> None:
    b, z = start()
    b.node(TopK(1, keepdims=False), [z], (None,), "best")
    graph = b.graph("best")
    rotated = UnitAxis(1, np.roll(np.arange(UNITS), -1))
    with pytest.raises(Refused, match="not the units in order"):
        find_ranking(graph, graph.nodes[-1], {z: rotated})


def test_ranks_are_not_units() -> None:
    b = Builder()
    b.nodes_of(TopK(1, k=3, ids=1), [b.feed("x", None, 9)], {"v": (None, 3), "id": (None, 3)})
    b.activation("v", "tanh", "y")
    (refusal,) = trace(b.graph("y")).refusals
    assert (refusal.operation, refusal.reason) == (
        "TopK 'v'",
        "the positions of its results are ranks, not units",
    )


# --- accepted: one head, cut and zeroed by arithmetic --------------------------------------------


@pytest.mark.parametrize("name", ACCEPTED)
def test_one_head_of_the_right_width(name: str) -> None:
    head = trace(ACCEPTED[name]()).head("y")
    assert (head.output, head.units, head.unit_range) == ("y", UNITS, None)


selections = st.lists(st.integers(0, UNITS - 1), min_size=1, unique=True)


@pytest.mark.parametrize("name", RUN)
@given(kept=selections, seed=st.integers(0, 3))
def test_slice_then_run_is_run_then_take(name: str, kept: list[int], seed: int) -> None:
    graph = ACCEPTED[name]()
    head = trace(graph).head("y")
    if head.junctions and name in {"two_heads_joined", "logits_split_elsewhere"}:
        kept = sorted({0, 5, *kept})  # each part keeps one unit, and no unit changes its part
    check_slice(graph, head, kept, seed)


@pytest.mark.parametrize("name", RUN)
@given(kept=selections, seed=st.integers(0, 3))
def test_zero_makes_z_exactly_zero(name: str, kept: list[int], seed: int) -> None:
    graph = ACCEPTED[name]()
    head = trace(graph).head("y")
    values = feeds(graph, seed)
    before = run(graph, values)
    after = run(apply(graph, MODES["zero"].edits(head, kept)), values)
    labels = head.tensor(head.z).unit_axis
    assert not np.take(after[head.z], labels.removed(kept), axis=labels.axis).any()
    np.testing.assert_array_equal(
        np.take(after[head.z], kept, axis=labels.axis),
        np.take(before[head.z], kept, axis=labels.axis),
    )
    oracle = MODES["zero"].oracle(head, kept, before[head.z])
    np.testing.assert_allclose(oracle.y, after["y"], rtol=1e-9, atol=1e-12)


def test_other_outputs_narrow_with_their_parts() -> None:
    for make, outputs in ((read_by_a_join, ["all"]), (logits_split_elsewhere, ["low", "high"])):
        graph = make()
        head = trace(graph).head("y")
        kept = [1, 2, 5]
        assert list(head.other_outputs) == outputs
        values = feeds(graph, 1)
        before, after = run(graph, values), run(apply(graph, edits(graph, kept)), values)
        for name in outputs:
            labels = head.tensor(name).unit_axis
            expected = np.take(before[name], labels.positions(kept), axis=labels.axis)
            if name != "all":
                np.testing.assert_allclose(after[name], expected)
            else:  # the probabilities are renormalized
                np.testing.assert_allclose(after[name][:, :3], expected[:, :3])
                np.testing.assert_allclose(after[name][:, -4:], values["x"])


def edits(graph: Graph, kept: list[int], mode: str = "slice") -> tuple[Edit, ...]:
    return MODES[mode].edits(trace(graph).head("y"), kept)


STATED = {
    "without_background": ["set ends of 'cut' to (4,)"],
    "without_background_open_end": [],
    "whole_range": ["set ends of 'copy' to (3,)"],
    "untraceable_background": ["replace 'stops' by [4]"],
    "gated": ["set split of 'value' to (3, 3)"],
    "one_part_of_a_split": ["replace 'sizes' by [2, 3]"],
    "logits_split_elsewhere": ["replace 'sizes' by [2, 1]"],
    "broadcast_bias": ["replace 'target' by [1, 3]"],
    "filled_kernel": ["replace 's' by [4, 3]"],
    "computed_target": ["replace 'length' by 3"],
    "maximum_over_rows": ["set shape of 'y' to (-1, 3)"],
}


@pytest.mark.parametrize("name", STATED)
def test_every_stated_width_is_edited(name: str) -> None:
    made = edits(ACCEPTED[name](), [1, 2, 5])
    assert [str(e) for e in made if isinstance(e, Replace | SetAttribute)] == STATED[name]


def test_positions_without_a_unit_are_kept() -> None:
    head = trace(one_part_of_a_split()).head("y")
    (kernel,) = (c for c in head.constants if c.name == "fc/kernel")
    assert kernel.unit_axis.units.tolist() == [-1, -1, 0, 1, 2, 3, 4, 5]
    assert "box" not in {tensor.name for tensor in head.tensors}


def parts_of_one_and_five() -> Graph:
    b = Builder()
    x = b.feed("x", None, 4)
    b.node(Concat(1), [b.dense(x, 1, "one"), b.dense(x, 5, "five")], (None, UNITS), "y")
    return b.graph("y")


def test_parts_refuse_orders_and_cuts_across_them() -> None:
    graph = two_heads_joined()
    with pytest.raises(ModelError, match="Concat 'both' would get an empty part"):
        edits(graph, [3, 4])
    with pytest.raises(ModelError) as caught:
        edits(graph, [0, 1])
    assert caught.value.hint == "keep one of the units 2 to 5, or use --mode zero"
    alone = parts_of_one_and_five()
    with pytest.raises(ModelError) as caught:
        edits(alone, [1, 2])
    assert caught.value.hint == "keep unit 0, or use --mode zero"
    with pytest.raises(ModelError, match="cannot be reordered across the parts of Concat 'both'"):
        edits(graph, [5, 0])
    assert edits(graph, [3, 4], "zero")


def test_a_constant_of_one_value_cannot_be_zeroed_for_some_units() -> None:
    graph = filled_kernel()
    ones = [
        replace(n, operation=ConstantOfShape((4, UNITS), 0, 1.0)) if n.name == "kernel" else n
        for n in graph.nodes
    ]
    with pytest.raises(ModelError, match="ConstantOfShape 'kernel' does not map 0 to 0"):
        edits(replace(graph, nodes=tuple(ones)), [0], "zero")


def test_zero_is_refused_before_a_reduction_that_does_not_map_0_to_0() -> None:
    b, z = start(3)
    x = b.node(Reduce((1,), keepdims=False, function="log_sum_exp"), [z], (None, UNITS), "r")
    b.activation(x, "softmax", "y")
    graph = b.graph("y")
    check_slice(graph, trace(graph).head(), [4, 1])
    with pytest.raises(ModelError, match="Reduce 'r' does not map 0 to 0"):
        edits(graph, [0], "zero")


# --- ranks ---------------------------------------------------------------------------------------


def ranked(top: TopK, *names: str, k: int | None = None) -> Graph:
    """Probabilities, and the outputs of a node that reads the logits."""
    b, z = start(2)
    b.activation(z, "softmax", "y")
    shape = (None, 2, k) if k else (None, 2)
    inputs = [z, b.constant("k", 1)] if top.slot else [z]
    b.nodes_of(top, inputs, dict.fromkeys(names, shape))
    return b.graph("y", *names)


RANKED = {
    "argmax": partial(ranked, TopK(2, keepdims=False), "id"),
    "argmin, the last": partial(ranked, TopK(2, keepdims=False, largest=False, last=True), "id"),
    "top 3": partial(ranked, TopK(2, k=3, slot=1, ids=1), "values", "id", k=3),
    "bottom 6": partial(ranked, TopK(2, k=6, attribute="k", largest=False), "id", k=6),
}


@pytest.mark.parametrize("name", RANKED)
@given(kept=selections, seed=st.integers(0, 3))
def test_ids_are_indices_of_the_kept_units(name: str, kept: list[int], seed: int) -> None:
    graph = RANKED[name]()
    head = trace(graph).head()
    assert head.name == "y"
    (ranking,) = head.readers.rankings
    assert ranking.outputs == ("id",)
    after = run(apply(graph, MODES["slice"].edits(head, kept)), feeds(graph, seed))
    np.testing.assert_array_equal(ranked_ids(ranking, after[ranking.source])["id"], after["id"])
    assert after["id"].max() < len(kept)


def test_equal_values_rank_by_position() -> None:
    values = np.array([[3, 7, 7, 3, 7]], np.uint8)
    for top, expected in (
        (TopK(1), [1]),
        (TopK(1, last=True), [4]),
        (TopK(1, largest=False), [0]),
        (TopK(1, k=5), [1, 2, 4, 0, 3]),
    ):
        b = Builder()
        b.dense(b.feed("x", None, 4), 5, "z")
        b.node(top, ["z"], (None, 1), "id")
        (ranking,) = trace(b.graph("z", "id")).head().readers.rankings
        assert ranked_ids(ranking, values)["id"].tolist() == [expected]


def test_ids_are_followed_to_the_outputs() -> None:
    b, z = start(2)
    b.node(TopK(2), [z], (None, 2, 1), "id")
    b.node(Reshape(), ["id"], (None, 2), "flat")
    b.node(Transpose((1, 0)), ["flat"], (2, None), "turned")
    b.node(Elementwise(function="cast"), ["turned"], (2, None), "y")
    graph = b.graph("y", "flat")
    head = trace(graph).head()
    assert (head.name, head.output, head.axis, head.units) == ("id", "fc", 2, UNITS)
    (ranking,) = head.readers.rankings
    assert ranking.outputs == ("y", "flat")
    after = run(apply(graph, MODES["slice"].edits(head, [4, 2])), feeds(graph, 0))
    for name, ids in ranked_ids(ranking, after["fc"]).items():
        np.testing.assert_array_equal(ids, after[name])
    check_slice(graph, head, [1, 3])


def test_an_output_with_ids_of_known_units_is_not_another_head() -> None:
    found = trace(RANKED["top 3"]())
    assert [head.name for head in found.heads] == ["y"]
    assert found.refusals == ()


def test_ids_of_units_that_cannot_be_traced_are_refused() -> None:
    b, z = start()
    x = b.node(Opaque(), [z], (None, UNITS), "strange")
    b.node(TopK(1, keepdims=False), [x], (None,), "y")
    b.node(Opaque(), ["x"], (None,), "other")
    refused = trace(b.graph("y", "other")).refusals
    assert [(r.output, r.operation) for r in refused] == [
        ("y", "Opaque 'strange'"),
        ("other", None),
    ]


def labels_of_ids() -> Graph:
    b, z = start()
    b.node(TopK(1, keepdims=False), [z], (None,), "y")
    b.labels["y"] = tuple("abcdef")
    return b.graph("y")


def test_labels_of_an_output_with_ids_are_labels_of_the_units() -> None:
    assert trace(labels_of_ids()).head().labels == tuple("abcdef")


def test_a_top_k_returns_no_more_than_the_kept_units() -> None:
    texts = [str(e) for e in edits(RANKED["top 3"](), [0, 4])]
    assert "replace 'k' by [2]" in texts
    assert "set the shape of 'values' to [?, 2, 2]" in texts
    assert "set the shape of 'id' to [?, 2, 2]" in texts
    assert "set k of 'id' to 4" in [str(e) for e in edits(RANKED["bottom 6"](), [0, 1, 2, 3])]
    assert not any("'k'" in str(e) for e in edits(RANKED["top 3"](), [0, 4, 5]))


def values_used(follower: Operation, *shape: int | None) -> Graph:
    b, z = start()
    b.activation(z, "softmax", "y")
    inputs = [z, b.constant("k")]
    b.nodes_of(TopK(1, k=3, slot=1, ids=1), inputs, {"values": (None, 3), "id": (None, 3)})
    b.node(Activation("sigmoid"), ["values"], (None, 3), "sure")
    b.node(follower, ["sure", "values"], shape, "other")
    return b.graph("y", "id", "other")


def test_functions_of_ranked_values_narrow_with_them() -> None:
    graph = values_used(Elementwise(function="add"), None, 3)
    texts = [str(e) for e in edits(graph, [0, 4])]
    assert "replace 'k' by 2" in texts
    assert "set the shape of 'other' to [?, 2]" in texts


def test_a_consumer_that_needs_the_number_of_ranks_is_named() -> None:
    graph = values_used(Opaque(), None, 3)
    with pytest.raises(ModelError, match=r"2 would remain, and Opaque 'other' needs"):
        edits(graph, [0, 4])
    assert edits(graph, [0, 4, 2])
    assert edits(graph, [0, 4], "zero")


# --- quantized values ----------------------------------------------------------------------------


def test_quantization_and_dequantization() -> None:
    fine = Quantization(np.array([0.5]), np.array([10]), 0, 255)
    np.testing.assert_array_equal(
        fine.dequantize(np.array([10, 11, 0], np.uint8)), [0.0, 0.5, -5.0]
    )
    np.testing.assert_array_equal(fine.nearest(np.array([0.7, -9.0, 1e9])), [0.5, -5.0, 122.5])
    each = Quantization(np.array([1.0, 2.0]), np.array([0, 1]), -8, 7, axis=1)
    np.testing.assert_array_equal(each.dequantize(np.full((1, 2, 1), 3)), [[[3.0], [4.0]]])
    plain = Tensor("t", (2,), "float32")
    np.testing.assert_array_equal(plain.dequantize(np.array([1, 2])), [1.0, 2.0])
    coded = replace(plain, quantization=fine)
    np.testing.assert_array_equal(coded.dequantize(np.array([10], np.uint8)), [0.0])


def test_the_oracle_returns_quantizable_values() -> None:
    graph = mean()
    coded = Quantization(np.array([1 / 256]), np.array([0]), 0, 255)
    graph.tensors["y"] = replace(graph.tensors["y"], quantization=coded)  # type: ignore[index]
    head = trace(graph).head()
    z = np.array([[9.0, 1.0, 0.0, 2.0, 3.0, 0.0]])
    answer = MODES["slice"].oracle(head, [0, 4], z)
    assert answer.y.tolist() == [[255 / 256, 1 / 256]]


def test_a_constant_that_is_computed_from_constants_is_zeroed() -> None:
    """A kernel times a scale for each unit, both constants: one 0 is enough."""
    b = Builder()
    parts = [b.constant("kernel", 4, UNITS), b.constant("scale", UNITS)]
    b.node(Elementwise(function="multiply"), parts, (4, UNITS), "scaled")
    b.node(Linear(1, 1, 1), [b.feed("x", None, 4), "scaled"], (None, UNITS), "y")
    graph = b.graph("y")
    made = edits(graph, [1, 2, 3, 4, 5], "zero")
    assert [str(e) for e in made] == ["fill 1 positions of 'kernel' along axis 1 with 0"]
    assert not run(apply(graph, made), feeds(graph, 0))["y"][:, 0].any()
