"""The report page: what it shows, and what text from model files cannot do to it."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest

from exporter.records import Artifact, Check, Proof, Report, SelectedUnit
from exporter.report import view
from exporter.report.html import UNIT_ROWS, to_html, to_index_html
from tests.builders.reports import FAILING, PASSING, RECORDS, check, head, remap

EVIL = '<script>alert(1)</script> ![x](http://x) <img src=x onerror="z"> $x^$ </svg> &amp;'
VOID = {"meta", "input", "br", "path", "use", "img"}


class Page(HTMLParser):
    """The tags, attributes and text that a browser would find."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.scripts = ""
        self._open: list[str] = []
        self.feed(page)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts += data
        elif not self._open or self._open[-1] != "style":
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


@cache
def page_of(name: str) -> str:
    """Drawn once: the plots take most of the time of these tests."""
    return to_html(RECORDS[name])


def words(text: str) -> str:
    return " ".join(text.split())


QUANTIZED = replace(
    PASSING,
    artifacts=(
        Artifact("a.onnx", "onnx", "fp32", 900, "0" * 64, "", 1000, Proof("proved", "")),
        Artifact("a.int8.onnx", "onnx", "int8", 300, "0" * 64, "", 1000, Proof("sampled", "why")),
    ),
    checks=(
        check("max_abs", 0.0, 1e-6, artifact="a.onnx"),
        check("top1", 0.72, 0.6, artifact="a.int8.onnx", stage="quantize"),
    ),
    latency=(),
)


# --- what the page shows --------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_becomes_a_page(name: str) -> None:
    """With the names of its files, its warnings, its failures, its labels and its command."""
    report = RECORDS[name]
    text = words(Page(to_html(report)).text)
    assert report.original.path in text
    for said in (*(each.path for each in report.artifacts), *report.warnings, report.command):
        assert words(said) in text
    for row in report.remap.heads if report.remap else ():
        for label in row.labels or ():
            assert words(label) in text


@pytest.mark.parametrize(
    ("report", "verdict", "headline"),
    [
        pytest.param(PASSING, "pass", "3 of 10 units kept: fp32 matches", id="passed"),
        pytest.param(FAILING, "fail", "Do not use this file", id="one file fails"),
        pytest.param(replace(PASSING, checks=()), "warning", "not verified", id="no check"),
        pytest.param(replace(PASSING, warnings=("x",)), "warning", "matches", id="a warning"),
        pytest.param(QUANTIZED, "warning", "int8: 72.0 % top-1", id="another answer in 28 %"),
        pytest.param(
            replace(QUANTIZED, checks=(*QUANTIZED.checks, *FAILING.checks[:0], replace(
                QUANTIZED.checks[1], value=0.5, passed=False))),
            "fail", "Do not use 1 of 2 files", id="one of two fails",
        ),
    ],
)  # fmt: skip
def test_the_verdict(report: Report, verdict: str, headline: str) -> None:
    page = to_html(report)
    assert f'<body class="{verdict}">' in page
    (title,) = re.findall("<h1>(.*)</h1>", page)
    assert headline in title


def test_each_file_has_its_own_verdict() -> None:
    good, poor = view.file_verdicts(QUANTIZED)
    assert (good.result, good.shown_by, list(good.reasons)) == ("pass", "proved", [])
    assert (poor.result, poor.shown_by) == ("warning", "sampled")
    assert poor.reasons == ["The first answer is another one in 28.0 % of the samples."]


def test_a_warning_belongs_to_the_file_that_it_names() -> None:
    """One name is a part of the other."""
    report = replace(QUANTIZED, warnings=("small_a.onnx is slow", "a.int8.onnx, too, is slow"))
    good, poor = view.file_verdicts(report)
    assert (good.result, poor.reasons[0]) == ("pass", "a.int8.onnx, too, is slow")


def test_failed_checks_are_in_the_banner() -> None:
    banner, _ = to_html(FAILING).split("</header>")
    assert (
        "max_abs is 0.25, limit 1.0e-06 (16 samples)"
        in Page(f"{banner}</header></body></html>").text
    )


@pytest.mark.parametrize(
    ("share", "widths"), [(0.25, (100.0, 25.0)), (4.0, (25.0, 100.0)), (0.0, (100.0, 0.0))]
)
def test_the_longer_bar_is_full(share: float, widths: tuple[float, float]) -> None:
    assert view.Measure("Size", "", "", share).widths == widths


def test_the_figures_of_a_card() -> None:
    measures = {each.title: each for each in view.cards(PASSING)[0].measures}
    assert (measures["Size"].before, measures["Size"].after) == ("14.1 MB", "9.01 MB")
    assert measures["Size"].note == "-36.2 %"
    assert measures["Latency, p50"].note == "no measurable change"
    assert measures["Top-1 agreement"].after == "100.0 %"


def test_units_show_what_was_removed_and_why() -> None:
    chosen = tuple(SelectedUnit(i, f"label {i}", i in {1, 2}, f"reason {i}") for i in range(4))
    merged = head((1, 2), 4, new_to_old=((1, 2),), new_units=1, labels=("both",))
    report = replace(PASSING, remap=remap(merged), selection=chosen)
    rows = view.unit_rows(merged, range(4), view.chosen_units(report))
    assert [(row.old, row.new, row.label, row.fate, row.reason) for row in rows] == [
        (0, "", "label 0", "removed", "reason 0"),
        (1, "0", "label 1", "kept", "reason 1"),
        (2, "0", "label 2", "kept", "reason 2"),
        (3, "", "label 3", "removed", "reason 3"),
    ]
    assert "reason 3" in to_html(report)
    known = ("zero", "one", "two", "three")
    named = view.unit_rows(merged, view.kept_first(merged), known=known)
    assert [(row.old, row.label) for row in named] == [
        *((1, "one"), (2, "two")),  # the members of the merged unit by their own names
        *((0, "zero"), (3, "three")),
    ]
    assert ">Label</th>" in to_html(report)
    assert ">Label</th>" not in to_html(replace(PASSING, remap=remap(head((1, 2), 4))))


