"""Draw the pages of a result folder again from its records."""

from __future__ import annotations

from pathlib import Path

from exporter.errors import CheckError, UsageError
from exporter.output.draft import new_file
from exporter.output.folder import INDEX, MANIFEST, PAGE, REPORT
from exporter.output.manifest import check_manifest, outside_files, write_manifest
from exporter.records import Report
from exporter.report.html import to_html, to_index_html

_WRITTEN = {PAGE, INDEX, MANIFEST}  # a redrawing that was interrupted may leave them changed


def redraw(folder: Path) -> list[Path]:
    """Write report.html, and index.html of variants, from every report.json.

    A manifest is written again, so a folder with changed or missing files is refused first: it
    would get a manifest that hides the change.

    Returns:
        The written pages.

    Raises:
        UsageError: it is not a folder that a run wrote.
        CheckError: its files are not those that the run wrote.
        ModelError: a record is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "give a folder that `exporter run` wrote")
    names = sorted(path.parent.name for path in folder.glob(f"*/{REPORT}"))
    if (folder / REPORT).exists():
        names = [""]
    if not names:
        raise UsageError(
            f"{folder} contains no {REPORT}", "give a folder that `exporter run` wrote"
        )
    _refuse_changed(folder)
    reports = {
        name: Report.from_json((folder / name / REPORT).read_text("utf-8")) for name in names
    }
    pages = {folder / name / PAGE: to_html(report) for name, report in reports.items()}
    if names != [""]:
        pages[folder / INDEX] = to_index_html(reports)
    for path, text in pages.items():
        with new_file(path, force=True) as draft:
            draft.write_text(text)
            draft.publish()
    for name in filter(None, names):
        write_manifest(folder / name, outside_files(folder / name))
    write_manifest(folder)
    return list(pages)


def _refuse_changed(folder: Path) -> None:
    files = check_manifest(folder)
    differ = (*files.missing, *files.changed)
    if wrong := [name for name in differ if Path(name).name not in _WRITTEN]:
        raise CheckError(
            f"{folder}: {wrong[0]} is not as the run wrote it",
            f"`exporter verify {folder}` lists what differs from {MANIFEST}",
        )
