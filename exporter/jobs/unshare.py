"""Give models that share a body all their constants back."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from os.path import normpath
from pathlib import Path
from typing import cast

from exporter.errors import CheckError, UsageError
from exporter.formats import KINDS, kind_of, open_model, size_bytes
from exporter.formats.model import SharingModel
from exporter.jobs.output_file import check_output_file
from exporter.output.draft import new_file, new_folder
from exporter.output.files import sha256_of, write_text, writing
from exporter.output.folder import (
    BODY,
    CELL,
    INDEX,
    JOURNAL,
    MANIFEST,
    PAGE,
    REPORT,
    check_output_folder,
)
from exporter.output.manifest import check_manifest, outside_files, write_manifest
from exporter.output.sidecar import sidecar_path
from exporter.records import Report
from exporter.report.html import to_html, to_index_html
from exporter.report.markdown import to_markdown
from exporter.selection.text_file import LARGEST_RECORDS, read_text

_HINT = "give a model or a folder that was written with --share-body"


def unshare(source: Path, out: Path, *, force: bool = False) -> list[Path]:
    """Write a model, or all models of a folder, with all their constants.

    Args:
        source: an ONNX file; or a folder, of which all other files are copied.
        out: the file or the folder to write.
        force: replace an existing output.

    Returns:
        The models that were written.

    Raises:
        UsageError: no model refers to another file, or the source is in a folder to replace.
        ModelError: the body of a model is missing, or it is another one.
        CheckError: the folder is not as it was written.
        OutputError: the output exists or cannot be written.
    """
    if source.is_dir():
        return _unshare_folder(source, out, force=force)
    kind = kind_of(source)
    model = _opened(source) if KINDS[kind].shares else None
    if model is None or len(KINDS[kind].files_of(source)) == 1:
        raise UsageError(f"{source} contains all its constants", _HINT)
    check_output_file(out, kind, (), source, force=force)
    with new_file(out, force=force) as draft:
        draft.write(model.write_whole)
        if sidecar_path(source).is_file():
            draft.add_text(sidecar_path(out).name, read_text(sidecar_path(source)))
        draft.publish()
    return [out]


def _unshare_folder(source: Path, out: Path, *, force: bool) -> list[Path]:
    if (source / JOURNAL).exists():
        raise UsageError(f"{source} is the output of a batch", "give the folder of a model in it")
    if out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{out} is in {source}", "choose another place with -o")
    check_output_folder(out, force=force, inputs=(source,))
    if (source / MANIFEST).exists():
        found = check_manifest(source)
        if wrong := [*found.missing, *found.changed]:
            raise CheckError(
                f"{source}: {wrong[0]} is not as it was written",
                f"`exporter verify {source}` lists what differs from {MANIFEST}",
            )
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    models = [path for path in files if _has_body(path)]
    if not models:
        raise UsageError(f"no model in {source} has a body", _HINT)
    names = [path.relative_to(source) for path in models]
    with new_folder(out, force=force) as folder:
        for path in files:
            if path not in models and not (BODY.fullmatch(path.name) or path.name in _NOT_COPIED):
                target = folder / path.relative_to(source)
                with writing(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
        for path, name in zip(models, names, strict=True):
            with writing(folder / name):
                _opened(path).write_whole(folder / name)
        _update_reports(folder)
        _write_manifests(source, folder)
    return [out / name for name in names]


_NOT_COPIED = {MANIFEST, CELL}  # one is written again; the other states how a batch made a cell


def _opened(path: Path) -> SharingModel:
    return cast("SharingModel", open_model(path))


def _has_body(path: Path) -> bool:
    """Does a model refer to a body?"""
    if path.suffix.lower() not in KINDS["onnx"].suffixes:
        return False
    _opened(path)  # a damaged file is refused here
    return any(BODY.fullmatch(each.name) for each in KINDS["onnx"].files_of(path))


def _update_reports(folder: Path) -> None:
    """Let the reports state the sizes and hashes of the new files."""
    reports = {
        path.parent: Report.from_json(read_text(path, LARGEST_RECORDS))
        for path in folder.rglob(REPORT)
    }
    for place, report in reports.items():
        artifacts = []
        for each in report.artifacts:
            path = Path(normpath(place / each.path))
            artifacts.append(replace(each, bytes=size_bytes(path), sha256=sha256_of(path)))
        reports[place] = updated = replace(report, artifacts=tuple(artifacts))
        plots = bool(report.options.get("plots", True))
        texts = {REPORT: updated.to_json(), "report.md": to_markdown(updated)}
        _write(place, {**texts, PAGE: to_html(updated, plots=plots)})
    if (folder / INDEX).exists():
        variants = {place.name: report for place, report in sorted(reports.items())}
        _write(folder, {INDEX: to_index_html(variants)})


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        with writing(folder / name):
            write_text(folder / name, text)


def _write_manifests(source: Path, folder: Path) -> None:
    """Write the manifests that the source has, first in inner folders."""
    places = [path.parent.relative_to(source) for path in source.rglob(MANIFEST)]
    for place in sorted(places, key=lambda each: len(each.parts), reverse=True):
        outside: Iterable[str] = outside_files(source / place)
        write_manifest(folder / place, [each for each in outside if not BODY.fullmatch(each[3:])])
