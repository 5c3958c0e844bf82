"""Find the units on an axis that also contains boxes, objectness or background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporter.errors import NotAllowedError, UsageError
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.graph import Graph
from exporter.graph.operations import (
    Concat,
    DetectionSlots,
    Elementwise,
    Gather,
    GatherComputed,
    GatherConstant,
    NonMaxSuppression,
    Opaque,
    Operation,
    Reshape,
    Slice,
    Split,
)
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace, trace_axis
from exporter.trace.rules import Refused
from tests.builders.box_graphs import NAMES, boxes_and_classes
from tests.builders.graphs import Builder
from tests.builders.yolo_models import Net, anchored
from tests.builders.yolo_reference import ANCHORS, CLASSES

BOXES = 3
FEATURES = 2


class Pieces(Builder):
    """Branches on [batch, boxes, features] that are joined on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.feed("x", None, BOXES, FEATURES)
        self.parts: list[tuple[str, int]] = []

    def branch(self, width: int, *after: str) -> Pieces:
        """A dense layer, then functions."""
        name = f"part{len(self.parts)}"
        x = self.dense("x", width, f"{name}/fc")
        for i, function in enumerate(after):
            step = f"{name}/{i}"
            shape = (None, BOXES, width)
            if function == "scale":
                inputs = [x, self.constant(f"{step}/by", 1)]
                x = self.node(Elementwise(function="multiply"), inputs, shape, step)
            elif function == "square":
                x = self.node(Elementwise(function="multiply"), [x, x], shape, step)
            elif function == "strange":
                x = self.node(Opaque(), [x], shape, step)
            else:
                x = self.activation(x, function, step)
        self.parts.append((x, width))
        return self

    def given(self, width: int) -> Pieces:
        self.parts.append((self.constant(f"given{len(self.parts)}", 1, BOXES, width), width))
        return self

    def joined(self, *labels: str) -> Graph:
        width = sum(width for _, width in self.parts)
        self.node(Concat(2), [name for name, _ in self.parts], (None, BOXES, width), "y")
        if labels:
            self.labels["y"] = labels
        return self.graph("y")


def axis_parts_of(graph: Graph) -> str:
    """The parts of the last axis."""
    return ", ".join(map(str, trace_axis(graph, "y", 2).axis_parts))


ABC = ("a", "b", "c")

