"""Rows that ONNX operators compute after a detector: verified, and with original class indices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.errors import UsageError
from exporter.formats.model import Runner, RunOptions
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.graph import Array, Quantization
from exporter.jobs.checks import compare_models
from exporter.jobs.compare import verify_files
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions, plan_cut
from exporter.records import Check
from exporter.trace import trace
from exporter.trace.readers import Column
from exporter.verification import answers
from exporter.verification.rerun_original import RerunOriginal, unmatched
from tests.builders.onnx_suppression import (
    SIDE,
    as_yolov7,
    end_to_end,
    largest,
    moved_apart,
    run,
    selected_alone,
    ssd,
)
from tests.builders.yolo_reference import CLASSES

KEPT = (4, 0, 3)

MODELS: Mapping[str, Callable[[], ModelProto]] = {
    "separate boxes, classes and scores": ssd,
    "after a background class": lambda: ssd(background=True),
    "selected indices only": selected_alone,
    "one class per box": largest,
    "one class per box, suppressed": lambda: largest(overlap=0.5),
    "one class per box, as in YOLOv7": as_yolov7,
    "boxes offset by class": moved_apart,
    "end to end": end_to_end,
    "end to end, by dynamo": lambda: end_to_end(dynamo=True),
    "end to end, of any batch": lambda: end_to_end(batch=0),
    "after a softmax with a background class": lambda: ssd(background=True, shared_out=True),
}
NUMBERS = {
    "numbers": (0, 1),
    "selected": (1, 3),
    "rows": (5, 6),
    "y": (5, 6),
    "detected": (5, 7),
}  # column of the class index, number of columns


def opened(name: str) -> OnnxModel:
    return from_proto(MODELS[name](), "detector.onnx")


def counted(checks: tuple[Check, ...]) -> dict[str, float | None]:
    return {check.metric: check.value for check in checks if check.metric in {"rows", "classes"}}


def table(model: OnnxModel) -> list[tuple[float, ...]]:
    """(class index, the rest of the row), without rows of zeros; sorted."""
    answer = run(model)
    parts, numbers = [], None
    for output, values in answer.items():
        column, width = NUMBERS.get(output, (None, values.shape[-1] if values.ndim > 1 else 1))
        wide = values.astype(np.float64).reshape(-1, width)
        if column is not None:
            numbers, wide = wide[:, column], np.delete(wide, column, axis=1)
        parts.append(wide)
    assert numbers is not None
    rest = np.concatenate(parts, axis=1)
    found = np.column_stack([numbers, rest])[rest.any(axis=1)]
    return sorted(map(tuple, found.tolist()))


@pytest.mark.parametrize("name", MODELS)
def test_correct_rows_pass(name: str) -> None:
    done = prune_model(opened(name), CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert done.results.passed
    assert counted(done.results.checks) == {"rows": 0.0, "classes": 0.0}


@pytest.mark.parametrize("name", MODELS)
def test_columns_of_class_indices(name: str) -> None:
    graph = opened(name).graph()
    found = trace(graph).head().readers.columns
    assert found == {n: Column(*where) for n, where in NUMBERS.items() if n in graph.outputs}


AFTER: Mapping[str, tuple[list[tuple[str, list[str], dict[str, Any]]], Column | None]] = {
    "other columns": ([("Gather", ["selected", "outer"], {"axis": 1})], None),
    "columns in another order": ([("Gather", ["selected", "back"], {"axis": 1})], Column(1, 2)),
    "the last columns": ([("Slice", ["selected", "one", "three", "one"], {})], Column(0, 2)),
    "transposed": ([("Transpose", ["selected"], {"perm": [1, 0]})], None),
    "repeated": ([("Tile", ["selected", "twice"], {})], None),
    "joined with itself": ([("Concat", ["selected", "selected"], {"axis": 1})], Column(4, 6)),
    "flattened": ([("Reshape", ["selected", "line"], {})], Column(1, 3)),
    "a slice of a flattened output": (
        [("Reshape", ["selected", "line"], {}), ("Slice", ["0", "one", "three", "zero"], {})],
        None,
    ),
    "two rows, joined": (
        [("Gather", ["selected", "the_one"], {"axis": 1}), ("Concat", ["0", "0"], {"axis": 0})],
        None,
    ),
}


@pytest.mark.parametrize("name", AFTER)
def test_columns_follow_operators(name: str) -> None:
    """The column of the class index after operators on rows of (batch, class, box)."""
    steps, expected = AFTER[name]
    model = selected_alone()
    constants = {
        "outer": [0, 2],
        "back": [2, 1],
        "zero": [0],
        "one": [1],
        "three": [3],
        "twice": [1, 2],
        "line": [-1],
        "the_one": 1,
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), key) for key, value in constants.items()
    )
    for i, (operator, inputs, attributes) in enumerate(steps):
        model.graph.node.append(helper.make_node(operator, inputs, [str(i)], str(i), **attributes))
    last = str(len(steps) - 1)
    model.graph.output.append(helper.make_tensor_value_info(last, TensorProto.INT64, None))
    graph = from_proto(model, "detector.onnx").graph()
    assert trace(graph).head().readers.columns.get(last) == expected


def test_the_original_is_rerun_with_quantized_values() -> None:
    model = opened("selected indices only")
    head = trace(model.graph()).head()
    known = Quantization(np.array([0.5]), np.array([3]), -128, 127)
    coded = replace(
        head, tensors=tuple(replace(t, quantization=known, dtype="int8") for t in head.tensors)
    )
    replay = RerunOriginal("detector", coded, ("selected",), ("v",), KEPT, {}, {})
    values = np.arange(60, dtype=np.int8).reshape(1, 3, 20)
    (wide,) = replay.feed({"v": values}).values()
    assert wide.dtype == np.int8
    np.testing.assert_array_equal(wide[:, list(KEPT)], values)
    assert set(wide[:, [1, 2, 5]].ravel()) == {-128}


# --- wrong files fail ----------------------------------------------------------------------------


def with_constant(model: ModelProto, name: str, change: Callable[[Array], Array]) -> ModelProto:
    for each in model.graph.initializer:
        if each.name == name:
            values = numpy_helper.to_array(each)
            changed = np.asarray(change(values), values.dtype)
            each.CopyFrom(numpy_helper.from_array(changed.reshape(values.shape), name))
            return model
    raise KeyError(name)


@pytest.mark.parametrize(
    ("name", "constant", "change"),
    [
        pytest.param("selected indices only", "overlap", lambda v: v + 0.4, id="more boxes"),
        pytest.param(
            "separate boxes, classes and scores", "box0.bias", lambda v: v + 1, id="moved boxes"
        ),
        pytest.param("one class per box, suppressed", "place.at", lambda _: 1, id="other rows"),
        pytest.param("boxes offset by class", "share", lambda v: 0 * v, id="no offsets"),
        pytest.param("end to end", "k2", lambda v: v - 3, id="fewer rows"),
        pytest.param("end to end", "count", lambda v: v + 1, id="other classes"),
    ],
)
def test_wrong_rows_fail(name: str, constant: str, change: Callable[[Array], Array]) -> None:
    model = opened(name)
    cut = plan_cut(model, CutOptions(keep=KEPT))
    small = model.apply(cut.plan)
    assert isinstance(small, OnnxModel)
    proto = ModelProto.FromString(small.to_bytes())
    constants = {each.name for each in proto.graph.initializer}
    names = [n for n in constants if n == constant or n.startswith(f"{constant}__")]
    for each in names:
        with_constant(proto, each, change)
    job = Job(samples=4)
    found = compare_models(
        job, model, from_proto(proto, "wrong.onnx"), job.inputs(model), cut.remap.heads
    )
    assert sum(value or 0 for value in counted(found.checks).values()) > 0
    assert not found.passed


def test_blocks_of_any_size_count_the_same_wrong_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original is loaded once for all blocks to compute the rows again."""
    model = opened("selected indices only")
    cut = plan_cut(model, CutOptions(keep=KEPT))
    small = model.apply(cut.plan)
    assert isinstance(small, OnnxModel)
    wrong = with_constant(ModelProto.FromString(small.to_bytes()), "overlap", lambda v: v + 0.4)
    job = Job(samples=5)
    loaded: list[object] = []
    runner = OnnxModel.runner

    def counting(self: OnnxModel, options: RunOptions) -> Runner:
        loaded.append(self)
        return runner(self, options)

    monkeypatch.setattr(OnnxModel, "runner", counting)
    counts, loads = [], []
    for size in (64, 2, 1):
        monkeypatch.setattr(answers, "_MOST_SAMPLES", size)
        loaded.clear()
        found = compare_models(
            job, model, from_proto(wrong, "wrong.onnx"), job.inputs(model), cut.remap.heads
        )
        counts.append(counted(found.checks))
        loads.append(len(loaded))
    assert sum(value or 0 for value in counts[0].values()) > 0
    assert counts == [counts[0]] * 3
    assert loads == [3] * 3, "the original, the cut file, and the original with further inputs"


