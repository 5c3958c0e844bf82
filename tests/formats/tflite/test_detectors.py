"""TFLite detectors with a post-process: its classes, class indices, labels and rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from flatbuffers import flexbuffers
from PIL import Image

from exporter.errors import ModelError, UsageError
from exporter.formats.model import Model, RunOptions
from exporter.formats.tflite import TfliteModel, from_bytes, open_file
from exporter.graph import Array, Graph
from exporter.jobs.checks import compare_models
from exporter.jobs.compare import verify_files
from exporter.jobs.job import Job
from exporter.jobs.prune import Pruned, prune_model
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace
from exporter.verification.detector_rows import DetectedRows
from exporter.verification.roles import Runs
from tests.builders.ssd_models import BOXES, CHANNELS, CLASSES, OPTIONS, ROWS, SIZES, ssd
from tests.builders.tflite_builder import read
from tests.builders.tflite_metadata import (
    SCORE_CALIBRATION,
    VALUE_LABELS,
    Associated,
    metadata,
    unzipped,
    zipped,
)

ZOO_FILE = "coco_ssd_mobilenet_v1_uint8_metadata.tflite"
POST = "TFLite_Detection_PostProcess"
CAT, DOG, HORSE = 16, 17, 18


def opened(**how: Any) -> TfliteModel:
    return from_bytes(ssd(**how).content(*ROWS), "ssd.tflite")


def runs(model: Model, x: Array) -> dict[str, Array]:
    return model.runner(RunOptions())({model.graph().inputs[0]: x})


def picture(size: int = SIZES[0], seed: int = 1) -> Array:
    values = np.random.default_rng(seed).normal(size=(1, size, size, CHANNELS))
    return values.astype(np.float32)


def rows(answer: Mapping[str, Array], names: Sequence[str] = ROWS) -> list[tuple[float, ...]]:
    """(class index, score, box) of each valid row, the best first."""
    boxes, numbers, scores, count = (answer[name] for name in names)
    found = [(n, s, *box) for n, s, box in zip(numbers[0], scores[0], boxes[0], strict=True)]
    return [tuple(float(v) for v in row) for row in found[: int(count[0])]]


def cut(model: Model, *kept: int, **how: Any) -> Pruned:
    done = prune_model(model, CutOptions(keep=kept, **how), Job(samples=4))
    failed = [check for check in done.results.checks if not check.passed]
    assert not failed
    assert "classes" in {check.metric for check in done.results.checks}
    return done


# --- small models ---------------------------------------------------------------------------------

FIVE = (16, 8, 4, 2, 1)

CASES: Mapping[str, dict[str, Any]] = {
    "logistic": {},
    "softmax over background and classes": {"activation": "SOFTMAX"},
    "no background": {"background": 0},
    "one kernel for both maps": {"shared": True},
    "one kernel for five maps": {"shared": True, "sizes": FIVE},
    "a logistic a map": {"apart": True, "sizes": FIVE},
    "int8": {"int8": True},
    "int8, one kernel for five maps": {"int8": True, "shared": True, "sizes": FIVE},
    "int8, a logistic a map": {"int8": True, "apart": True},
}


@pytest.mark.parametrize("name", CASES)
def test_the_classes_are_the_units(name: str) -> None:
    head = trace(opened(**CASES[name]).graph()).head()
    background = CASES[name].get("background", 1)
    parts = f"background 0:1, classes 1:{1 + CLASSES}" if background else f"classes 0:{CLASSES}"
    entering = "scores/real" if "int8" in name else "scores"
    assert (head.name, head.output, head.units) == ("boxes", entering, CLASSES)
    assert ", ".join(map(str, head.axis_parts)) == parts
    kernels = [each for each in head.constants if each.name.endswith("/kernel")]
    maps = len(CASES[name].get("sizes", SIZES))
    uses = [maps] if "shared" in CASES[name] else [1] * maps
    assert [len(each.uses) for each in kernels] == uses


@pytest.mark.parametrize("order", [True, False], ids=["as given", "ascending"])
@pytest.mark.parametrize("name", [name for name in CASES if "softmax" not in name])
def test_rows_of_kept_classes_do_not_change(name: str, *, order: bool) -> None:
    """Suppressed class by class: rows of kept classes do not change, except for the class index."""
    model = opened(**CASES[name])
    kept = [3, 0, 4] if order else [0, 3, 4]
    x = picture(CASES[name].get("sizes", SIZES)[0])
    small = cut(model, 3, 0, 4, keep_order=order).model
    before, after = rows(runs(model, x)), rows(runs(small, x))
    expected = [(kept.index(int(n)), *row) for n, *row in before if int(n) in kept]
    assert 0 < len(expected) < len(before)
    np.testing.assert_allclose(sorted(after), sorted(expected), rtol=0, atol=1e-6)
    again = cut(small, 1, 2).model
    expected = [(n - 1, *row) for n, *row in after if n]
    np.testing.assert_allclose(sorted(rows(runs(again, x))), sorted(expected), atol=1e-6)


def test_softmax_is_renormalized_over_background_and_kept_classes() -> None:
    """Compared with NumPy: 1 x 1 convolutions are products, and the background keeps its share."""
    builder = ssd(activation="SOFTMAX")
    small = cut(from_bytes(builder.content(*ROWS), "ssd.tflite"), 1, 2).model
    x = picture()[0]
    maps = [x, x.reshape(2, 2, 2, 2, CHANNELS).max(axis=(1, 3))]
    logits = [
        each @ builder.constants[f"class{i}/kernel"][:, 0, 0].T
        + builder.constants[f"class{i}/bias"]
        for i, each in enumerate(maps)
    ]
    every = np.concatenate([each.reshape(-1, 1 + CLASSES) for each in logits])[:, [0, 2, 3]]
    shares = np.exp(every) / np.exp(every).sum(axis=1, keepdims=True)
    assert len(shares) == BOXES
    for number, score, *_ in rows(runs(small, picture())):
        assert np.abs(shares[:, 1 + int(number)] - score).min() < 1e-6


@pytest.mark.parametrize("restored", [False, True], ids=["new numbers", "old numbers"])
def test_softmax_may_stay_absolute(*, restored: bool) -> None:
    """Kept rows do not change then, as with a logistic."""
    model = opened(activation="SOFTMAX")
    kept = [0, 3, 4]
    done = cut(model, *kept, probabilities="absolute", restore_ids=restored)
    expected = [
        (n if restored else kept.index(int(n)), *row)
        for n, *row in rows(runs(model, picture()))
        if n in kept
    ]
    found = rows(runs(done.model, picture()))
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=0, atol=1e-6)


def test_class_indices_are_restored() -> None:
    model = opened()
    done = cut(model, 3, 0, 4, restore_ids=True)
    table = done.remap.heads[0]
    assert (table.options["restore_ids"], table.options["ids"]) == (True, None)
    expected = [row for row in rows(runs(model, picture())) if row[0] in {0, 3, 4}]
    found = rows(runs(done.model, picture()))
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=0, atol=1e-6)
    assert runs(done.model, picture())["numbers"].dtype == np.float32


@pytest.mark.parametrize(
    "how", [{"mode": "mask"}, {"restore_width": True}], ids=["mask", "restored width"]
)
def test_removed_classes_keep_their_position_and_have_no_row(how: dict[str, Any]) -> None:
    """The post-process still gets all classes, with their original indices."""
    model = opened(options={**OPTIONS, "nms_score_threshold": 1e-6})
    kept = [0, 3, 4]
    done = prune_model(model, CutOptions(keep=kept, **how), Job(samples=2))
    assert done.results.passed
    expected = [row for row in rows(runs(model, picture())) if row[0] in kept]
    found = rows(runs(done.model, picture()))
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=0, atol=1e-6)


def test_a_second_cut_finds_the_table_of_class_indices() -> None:
    model = opened()
    done = cut(cut(model, 3, 0, 4, restore_ids=True).model, 2, 1, keep_order=True)
    assert done.remap.heads[0].new_to_old == (4, 3)
    expected = [row for row in rows(runs(model, picture())) if row[0] in {3, 4}]
    found = rows(runs(done.model, picture()))
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=0, atol=1e-6)


def test_other_options_do_not_change() -> None:
    small = cut(opened(), 1).model
    assert isinstance(small, TfliteModel)
    stated = read(small.content).subgraphs[0].operators[-1].customOptions
    assert flexbuffers.Loads(stated.tobytes()) == {**OPTIONS, "num_classes": 1}


def test_a_label_file_may_name_the_background() -> None:
    names = ["???", *"abcde"]
    cut = plan_cut(opened(), CutOptions(keep="b,d", labels=names))
    assert (cut.selection.kept, cut.remap.heads[0].labels) == ((1, 3), ("b", "d"))
    with pytest.raises(UsageError, match="6 labels for 5 units"):
        plan_cut(opened(background=0), CutOptions(keep="b,d", labels=names))


LABELS = b"ant\nbee\ncat\ndog\nelk\n"  # without the background
SCORES = b"0.9,1.0,0.5\n\n0.8,2.0,0.25,0.1\n0.7,3.0,0.125\n0.6,4.0,0.5\n"
OTHER = b"0.5,1.0,1.0\n" * (CLASSES + 1)  # one line more than classes


def with_metadata(scores: bytes = SCORES, **how: Any) -> TfliteModel:
    """As in published detectors: labels of the class indices, a calibration of the scores."""
    builder = ssd(**how)
    named = [Associated("labels.txt", VALUE_LABELS)]
    calibrated = [Associated("scores.txt", SCORE_CALIBRATION)]
    builder.metadata("TFLITE_METADATA", metadata([], named, calibrated, []))
    files = {"labels.txt": LABELS, "scores.txt": scores}
    return from_bytes(zipped(builder.content(*ROWS), files), "ssd.tflite")


def archived(model: Model) -> dict[str, bytes]:
    assert isinstance(model, TfliteModel)
    return unzipped(model.content)


@pytest.mark.parametrize("how", [{}, {"background": 0}], ids=["background", "none"])
def test_labels_and_calibrations_are_cut_with_the_classes(how: dict[str, Any]) -> None:
    model = with_metadata(**how)
    done = cut(model, 3, 1, keep_order=True)
    assert done.remap.heads[0].labels == ("dog", "bee")
    assert archived(done.model) == {
        "labels.txt": b"dog\nbee\n",
        "scores.txt": b"0.7,3.0,0.125\n\n",
    }
    assert done.model.graph().labels == {"numbers": ("dog", "bee")}
    again = cut(done.model, 0).model
    assert archived(again)["scores.txt"] == b"0.7,3.0,0.125\n"


@pytest.mark.parametrize(
    ("scores", "how"),
    [
        pytest.param(SCORES, {"restore_ids": True}, id="original indices"),
        pytest.param(OTHER, {}, id="another number of lines"),
    ],
)
def test_a_calibration_that_is_not_cut(scores: bytes, how: dict[str, Any]) -> None:
    small = cut(with_metadata(scores), 3, 1, **how).model
    left = {"labels.txt": LABELS if how else b"bee\ndog\n", "scores.txt": scores}
    assert archived(small) == left


def test_zero_is_refused() -> None:
    with pytest.raises(ModelError, match="would return removed classes"):
        plan_cut(opened(), CutOptions(keep=[1], mode="zero"))


def test_the_post_process_needs_no_units_option() -> None:
    with pytest.raises(UsageError, match="the model shows the positions of the units"):
        plan_cut(opened(), CutOptions(keep=[1], units="0:3"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(
            {"num_classes": CLASSES - 1}, "it states 4 classes and its input has 6", id="fewer"
        ),
        pytest.param(
            {"num_classes": CLASSES + 2}, "it states 7 classes and its input has 6", id="more"
        ),
        pytest.param({"num_classes": "many"}, "cannot be read", id="not a number"),
    ],
)
def test_inconsistent_options_are_refused(options: dict[str, Any], reason: str) -> None:
    found = trace(opened(options={**OPTIONS, **options}).graph())
    assert not found.heads
    assert reason in str(found.refusals[0])


def test_options_that_are_not_a_flexbuffer_are_refused() -> None:
    builder = ssd()
    builder.subgraph.operators[-1].customOptions = np.frombuffer(b"no flexbuffer", np.uint8)
    assert not trace(from_bytes(builder.content(*ROWS), "ssd.tflite").graph()).heads


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_changed_weight_fails_the_check(column: int) -> None:
    """One changed weight: of the kept class, of the background, of a box."""
    model = opened(background=0)
    done = cut(model, 1, 2)
    builder = ssd(background=0)
    name = ["class0/bias", "class1/bias", "box0/bias"][column]
    values = builder.constants[name].copy()
    values[:] += 1.0
    builder.model.buffers[builder.at(name).buffer].data = values.view(np.uint8)
    changed = from_bytes(builder.content(*ROWS), "ssd.tflite")
    changed = changed.apply(
        replace(plan_cut(changed, CutOptions(keep=[1, 2])).plan, remap=done.remap)
    )
    job = Job(samples=4)
    found = compare_models(job, model, changed, job.inputs(model), done.remap.heads)
    assert any(check.metric == "rows" and not check.passed for check in found.checks)


def reversed_indices(content: bytes) -> bytes:
    """The table of original class indices, reversed."""
    file = read(content)
    for buffer in file.buffers:
        if buffer.data is not None and buffer.data.nbytes == 3 * 4:
            values = buffer.data.view(np.float32)
            if values.tolist() == [0.0, 3.0, 4.0]:
                buffer.data = values[::-1].copy().view(np.uint8)
                return packed(file)
    raise AssertionError("there is no table")


def shifted_indices(content: bytes) -> bytes:
    """The background counts as a class."""
    return with_option(content, "num_classes", lambda count: count + 1)


def moved_boxes(content: bytes) -> bytes:
    return with_option(content, "y_scale", lambda _: 9.0)


def with_option(content: bytes, name: str, change: Callable[[Any], Any]) -> bytes:
    file = read(content)
    operator = file.subgraphs[0].operators[-1]
    options = flexbuffers.Loads(operator.customOptions.tobytes())
    written = flexbuffers.Dumps({**options, name: change(options[name])})
    operator.customOptions = np.frombuffer(bytes(written), np.uint8)
    return packed(file)


def packed(file: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def moved_anchor(content: bytes) -> bytes:
    file = read(content)
    (anchors,) = (each for each in file.subgraphs[0].tensors if each.name == b"anchors")
    values = file.buffers[anchors.buffer].data.view(np.float32).copy()
    values[0] += 0.01
    file.buffers[anchors.buffer].data = values.view(np.uint8)
    return packed(file)


def renamed_boxes(content: bytes) -> bytes:
    return content.replace(b"encodings", b"elsewhere")


CHANGED: Mapping[str, tuple[Callable[[bytes], bytes], dict[str, Any], set[str]]] = {
    "numbers": (reversed_indices, {"restore_ids": True}, {"rows", "classes"}),
    "where the classes begin": (shifted_indices, {}, {"rows", "classes"}),
    "the scale of boxes": (moved_boxes, {}, {"boxes"}),
    "an anchor": (moved_anchor, {}, {"boxes"}),
    "what the boxes are called": (renamed_boxes, {}, {"boxes"}),
}


@pytest.mark.parametrize("activation", ["LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_post_process_fails_the_check(name: str, activation: str) -> None:
    change, how, message = CHANGED[name]
    model = opened(activation=activation)
    done = cut(model, 0, 3, 4, **how)
    assert isinstance(done.model, TfliteModel)
    changed = from_bytes(change(done.model.content), "changed.tflite")
    job = Job(samples=4)
    found = compare_models(job, model, changed, job.inputs(model), done.remap.heads)
    red = {check.metric for check in found.checks if not check.passed}
    assert red & message


@pytest.mark.parametrize("count", [0, 2])
def test_changed_anchors_fail_the_check(count: int) -> None:
    """A post-process with other anchors, or without."""
    model = opened()
    graph = model.graph()
    (detection,) = trace(graph).head().readers.detections
    boxes = {"encodings": np.zeros((1, 3))}
    runs = Runs(boxes, boxes, [boxes], in_quantized_values=True, rerun=lambda *_: [])
    nodes = [
        replace(node, inputs=(*node.inputs[:2], *["anchors"] * count))
        if node.name == detection.node.name
        else node
        for node in graph.nodes
    ]

    def changed(pruned: Graph, runs: Runs = runs) -> int | None:
        rows = DetectedRows(detection, (graph, pruned), {}, {}, shared=False)
        return rows.changed_boxes(runs)

    assert changed(graph) == 0
    other = replace(graph, nodes=tuple(nodes))
    assert changed(other) == 1
    assert changed(other, replace(runs, first=1)) == 0  # counted with the first samples
    assert changed(replace(graph, nodes=graph.nodes[:-1])) is None


def test_a_file_without_the_compared_values_fails() -> None:
    model = opened()
    done = cut(model, 1, 2)
    builder = ssd()
    builder.at("scores").name = "elsewhere"
    other = from_bytes(builder.content(*ROWS), "ssd.tflite")
    job = Job(samples=2)
    found = compare_models(job, model, other, job.inputs(model), done.remap.heads)
    (rows_found,) = [check for check in found.checks if check.metric == "rows"]
    assert (rows_found.passed, rows_found.value) == (False, None)


# --- the detector of the zoo ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(zoo: Path) -> TfliteModel:
    return open_file(zoo / ZOO_FILE)


@pytest.fixture(scope="module")
def pets(zoo: Path) -> Array:
    with Image.open(zoo / "images" / "cats_and_dogs.jpg") as image:
        return np.asarray(image.convert("RGB").resize((300, 300)))[None]


def zoo_rows(model: Model, x: Array) -> list[tuple[float, ...]]:
    return rows(runs(model, x), model.graph().outputs)


def test_the_zoo_detector_has_ninety_named_classes(detector: TfliteModel) -> None:
    head = trace(detector.graph()).head()
    assert (head.name, head.units, head.activation) == (POST, 90, "sigmoid")
    assert head.labels is not None
    assert (head.labels[CAT], head.labels[DOG], len(head.labels)) == ("cat", "dog", 90)


def test_cats_and_dogs_are_bit_identical(detector: TfliteModel, pets: Array) -> None:
    done = prune_model(detector, CutOptions(keep="cat,dog,horse"), Job(samples=2))
    assert done.results.passed
    assert isinstance(done.model, TfliteModel)
    assert len(done.model.content) < 0.8 * len(detector.content)
    before, after = zoo_rows(detector, pets), zoo_rows(done.model, pets)
    assert [int(n) for n, *_ in before[:5]] == [CAT, CAT, CAT, DOG, DOG]
    expected = [(n - CAT, *row) for n, *row in before if n in {CAT, DOG, HORSE}]
    assert after[:5] == expected[:5]
    assert set(expected) <= set(after)
    labels = done.model.graph().labels[f"{POST}:1"]
    assert labels == ("cat", "dog", "horse")


def test_the_zoo_detector_keeps_its_class_indices_and_label_file(
    detector: TfliteModel, pets: Array
) -> None:
    done = prune_model(detector, CutOptions(keep="cat,dog", restore_ids=True), Job(samples=2))
    assert done.results.passed
    small = done.model
    assert isinstance(small, TfliteModel)
    expected = [row for row in zoo_rows(detector, pets) if row[0] in {CAT, DOG}]
    assert set(expected) <= set(zoo_rows(small, pets))
    assert b"person" in small.content[-5000:]
    assert small.content.count(b"hair drier") == detector.content.count(b"hair drier")


def test_the_zoo_detector_masked(detector: TfliteModel, pets: Array) -> None:
    """Each feature map has its own scale; its lowest quantized value is not a score of 0."""
    done = prune_model(detector, CutOptions(keep="cat,dog,horse", mode="mask"), Job(samples=2))
    assert done.results.passed
    assert done.remap.of().options["restore_width"] is True
    expected = [row for row in zoo_rows(detector, pets) if row[0] in {CAT, DOG, HORSE}]
    found = zoo_rows(done.model, pets)
    assert set(expected) <= set(found)
    assert {number for number, *_ in found} <= {CAT, DOG, HORSE}


def test_verify_passes_for_the_written_files(
    detector: TfliteModel, zoo: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.tflite"
    prune_model(detector, CutOptions(keep="cat,dog"), Job(verify=False)).save(small)
    report = verify_files(zoo / ZOO_FILE, small, Job(samples=2))
    assert report.ok
    assert {check.metric for check in report.checks} >= {"rows", "classes", "original"}
