"""ONNX detectors with NonMaxSuppression inside: class numbers follow the cut, rows stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.cutting import Choice, plan_cut
from exporter.errors import UsageError
from exporter.graph import Array
from exporter.job import Job
from exporter.models.onnx import OnnxModel, from_proto
from exporter.rules import Refused
from exporter.tasks import prune_model
from exporter.trace import trace, trace_axis
from tests.onnx_models import node, numbers
from tests.yolo_models import BOXES, CHANNELS, CLASSES, SIZES, Net

KEPT = (4, 0, 3)
ROOM = 200  # more than there are boxes of a class


def suppressed(net: Net, boxes: str, scores: str, *, overlap: float) -> str:
    limits = [
        net.integers("room", ROOM),
        net.constant("overlap", np.array([overlap], np.float32)),
        net.constant("least", np.array([0.0], np.float32)),
    ]
    return net.op("NonMaxSuppression", [boxes, scores, *limits], "selected")


def column(net: Net, place: int, name: str, *, flat: bool = True) -> str:
    index = np.int64(place) if flat else np.array([place], np.int64)
    return net.op("Gather", ["selected", net.constant(f"{name}.at", index)], name, axis=1)


def branches(net: Net, width: int, name: str) -> str:
    """[1, width, boxes] of both feature maps."""
    levels = [
        net.reshape(net.conv(x, width, f"{name}{i}"), f"{name}.flat{i}", 1, width, -1)
        for i, x in enumerate(("p0", "p1"))
    ]
    return net.op("Concat", levels, name, axis=2)


def finished(net: Net, **kinds: int) -> ModelProto:
    model = net.model()
    shapes = {"boxes": (None, 4), "rows": (None, 6), "selected": (None, 3)}
    for name, kind in kinds.items():
        info = helper.make_tensor_value_info(name, kind, shapes.get(name, (None,)))
        model.graph.output.append(info)
    return model


def ssd(*, background: bool = False, sliced: bool = False) -> ModelProto:
    """Values of classes [1, classes, boxes]; rows are put together from what is selected."""
    net = Net()
    net.maps()
    box = net.op("Transpose", [branches(net, 4, "box")], "corners", perm=[0, 2, 1])
    width = CLASSES + background
    values = net.op("Sigmoid", [branches(net, width, "cls")], "values")
    if background:
        values = net.slice(values, "without", 1, 2**63 - 1, 1)
    suppressed(net, box, values, overlap=0.5)
    if sliced:
        columns = [net.slice("selected", f"column{i}", i, i + 1, 1) for i in (1, 2)]
        flat = [
            net.op("Squeeze", [each, net.integers(f"{each}.one", 1)], f"{each}.flat")
            for each in columns
        ]
    else:
        flat = [column(net, 1, "number"), column(net, 2, "place")]
    number, place = flat
    net.op("Cast", [number], "numbers", to=TensorProto.INT32)
    net.op("Squeeze", [box, net.integers("front", 0)], "flat_boxes")
    net.op("Gather", ["flat_boxes", place], "boxes", axis=0)
    net.op("GatherND", [values, "selected_as_stored"], "best")
    net.nodes[-1].input[1] = "selected"
    return finished(net, boxes=TensorProto.FLOAT, numbers=TensorProto.INT32, best=TensorProto.FLOAT)


def selected_alone() -> ModelProto:
    net = Net()
    net.maps()
    box = net.op("Transpose", [branches(net, 4, "box")], "corners", perm=[0, 2, 1])
    suppressed(net, box, net.op("Sigmoid", [branches(net, CLASSES, "cls")], "v"), overlap=0.5)
    return finished(net, selected=TensorProto.INT64)


def largest(*, overlap: float = 1.0) -> ModelProto:
    """Each box has one class, the best; suppression knows none (YOLOv5 with its own)."""
    net = Net()
    net.maps()
    y = net.op("Sigmoid", [branches(net, 5 + CLASSES, "row")], "sigmoid")
    rows = net.op("Transpose", [y], "every", perm=[0, 2, 1])
    box = net.slice(rows, "xywh", 0, 4, 2)
    score = net.op(
        "Mul", [net.slice(rows, "obj", 4, 5, 2), net.slice(rows, "each", 5, 2**63 - 1, 2)], "score"
    )
    best = net.op("ReduceMax", [score], "largest", axes=[2], keepdims=1)
    kind = net.op("ArgMax", [score], "kind", axis=2, keepdims=1)
    turned = net.op("Transpose", [best], "turned", perm=[0, 2, 1])
    suppressed(net, box, turned, overlap=overlap)
    place = column(net, 2, "place")
    kind = net.op("Cast", [kind], "kind_float", to=TensorProto.FLOAT)
    row = net.op("Concat", [box, best, kind], "with_kind", axis=2)
    net.op("Gather", [row, place], "chosen", axis=1)
    net.op("Squeeze", ["chosen", net.integers("front", 0)], "rows")
    return finished(net, rows=TensorProto.FLOAT)


def picture(seed: int = 7) -> dict[str, Array]:
    return {"x": numbers(1, CHANNELS, SIZES[0], SIZES[0], seed=seed)}


def run(model: object) -> Mapping[str, Array]:
    assert isinstance(model, OnnxModel)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.to_bytes(), options, providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, picture()), strict=True))


def rows(answer: Mapping[str, Array]) -> list[tuple[float, ...]]:
    found = zip(answer["numbers"], answer["best"], answer["boxes"], strict=True)
    return sorted((int(n), float(s), *box.tolist()) for n, s, box in found)


@pytest.mark.parametrize("sliced", [False, True], ids=["columns gathered", "columns sliced"])
@pytest.mark.parametrize("background", [False, True], ids=["classes", "behind a background"])
def test_rows_of_kept_classes_stay(*, background: bool, sliced: bool) -> None:
    model = from_proto(ssd(background=background, sliced=sliced), "ssd.onnx")
    head = trace(model.graph()).head()
    assert (head.name, head.units) == ("selected", CLASSES)
    done = prune_model(model, Choice(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.findings.passed
    assert done.remap.heads[0].options["ids"] == ("numbers",)
    before, after = rows(run(model)), rows(run(done.model))
    expected = [(KEPT.index(int(n)), *row) for n, *row in before if n in KEPT]
    assert 0 < len(expected) < len(before)
    np.testing.assert_allclose(after, sorted(expected), rtol=0, atol=1e-6)


def test_selected_places_alone() -> None:
    model = from_proto(selected_alone(), "ssd.onnx")
    done = prune_model(model, Choice(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.findings.passed
    before, after = run(model)["selected"], run(done.model)["selected"]
    expected = sorted([b, KEPT.index(c), n] for b, c, n in before.tolist() if c in KEPT)
    assert sorted(after.tolist()) == expected


def test_the_best_of_the_kept_classes() -> None:
    """Nothing is suppressed here, so that NumPy can say what each box must be."""
    model = from_proto(largest(), "yolo.onnx")
    done = prune_model(model, Choice(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.findings.passed
    assert done.remap.heads[0].options["ids"] == ("rows",)
    every = from_proto(with_scores(), "yolo.onnx")
    answer = run(every)
    scores, boxes = answer["score"][0], answer["xywh"][0]
    kept = scores[:, list(KEPT)]
    expected = np.concatenate(
        [boxes, kept.max(axis=1, keepdims=True), kept.argmax(axis=1)[:, None]], axis=1
    )
    after = run(done.model)["rows"]
    assert len(after) == BOXES
    np.testing.assert_allclose(sorted(after.tolist()), sorted(expected.tolist()), atol=1e-6)


def with_scores() -> ModelProto:
    model = largest()
    for name, width in (("score", CLASSES), ("xywh", 4)):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, BOXES, width))
        model.graph.output.append(info)
    return model


def computed_with() -> ModelProto:
    model = ssd()
    model.graph.node.append(helper.make_node("Add", ["number", "number"], ["twice"], "twice"))
    model.graph.output.append(helper.make_tensor_value_info("twice", TensorProto.INT64, (None,)))
    return model


def looked_up_by_place() -> ModelProto:
    """Values of classes, taken where no post-process says."""
    net = Net()
    net.maps()
    values = net.op("Sigmoid", [branches(net, CLASSES, "cls")], "y")
    places = net.op("Cast", [net.op("Relu", ["x"], "px")], "whole", to=TensorProto.INT64)
    net.op("GatherND", [values, places], "taken")
    model = net.model(y=(1, CLASSES, BOXES))
    model.graph.output.append(helper.make_tensor_value_info("taken", TensorProto.FLOAT, None))
    return model


def test_numbers_that_are_computed_with_are_refused() -> None:
    found = trace(from_proto(computed_with(), "detector.onnx").graph())
    assert not found.heads
    assert "computes with the class numbers" in found.refusals[0].reason


def test_values_at_computed_places_are_refused() -> None:
    with pytest.raises(Refused, match="takes units by computed places"):
        trace_axis(from_proto(looked_up_by_place(), "detector.onnx").graph(), "y", 1)


def test_old_numbers_cannot_stand_among_others() -> None:
    with pytest.raises(UsageError, match="no output with the class numbers"):
        plan_cut(from_proto(ssd(), "ssd.onnx"), Choice(keep=[1], restore_ids=True))


def end_to_end() -> ModelProto:
    """YOLOv10 and later: the best boxes, then the best of all their classes; no suppression."""
    net = Net()
    net.maps()
    box = net.op("Transpose", [branches(net, 4, "box")], "corners", perm=[0, 2, 1])
    cls = net.op("Sigmoid", [branches(net, CLASSES, "cls")], "values")
    both = net.op(
        "Concat", [box, net.op("Transpose", [cls], "turned", perm=[0, 2, 1])], "both", axis=2
    )
    net.split(both, ["boxes", "scores"], [4, CLASSES], 2)
    net.op("ReduceMax", ["scores"], "largest", axes=[2], keepdims=0)
    best = ["best", "place"]
    net.nodes.append(node("TopK", ["largest", net.integers("k", TAKEN)], best, "first", axis=1))
    place = net.op("Unsqueeze", ["place", net.integers("behind", 2)], "place1")
    for name, width in (("boxes", 4), ("scores", CLASSES)):
        tiled = net.op("Tile", [place, net.integers(f"{name}.times", 1, 1, width)], f"{name}.at")
        net.op("GatherElements", [name, tiled], f"{name}.best", axis=1)
    line = net.reshape("scores.best", "line", 1, -1)
    ranked = ["value", "index"]
    net.nodes.append(node("TopK", [line, net.integers("k2", TAKEN)], ranked, "second", axis=1))
    count = net.constant("count", np.int64(CLASSES))
    row = net.op("Div", ["index", count], "row")
    kind = net.op("Mod", ["index", count], "kind")
    net.op("Squeeze", ["boxes.best", net.integers("front", 0)], "flat")
    net.op("Gather", ["flat", row], "box_of", axis=0)
    parts = ["box_of"]
    kind = net.op("Cast", [kind], "kind_float", to=TensorProto.FLOAT)
    for name, source in (("score_of", "value"), ("kind_of", kind)):
        parts.append(net.op("Unsqueeze", [source, net.integers(f"{name}.axes", 2)], name))
    net.op("Concat", parts, "y", axis=2)
    return net.model(y=(1, TAKEN, 6))


TAKEN = 8  # of 20 boxes


def test_an_end_to_end_model_numbers_the_kept_classes() -> None:
    """In NumPy: the best boxes by their best kept class, then the best pairs of box and class."""
    model = from_proto(end_to_end(), "yolo.onnx")
    done = prune_model(model, Choice(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.findings.passed
    table = done.remap.heads[0]
    assert (table.old_units, table.options["ids"]) == (CLASSES, ("y",))
    shown = end_to_end()
    for name, width in (("boxes", 4), ("scores", CLASSES)):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, BOXES, width))
        shown.graph.output.append(info)
    answer = run(from_proto(shown, "yolo.onnx"))
    boxes, scores = answer["boxes"][0], answer["scores"][0][:, list(KEPT)]
    first = np.argsort(-scores.max(axis=1), kind="stable")[:TAKEN]
    line = np.argsort(-scores[first].ravel(), kind="stable")[:TAKEN]
    chosen, kinds = first[line // len(KEPT)], line % len(KEPT)
    expected = np.column_stack([boxes[chosen], scores[chosen, kinds], kinds])
    np.testing.assert_allclose(run(done.model)["y"][0], expected, rtol=0, atol=1e-6)


def test_another_divisor_is_refused() -> None:
    model = end_to_end()
    count = next(each for each in model.graph.initializer if each.name == "count")
    count.CopyFrom(numpy_helper.from_array(np.array(CLASSES + 1), "count"))
    assert not trace(from_proto(model, "yolo.onnx").graph()).heads


def test_pairs_of_box_and_class_ranked_in_one_line() -> None:
    net = Net()
    net.maps()
    cls = net.op("Sigmoid", [branches(net, CLASSES, "cls")], "values")
    line = net.reshape(net.op("Transpose", [cls], "scores", perm=[0, 2, 1]), "line", 1, -1)
    k = net.integers("k", TAKEN)
    net.nodes.append(node("TopK", [line, k], ["value", "index"], "first", axis=1))
    net.op("Mod", ["index", net.integers("count", CLASSES)], "ids")
    made = net.model()
    for name, kind in (("ids", TensorProto.INT64), ("scores", TensorProto.FLOAT)):
        shape = (1, TAKEN) if name == "ids" else (1, BOXES, CLASSES)
        made.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    model = from_proto(made, "pairs.onnx")
    scores = run(model)["scores"][0][:, list(KEPT)]
    del made.graph.output[1]
    model = from_proto(made, "pairs.onnx")
    done = prune_model(model, Choice(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.findings.passed
    expected = np.argsort(-scores.ravel(), kind="stable")[:TAKEN] % len(KEPT)
    np.testing.assert_array_equal(run(done.model)["ids"][0], expected)
