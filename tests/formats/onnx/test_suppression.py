"""ONNX detectors with NonMaxSuppression: class indices follow the cut, other rows match."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.errors import UsageError
from exporter.formats.onnx import from_proto
from exporter.graph import Array
from exporter.jobs.checks import compare_models
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace, trace_axis
from exporter.trace.rules import Refused
from tests.builders.onnx_models import node
from tests.builders.onnx_suppression import (
    FURTHEST,
    TAKEN,
    as_yolov7,
    branches,
    end_to_end,
    largest,
    run,
    selected_alone,
    ssd,
)
from tests.builders.yolo_models import Net
from tests.builders.yolo_reference import BOXES, CLASSES, suppressed

KEPT = (4, 0, 3)


def rows(results: Mapping[str, Array]) -> list[tuple[float, ...]]:
    found = zip(results["numbers"], results["best"], results["boxes"], strict=True)
    return sorted((int(n), float(s), *box.tolist()) for n, s, box in found)


@pytest.mark.parametrize("sliced", [False, True], ids=["columns gathered", "columns sliced"])
@pytest.mark.parametrize("background", [False, True], ids=["classes", "with a background"])
def test_rows_of_kept_classes_match(*, background: bool, sliced: bool) -> None:
    model = from_proto(ssd(background=background, sliced=sliced), "ssd.onnx")
    head = trace(model.graph()).head()
    assert (head.name, head.units) == ("selected", CLASSES)
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.results.passed
    assert done.remap.heads[0].options["ids"] == ("numbers",)
    before, after = rows(run(model)), rows(run(done.model))
    expected = [(KEPT.index(int(n)), *row) for n, *row in before if n in KEPT]
    assert 0 < len(expected) < len(before)
    np.testing.assert_allclose(after, sorted(expected), rtol=0, atol=1e-6)


SHARED: Mapping[str, ModelProto] = {
    "sliced off": ssd(background=True, shared_out=True),
    "split off": ssd(background=True, shared_out=True, split=True),
    "no background": ssd(shared_out=True),
}


@pytest.mark.parametrize("name", SHARED)
def test_softmax_over_kept_classes_and_background(name: str) -> None:
    """The expected rows in NumPy, from the logits of the original."""
    model = from_proto(SHARED[name], "ssd.onnx")
    first = int(name != "no background")
    head = trace(model.graph()).head()
    assert (head.units, head.activation, head.z) == (CLASSES, "softmax", "logits")
    parts = f"background 0:1, classes 1:{1 + CLASSES}" if first else f"classes 0:{CLASSES}"
    assert ", ".join(map(str, head.axis_parts)) == parts
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.results.passed
    shown = ModelProto.FromString(SHARED[name].SerializeToString())
    for output in ("logits", "flat_boxes"):
        shown.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    results = run(from_proto(shown, "shown.onnx"))
    z = results["logits"][0][:, [*range(first), *(first + unit for unit in KEPT)]].astype(float)
    shares = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))[:, first:]
    found = rows(run(done.model))
    assert {number for number, *_ in found} == {0, 1, 2}
    for number, score, *box in found:
        (place,) = np.flatnonzero((results["flat_boxes"] == box).all(axis=1))
        np.testing.assert_allclose(score, shares[place, int(number)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("restored", [False, True], ids=["new numbers", "old numbers"])
@pytest.mark.parametrize("more", [1, 3])
def test_class_indices_that_count_a_background(more: int, *, restored: bool) -> None:
    model = from_proto(ssd(background=True, more=more), "ssd.onnx")
    options = CutOptions(keep=KEPT, keep_order=True, restore_ids=restored)
    done = prune_model(model, options, Job(samples=2))
    assert done.results.passed
    before, after = rows(run(model)), rows(run(done.model))
    kept = [(n, *row) for n, *row in before if n - more in KEPT]
    expected = kept if restored else [(KEPT.index(int(n) - more) + more, *r) for n, *r in kept]
    assert 0 < len(expected) < len(before)
    np.testing.assert_allclose(after, sorted(expected), rtol=0, atol=1e-6)


def test_second_cut_with_a_background_class() -> None:
    """Look class indices up in a table, after the entries without a class."""
    model = from_proto(ssd(more=2), "ssd.onnx")
    first = prune_model(model, CutOptions(keep=KEPT, restore_ids=True), Job(samples=2)).model
    done = prune_model(first, CutOptions(keep=[2, 0], keep_order=True), Job(samples=2))
    assert done.results.passed
    assert done.remap.heads[0].new_to_old == (4, 0)
    expected = [row for row in rows(run(model)) if row[0] - 2 in {4, 0}]
    np.testing.assert_allclose(rows(run(done.model)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [CLASSES, CLASSES + 1])
def test_table_needs_an_entry_for_each_class_and_the_background(count: int) -> None:
    model = ssd(more=1)
    names = numpy_helper.from_array(np.arange(count), "names")
    model.graph.initializer.append(names)
    model.graph.node.append(node("Gather", ["names", "number_more"], ["name"], "name"))
    model.graph.output.append(helper.make_tensor_value_info("name", TensorProto.INT64, None))
    found = trace(from_proto(model, "detector.onnx").graph())
    if count > CLASSES:
        (detection,) = found.head().readers.detections
        assert detection.tables[0].unit_axis.units.tolist() == [-1, *range(CLASSES)]
    else:
        assert "'name': its table has no entry" in str(found.refusals[0])


def test_table_is_cut_with_a_softmax_over_all_classes() -> None:
    """Rows of kept classes match the original, and have the same labels."""
    model = ssd(shared_out=True)
    names = numpy_helper.from_array(np.arange(CLASSES) * 7 + 3, "names")
    model.graph.initializer.append(names)
    model.graph.node.append(node("Gather", ["names", "number"], ["name"], "name"))
    for output in model.graph.output:
        if output.name == "numbers":
            output.CopyFrom(helper.make_tensor_value_info("name", TensorProto.INT64, None))
    options = CutOptions(keep=KEPT, keep_order=True, probabilities="absolute")
    original = from_proto(model, "ssd.onnx")
    done = prune_model(original, options, Job(samples=2))
    assert done.results.passed
    before, after = (
        {(int(n), round(float(s), 5), *b.tolist()) for n, s, b in zip(*parts, strict=True)}
        for parts in (
            (results["name"], results["best"], results["boxes"])
            for results in (run(original), run(done.model))
        )
    )
    assert after == {row for row in before if (row[0] - 3) // 7 in KEPT}


def test_smaller_class_indices_are_not_restored() -> None:
    model = from_proto(ssd(more=-1), "ssd.onnx")
    assert prune_model(model, CutOptions(keep=KEPT), Job(samples=2)).results.passed
    with pytest.raises(UsageError, match="subtracts 1 from the class indices of head 'selected'"):
        plan_cut(model, CutOptions(keep=KEPT, restore_ids=True))


def test_wrong_shift_fails_the_check() -> None:
    model = from_proto(ssd(more=1), "ssd.onnx")
    cut = plan_cut(model, CutOptions(keep=KEPT))
    wrong = from_proto(ssd(more=2), "wrong.onnx").apply(cut.plan)
    job = Job(samples=2)
    found = compare_models(job, model, wrong, job.inputs(model), cut.remap.heads)
    red = {check.metric for check in found.checks if not check.passed}
    assert red == {"rows", "classes"}


NO_SHIFT: Mapping[str, list[str]] = {
    "of two computed numbers": ["number", "number"],
    "another one for each row": ["number", "several"],
    "of a fraction": ["number", "half"],
    "of the numbers from another": ["Sub", "one", "number"],
}


@pytest.mark.parametrize("name", NO_SHIFT)
def test_sum_that_is_not_a_shift_is_refused(name: str) -> None:
    *operator, first, second = NO_SHIFT[name]
    model = ssd(more=1)
    for key, value in (("several", [1, 2]), ("one", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), key))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    model.graph.node.append(node("Cast", ["number"], ["real"], "real", to=TensorProto.FLOAT))
    inputs = ["real" if second == "half" else first, second]
    model.graph.node.append(node((operator or ["Add"])[0], inputs, ["z"], "z"))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.INT64, None))
    found = trace(from_proto(model, "detector.onnx").graph())
    assert "computes with class indices" in found.refusals[0].reason
    assert found.refusals[0].operation == f"{(operator or ['Add'])[0]} 'z'"


def test_selected_indices_as_the_only_output() -> None:
    model = from_proto(selected_alone(), "ssd.onnx")
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.results.passed
    before, after = run(model)["selected"], run(done.model)["selected"]
    expected = sorted([b, KEPT.index(c), n] for b, c, n in before.tolist() if c in KEPT)
    assert sorted(after.tolist()) == expected


def test_best_kept_class_of_each_box() -> None:
    """No box is suppressed here, so that NumPy can compute each box."""
    model = from_proto(largest(), "yolo.onnx")
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.results.passed
    assert done.remap.heads[0].options["ids"] == ("rows",)
    every = from_proto(with_scores(), "yolo.onnx")
    results = run(every)
    scores, boxes = results["score"][0], results["xywh"][0]
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
    """Values of classes, taken at positions that no post-process computes."""
    net = Net()
    net.maps()
    values = net.op("Sigmoid", [branches(net, CLASSES, "cls")], "y")
    places = net.op("Cast", [net.op("Relu", ["x"], "px")], "whole", to=TensorProto.INT64)
    net.op("GatherND", [values, places], "taken")
    model = net.model(y=(1, CLASSES, BOXES))
    model.graph.output.append(helper.make_tensor_value_info("taken", TensorProto.FLOAT, None))
    return model


def test_arithmetic_on_class_indices_is_refused() -> None:
    found = trace(from_proto(computed_with(), "detector.onnx").graph())
    assert not found.heads
    assert "computes with class indices" in found.refusals[0].reason


def test_values_at_computed_positions_are_refused() -> None:
    with pytest.raises(Refused, match="selects units by computed positions"):
        trace_axis(from_proto(looked_up_by_place(), "detector.onnx").graph(), "y", 1)


def test_one_class_per_box_as_in_yolov7() -> None:
    """In NumPy: the best kept class of each box, then the best boxes of each class."""
    model = from_proto(as_yolov7(), "yolo.onnx")
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.results.passed
    shown = as_yolov7()
    for name, width in (("places", 4), ("s", CLASSES)):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, BOXES, width))
        shown.graph.output.append(info)
    results = run(from_proto(shown, "yolo.onnx"))
    boxes, scores = results["places"][0], results["s"][0][:, list(KEPT)]
    best, kind = scores.max(axis=1), scores.argmax(axis=1)
    apart = boxes + FURTHEST * kind[:, None].astype(np.float32)
    found = suppressed(apart, best, overlap=0.45, least=0.0)
    table = np.column_stack([np.zeros(BOXES), boxes, kind, best])[found]
    np.testing.assert_allclose(run(done.model)["detected"], table, rtol=0, atol=1e-5)
    assert set(kind[found]) == {0, 1, 2}


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(end_to_end, id="a constant"),
        pytest.param(lambda: end_to_end(dynamo=True), id="by dynamo"),
        pytest.param(lambda: end_to_end(batch=0), id="measured"),
        pytest.param(lambda: end_to_end(batch=0, dynamo=True), id="measured, by dynamo"),
    ],
)
def test_end_to_end_model_returns_kept_class_indices(build: Callable[[], ModelProto]) -> None:
    """In NumPy: the best boxes by their best kept class, then the best pairs of box and class."""
    model = from_proto(build(), "yolo.onnx")
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.results.passed
    table = done.remap.heads[0]
    assert (table.old_units, table.options["ids"]) == (CLASSES, ("y",))
    shown = build()
    for name, width in (("boxes", 4), ("scores", CLASSES)):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, BOXES, width))
        shown.graph.output.append(info)
    results = run(from_proto(shown, "yolo.onnx"))
    boxes, scores = results["boxes"][0], results["scores"][0][:, list(KEPT)]
    first = np.argsort(-scores.max(axis=1), kind="stable")[:TAKEN]
    line = np.argsort(-scores[first].ravel(), kind="stable")[:TAKEN]
    chosen, kinds = first[line // len(KEPT)], line % len(KEPT)
    expected = np.column_stack([boxes[chosen], scores[chosen, kinds], kinds])
    np.testing.assert_allclose(run(done.model)["y"][0], expected, rtol=0, atol=1e-6)


def test_other_divisor_is_refused() -> None:
    model = end_to_end()
    count = next(each for each in model.graph.initializer if each.name == "count")
    count.CopyFrom(numpy_helper.from_array(np.array(CLASSES + 1), "count"))
    assert not trace(from_proto(model, "yolo.onnx").graph()).heads


def test_top_k_over_flattened_box_class_pairs() -> None:
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
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.results.passed
    expected = np.argsort(-scores.ravel(), kind="stable")[:TAKEN] % len(KEPT)
    np.testing.assert_array_equal(run(done.model)["ids"][0], expected)
