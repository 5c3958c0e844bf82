"""Check a folder that a run wrote: its files against its manifest, and what its reports claim."""

from __future__ import annotations

import posixpath
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exporter.errors import CheckError, UsageError
from exporter.output.folder import REPORT
from exporter.output.manifest import ManifestCheck, check_manifest
from exporter.records import Report
from exporter.report.check_groups import gated
from exporter.selection.text_file import LARGEST_RECORDS, read_text

SCHEMA = "exporter/folder/1"


@dataclass(frozen=True)
class Claim:
    """What a report in the folder claims about an artifact.

    Attributes:
        artifact: path in the folder.
        stage: of the checks: cut, export or quantize.
        passed, checks: how many of how many checks passed; values without a limit are no checks.
    """

    artifact: str
    stage: str
    passed: int
    checks: int


@dataclass(frozen=True)
class FolderReport:
    """The result of `verify DIR`.

    Attributes:
        files: the files compared with the manifest.
        claims: from the reports that match the manifest. The models are not run again.
    """

    folder: Path
    files: ManifestCheck
    claims: tuple[Claim, ...]

    @property
    def ok(self) -> bool:
        """The files are those that the run wrote, and every check that it made passed."""
        return self.files.passed and all(claim.passed == claim.checks for claim in self.claims)

    def to_dict(self) -> dict[str, Any]:
        """The `exporter/folder/1` record."""
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "folder": str(self.folder),
            "files": {name: list(names) for name, names in asdict(self.files).items()},
            "claims": [asdict(claim) for claim in self.claims],
        }


def verify_folder(folder: Path) -> FolderReport:
    """Check the files of a folder that `run` wrote, without running a model.

    Raises:
        UsageError: it is not a folder, or cannot be read.
        CheckError: it was interrupted while it was written or copied.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder, and no pruned file is given",
            "give a folder that `exporter run` wrote, or the original and the pruned file",
        )
    try:
        files = check_manifest(folder)
        reports = [name for name in files.matching if Path(name).name == REPORT]
        claims = tuple(claim for name in reports for claim in _claims(folder, name))
    except OSError as error:
        raise UsageError(
            f"cannot read {error.filename or folder}: {error.strerror}",
            "check its permissions and its disk",
        ) from error
    return FolderReport(folder, files, claims)


def raise_if_failed(report: FolderReport) -> None:
    """Raise a CheckError for a folder that is not as the run wrote it, or whose checks failed."""
    if report.ok:
        return
    files = report.files
    wrong = len(files.missing) + len(files.changed) + len(files.extra)
    failed = sum(claim.checks - claim.passed for claim in report.claims)
    raise CheckError(f"{report.folder}: {wrong} files are not as written, {failed} checks failed")


def _claims(folder: Path, name: str) -> list[Claim]:
    report = Report.from_json(read_text(folder / name, LARGEST_RECORDS))
    checks = gated(report.checks)
    counts = Counter((check.artifact, check.stage) for check in checks)
    passed = Counter((check.artifact, check.stage) for check in checks if check.passed)
    return [
        Claim(
            posixpath.normpath((Path(name).parent / artifact).as_posix()),
            stage,
            passed[artifact, stage],
            count,
        )
        for (artifact, stage), count in counts.items()
    ]