def test_a_large_head_is_shown_in_part() -> None:
    units = 20_000
    report = replace(PASSING, remap=remap(head(tuple(range(0, units, 2)), units)))
    page = to_html(report)
    assert f"{units - UNIT_ROWS} more units are in remap.json." in page
    assert len(page.encode()) < 1_000_000


def test_without_matplotlib_the_page_says_what_draws_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "<svg" in to_html(PASSING)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = to_html(PASSING)
    assert "<svg" not in page
    assert "pip install unit-exporter[report]" in page


def test_the_plots_say_in_words_what_they_show() -> None:
    labels = Page(to_html(PASSING)).values("aria-label")
    assert any("pruned.fp32.onnx: 14.1 MB -&gt; 9.01 MB" in each or
               "pruned.fp32.onnx: 14.1 MB -> 9.01 MB" in each for each in labels)  # fmt: skip
    assert any("15.23 times as fast, faster" in each for each in labels)


# --- what text from files cannot do -----------------------------------------------------------


def evil(report: Report) -> Report:
    return replace(
        report,
        warnings=(EVIL,),
        original=replace(report.original, path=EVIL),
        artifacts=tuple(replace(each, path=EVIL, route=EVIL) for each in report.artifacts),
        checks=tuple(replace(each, artifact=EVIL, output=EVIL) for each in report.checks),
        latency=tuple(replace(each, artifact=EVIL) for each in report.latency),
        remap=remap(head((3, 5), 10, name=EVIL, labels=(EVIL, "dog"))),
        command=EVIL,
    )


@pytest.mark.parametrize(
    "report", [PASSING, FAILING, QUANTIZED], ids=["passing", "failing", "int8"]
)
def test_names_from_files_stay_text(report: Report) -> None:
    page, harmless = Page(to_html(evil(report))), Page(to_html(report))
    assert page.tags.count("script") == harmless.tags.count("script") == 1
    assert not set(page.tags) & {"img", "a", "iframe", "object", "embed", "form", "link"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") > 5
    assert page.scripts == harmless.scripts


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_fetches_nothing_and_runs_its_own_script_only(name: str) -> None:
    page = Page(page_of(name))
    assert not page.values("src")
    assert all(link.startswith("#") for link in page.values("href") + page.values("xlink:href"))
    (policy,) = (text for text in page.values("content") if "default-src" in text)
    digest = base64.b64encode(hashlib.sha256(page.scripts.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")


def test_ids_are_unique() -> None:
    ids = Page(to_html(QUANTIZED)).values("id")
    assert len(ids) == len(set(ids)) > 10


# --- variants --------------------------------------------------------------------------------


def test_the_index_compares_variants() -> None:
    reports: Mapping[str, Report] = {"pets": QUANTIZED, "all of <them>": FAILING}
    text = to_index_html(reports)
    page = Page(text)
    assert page.values("href")[-3:] == [
        "pets/report.html", "pets/report.html", "all%20of%20%3Cthem%3E/report.html",
    ]  # fmt: skip
    assert "1 of 2 variants failed a check. Do not use: all of <them>" in page.text
    assert '<body class="fail">' in text
    assert "pets, int8 onnx: 300 B, 72.0 %" in " ".join(page.values("aria-label"))


def test_the_index_shows_a_dash_for_what_was_not_measured() -> None:
    bare = replace(PASSING, checks=(), latency=(), remap=None)
    (row, _) = view.variant_rows({"x": bare})
    assert (row.kept, row.cells) == ("-", ("9.01 MB", "-36.2 %", "-", "-", "-"))
    assert "<svg" not in to_index_html({"x": bare})


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (("cat", "<b>dog</b>"), "2 of 90: cat, <b>dog</b>"),
        (tuple("abcdef"), "6 of 90: a, b, c, d, e, ..."),
        (None, "3 of 90"),
    ],
)
def test_the_index_names_the_kept_units(labels: tuple[str, ...] | None, kept: str) -> None:
    one = head(tuple(range(len(labels or "abc"))), 90, labels=labels)
    report = replace(PASSING, remap=remap(one))
    (row, *_) = view.variant_rows({"x": report})
    assert row.kept == kept
    assert "<b>" not in to_index_html({"x": report})


# --- numbers that no axis can show --------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_extreme_differences_are_drawn(value: float) -> None:
    extreme: Check = check("max_abs", value, 1e-6, passed=value < 1e-6)
    assert "Difference against its limit" in to_html(replace(PASSING, checks=(extreme,)))


@pytest.mark.parametrize(
    ("original", "pruned", "drawn"),
    [(2.0, 1.0, True), (0.0, 1.0, False), (2.0, float("inf"), False), (2.0, None, False)],
)
def test_times_that_no_axis_can_show_are_left_out(
    original: float, pruned: float | None, drawn: bool
) -> None:
    runs = {
        "percentiles": [1.0, 25.0, 50.0, 75.0, 95.0],
        "original": [original] * 5,
        "pruned": [1.0, 1.0, 1.0, 1.0, pruned],
    }
    report = replace(PASSING, latency=(replace(PASSING.latency[0], raw={"runs_ms": runs}),))
    assert ("Times of single runs" in to_html(report)) == drawn