def test_a_file_without_the_class_scores_fails() -> None:
    model = opened("selected indices only")
    cut = plan_cut(model, CutOptions(keep=KEPT))
    small = model.apply(cut.plan)
    assert isinstance(small, OnnxModel)
    proto = ModelProto.FromString(small.to_bytes())
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = "elsewhere" if name == "v" else name
    job = Job(samples=2)
    found = compare_models(
        job, model, from_proto(proto, "other.onnx"), job.inputs(model), cut.remap.heads
    )
    assert counted(found.checks) == {"rows": None}


def test_files_are_verified(tmp_path: Path) -> None:
    whole, small = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    whole.write_bytes(end_to_end().SerializeToString())
    prune_model(opened("end to end"), CutOptions(keep=KEPT), Job(verify=False)).save(small)
    report = verify_files(whole, small, Job(samples=2))
    assert counted(report.checks) == {"rows": 0.0, "classes": 0.0}


ROWS = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("expected", "actual", "counts"),
    [
        pytest.param(ROWS, ROWS, (0, 0), id="the same"),
        pytest.param(ROWS, ROWS[[2, 0, 1]], (0, 0), id="in another order"),
        pytest.param(ROWS, ROWS[[0, 2]], (1, 0), id="twice and once"),
        pytest.param(ROWS[:1], ROWS, (0, 2), id="more"),
        pytest.param(ROWS, ROWS + np.array([0, 1e-3]), (3, 3), id="others"),
        pytest.param(ROWS * 1e6, ROWS * 1e6 + 0.5, (0, 0), id="relative tolerance"),
        pytest.param(ROWS, np.empty((0, 0)), (3, 0), id="none"),
        pytest.param(ROWS, ROWS[:, :1], (3, 3), id="another width"),
    ],
)
def test_unmatched_rows_are_counted(
    expected: Array, actual: Array, counts: tuple[int, int]
) -> None:
    assert unmatched(expected, actual) == counts


