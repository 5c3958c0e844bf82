"""Detectors before and after: expected numbers are those of the COCO benchmark's own program."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from exporter.errors import UsageError
from exporter.evaluation.box_maps import BoxMap
from exporter.formats import open_model
from exporter.formats.model import Model, RunOptions
from exporter.formats.onnx import from_proto
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.records import Quality
from exporter.trace import trace
from tests.builders.coco import Found, records, reference
from tests.builders.commands import exporter
from tests.builders.onnx_suppression import end_to_end, largest, selected_alone
from tests.builders.ssd_models import CHANNELS, CLASSES, OPTIONS, ROWS, SIZES, ssd
from tests.builders.yolo_models import yolov5, yolov8, yolox
from tests.builders.yolo_reference import CHANNELS as CHANNELS_OF_YOLO

COUNT = 3
SIDE = 4  # of the ONNX detectors' pictures, in pixels
KEPT = (1, 4)
NAMES = [
    str(unit) for unit in range(6)
]  # more than one of the models has; the models have no labels: units by index
FEW = {**OPTIONS, "max_detections": 30, "detections_per_class": 30}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals are not tested here: see tests/evaluation/test_intervals.py."""
    for name in ("_RESAMPLES", "_RESAMPLES_OF_UNITS"):
        monkeypatch.setattr(f"exporter.evaluation.task_quality.{name}", 20)


def pictures(*shape: int) -> Array:
    return np.random.default_rng(8).normal(size=(COUNT, *shape)).astype(np.float32)


def from_post_process(model: Model, values: Array, units: Sequence[int]) -> list[Found]:
    """The rows of a TFLite post-process; `units` are the classes by index in the output."""
    runner, found = model.runner(RunOptions()), list[Found]()
    for sample, each in enumerate(values):
        outputs = runner({"x": each[np.newaxis]})
        boxes, classes, scores, count = (outputs[name] for name in ROWS)
        for row in range(int(count[0])):
            top, left, bottom, right = boxes[0, row].tolist()
            unit = units[int(classes[0, row])]
            corners = np.array([left, top, right, bottom])
            found.append((sample, corners, unit, float(scores[0, row])))
    return found


def true_boxes(found: Sequence[Found]) -> list[Found]:
    """Every third of these boxes, moved a little; some of another class."""
    random = np.random.default_rng(4)
    good = [each for each in found if (each[1][2:] > each[1][:2] + 0.01).all()][::3]
    return [
        (s, c + random.normal(0, 0.004, 4), int(random.integers(CLASSES)) if i % 4 == 0 else u, 1.0)
        for i, (s, c, u, _) in enumerate(good)
    ]


def written(folder: Path, values: Array, truth: Sequence[Found]) -> Job:
    np.savez(folder / "x.npz", x=values)
    (folder / "true.json").write_text(json.dumps(records(COUNT, truth, NAMES)))
    return Job(data=folder / "x.npz", truth=folder / "true.json")


def row(rows: Sequence[Quality], measure: str, classes: str) -> Quality:
    (found,) = (each for each in rows if (each.measure, each.classes) == (measure, classes))
    return found


def check(
    folder: Path,
    rows: Sequence[Quality],
    truth: list[Found],
    models: tuple[list[Found], list[Found]],
    kept: tuple[int, ...],
) -> None:
    """Compare with the benchmark's numbers for the boxes of the original and of the cut file."""
    before, after = models
    removed = tuple(unit for unit in range(len(NAMES)) if unit not in kept)
    restricted = [each for each in before if each[2] in kept]
    file = records(COUNT, truth, NAMES)
    for i, measure in enumerate(("map", "map50")):
        for classes, units in (("kept", kept), ("removed", removed), ("all", range(len(NAMES)))):
            found = row(rows, measure, classes)
            assert found.original == pytest.approx(reference(folder, file, before, units)[i])
            assert found.value == pytest.approx(reference(folder, file, after, units)[i])
            assert found.samples == sum(each[2] in units for each in truth)
        of_kept = row(rows, measure, "kept")
        fair, value = (reference(folder, file, each, kept)[i] for each in (restricted, after))
        assert of_kept.original_kept == pytest.approx(fair)
        assert of_kept.drop == pytest.approx(fair - value)
        assert 0.02 < value < 1


@pytest.mark.parametrize("options", [{}, {"restore_ids": True}])
@pytest.mark.parametrize("background", [0, 1])
def test_a_post_process_of_tflite(tmp_path: Path, background: int, options: dict[str, Any]) -> None:
    (tmp_path / "ssd.tflite").write_bytes(ssd(background=background, options=FEW).content(*ROWS))
    model = open_model(tmp_path / "ssd.tflite")
    values = pictures(SIZES[0], SIZES[0], CHANNELS)
    before = from_post_process(model, values, range(CLASSES))
    truth = true_boxes(before)
    job = written(tmp_path, values, truth)
    found = prune_model(model, CutOptions(keep=KEPT, **options), job)
    units = range(CLASSES) if options else KEPT
    after = from_post_process(found.model, values, units)
    check(tmp_path, found.results.quality, truth, (before, after), KEPT)


