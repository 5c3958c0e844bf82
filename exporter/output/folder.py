"""Which folders a job may write, and which of them `--force` may replace."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from exporter.errors import OutputError, UsageError
from exporter.output.files import refuse_existing, writing

MANIFEST = "SHA256SUMS"  # see `manifest`
REPORT = "report.json"  # every result folder contains it, or each of its variants does
CELL, CONVERSION = "cell.json", "conversion.json"  # in folders that a batch writes
JOURNAL = "journal.jsonl"  # of a batch: a line for each task, with its time
OUTSIDE = "../"  # before the name of a file that a folder's report and manifest list
BODY = re.compile(r"body-[0-9a-f]{16}\.data")  # name of a file that several models read
PAGE, INDEX = "report.html", "index.html"  # of a job, and of a folder of variants


def check_output_folder(target: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output folder before any work is done.

    Args:
        force: replace the folder if it is a result folder; other folders are never replaced.
        inputs: files that the job reads, which must not be in the replaced folder.

    Raises:
        OutputError: the target exists and `force` is not set, or it is not a result folder.
        UsageError: an input is in it.
    """
    refuse_existing(target, force=force)
    if not os.path.lexists(target):
        return
    hint = "choose another place with -o"
    if not target.is_dir():
        raise OutputError(f"{target} is not a folder", hint)
    for path in inputs:
        if path.resolve().is_relative_to(target.resolve()):
            raise UsageError(f"the input {path} is in {target}, which --force replaces", hint)
    with writing(target):
        is_result = _is_result(target)
    if not is_result:
        raise OutputError(
            f"{target} contains no {REPORT}: --force replaces only folders that a run wrote", hint
        )


def _is_result(folder: Path) -> bool:
    """True for a folder that a run wrote, a folder of such folders, and an empty folder."""
    entries = {entry.name for entry in folder.iterdir()}
    known = entries - {MANIFEST, INDEX}
    folders = {name for name in known if (folder / name).is_dir()}
    files_of_variants = {n for n in known - folders if any(n.startswith(f"{f}.") for f in folders)}
    variants = {name for name in known - files_of_variants if not BODY.fullmatch(name)}
    return (
        bool({REPORT, CELL, CONVERSION} & entries)
        or not entries
        or (bool(variants) and all((folder / name / REPORT).exists() for name in variants))
    )
