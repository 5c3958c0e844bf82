"""What records show in a notebook, and the notebook in `examples/`."""

from __future__ import annotations

import ast
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import UsageError
from exporter.report import notebook
from exporter.selection import Selection
from tests.builders.reports import PASSING, head, remap

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
VOID = {"br", "input", "path", "use", "rect", "image", "meta", "circle"}


class _Tags(HTMLParser):
    """The names of all elements, and those that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def shown(html: str) -> str:
    """The text of a fragment, which has no script and closes what it opens."""
    tags = _Tags()
    tags.feed(html)
    assert tags.open == []
    assert "script" not in tags.names
    assert html.startswith('<div class="exporter-record">')
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def run_cells() -> list[Any]:
    """The value of the last line of each code cell, as a notebook shows it."""
    names: dict[str, Any] = {}
    values = []
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], "a notebook is stored without results"
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(NOTEBOOK), "exec"), names)  # noqa: S102 - our own notebook
        if isinstance(last, ast.Expr):
            value = compile(ast.Expression(last.value), str(NOTEBOOK), "eval")
            values.append(eval(value, names))  # noqa: S307 - our own notebook
    return values


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inspection, pruned, units, choice, report, files = run_cells()
    assert "birds.onnx: 1 head to cut" in shown(inspection._repr_html_())
    assert inspection.to_pandas()["units"].tolist() == [7]
    text = shown(pruned._repr_html_())
    assert "3 of 7 units kept: every check passed" in text
    assert "owl yes" in text
    assert set(pruned.to_pandas()["passed"]) == {True}
    kept = units[units["kept"]]
    assert (kept["old"].tolist(), kept["label"].tolist()) == ([1, 3, 5], ["owl", "robin", "crow"])
    assert len(units) == 7
    assert "3 of 7 units of birds.onnx kept" in shown(choice._repr_html_())
    assert choice.to_pandas()["kept"].sum() == 3
    text = shown(report._repr_html_())
    assert "is proved to match the original" in text
    assert "pruned.fp32.onnx" in text
    assert files["bytes"].tolist() == [(tmp_path / "out" / "pruned.fp32.onnx").stat().st_size]
    assert (tmp_path / "out" / "report.html").exists()


def test_a_report_has_a_row_for_each_file() -> None:
    frame = PASSING.to_pandas()
    assert frame["file"].tolist() == ["pruned.fp32.onnx", "pruned.fp32.tflite"]
    assert frame["p50_ms"].tolist() == pytest.approx([0.7991, 0.0123])
    assert "A warning." in shown(replace(PASSING, warnings=("A warning.",))._repr_html_())


def test_text_of_files_is_no_markup() -> None:
    labels = ("<script>alert(1)</script>", "b", "c")
    html = remap(head((3, 5, 9), 10, labels=labels))._repr_html_()
    assert "&lt;script&gt;alert(1)" in html
    shown(html)


def test_many_units_are_cut_off_with_the_kept_ones_first() -> None:
    table = remap(head((900,), 1000))
    text = shown(table._repr_html_())
    assert "950 more rows: to_pandas() has all." in text
    assert "scores 900 0 yes" in text
    frame = table.to_pandas()
    assert len(frame) == 1000
    assert (frame["new"].dtype, frame["new"][900], frame["new"].count()) == ("Int64", 0, 1)


def test_a_selection() -> None:
    selection = Selection(3, (2,), ("a", "b", "c"))
    assert "1 of 3 units kept" in shown(selection._repr_html_())
    assert selection.to_pandas()["kept"].tolist() == [False, False, True]


def test_failed_checks_are_named() -> None:
    bad = replace(PASSING.checks[0], passed=False, value=3.0)
    assert PASSING.remap is not None
    text = shown(notebook.pruned_fragment(PASSING.remap, [bad], ["a warning"]))
    assert "1 of 1 checks failed" in text
    assert "max_abs is 3" in text
    assert "a warning" in text
    assert "not verified" in shown(notebook.pruned_fragment(PASSING.remap, [], []))


def test_without_pandas_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pandas") as raised:
        PASSING.to_pandas()
    assert raised.value.hint == "install it: pip install unit-exporter[pandas]"


def test_the_style_stays_within_the_fragment() -> None:
    html = PASSING._repr_html_()
    style = html[html.index("<style>") : html.index("</style>")]
    assert style.startswith("<style>\n@scope (.exporter-record) {")
    assert not re.search(r"(^|[\n;{} ,])(body|html|:root)\b", style)
