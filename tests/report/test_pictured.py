"""Worst samples and boxes on the page."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from exporter.records import DrawnBox, Report, WorstSample
from exporter.report import pictured
from exporter.report.html import to_html
from exporter.report.markdown import to_markdown
from exporter.report.plots import report_plots
from tests.builders.pictured_reports import BOXES, CONFUSION, FILE, PNG, sample
from tests.builders.reports import PASSING


@pytest.mark.parametrize(
    ("row", "words", "texts"),
    [
        (
            sample(0.25, 0.2500001),
            "Of 16 samples (counted from 0), sample 3 (o&lt;w&gt;l/a.jpg) has the largest",
            "in sample 3 (o<w>l/a.jpg), unit 1 (5 in the original, d<o>g) is 0.2500001, expected",
        ),
        (
            sample(0.25, 0.25),
            "All values of 16 samples are equal to the values of the original; for example ",
            "all values of 16 samples are equal.",
        ),
    ],
)
def test_the_worst_sample_of_a_file(row: WorstSample, words: str, texts: str) -> None:
    report = replace(PASSING, worst_samples=(row,))
    assert Report.from_json(report.to_json()) == report
    page, text = to_html(report), to_markdown(report)
    assert words in page
    assert texts in text.replace("\\", "").replace("&lt;", "<").replace("&gt;", ">")
    for part in (PNG, "d&lt;o&gt;g", "i&lt;d&gt;s", "1, 2, 3", "&lt;b&gt;", "1 x 8 x 8 x 3 uint8"):
        assert part in page, part
    assert "The values are quantized values" not in page
    quantized = replace(PASSING, worst_samples=(replace(row, quantized=True),))
    assert "The values are quantized values" in to_html(quantized)
    assert ("Bold: the largest difference" in page) == (row.case.expected != row.case.actual)


def test_a_failed_sample_comes_first_and_the_nearest_to_its_limit_counts() -> None:
    other = replace(sample(1.0, 1.5).case, artifact="b.onnx", sample=9)
    rows = (
        sample(0.25, 0.2500001),
        sample(0.25, 0.2500003, limit=1.0),
        sample(0.25, None, limit=None),
        replace(sample(1.0, 1.5), case=other, passed=False),
    )
    first, second = pictured.worst_samples(replace(PASSING, worst_samples=rows))
    assert (first.file, first.passed, second.file) == ("b.onnx", False, FILE)
    assert [value.actual for value in second.values] == ["0.75", "0.2500001"]
    assert [value.is_worst for value in second.values] == [False, True]


def test_boxes_before_and_after() -> None:
    report = replace(PASSING, box_pictures=(BOXES,))
    assert Report.from_json(report.to_json()) == report
    page = to_html(report)
    assert page.count(PNG) == 1, "both sides share the picture"
    assert page.count('<use href="#boxes-1"/>') == 1
    assert page.count('class="box removed"') == 1
    assert page.count('class="box"') == 2
    assert "Original: l&lt;1&gt; 90 %, class 0 50 % (removed class)" in page
    assert "l&lt;1&gt;<" not in page.replace("90 %", "")
    (before, _) = pictured.detections(report)[0].sides
    assert [(b.left, b.top, b.width, b.height) for b in before.boxes] == [
        pytest.approx((180, 0, 120, 200)),
        pytest.approx((30, 0, 120, 200)),
    ]
    assert [(b.ends, b.text_x) for b in before.boxes] == [(True, 297), (False, 33)]


@pytest.mark.parametrize("top", [0.0, 0.5, 0.97])
@pytest.mark.parametrize("left", [0.0, 0.5])
def test_texts_of_boxes_that_overlap_are_below_or_above_one_another(
    left: float, top: float
) -> None:
    drawn = [
        DrawnBox(
            (left + n / 50, top, left + 0.4, 1.0), 1, "a long name", 0.9 - n / 10, is_kept=True
        )
        for n in range(5)
    ]
    row = replace(BOXES, before=tuple(drawn), width=300, height=200)
    (side, _) = pictured.detections(replace(PASSING, box_pictures=(row,)))[0].sides
    lines = sorted(box.text_y for box in side.boxes)
    assert all(low + 300 / 24 <= high + 1e-9 for low, high in pairwise(lines))
    assert all(0 <= line <= 200 for line in lines)


def test_a_box_whose_text_covers_no_other_has_it_in_its_first_line() -> None:
    """Also if no line is free: a picture may be smaller than its texts."""
    apart = tuple(
        DrawnBox((left, 0.1, left + 0.3, 0.5), 1, "owl", 0.9, is_kept=True) for left in (0.0, 0.6)
    )
    alike = (DrawnBox((0.0, 0.0, 1.0, 1.0), 1, "owl", 0.9, is_kept=True),) * 3
    for drawn, height, lines in ((apart, 200, [32.5, 32.5]), (alike, 20, [12.5] * 3)):
        row = replace(BOXES, before=drawn, width=300, height=height)
        (side, _) = pictured.detections(replace(PASSING, box_pictures=(row,)))[0].sides
        assert [box.text_y for box in side.boxes] == lines


@pytest.mark.parametrize(
    "picture", ["https://example.com/x.png", "data:image/svg+xml;base64,AA", ""]
)
def test_a_picture_from_anywhere_is_not_shown(picture: str) -> None:
    """report.json may come from somebody else."""
    row = sample(0.25, 0.5)
    inputs = tuple(replace(each, picture=picture) for each in row.inputs)
    report = replace(
        PASSING,
        worst_samples=(replace(row, inputs=inputs),),
        box_pictures=(replace(BOXES, picture=picture),),
    )
    page = to_html(report)
    assert "<image" not in page
    assert "<img" not in page
    assert "example.com" not in page


def test_confusions_are_drawn_as_text() -> None:
    plots = report_plots(replace(PASSING, confusions=(CONFUSION,)))
    (plot,) = (each for each in plots if each.title == f"Confusion in {FILE}")
    assert plot.summary == "0 $c_a$ became 2 sea_lion 1 times"
    assert "0 $c_a$" in plot.svg
