"""`verify DIR`: the files of a result folder, and the checks that its report claims."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import exporter
from exporter.errors import CheckError, UsageError
from exporter.jobs.verify_folder import Claim, FolderReport, verify_folder
from exporter.output.manifest import write_manifest
from exporter.records import Report
from tests.builders.commands import Done
from tests.builders.commands import exporter as run_command


@pytest.fixture(scope="module")
def written(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "out"
    exporter.run(shelf / "net.onnx", out, keep=[1, 2], bench=False)
    return out


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "out"))


def test_a_result_is_as_written(folder: Path) -> None:
    report = exporter.verify(folder, check=True)
    assert report.ok
    names = ("pruned.fp32.onnx", "remap.json", "report.html", "report.json", "report.md")
    assert report.files.matching == names
    checks = Report.from_json((folder / "report.json").read_text()).checks
    count = sum(check.limit is not None for check in checks)
    assert 0 < count < len(checks)
    assert report.claims == (Claim("pruned.fp32.onnx", "cut", count, count),)
    assert f"({count} checks passed)" in (folder / "report.md").read_text(), "as the headline says"


def test_variants_have_manifests_of_their_own(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exporter.run(shelf / "net.onnx", out, variants={"a": [1], "b": [2, 3]}, bench=False)
    report = verify_folder(out)
    assert report.ok
    assert [claim.artifact for claim in report.claims] == [
        "a/pruned.fp32.onnx",
        "b/pruned.fp32.onnx",
    ]
    assert verify_folder(out / "a").ok
    shutil.rmtree(out / "b")
    missing = verify_folder(out).files.missing
    assert set(missing) > {"b/SHA256SUMS", "b/report.json", "b/pruned.fp32.onnx"}


def test_a_report_that_was_changed_claims_nothing(folder: Path) -> None:
    (folder / "report.json").write_text((folder / "report.json").read_text() + "\n")
    report = verify_folder(folder)
    assert (report.ok, report.files.changed, report.claims) == (False, ("report.json",), ())
    with pytest.raises(CheckError, match="1 files are not as written, 0 checks failed"):
        exporter.verify(folder, check=True)


def test_a_failed_check_is_claimed(folder: Path) -> None:
    report = Report.from_json((folder / "report.json").read_text())
    first, *others = report.checks
    failed = replace(report, checks=(replace(first, passed=False), *others))
    (folder / "report.json").write_text(failed.to_json())
    write_manifest(folder)
    found = verify_folder(folder)
    assert (found.files.passed, found.ok) == (True, False)
    (claim,) = found.claims
    assert claim.passed == claim.checks - 1


def test_not_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="is not a folder, and no pruned file is given"):
        verify_folder(folder / "report.json")

    def refuse(_folder: Path) -> FolderReport:
        raise PermissionError(13, "Permission denied", str(folder / "report.json"))

    monkeypatch.setattr("exporter.jobs.verify_folder.check_manifest", refuse)
    with pytest.raises(UsageError, match=r"cannot read .*report\.json: Permission denied"):
        verify_folder(folder)


def test_command(folder: Path, command_here: Callable[[str, Path], Done]) -> None:
    done = command_here("verify out", folder.parent)
    assert done.code == 0
    assert done.out.splitlines()[0] == "out: 5 files as written"
    assert done.out.splitlines()[2].startswith("  pruned.fp32.onnx, cut: ")
    (folder / "labels.txt").touch()
    (folder / "report.md").unlink()
    done = command_here("verify out", folder.parent)
    assert done.code == 1
    assert done.out.splitlines()[1:3] == ["  missing  report.md", "  extra  labels.txt"]
    record = command_here("verify out --json", folder.parent).record
    assert (record["schema"], record["ok"]) == ("exporter/folder/1", False)
    assert record["files"]["missing"] == ["report.md"]


def test_interrupted_result_as_a_process(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    done = run_command("verify out --json", folder.parent)
    assert done.code == 1
    error = json.loads(done.out)["error"]
    assert error.startswith("out has no SHA256SUMS, the last file of a run: it was interrupted")
