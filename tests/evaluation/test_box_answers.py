"""Boxes: average precisions by hand and by the COCO benchmark's own program; files of boxes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.evaluation.box_answers import BoxAnswers, Boxes, box_groups
from exporter.evaluation.true_boxes import placement, read_true_boxes
from exporter.graph import Array
from tests.builders.coco import Found, records, reference

NO_BOX = Boxes.of(np.empty((0, 4)), np.empty(0, int), np.empty(0))
UNIT = np.array([0])


def boxes(*rows: tuple[Sequence[float] | Array, int, float]) -> Boxes:
    corners, units, scores = zip(*rows, strict=True)
    return Boxes.of(np.array(corners), np.array(units), np.array(scores))


SQUARE = (0.0, 0.0, 0.5, 0.5)
OTHER = (0.5, 0.5, 1.0, 1.0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(boxes((SQUARE, 0, 0.9), (OTHER, 0, 0.8)), 1.0, id="both"),
        # precision 1 up to a recall of 1/2: 51 of the 101 recalls
        pytest.param(boxes((SQUARE, 0, 0.9)), 51 / 101, id="one of two"),
        pytest.param(boxes((SQUARE, 0, 0.9), (SQUARE, 0, 0.8)), 51 / 101, id="the same twice"),
        pytest.param(boxes((SQUARE, 1, 0.9), (OTHER, 1, 0.8)), 0.0, id="of another class"),
        pytest.param(
            boxes(((0, 0.5, 0.5, 1), 0, 0.95), (SQUARE, 0, 0.9)),
            51 / 101 / 2,
            id="a wrong one ranks first",
        ),
        # overlap 0.8: right at 7 of the 10 thresholds 0.50, 0.55, ..., 0.95
        pytest.param(
            boxes(((0, 0, 0.5, 0.4), 0, 0.9), (OTHER, 0, 0.8)),
            (7 * 1.0 + 3 * 51 / 101 / 2) / 10,
            id="overlap of 0.8",
        ),
        pytest.param(NO_BOX, 0.0, id="none"),
    ],
)
def test_average_precision_by_hand(found: Boxes, expected: float) -> None:
    truth = [boxes((SQUARE, 0, 1.0), (OTHER, 0, 1.0))]
    value = BoxAnswers(truth, [found]).value("map", np.arange(1), UNIT)
    assert value == pytest.approx(expected, abs=0.01)


def random_boxes(seed: int, per_sample: int) -> list[Found]:
    random = np.random.default_rng(seed)
    found = []
    for sample in range(8):
        for _ in range(per_sample):
            corner = random.uniform(0, 0.6, 2)
            corners = np.concatenate([corner, corner + random.uniform(0.1, 0.4, 2)])
            found.append((sample, corners, int(random.integers(3)), float(random.random())))
    return found


def near(truth: Sequence[Found], seed: int) -> list[Found]:
    """The true boxes, moved a little, with some of another class, and random ones."""
    random = np.random.default_rng(seed)
    moved = [
        (
            sample,
            corners + random.normal(0, 0.02, 4),
            int(random.integers(3)) if random.random() < 0.2 else category,
            float(random.random()),
        )
        for sample, corners, category, _ in truth
    ]
    return [*moved, *random_boxes(seed + 1, 3)]


def by_sample(found: Sequence[Found], count: int) -> list[Boxes]:
    return [
        boxes(*[(each[1], each[2], each[3]) for each in found if each[0] == sample])
        for sample in range(count)
    ]


@pytest.mark.parametrize("units", [(0, 1, 2), (1,), (0, 2)])
def test_the_benchmarks_own_numbers(tmp_path: Path, units: tuple[int, ...]) -> None:
    truth = random_boxes(1, 4)
    found = near(truth, 5)
    answers = BoxAnswers(by_sample(truth, 8), by_sample(found, 8))
    expected = reference(tmp_path, records(8, truth, ["a", "b", "c"]), found, units)
    for measure, value in zip(("map", "map50"), expected, strict=True):
        assert answers.value(measure, np.arange(8), np.array(units)) == pytest.approx(value)
    assert 0.05 < expected[0] < expected[1] < 0.95


def test_a_resample_counts_a_sample_as_often_as_it_is_drawn(tmp_path: Path) -> None:
    truth = random_boxes(1, 4)
    found = near(truth, 5)
    drawn = np.array([3, 3, 3, 0, 7, 1, 1, 6])
    copies = [
        [
            (new, *each[1:])
            for new, old in enumerate(drawn.tolist())
            for each in rows
            if each[0] == old
        ]
        for rows in (truth, found)
    ]
    expected = reference(tmp_path, records(8, copies[0], ["a", "b", "c"]), copies[1], (0, 1, 2))
    answers = BoxAnswers(by_sample(truth, 8), by_sample(found, 8))
    assert answers.value("map", drawn, np.arange(3)) == pytest.approx(expected[0])
    assert answers.value("map", np.arange(8), np.arange(3)) != pytest.approx(expected[0])


def test_units_without_true_boxes_have_no_value() -> None:
    answers = BoxAnswers([boxes((SQUARE, 0, 1.0)), NO_BOX], [NO_BOX, NO_BOX])
    assert math.isnan(answers.value("map", np.arange(2), np.array([1, 2])))
    assert math.isnan(answers.value("map", np.array([1, 1]), np.array([0])))


def test_a_box_around_a_crowd_is_neither_found_nor_missed() -> None:
    crowd = Boxes(np.array([SQUARE, OTHER]), np.zeros(2, int), np.ones(2), np.array([True, False]))
    answers = BoxAnswers([crowd], [boxes((OTHER, 0, 0.9))])
    assert answers.value("map", np.arange(1), UNIT) == pytest.approx(1.0)
    groups = box_groups([crowd], np.array([True, False]))
    assert [(group.classes, group.samples) for group in groups] == [
        ("kept", 1),
        ("removed", 0),
        ("all", 1),
    ]


# --- files ----------------------------------------------------------------------------------------

TRUE: list[Found] = [
    (0, np.array([0.1, 0.2, 0.5, 0.6]), 0, 1.0),
    (2, np.array([0.0, 0.0, 1.0, 1.0]), 1, 1.0),
    (2, np.array([0.5, 0.5, 0.7, 0.9]), 0, 1.0),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(records(3, TRUE, ["owl", "hen"])))
    return path


@pytest.mark.parametrize(
    ("names", "order"),
    [
        pytest.param(None, [0, 1, 2], id="in the order of the file"),
        pytest.param(["2.png", "0.png"], [2, 0], id="by name"),
    ],
)
def test_boxes_are_read(file: Path, names: list[str] | None, order: list[int]) -> None:
    found = read_true_boxes(file, len(order), names)
    assert found.categories == {10: "owl", 20: "hen"}
    assert [each.units.tolist() for each in found.samples] == [
        [10 * (category + 1) for sample, _, category, _ in TRUE if sample == wanted]
        for wanted in order
    ]
    first = found.samples[order.index(0)]
    assert first.corners == pytest.approx(TRUE[0][1][np.newaxis])
    in_units = found.in_units({10: 4})
    assert in_units[order.index(2)].units.tolist() == [4]


def without(key: str, *place: str) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        target: Any = record
        for each in place:
            target = target[each] if not each.isdigit() else target[int(each)]
        del target[key]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(without("images"), "not a file of boxes", id="no images"),
        pytest.param(without("width", "images", "0"), "not a file of boxes", id="no width"),
        pytest.param(without("bbox", "annotations", "0"), "not a file of boxes", id="no box"),
        pytest.param(
            lambda r: r["annotations"][0].update(bbox=[1, 2]),
            "not a file of boxes",
            id="two numbers",
        ),
        pytest.param(
            lambda r: r["annotations"][0].update(bbox=[1, 2, 3, float("nan")]),
            "not finite",
            id="NaN",
        ),
        pytest.param(
            lambda r: r["annotations"][0].update(image_id=99), "not a file of boxes", id="image 99"
        ),
        pytest.param(
            lambda r: r["images"].pop(1), "has no image called '1.png'", id="an image less"
        ),
    ],
)
def test_wrong_files_are_refused(
    file: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=message) as caught:
        read_true_boxes(file, 3, ["0.png", "1.png", "2.png"])
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "no JSON", "[" * 100_000])
def test_other_files_are_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match="not a file of boxes"):
        read_true_boxes(file, 1, None)


def test_fewer_images_than_samples_are_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="3 images for 4 samples"):
        read_true_boxes(file, 4, None)


CORNERS = np.array([[25.0, 10.0, 75.0, 40.0]])  # of a picture of 100 x 50


@pytest.mark.parametrize(
    ("resize", "size", "expected"),
    [
        pytest.param("stretch", (20, 20), [0.25, 0.2, 0.75, 0.8], id="stretched"),
        # to 20 x 10 with bars of 5 above and below
        pytest.param("pad", (20, 20), [0.25, 0.35, 0.75, 0.65], id="padded"),
        # to 40 x 20; 10 columns on each side are cut off
        pytest.param("crop", (20, 20), [0.0, 0.2, 1.0, 0.8], id="cropped"),
    ],
)
def test_boxes_follow_the_resizing(
    resize: str, size: tuple[int, int], expected: list[float]
) -> None:
    found: Array = placement(resize, size)(CORNERS, 100, 50)
    assert found[0] == pytest.approx(expected)


def test_a_crop_may_show_a_part_of_the_shorter_side() -> None:
    """Of 100 x 50, the middle 25 x 25 is shown: columns 37.5 to 62.5, rows 12.5 to 37.5."""
    found = placement("crop", (20, 20), 0.5)(np.array([[40.0, 15.0, 60.0, 35.0]]), 100, 50)
    assert found[0] == pytest.approx([0.1, 0.1, 0.9, 0.9])


def test_a_box_that_a_crop_cuts_off_is_left_out(file: Path) -> None:
    record = json.loads(file.read_text())
    record["annotations"][0]["bbox"] = [0, 0, 20, 20]
    file.write_text(json.dumps(record))
    found = read_true_boxes(file, 1, None, placement("crop", (20, 20)))
    assert len(found.samples[0].units) == 0
