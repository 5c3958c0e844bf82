"""`exporter report`: the pages of a folder are drawn again from its records."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.errors import CheckError, ExporterError, ModelError, UsageError
from exporter.jobs.redraw import redraw
from exporter.jobs.verify_folder import verify_folder
from exporter.output.manifest import write_manifest
from exporter.records import Report
from tests.builders.reports import FAILING, PASSING


def result(folder: Path, reports: dict[str, Report]) -> Path:
    """A folder as `run` leaves it, with pages of an earlier version."""
    for name, report in reports.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "report.json").write_text(report.to_json(), "utf-8")
        (place / "report.html").write_text("old", "utf-8")
        (place / "model.onnx").write_bytes(b"model")
        write_manifest(place)
    write_manifest(folder)
    return folder


def test_one_page(tmp_path: Path) -> None:
    folder = result(tmp_path / "out", {"": PASSING})
    assert redraw(folder) == [folder / "report.html"]
    assert "3 of 10 units kept" in (folder / "report.html").read_text("utf-8")
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS", "model.onnx", "report.html", "report.json",
    ]  # fmt: skip
    assert verify_folder(folder).ok


def test_pages_of_variants_and_their_index(tmp_path: Path) -> None:
    folder = result(tmp_path / "out", {"pets": PASSING, "rest": FAILING})
    names = ["pets/report.html", "rest/report.html", "index.html"]
    assert redraw(folder) == [folder / name for name in names]
    assert "pets/report.html" in (folder / "index.html").read_text("utf-8")
    assert verify_folder(folder).files.passed
    assert verify_folder(folder / "pets").ok


def test_a_changed_model_is_not_hidden_by_a_new_manifest(tmp_path: Path) -> None:
    folder = result(tmp_path / "out", {"": PASSING})
    (folder / "model.onnx").write_bytes(b"other")
    before = (folder / "SHA256SUMS").read_bytes()
    with pytest.raises(CheckError, match=r"model\.onnx is not as the run wrote it"):
        redraw(folder)
    assert (folder / "SHA256SUMS").read_bytes() == before
    assert (folder / "report.html").read_text() == "old"


def test_an_interrupted_redrawing_can_be_repeated(tmp_path: Path) -> None:
    folder = result(tmp_path / "out", {"": PASSING})
    (folder / "report.html").write_text("new page, old manifest")
    redraw(folder)
    assert verify_folder(folder).ok


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        pytest.param(lambda _: None, UsageError, "is not a folder", id="missing"),
        pytest.param(lambda path: path.mkdir(), UsageError, "contains no report.json", id="empty"),
    ],
)
def test_other_folders_are_refused(
    tmp_path: Path, make: object, error: type[ExporterError], message: str
) -> None:
    assert callable(make)
    make(tmp_path / "x")
    with pytest.raises(error, match=message) as caught:
        redraw(tmp_path / "x")
    assert caught.value.hint


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    folder = result(tmp_path / "out", {"": PASSING})
    (folder / "report.json").write_text("{}")
    write_manifest(folder)
    with pytest.raises(ModelError, match="the report is damaged"):
        redraw(folder)
