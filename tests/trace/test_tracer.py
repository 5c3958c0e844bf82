"""Heads that the trace finds and refuses; then slice and zero on neutral graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import ModelError, UsageError
from exporter.graph import Graph
from exporter.graph.edits import SetAttribute, SetShape
from exporter.graph.operations import (
    Activation,
    Concat,
    Elementwise,
    Gather,
    Linear,
    Opaque,
    Reshape,
    Transpose,
)
from exporter.modes import MODES
from exporter.trace import trace
from exporter.trace.unit_axis import UnitAxis
from tests.builders.cut_graphs import apply, check_slice, feeds
from tests.builders.graphs import Builder, run

UNITS = 6


def classifier(function: str = "softmax") -> Graph:
    b = Builder()
    b.activation(b.dense(b.feed("x", None, 4), UNITS, "fc"), function, "y")
    return b.graph("y")


def sequence() -> Graph:
    b = Builder()
    b.activation(b.dense(b.feed("x", None, 3, 4), UNITS, "fc"), "softmax", "y")
    return b.graph("y")


def test_samples_and_values_on_one_axis_are_refused() -> None:
    """As skl2onnx writes an MLPRegressor with several targets."""
    b = Builder()
    x = b.dense(b.feed("x", None, 4), UNITS, "fc")
    b.node(Reshape((-1, 1), attribute="shape"), [x], (None, 1), "y")
    (refusal,) = trace(b.graph("y")).refusals
    assert refusal.reason == "it joins the samples and their values: [?, 6] becomes [?, 1]"
    assert refusal.hint.startswith("remove it from the file")


def test_a_stated_width_without_weights_takes_no_memory() -> None:
    """A damaged file may state any width, here 64 TB of unit indices."""
    b = Builder()
    b.activation(b.dense(b.feed("x", None, 4), UNITS, "fc"), "sigmoid", "y")
    graph = b.graph("y")
    wide = replace(graph.tensors["y"], shape=(None, 1 << 43))
    (refusal,) = trace(replace(graph, tensors={**graph.tensors, "y": wide})).refusals
    assert refusal.reason.startswith("axis 1 has 8,796,093,022,208 positions, more than the model")


def no_bias_linear() -> Graph:
    b = Builder()
    b.dense(b.feed("x", None, 4), UNITS, "y", bias=False)
    return b.graph("y")


def offset_and_scale() -> Graph:
    b = Builder()
    x = b.dense(b.feed("x", None, 4), UNITS, "fc", bias=False)
    x = b.node(
        Elementwise(offsets=(1,), function="add"), [x, b.constant("o", UNITS)], (None, UNITS), "add"
    )
    x = b.node(
        Elementwise(function="multiply"), [x, b.constant("s", 1, UNITS)], (None, UNITS), "mul"
    )
    b.activation(x, "sigmoid", "y")
    return b.graph("y")


def squeezed() -> Graph:
    b = Builder()
    x = b.dense(b.feed("x", None, 1, 4), UNITS, "fc")
    x = b.activation(x, "softmax", "soft")
    b.node(Reshape((-1, UNITS), attribute="shape"), [x], (None, UNITS), "y")
    return b.graph("y")


def transposed_twice() -> Graph:
    b = Builder()
    x = b.dense(b.feed("x", None, 3, 4), UNITS, "fc")
    x = b.node(Transpose((0, 2, 1)), [x], (None, UNITS, 3), "t1")
    x = b.node(Activation("softmax", 1), [x], (None, UNITS, 3), "soft")
    b.node(Transpose((0, 2, 1)), [x], (None, 3, UNITS), "y")
    return b.graph("y")


def anchors() -> Graph:
    """One linear operation computes 2 x 6 channels; the units are the inner factor."""
    b = Builder()
    x = b.dense(b.feed("x", None, 4), 2 * UNITS, "fc")
    x = b.node(
        Reshape((2, UNITS), slot=None, attribute="target", leading=1), [x], (None, 2, UNITS), "r"
    )
    b.activation(x, "softmax", "y")
    return b.graph("y")


def joined() -> Graph:
    b = Builder()
    x = b.feed("x", None, 4)
    left, right = b.dense(x, UNITS, "left"), b.dense(x, UNITS, "right")
    both = b.node(Elementwise(function="add"), [left, right], (None, UNITS), "both")
    b.activation(both, "log_softmax", "y")
    return b.graph("y")


def relu_inside() -> Graph:
    b = Builder()
    x = b.activation(b.dense(b.feed("x", None, 4), UNITS, "fc"), "relu", "relu")
    b.activation(x, "softmax", "y")
    return b.graph("y")


def channels_first() -> Graph:
    """Channels on axis 1, with vectors that align to it instead of to the last axis."""
    b = Builder()
    x = b.dense(b.feed("x", None, 3, 4), UNITS, "fc")
    x = b.node(Transpose((0, 2, 1)), [x], (None, UNITS, 3), "turned")
    offset = Elementwise(offsets=(1,), channel_axis=1, function="add_channel")
    x = b.node(offset, [x, b.constant("o", UNITS)], (None, UNITS, 3), "add")
    b.node(Activation("softmax", 1), [x], (None, UNITS, 3), "y")
    return b.graph("y")


def nothing_but_identities() -> Graph:
    """Identities, one with an absent optional input, on both sides of the activation."""
    b = Builder()
    x = b.node(Elementwise(), [b.dense(b.feed("x", None, 4), UNITS, "fc"), ""], (None, UNITS), "i1")
    b.node(Elementwise(), [b.activation(x, "softmax", "soft")], (None, UNITS), "y")
    return b.graph("y")


def target_in_a_constant() -> Graph:
    """The reshape target is a constant input and an attribute; the layer states its width."""
    b = Builder()
    inputs = [b.feed("x", None, 4), b.constant("k", 4, UNITS)]
    x = b.node(Linear(1, 1, 1, width_attribute="units"), inputs, (None, UNITS), "fc")
    target = b.constant("target", 3)
    reshape = Reshape((-1, 1, UNITS), slot=1, attribute="new_shape")
    b.node(reshape, [x, target], (None, 1, UNITS), "y")
    return b.graph("y")


ACCEPTED: dict[str, Callable[[], Graph]] = {
    f.__name__: f
    for f in (
        classifier,
        sequence,
        no_bias_linear,
        offset_and_scale,
        squeezed,
        transposed_twice,
        anchors,
        joined,
        relu_inside,
        channels_first,
        nothing_but_identities,
        target_in_a_constant,
    )
}


# --- refused -------------------------------------------------------------------------------------


def two_softmaxes() -> Graph:
    b = Builder()
    x = b.activation(b.dense(b.feed("x", None, 4), UNITS, "fc"), "softmax", "first")
    b.activation(x, "softmax", "y")
    return b.graph("y")


def unknown_operation() -> Graph:
    b = Builder()
    b.node(Opaque(), [b.dense(b.feed("x", None, 4), UNITS, "fc")], (None, UNITS), "y")
    return b.graph("y")


def read_by_another_layer() -> Graph:
    b = Builder()
    z = b.dense(b.feed("x", None, 4), UNITS, "fc")
    b.activation(z, "softmax", "y")
    b.dense(z, 1, "critic")
    return b.graph("y", "critic")


def no_linear() -> Graph:
    b = Builder()
    b.activation(b.feed("x", None, UNITS), "softmax", "y")
    return b.graph("y")


def only_a_constant() -> Graph:
    b = Builder()
    b.node(Elementwise(function="identity"), [b.constant("c", 1, UNITS)], (1, UNITS), "y")
    return b.graph("y")


def grouped() -> Graph:
    b = Builder()
    inputs = [b.feed("x", None, 4), b.constant("k", 4, UNITS)]
    b.node(Linear(1, 1, 1, groups=2), inputs, (None, UNITS), "y")
    return b.graph("y")


def looked_up() -> Graph:
    b = Builder()
    b.node(Gather(), [b.constant("table", 9, UNITS), b.feed("x", None)], (None, UNITS), "y")
    return b.graph("y")


def along_the_batch_of_a_product() -> Graph:
    """A softmax over the rows of a dense layer on a sequence: rows are not output channels."""
    b = Builder()
    x = b.dense(b.feed("x", None, UNITS, 4), 1, "fc")
    b.activation(x, "softmax", "y", axis=1)
    return b.graph("y")


def channel_vector_elsewhere() -> Graph:
    """A vector along axis 1 has no units of axis 2, and its rows lead to the input."""
    b = Builder()
    x = b.feed("x", None, 1, UNITS)
    b.node(Elementwise(channel_axis=1), [x, b.constant("v", UNITS)], (None, 1, UNITS), "y")
    return b.graph("y")


def scrambled() -> Graph:
    b = Builder()
    x = b.dense(b.feed("x", None, 5, 4), UNITS, "fc")
    b.node(Reshape((UNITS, 5), leading=1), [x], (None, UNITS, 5), "y")
    return b.graph("y")


def unknown_width() -> Graph:
    b = Builder()
    b.node(Elementwise(), [b.feed("x", None, None)], (None, None), "y")
    return b.graph("y")


def unknown_rank() -> Graph:
    b = Builder()
    b.node(Elementwise(), [b.feed("x", None, 4)], None, "y")
    return b.graph("y")


def unknown_rank_inside() -> Graph:
    b = Builder()
    x = b.node(Elementwise(), [b.feed("x", None, UNITS)], None, "inner")
    b.activation(x, "softmax", "soft")
    b.tensors["soft"] = replace(b.tensors["soft"], shape=(None, UNITS))
    b.node(Elementwise(), ["soft"], (None, UNITS), "y")
    return b.graph("y")


def one_value() -> Graph:
    b = Builder()
    b.activation(b.dense(b.feed("x", None, 4), 1, "fc"), "sigmoid", "y")
    return b.graph("y")


def two_paths() -> Graph:
    """The same logits reach the output directly and transposed."""
    b = Builder()
    z = b.dense(b.feed("x", None, UNITS, 4), UNITS, "fc")
    turned = b.node(Transpose((0, 2, 1)), [z], (None, UNITS, UNITS), "turned")
    b.node(Elementwise(function="add"), [z, turned], (None, UNITS, UNITS), "y")
    return b.graph("y")


def broadcast_wider() -> Graph:
    """A consumer repeats a unit axis of width 1, seen from a head of another width."""
    b = Builder()
    z = b.dense(b.feed("x", None, 4), UNITS, "fc")
    b.activation(z, "softmax", "y")
    column = b.node(Reshape((-1, UNITS, 1)), [z], (None, UNITS, 1), "column")
    row = b.feed("row", None, 1, 3)
    b.node(Elementwise(function="multiply"), [column, row], (None, UNITS, 3), "product")
    wider = b.feed("wider", None, 2 * UNITS)
    b.tensors["bad"] = replace(b.tensors["wider"], name="bad")
    b.node(Elementwise(function="add"), [z, wider], (None, 2 * UNITS), "bad")
    return b.graph("y")


REFUSED = [
    pytest.param(two_softmaxes, "Activation 'first'", "mixes the units", id="two softmaxes"),
    pytest.param(unknown_operation, "Opaque 'y'", "no rule", id="no rule"),
    pytest.param(read_by_another_layer, "Linear 'critic'", "sums over the units", id="contracted"),
    pytest.param(no_linear, None, "model's input 'x'", id="leads to the input"),
    pytest.param(only_a_constant, None, "no linear operation", id="only a constant"),
    pytest.param(grouped, "Linear 'y'", "2 groups", id="groups"),
    pytest.param(
        along_the_batch_of_a_product, "Linear 'fc'", "not the axis of its output", id="rows"
    ),
    pytest.param(channel_vector_elsewhere, None, "model's input", id="another axis's vector"),
    pytest.param(looked_up, "Gather 'y'", "no rule", id="table"),
    pytest.param(scrambled, "Reshape 'y'", "spreads the units", id="scrambled"),
    pytest.param(unknown_width, None, "width of axis 1 is not known", id="unknown width"),
    pytest.param(unknown_rank, "Elementwise 'y'", "is not known", id="unknown rank"),
    pytest.param(
        unknown_rank_inside, "Activation 'soft'", "'inner' is not known", id="rank inside"
    ),
    pytest.param(one_value, None, "no axis of its shape [?, 1]", id="one value"),
    pytest.param(two_paths, "Transpose 'turned'", "different positions", id="two paths"),
    pytest.param(broadcast_wider, "Elementwise 'bad'", "something wider", id="broadcast"),
]


@pytest.mark.parametrize(("make", "operation", "reason"), REFUSED)
def test_refused_by_name(make: Callable[[], Graph], operation: str | None, reason: str) -> None:
    found = trace(make())
    assert not [head for head in found.heads if head.output == "y"]
    refusal = found.refusals[0]
    assert refusal.output == "y"
    assert refusal.operation == operation
    assert reason in refusal.reason
    assert "'y'" in str(refusal)


# --- accepted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACCEPTED)
def test_one_head_of_the_right_width(name: str) -> None:
    found = trace(ACCEPTED[name]())
    (head,) = found.heads
    assert (head.name, head.output, head.units) == ("y", "y", UNITS)
    assert head.unit_range is None
    assert found.refusals == ()


@pytest.mark.parametrize(
    ("name", "activation", "z", "body", "tail"),
    [
        ("classifier", "softmax", "fc", ["fc"], ["y"]),
        ("no_bias_linear", "linear", "y", ["y"], []),
        ("offset_and_scale", "sigmoid", "mul", ["fc", "add", "mul"], ["y"]),
        ("squeezed", "softmax", "fc", ["fc"], ["soft", "y"]),
        ("transposed_twice", "softmax", "t1", ["fc", "t1"], ["soft", "y"]),
        ("anchors", "softmax", "r", ["fc", "r"], ["y"]),
        ("joined", "log_softmax", "both", ["left", "right", "both"], ["y"]),
        ("relu_inside", "softmax", "relu", ["fc", "relu"], ["y"]),
    ],
)
def test_z_body_and_tail(
    name: str, activation: str, z: str, body: list[str], tail: list[str]
) -> None:
    (head,) = trace(ACCEPTED[name]()).heads
    assert (head.activation, head.z) == (activation, z)
    assert [node.name for node in head.body] == body
    assert [node.name for node in head.tail] == tail


def test_several_outputs_of_one_head_and_labels() -> None:
    b = Builder()
    z = b.dense(b.feed("x", None, 4), UNITS, "z")
    b.activation(z, "softmax", "y")
    b.labels["y"] = tuple("abcdef")
    found = trace(b.graph("y", "z"))
    assert [(h.name, h.z, h.other_outputs) for h in found.heads] == [
        ("y", "z", ("z",)),
        ("z", "z", ("y",)),
    ]
    assert found.heads[0].labels == tuple("abcdef")
    assert found.head("z").name == "z"
    with pytest.raises(KeyError):
        found.heads[0].tensor("x")


def test_choosing_a_head() -> None:
    several = read_by_another_layer()
    with pytest.raises(ModelError, match="no head can be cut: output 'y': Linear 'critic'"):
        trace(several).head()
    b = Builder()
    x = b.feed("x", None, 4)
    b.dense(x, 2, "a")
    b.dense(x, 3, "b")
    b.node(Opaque(), [x], (None, 4), "c")
    found = trace(b.graph("a", "b", "c"))
    with pytest.raises(UsageError, match="several heads: 'a', 'b'"):
        found.head()
    with pytest.raises(UsageError, match="no head is named 'd'"):
        found.head("d")
    with pytest.raises(UsageError, match="output 'c': Opaque 'c'"):
        found.head("c")
    assert found.head("b").units == 3


def test_two_possible_unit_axes() -> None:
    """A constant kernel is applied on both sides: both axes end in linear operations."""
    b = Builder()
    inputs = [b.feed("x", None, 4), b.constant("k", 4, UNITS)]
    b.node(Linear(1, 1, 1), inputs, (None, UNITS), "left")
    b.node(Reshape(), ["left"], (None, UNITS, 1), "column")
    b.node(Linear(1, 1, 1), [b.feed("u", None, 4), b.constant("m", 4, 3)], (None, 3), "right")
    b.node(Reshape(), ["right"], (None, 1, 3), "row")
    b.node(Elementwise(function="multiply"), ["column", "row"], (None, UNITS, 3), "y")
    found = trace(b.graph("y"))
    assert [(head.name, head.axis) for head in found.heads] == [("y:1", 1), ("y:2", 2)]
    assert found.head("y:2").units == 3
    with pytest.raises(UsageError, match="several heads: 'y:1', 'y:2'"):
        found.head()


def test_a_constant_that_two_nodes_share_is_cut_once() -> None:
    b = Builder()
    x = b.feed("x", None, 4)
    kernel = b.constant("kernel", 4, UNITS)
    for name in ("left", "right"):
        b.node(Linear(1, 1, 1), [x, kernel], (None, UNITS), name)
    b.node(Elementwise(function="add"), ["left", "right"], (None, UNITS), "y")
    (head,) = trace(b.graph("y")).heads
    (constant,) = head.constants
    assert {use.node for use in constant.uses} == {"left", "right"}


def test_an_output_that_shows_some_units_of_another_has_its_own_walk() -> None:
    """The first output joins six units with three more, which the second one does not show."""
    b = Builder()
    x = b.feed("x", None, 4)
    b.dense(x, UNITS, "classes")
    b.dense(x, 3, "boxes")
    b.node(Concat(1), ["classes", "boxes"], (None, UNITS + 3), "rows")
    graph = b.graph("rows", "classes")
    rows, classes = trace(graph).heads
    assert (rows.units, classes.units) == (UNITS + 3, UNITS)
    kernels = {name for name in graph.tensors if graph.tensors[name].is_constant}
    assert {constant.name for constant in rows.constants} == kernels
    assert {constant.name for constant in classes.constants} == {
        name for name in kernels if graph.shape(name)[-1] == UNITS
    }
    check_slice(graph, classes, [4, 1])


def test_units_that_a_later_part_brings_are_not_ignored() -> None:
    """The walk meets `outer` from `shown` before it knows that `inner` has units too."""
    b = Builder()
    x = b.feed("x", None, 4)
    b.dense(x, UNITS, "classes")
    b.dense(x, 3, "boxes")
    b.node(Concat(1), ["classes", "boxes"], (None, UNITS + 3), "inner")
    b.activation("classes", "sigmoid", "shown")
    b.node(Concat(1), ["inner", "shown"], (None, 2 * UNITS + 3), "outer")
    found = trace(b.graph("shown", "outer"))
    assert [head.name for head in found.heads if head.units == UNITS] == []
    refusal = next(each for each in found.refusals if each.output == "shown")
    assert "two paths give the units of 'inner' different positions" in str(refusal)


def test_a_computed_kernel_is_followed_to_its_constant() -> None:
    b = Builder()
    x = b.feed("x", None, 4)
    turned = b.node(Transpose((1, 0)), [b.constant("kernel", UNITS, 4)], (4, UNITS), "turned")
    b.node(Linear(1, 1, 1), [x, turned], (None, UNITS), "first")
    b.node(Linear(1, 1, 1), [x, turned], (None, UNITS), "second")
    graph = b.graph("first", "second")
    head = trace(graph).head("first")
    (constant,) = head.constants
    assert (constant.name, constant.unit_axis.axis) == ("kernel", 0)
    assert head.other_outputs == ("second",)
    check_slice(graph, head, [4, 1])


def test_positions_without_a_unit_have_no_effect() -> None:
    (head,) = trace(classifier()).heads
    mixed = UnitAxis(1, np.array([-1, -1, 0, 1, 2, 3, 4, 5]))
    tensors = [replace(t, unit_axis=mixed) if t.name == "y" else t for t in head.tensors]
    assert replace(head, tensors=tuple(tensors)).unit_range == (2, 8)
    assert mixed.positions([4, 1]).tolist() == [0, 1, 6, 3]
    assert mixed.removed([0, 1, 2, 3]).tolist() == [6, 7]


def test_other_consumers_of_a_tensor_are_cut_too() -> None:
    """A transposed copy of the logits, and a second consumer of the kernel, narrow too."""
    b = Builder()
    x = b.feed("x", None, 4)
    turned = b.node(Transpose((1, 0)), [b.constant("kernel", UNITS, 4)], (4, UNITS), "turned")
    z = b.node(Linear(1, 1, 1), [x, turned], (None, UNITS), "z")
    b.node(Transpose((1, 0)), [z], (UNITS, None), "copy")
    b.activation(z, "softmax", "y")
    graph = b.graph("y", "copy")
    head = trace(graph).head("y")
    shapes = {
        e.tensor: e.shape for e in MODES["slice"].edits(head, [0, 2]) if isinstance(e, SetShape)
    }
    assert shapes == {"y": (None, 2), "z": (None, 2), "copy": (2, None), "turned": (4, 2)}


selections = st.lists(st.integers(0, UNITS - 1), min_size=1, unique=True)


@pytest.mark.parametrize("name", ACCEPTED)
@given(kept=selections, seed=st.integers(0, 3))
def test_slice_then_run_is_run_then_take(name: str, kept: list[int], seed: int) -> None:
    graph = ACCEPTED[name]()
    (head,) = trace(graph).heads
    check_slice(graph, head, kept, seed)


@pytest.mark.parametrize("name", ACCEPTED)
@given(kept=selections, seed=st.integers(0, 3))
def test_zero_makes_z_exactly_zero_and_is_idempotent(name: str, kept: list[int], seed: int) -> None:
    graph = ACCEPTED[name]()
    (head,) = trace(graph).heads
    values = feeds(graph, seed)
    before = run(graph, values)
    once = apply(graph, MODES["zero"].edits(head, kept))
    after = run(once, values)
    axis = head.tensor(head.z).unit_axis.axis
    removed = [u for u in range(UNITS) if u not in kept]
    assert not np.take(after[head.z], removed, axis=axis).any()
    np.testing.assert_array_equal(
        np.take(after[head.z], kept, axis=axis), np.take(before[head.z], kept, axis=axis)
    )
    oracle = MODES["zero"].oracle(head, kept, before[head.z])
    np.testing.assert_allclose(oracle.y, after[head.output], rtol=1e-9, atol=1e-12)
    twice = run(apply(once, MODES["zero"].edits(trace(once).heads[0], kept)), values)
    np.testing.assert_array_equal(twice[head.output], after[head.output])


@pytest.mark.parametrize("function", ["sigmoid", "tanh", "log_softmax"])
def test_other_activations_after_z(function: str) -> None:
    graph = classifier(function)
    (head,) = trace(graph).heads
    check_slice(graph, head, [0, 5])


def test_zero_is_refused_before_a_function_that_does_not_map_0_to_0() -> None:
    b = Builder()
    x = b.activation(b.dense(b.feed("x", None, 4), UNITS, "fc"), "sigmoid", "inner")
    b.activation(x, "softmax", "y")
    (head,) = trace(b.graph("y")).heads
    with pytest.raises(ModelError, match="Activation 'inner' does not map 0 to 0"):
        MODES["zero"].edits(head, [0])


@pytest.mark.parametrize(
    ("low", "high", "kept"),
    [(0.0, 6.0, True), (-1.0, 1.0, True), (1.0, 2.0, False), (-2.0, -1.0, False)],
)
def test_zero_and_clip(low: float, high: float, kept: bool) -> None:
    b = Builder()
    clip = Activation("clip", parameters=(("min", low), ("max", high)))
    x = b.node(clip, [b.dense(b.feed("x", None, 4), UNITS, "fc")], (None, UNITS), "clip")
    b.activation(x, "softmax", "y")
    (head,) = trace(b.graph("y")).heads
    if kept:
        assert MODES["zero"].edits(head, [0])
    else:
        with pytest.raises(ModelError, match="'clip' does not map 0 to 0"):
            MODES["zero"].edits(head, [0])


def test_keeping_everything_fills_nothing() -> None:
    (head,) = trace(classifier()).heads
    assert MODES["zero"].edits(head, list(range(UNITS))) == ()


def test_every_stated_width_follows() -> None:
    (head,) = trace(target_in_a_constant()).heads
    texts = [str(e) for e in MODES["slice"].edits(head, [1, 3, 5])]
    assert "set units of 'fc' to 3" in texts
    assert "replace 'target' by [-1,  1,  3]" in texts
    assert "set new_shape of 'y' to (-1, 1, 3)" in texts


def test_widths_name_their_place_in_the_file() -> None:
    (head,) = trace(squeezed()).heads
    edits = [str(e) for e in MODES["slice"].edits(head, [1, 3]) if isinstance(e, SetAttribute)]
    assert edits == ["set shape of 'y' to (-1, 2)"]


def test_reordered_units_keep_their_blocks() -> None:
    (head,) = trace(anchors()).heads
    (kernel,) = (c for c in head.constants if c.name == "fc/kernel")
    assert kernel.unit_axis.positions([4, 1]).tolist() == [4, 1, 10, 7]
    assert kernel.unit_axis.positions([1, 4]).tolist() == [1, 4, 7, 10]
    assert kernel.unit_axis.removed([0, 1, 2, 3, 4]).tolist() == [5, 11]
