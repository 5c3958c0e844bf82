"""The files of a SavedModel folder; imports no library."""

from __future__ import annotations

import hashlib
from pathlib import Path

from exporter.errors import ModelError, UsageError, refuse_pointer
from exporter.selection.text_file import refuse_special

GRAPH = "saved_model.pb"
_FOLDERS = ("variables", "assets")


def check_folder(path: Path) -> None:
    """Check a folder before TensorFlow loads it.

    Raises:
        UsageError: there is no such folder.
        ModelError: it has no graph, or contains a link, which could lead out of it.
    """
    if not path.is_dir():
        raise UsageError(f"there is no folder {path}")
    for file in (path / GRAPH, *(path / name for name in _FOLDERS), *_files_in_folders(path)):
        if file.is_symlink():
            raise ModelError(
                f"{path}: {file.relative_to(path)} is a link, and nothing outside of the folder "
                "is read",
                "copy the folder with the targets of its links",
            )
        refuse_special(file, "copy the folder without it")
    if not (path / GRAPH).is_file():
        raise ModelError(f"{path} is a folder without a {GRAPH}", "a SavedModel contains one")
    if not (path / GRAPH).stat().st_size:
        raise ModelError(f"{path / GRAPH} is empty", "save or copy the model again")
    for file in files_of(path):
        with file.open("rb") as content:
            refuse_pointer(file, content.read(64))


def files_of(path: Path) -> tuple[Path, ...]:
    """The files with the graph, the weights and the assets."""
    return (path / GRAPH, *(file for file in _files_in_folders(path) if file.is_file()))


def sha256_of(path: Path) -> str:
    """Hash of the names and contents of all files, in hex."""
    total = hashlib.sha256()
    for file in files_of(path):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{digest}  {file.relative_to(path).as_posix()}\n".encode())
    return total.hexdigest()


def _files_in_folders(path: Path) -> list[Path]:
    return sorted(file for name in _FOLDERS for file in (path / name).rglob("*"))