# --- in NumPy ------------------------------------------------------------------------------------


def overlaps(boxes: Array, box: Array) -> Array:
    low = np.maximum(np.minimum(boxes[:, :2], boxes[:, 2:]), np.minimum(box[:2], box[2:]))
    high = np.minimum(np.maximum(boxes[:, :2], boxes[:, 2:]), np.maximum(box[:2], box[2:]))
    both = np.clip(high - low, 0, None).prod(axis=1)
    sizes = np.abs((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    union = sizes + np.abs((box[2:] - box[:2]).prod()) - both
    return np.asarray(both / np.maximum(union, 1e-30))


def suppressed(boxes: Array, scores: Array, overlap: float) -> list[int]:
    """The boxes that are not suppressed, the best first."""
    waiting, stay = list(np.argsort(-scores, kind="stable")), list[int]()
    while waiting:
        best = waiting.pop(0)
        stay.append(int(best))
        waiting = [i for i in waiting if overlaps(boxes[[i]], boxes[best])[0] <= overlap]
    return stay


def test_boxes_are_suppressed_class_by_class_as_in_numpy() -> None:
    """Only the class scores and boxes are taken from the original."""
    shown = moved_apart()
    for name in ("box", "values"):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        shown.graph.output.append(info)
    answer = run(from_proto(shown, "shown.onnx"))
    boxes, values = answer["box"][0].T.astype(np.float64), answer["values"][0].T[:, list(KEPT)]
    best, kind = values.max(axis=1), values.argmax(axis=1)
    places = np.flatnonzero(best > 0.25)
    apart = boxes / SIDE / CLASSES + kind[:, None] / CLASSES
    stay = places[suppressed(apart[places], best[places], 0.5)]
    expected = np.column_stack([boxes, best, kind])[stay]
    model = opened("boxes offset by class")
    done = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(samples=2))
    assert isinstance(done.model, OnnxModel)
    found = run(done.model)["y"][0]
    assert 0 < len(expected) < len(places)
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=0, atol=1e-6)
    assert not found[len(expected) :].any()