@pytest.mark.parametrize("restored", [False, True])
def test_rows_with_box_score_and_class(tmp_path: Path, restored: bool) -> None:
    model = from_proto(in_pixels(end_to_end()), "net.onnx")
    values, kept = pictures(CHANNELS_OF_YOLO, SIDE, SIDE), (0, 3, 4)
    before = from_rows(model, values, range(6))
    truth = true_boxes(before)
    job = written(tmp_path, values, truth)
    found = prune_model(model, CutOptions(keep=kept, restore_ids=restored), job)
    after = from_rows(found.model, values, range(6) if restored else kept)
    check(tmp_path, found.results.quality, truth, (before, after), kept)


def in_pixels(made: ModelProto) -> ModelProto:
    """Boxes from about (0.5, 0.5) to about (3, 3), of a picture of 4 x 4 pixels."""
    for constant in made.graph.initializer:
        values = numpy_helper.to_array(constant)
        if constant.name in {"box0.bias", "box1.bias"}:
            values = np.array([0.5, 0.5, 3, 3], np.float32)
        if constant.name in {"box0.weight", "box1.weight"}:
            values = values / 4
        constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    return made


def from_rows(model: Model, values: Array, units: Sequence[int]) -> list[Found]:
    """Rows of left, top, right, bottom in pixels of the input, score, class."""
    runner = model.runner(RunOptions())
    return [
        (sample, each[:4].astype(float) / SIDE, units[int(each[5])], float(each[4]))
        for sample, value in enumerate(values)
        for each in runner({"x": value[np.newaxis]})["y"].reshape(-1, 6)
    ]


MAPS: dict[str, tuple[Callable[[], ModelProto], int, int]] = {  # model, unit axis, first class
    "yolov5": (yolov5, 2, 5),
    "yolov8": (yolov8, 1, 4),
    "yolox": (partial(yolox, decode=True), 2, 5),
}


@pytest.mark.parametrize(
    ("name", "mode"),
    [("yolov5", "mask"), ("yolov8", "slice"), ("yolox", "slice")],
)
def test_rows_before_suppression(tmp_path: Path, name: str, mode: str) -> None:
    build, axis, first = MAPS[name]
    model = from_proto(build(), "net.onnx")
    values, kept = pictures(CHANNELS_OF_YOLO, SIDE, SIDE), (0, 3, 4)
    before = from_map(model, values, range(6), axis, first)
    truth = true_boxes(before)
    job = written(tmp_path, values, truth)
    found = prune_model(model, CutOptions(keep=kept, mode=mode), job)
    after = from_map(found.model, values, range(6) if mode == "mask" else kept, axis, first)
    check(tmp_path, found.results.quality, truth, (before, after), kept)


def from_map(
    model: Model, values: Array, units: Sequence[int], axis: int, first: int
) -> list[Found]:
    """Rows of center, width, height, perhaps an object, and classes; each class suppressed."""
    runner, found = model.runner(RunOptions()), list[Found]()
    for sample, value in enumerate(values):
        output = runner({"x": value[np.newaxis]})["y"][0].astype(float)
        rows = output if axis == 2 else output.T
        for column, unit in enumerate(units):
            boxes = [
                (
                    float(r[first + column] * (r[4] if first == 5 else 1)),
                    [r[0] - r[2] / 2, r[1] - r[3] / 2, r[0] + r[2] / 2, r[1] + r[3] / 2],
                )
                for r in rows
            ]
            good: list[tuple[float, list[float]]] = []
            for score, box in sorted(boxes, key=lambda each: -each[0]):
                if score > 0.001 and all(overlap(box, other) <= 0.7 for _, other in good):
                    good.append((score, box))
            found += [(sample, np.array(box) / SIDE, unit, score) for score, box in good]
    return found


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (a, b)]
    return float(shared / (sum(areas) - shared))