UNDECIDED: dict[str, Callable[[], Graph]] = {
    "nothing but values": lambda: Pieces().branch(4).branch(3).joined(),
    "every part is a probability": lambda: (
        Pieces().branch(4, "sigmoid").branch(3, "sigmoid").joined()
    ),
    "two parts look like classes": lambda: (
        Pieces().branch(4).branch(2, "sigmoid").branch(3, "sigmoid").joined()
    ),
    "objectness not before the classes": lambda: (
        Pieces().branch(4).branch(1, "sigmoid").branch(2).branch(3, "sigmoid").joined()
    ),
    "labels fit two parts": lambda: Pieces().branch(3, "scale").branch(3).branch(3).joined(*ABC),
    "probabilities are scaled": lambda: Pieces().branch(4).branch(3, "sigmoid", "scale").joined(),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_undecided_parts_are_refused_with_the_option_to_give(name: str) -> None:
    found = trace(UNDECIDED[name]())
    assert not found.heads
    assert "give --units A:B" in found.refusals[0].reason


WHOLE: dict[str, Callable[[], Graph]] = {
    "one branch": lambda: Pieces().branch(5).joined(),
    "branches alike": lambda: Pieces().branch(2, "sigmoid").branch(3, "sigmoid").joined(),
}


@pytest.mark.parametrize("name", WHOLE)
def test_all_positions_are_units_if_nothing_indicates_boxes(name: str) -> None:
    assert not axis_parts_of(WHOLE[name]())


DECIDED: dict[str, tuple[Callable[[], Graph], str]] = {
    "the only probabilities": (
        lambda: Pieces().branch(4, "square").branch(3, "sigmoid").joined(),
        "box 0:4, classes 4:7",
    ),
    "classes before the boxes": (
        lambda: Pieces().branch(3, "sigmoid").branch(4, "strange").joined(),
        "classes 0:3, other 3:7",
    ),
    "objectness first": (
        lambda: Pieces().branch(4).branch(1, "sigmoid").branch(3, "sigmoid").joined(),
        "box 0:4, object 4:5, classes 5:8",
    ),
    "as many as labels": (
        lambda: Pieces().branch(4).branch(3).branch(2, "sigmoid").joined(*ABC),
        "box 0:4, classes 4:7, other 7:9",
    ),
    "joined with constants": (
        lambda: Pieces().given(4).branch(3, "sigmoid").joined(),
        "box 0:4, classes 4:7",
    ),
    "a rotation is no class": (
        lambda: Pieces().branch(4).branch(3, "sigmoid").branch(1, "sigmoid", "scale").joined(),
        "box 0:4, classes 4:7, other 7:8",
    ),
}


@pytest.mark.parametrize("name", DECIDED)
def test_classes_are_found_among_the_parts(name: str) -> None:
    build, parts = DECIDED[name]
    assert axis_parts_of(build()) == parts


def test_a_part_of_the_input_is_not_a_class() -> None:
    b = Pieces().branch(4).branch(3, "sigmoid")
    b.parts.append(("x", FEATURES))
    assert axis_parts_of(b.joined()) == "box 0:4, classes 4:7, other 7:9"


def test_an_unknown_number_of_rows_is_not_matched_with_boxes() -> None:
    b = Builder()
    b.dense(b.feed("x", None, None, FEATURES), 6, "y")
    assert not trace_axis(b.graph("y"), "y", 2).axis_parts


def test_an_output_that_cannot_be_cut_is_reported() -> None:
    b = Pieces().branch(4, "square").branch(3, "sigmoid")
    b.activation(b.activation("part1/fc", "softmax", "soft"), "sigmoid", "odd")
    b.joined()
    found = trace(b.graph("y", "odd"))
    assert [head.output for head in found.heads] == ["y"]
    assert [refusal.output for refusal in found.refusals] == ["odd"]


# --- given by the user ---------------------------------------------------------------------------


def raw_maps(*, labels: bool = False) -> OnnxModel:
    net = Net()
    anchored(net, 0, net.maps()[0])
    made = net.model(raw0=(1, ANCHORS, 4, 4, 5 + CLASSES))
    if labels:
        made.metadata_props.add(key="names", value=repr({i: f"c{i}" for i in range(CLASSES)}))
    return from_proto(made, "raw.onnx")


def test_raw_maps_need_the_range_of_the_units() -> None:
    found = trace(raw_maps().graph())
    assert not found.heads
    assert f"--units 0:{5 + CLASSES}" in found.refusals[0].reason
    cut = plan_cut(raw_maps(), CutOptions(keep=[0, 2], units="5:11"))
    assert (cut.heads[0].units, cut.remap.heads[0].part) == (CLASSES, (5, 7))
    small = raw_maps().apply(cut.plan)
    again = plan_cut(small, CutOptions(keep=[1]))  # the remap records their range
    assert again.remap.heads[0].new_to_old == (2,)
    assert again.remap.heads[0].part == (5, 6)


def test_raw_maps_with_labels_are_accepted() -> None:
    head = trace(raw_maps(labels=True).graph()).head()
    assert ", ".join(map(str, head.axis_parts)) == "box 0:4, object 4:5, classes 5:11"
    assert head.labels == tuple(f"c{i}" for i in range(CLASSES))


def test_all_of_a_raw_map_may_be_units() -> None:
    cut = plan_cut(raw_maps(), CutOptions(keep=range(4), units=(0, 11)))
    assert (cut.heads[0].units, cut.remap.heads[0].part) == (11, (0, 4))
    small = raw_maps().apply(cut.plan)
    assert plan_cut(small, CutOptions(keep=[3])).remap.heads[0].new_to_old == (3,)


@pytest.mark.parametrize("units", ["5", "8:5", "5:5", "a:b", "1:2:3", (3,), (-1, 4), 7])
def test_units_that_are_not_a_range_are_refused(units: str) -> None:
    with pytest.raises(UsageError, match="not a range"):
        CutOptions(keep=[0], units=units)


def test_units_outside_of_every_axis_are_refused() -> None:
    with pytest.raises(UsageError, match="no head has its units at 5:12"):
        plan_cut(raw_maps(), CutOptions(keep=[0], units="5:12"))


def test_the_background_is_kept() -> None:
    cut = plan_cut(boxes_and_classes(*NAMES), CutOptions(keep="dog", head="classes"))
    assert cut.selection.kept == (0, 2)
    assert "'background', is kept" in cut.warnings[0]


def test_the_background_comes_before_a_given_order() -> None:
    choice = CutOptions(keep="dog,cat", keep_order=True, head="classes")
    assert plan_cut(boxes_and_classes(*NAMES), choice).selection.kept == (0, 2, 1)


def test_removing_the_background_is_refused_unless_allowed() -> None:
    model, choice = boxes_and_classes(*NAMES), CutOptions(remove="background", head="classes")
    with pytest.raises(NotAllowedError, match="where there is no object") as error:
        plan_cut(model, choice)
    assert "--allow-remove-special" in error.value.hint
    assert plan_cut(model, replace(choice, allow_remove_special=True)).selection.kept == (1, 2)


def test_the_background_of_a_classifier_may_be_removed() -> None:
    b = Builder()
    b.activation(b.dense(b.feed("x", None, 4), 3, "fc"), "softmax", "y")
    assert not trace(b.graph("y")).head().axis_parts


# --- read by a post-process ----------------------------------------------------------------------


def detecting(operation: Operation, *, shape: tuple[int, ...] = (1, BOXES, 4)) -> Builder:
    b = Builder()
    b.feed("x", 1, BOXES, FEATURES)
    b.dense("x", 4, "z")
    if shape != (1, BOXES, 4):
        b.node(Reshape(), ["z"], shape, "moved")
    source = "z" if shape == (1, BOXES, 4) else "moved"
    b.nodes_of(operation, [source], {"numbers": None, "boxes": None, "best": None, "count": None})
    return b


POST = NonMaxSuppression(0, axis=2, background=1, rows=DetectionSlots(1, 0, 2, 3))


def test_another_axis_than_the_class_axis_is_refused() -> None:
    found = trace(detecting(NonMaxSuppression(0, axis=1)).graph("z", "numbers"))
    assert "not the class axis" in found.refusals[0].reason
    assert "no axis" in found.refusals[0].reason or "not the" in found.refusals[0].reason


def test_the_axis_of_boxes_is_refused() -> None:
    b = Builder()
    b.feed("x", 1, BOXES, FEATURES)
    for name in ("z", "w"):
        b.dense("x", 4, name)
    b.nodes_of(NonMaxSuppression(1, axis=2), ["z", "w"], {"numbers": None})
    with pytest.raises(Refused, match="not the class axis"):
        trace_axis(b.graph("z", "numbers"), "z", 2)


def test_a_background_within_the_given_units_is_refused() -> None:
    graph = detecting(POST).graph("z", "numbers")
    with pytest.raises(Refused, match="from position 1"):
        trace_axis(graph, "z", 2, units=(0, 4))


def test_class_values_that_are_a_model_input_are_refused() -> None:
    b = Builder()
    b.node(Elementwise(), [b.feed("x", 1, BOXES, 4)], (1, BOXES, 4), "same")
    b.nodes_of(NonMaxSuppression(0, axis=2), ["same"], {"numbers": None})
    assert "the model's input 'x'" in str(trace(b.graph("numbers")).refusals[0])


def test_units_at_computed_positions_are_refused() -> None:
    b = Builder()
    places = b.feed("places", None, 1)
    b.node(GatherComputed(), [b.dense(b.feed("x", None, 4), 6, "z"), places], (None, 6), "y")
    with pytest.raises(Refused, match="selects units by computed positions"):
        trace_axis(b.graph("y"), "y", 1)


def test_arithmetic_with_class_indices_is_refused() -> None:
    b = detecting(POST)
    b.node(Elementwise(function="add"), ["numbers", b.constant("one", 1)], (1, 5), "more")
    found = trace(b.graph("more"))
    assert "computes with class indices" in found.refusals[0].reason


def test_class_indices_are_followed_to_a_table() -> None:
    b = detecting(POST)
    b.node(Elementwise(), ["numbers"], (1, 5), "same")
    b.node(Gather(), [b.constant("table", 4), "same"], (1, 5), "ids")
    b.node(Elementwise(function="add"), ["ids", "ids"], (1, 5), "twice")
    head = trace(b.graph("boxes", "ids", "best", "count", "twice")).head()
    (detection,) = head.readers.detections
    assert detection.rows == ("boxes", "ids", "best", "count")
    assert detection.dependents == ("boxes", "ids", "best", "count", "twice")
    (table,) = detection.tables
    np.testing.assert_array_equal(table.unit_axis.units, [0, 1, 2, -1])
    assert not head.readers.id_outputs


def test_a_table_that_is_too_short_is_refused() -> None:
    b = detecting(POST)
    b.node(Gather(), [b.constant("table", 2), "numbers"], (1, 5), "ids")
    assert "no entry for some of the 3 classes" in trace(b.graph("ids")).refusals[0].reason


def test_rows_that_are_not_all_returned_are_not_recorded() -> None:
    (detection,) = trace(detecting(POST).graph("numbers", "best")).head().readers.detections
    assert (detection.rows, detection.ids) == (None, ("numbers",))
    (detection,) = trace(detecting(POST).graph("best")).head().readers.detections
    assert (detection.rows, detection.ids) == (None, ())


# --- constant positions --------------------------------------------------------------------------


def selected(axis: int, *positions: int, keepdims: bool, shape: tuple[int | None, ...]) -> Graph:
    b = Builder()
    b.dense(b.feed("x", None, BOXES, FEATURES), 6, "fc")
    b.node(GatherConstant(axis, positions, keepdims), ["fc"], shape, "y")
    return b.graph("y", "fc")


@pytest.mark.parametrize(
    ("graph", "axis"),
    [
        pytest.param(selected(1, 2, keepdims=False, shape=(None, 6)), 1, id="one, axis dropped"),
        pytest.param(selected(1, 2, 0, keepdims=True, shape=(None, 2, 6)), 2, id="two"),
    ],
)
def test_positions_of_another_axis_pass(graph: Graph, axis: int) -> None:
    assert trace_axis(graph, "y", axis).other_outputs == ("fc",)
    assert trace_axis(graph, "fc", 2).other_outputs == ("y",)


def test_positions_of_the_unit_axis_are_refused() -> None:
    for keepdims, shape in ((False, (None, BOXES)), (True, (None, BOXES, 2))):
        graph = selected(2, 1, 4, keepdims=keepdims, shape=shape)
        with pytest.raises(Refused, match="selects units by position"):
            trace_axis(graph, "fc", 2)


# --- ranges without units ------------------------------------------------------------------------


def ranges(*bounds: tuple[int, int], start: int | None = 1) -> Graph:
    """Units 2:5 of 8 are returned; other ranges of the same tensor are selected."""
    b = Builder()
    b.dense(b.feed("x", None, FEATURES), 8, "fc")
    names = []
    for i, (first, stop) in enumerate([(2, 5), *bounds]):
        cut = Slice((1,), (first,), (stop,), (1,), slot=2, start=start)
        width = min(stop, 8) - first
        inputs = ["fc", b.constant(f"starts{i}", 1), b.constant(f"stops{i}", 1)]
        names.append(b.node(cut, inputs, (None, width), f"range{i}"))
    return b.graph(*names)


def test_ranges_after_the_units_move_with_their_number() -> None:
    head = trace_axis(ranges((0, 2), (5, 7), (6, 99)), "range0", 1)
    moved = {(w.node, w.place): w.offset for w in head.widths}
    assert moved == {
        ("range0", 2): 2,
        ("range2", 1): 5 - 8,
        ("range2", 2): 7 - 8,
        ("range3", 1): 6 - 8,
    }


def test_a_range_without_a_stated_start_keeps_it() -> None:
    head = trace_axis(ranges((5, 99), start=None), "range0", 1)
    assert {(w.node, w.place) for w in head.widths} == {("range0", 2)}


def test_a_range_of_units_is_refused() -> None:
    with pytest.raises(Refused, match="selects units by position"):
        trace_axis(ranges((4, 6)), "range0", 1)


def test_a_range_between_units_is_refused() -> None:
    b = Builder()
    b.dense(b.feed("x", None, FEATURES), 6, "fc")
    shapes = {"left": (None, 2), "box": (None, 2), "right": (None, 2)}
    b.nodes_of(Split(1, (2, 2, 2), slot=1), ["fc", b.constant("sizes", 3)], shapes)
    b.node(Concat(1), ["left", "right"], (None, 4), "y")
    cut = Slice((1,), (2,), (4,), (1,), slot=2, start=1)
    b.node(cut, ["fc", b.constant("starts", 1), b.constant("stops", 1)], (None, 2), "again")
    with pytest.raises(Refused, match="between units"):
        trace_axis(b.graph("y", "again"), "y", 1)


def parts_around_a_box(
    start: int | None = 1, box: tuple[int | None, ...] | None = (None, 2)
) -> Graph:
    """Slices take units, a box and units; the units are joined."""
    b = Builder()
    b.dense(b.feed("x", None, FEATURES), 7, "fc")
    shapes: dict[str, Any] = {"left": (None, 2), "box": box, "right": (None, 3)}
    for (name, shape), first, stop in zip(shapes.items(), (0, 2, 4), (2, 4, 7), strict=True):
        cut = Slice((1,), (first,), (stop,), (1,), slot=2, start=start)
        inputs = ["fc", b.constant(f"{name}_starts", 1), b.constant(f"{name}_stops", 1)]
        b.node(cut, inputs, shape, name)
    b.node(Concat(1), ["left", "right"], (None, 5), "y")
    return b.graph("y", "box")


def test_slices_around_a_box_count_the_units_before_their_bounds() -> None:
    head = trace_axis(parts_around_a_box(), "y", 1)
    assert head.tensor("fc").unit_axis.units.tolist() == [0, 1, -1, -1, 2, 3, 4]
    counted = {(w.node, w.place): w.before for w in head.widths}
    assert counted == {
        ("left", 1): 0,
        ("left", 2): 2,
        ("box", 1): 2,
        ("box", 2): 4,
        ("right", 1): 4,
        ("right", 2): 7,
    }
    starts = {w.node for w in trace_axis(parts_around_a_box(None), "y", 1).widths if w.place == 1}
    assert not starts


def test_a_slice_whose_shape_is_not_known_is_not_a_part() -> None:
    with pytest.raises(Refused):
        trace_axis(parts_around_a_box(box=None), "y", 1)