# --- original class indices ----------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_original_class_indices_are_restored(name: str) -> None:
    model = opened(name)
    new = prune_model(model, CutOptions(keep=KEPT, keep_order=True), Job(verify=False)).model
    choice = CutOptions(keep=KEPT, keep_order=True, restore_ids=True)
    done = prune_model(model, choice, Job(samples=2))
    assert done.results.passed
    assert counted(done.results.checks) == {"rows": 0.0, "classes": 0.0}
    assert done.remap.heads[0].options["ids"] is None
    assert isinstance(new, OnnxModel)
    assert isinstance(done.model, OnnxModel)
    expected = sorted((KEPT[int(n)], *rest) for n, *rest in table(new))
    assert table(done.model) == expected
    assert {n for n, *_ in expected} == set(KEPT)
    before, after = run(model), run(done.model)
    assert {n: v.dtype for n, v in after.items()} == {n: v.dtype for n, v in before.items()}


@pytest.mark.parametrize("name", list(MODELS)[:3])
def test_a_second_cut_keeps_original_class_indices(name: str) -> None:
    model = opened(name)
    choice = CutOptions(keep=KEPT, keep_order=True, restore_ids=True)
    first = prune_model(model, choice, Job(verify=False)).model
    done = prune_model(first, CutOptions(keep=[2, 0], keep_order=True), Job(samples=2))
    assert done.results.passed
    assert done.remap.heads[0].new_to_old == (3, 4)
    assert isinstance(done.model, OnnxModel)
    np.testing.assert_allclose(
        table(done.model), [row for row in table(model) if row[0] in {3, 4}], rtol=0, atol=1e-6
    )


def test_names_in_the_metadata_follow_the_class_indices() -> None:
    proto = end_to_end()
    names = dict(enumerate("abcdef"))
    proto.metadata_props.add(key="names", value=repr(names))
    model = from_proto(proto, "yolo.onnx")
    for restored, expected in ((True, names), (False, {0: "a", 1: "d", 2: "e"})):
        small = prune_model(
            model, CutOptions(keep="e,a,d", restore_ids=restored), Job(verify=False)
        )
        assert isinstance(small.model, OnnxModel)
        written = ModelProto.FromString(small.model.to_bytes()).metadata_props
        assert [each.value for each in written if each.key == "names"] == [repr(expected)]


def read_inside() -> ModelProto:
    model = selected_alone()
    model.graph.node.append(helper.make_node("Shape", ["selected"], ["rows"], "measured"))
    model.graph.output.append(helper.make_tensor_value_info("rows", TensorProto.INT64, (2,)))
    return model


def without_numbers() -> ModelProto:
    model = ssd()
    keep = [each for each in model.graph.output if each.name != "numbers"]
    del model.graph.output[:]
    model.graph.output.extend(keep)
    return model


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        pytest.param(read_inside, "'selected' are also read inside", id="read inside"),
        pytest.param(without_numbers, "no output with the class indices", id="not returned"),
    ],
)
def test_class_indices_that_cannot_be_restored(
    build: Callable[[], ModelProto], reason: str
) -> None:
    model = from_proto(build(), "detector.onnx")
    with pytest.raises(UsageError, match=reason):
        plan_cut(model, CutOptions(keep=[1], restore_ids=True))
    done = prune_model(model, CutOptions(keep=[1, 4]), Job(samples=2))
    assert done.results.passed
    assert counted(done.results.checks)["rows"] == 0.0


def test_a_damaged_lookup_table_fails() -> None:
    model = opened("end to end")
    cut = plan_cut(model, CutOptions(keep=KEPT, restore_ids=True))
    small = model.apply(cut.plan)
    assert isinstance(small, OnnxModel)
    proto = ModelProto.FromString(small.to_bytes())
    (name,) = [e.name for e in proto.graph.initializer if e.name.startswith("y__look_up")][:1]
    wrong = from_proto(with_constant(proto, name, lambda v: v[::-1]), "wrong.onnx")
    job = Job(samples=2)
    found = compare_models(job, model, wrong, job.inputs(model), cut.remap.heads)
    assert (counted(found.checks)["classes"] or 0) > 0


@pytest.mark.parametrize("ordered", [False, True])
def test_rows_that_are_exchanged_differ_only_where_their_order_is_fixed(ordered: bool) -> None:
    first, second = np.array([[1.0, 2], [3, 4]]), np.array([[3.0, 4], [1, 2]])
    head: Any = None
    rows = RerunOriginal("steps", head, ("v",), (), (), {}, {}, ordered)
    assert rows._differences({"v": first}, {"v": first}) == (0, 0)
    assert rows._differences({"v": first}, {"v": second}) == (2 * ordered, 0)
    assert rows._differences({"v": first}, {"v": second[:1]})[0] > 0