def test_boxes_of_yolox_are_relative_to_cells(zoo: Path) -> None:
    """Cells of 8, 16 and 32 pixels, row by row; sizes are logarithms."""
    model = open_model(zoo / "yolox_nano_3class.onnx")
    head = trace(model.graph()).head()
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 416, 416)).astype(np.float32)
    rows = model.runner(RunOptions())({"images": image})["output"][0].astype(float)
    wanted = []
    for stride, start in ((8, 0), (16, 52 * 52), (32, 52 * 52 + 26 * 26)):
        for place in range(start, start + (416 // stride) ** 2):
            y, x = divmod(place - start, 416 // stride)
            cx, cy = (rows[place, 0] + x) * stride, (rows[place, 1] + y) * stride
            w, h = np.exp(rows[place, 2:4]) * stride
            wanted.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
    seen = BoxMap(head, model, (416, 416))
    assert seen._corners(rows[:, :4]) == pytest.approx(np.array(wanted))
    corners, classes, scores = seen({"output": rows[np.newaxis]})
    best = (rows[:, 4:5] * rows[:, 5:]).max()
    assert scores.max() == pytest.approx(best)
    assert len(corners) == len(classes) == len(scores)
    with pytest.raises(UsageError, match="relative to cells that are not known"):
        BoxMap(head, model, (320, 416))({"output": rows[np.newaxis]})
    rows[0, 6] = 3.0
    with pytest.raises(UsageError, match="are no probabilities"):
        seen({"output": rows[np.newaxis]})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        pytest.param(selected_alone, "does not return boxes in a form that is known", id="indices"),
        pytest.param(largest, "are not left, top, right, bottom", id="center, width and height"),
    ],
)
def test_other_boxes_are_not_measured(
    tmp_path: Path, build: Callable[[], ModelProto], message: str
) -> None:
    model = from_proto(build(), "net.onnx")
    truth: list[Found] = [(0, np.array([0.0, 0.0, 1.0, 1.0]), 1, 1.0)]
    job = written(tmp_path, pictures(CHANNELS_OF_YOLO, SIDE, SIDE), truth)
    with pytest.raises(UsageError, match=message) as caught:
        prune_model(model, CutOptions(keep=KEPT), job)
    assert caught.value.hint


def test_categories_that_no_unit_has(tmp_path: Path) -> None:
    (tmp_path / "ssd.tflite").write_bytes(ssd(options=FEW).content(*ROWS))
    model = open_model(tmp_path / "ssd.tflite")
    box = np.array([0.2, 0.2, 0.6, 0.6])
    job = written(
        tmp_path, pictures(SIZES[0], SIZES[0], CHANNELS), [(0, box, 1, 1.0), (0, box, 5, 1.0)]
    )
    found = prune_model(model, CutOptions(keep=KEPT), job)
    assert "1 of 2 true boxes have a category that no unit has: they are left out" in found.warnings
    assert row(found.results.quality, "map", "all").samples == 1
    (tmp_path / "true.json").write_text(json.dumps(records(COUNT, [(0, box, 5, 1.0)], NAMES)))
    with pytest.raises(UsageError, match="no unit has the name of a category"):
        prune_model(model, CutOptions(keep=KEPT), job)


def test_several_samples_at_a_time_are_refused(tmp_path: Path) -> None:
    model = from_proto(end_to_end(batch=0), "net.onnx")
    box = np.array([0.2, 0.2, 0.6, 0.6])
    job = written(tmp_path, pictures(CHANNELS_OF_YOLO, SIDE, SIDE), [(0, box, 1, 1.0)])
    with pytest.raises(UsageError, match="takes 2 samples at a time"):
        prune_model(model, CutOptions(keep=(0, 3)), replace(job, batch=2))


def test_photographs_in_a_folder(zoo: Path, tmp_path: Path) -> None:
    """The true boxes are those that the network finds; without cats, their boxes are lost."""
    images = pytest.importorskip("PIL.Image")
    data = tmp_path / "photographs"
    data.mkdir()
    names = ["cat.bmp", "grace_hopper.bmp"]
    for name in names:
        (data / name).write_bytes((zoo / "images" / name).read_bytes())
    sizes = []
    for name in names:
        with images.open(data / name) as image:
            sizes.append(image.size)
    network = zoo / "coco_ssd_mobilenet_v1_uint8_metadata.tflite"
    model = open_model(network)
    read = model.runner(RunOptions())
    annotations: list[dict[str, Any]] = []
    for i, (feed, size) in enumerate(zip(Job(data=data).inputs(model).feeds(), sizes, strict=True)):
        boxes, classes, scores, _ = read(feed).values()
        for (top, left, bottom, right), unit, score in zip(
            boxes[0].tolist(), classes[0].tolist(), scores[0].tolist(), strict=True
        ):
            place = np.array([left, top, right - left, bottom - top]) * np.tile(size, 2)
            if score > 0.6:
                box = {"image_id": i, "category_id": int(unit) + 1, "bbox": place.tolist()}
                annotations.append({"id": len(annotations) + 1, **box})
    files = [
        {"id": i, "file_name": name, "width": size[0], "height": size[1]}
        for i, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    labels = (zoo / "labels" / "coco_90.txt").read_text().splitlines()
    categories = [{"id": i, "name": name} for i, name in enumerate(labels, 1) if name != "???"]
    record = {"images": files, "annotations": annotations, "categories": categories}
    (data / "annotations.json").write_text(json.dumps(record))
    small = tmp_path / "small.tflite"
    done = exporter(f"prune {network} -o {small} --keep person,cat --data {data} --json", tmp_path)
    assert done.code == 0, done.err
    kept = {"map": 1.0, "map50": 1.0}
    for each in done.record["quality"]:
        if each["classes"] == "kept":
            assert each["original_kept"] == pytest.approx(kept[each["measure"]])
            assert (each["value"], each["drop"]) == (each["original_kept"], 0)
            assert each["samples"] == sum(a["category_id"] in {1, 17} for a in annotations) >= 2
