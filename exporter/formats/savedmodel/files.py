"""The files of a SavedModel folder; imports no library."""

from __future__ import annotations

import hashlib
from pathlib import Path

from exporter.errors import ModelError, UsageError

GRAPH = "saved_model.pb"
_BESIDE = ("variables", "assets")


def check_folder(path: Path) -> None:
    """Check a folder before TensorFlow is let near it.

    Raises:
        UsageError: there is no such folder.
        ModelError: it holds no graph, or a link: what a link leads to lies elsewhere.
    """
    if not path.is_dir():
        raise UsageError(f"there is no folder {path}")
    for file in (path / GRAPH, *(path / name for name in _BESIDE), *_inner(path)):
        if file.is_symlink():
            raise ModelError(
                f"{path}: {file.relative_to(path)} is a link, and nothing outside of the folder "
                "is read",
                "copy the folder with what its links lead to",
            )
    if not (path / GRAPH).is_file():
        raise ModelError(f"{path} is a folder without a {GRAPH}", "a SavedModel holds one")
    if not (path / GRAPH).stat().st_size:
        raise ModelError(f"{path / GRAPH} is empty", "save or copy the model again")


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that hold the graph, the weights and what belongs to them."""
    return (path / GRAPH, *(file for file in _inner(path) if file.is_file()))


def sha256_of(path: Path) -> str:
    """Of the names and the contents of these files, in hex."""
    whole = hashlib.sha256()
    for file in files_of(path):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        whole.update(f"{digest}  {file.relative_to(path).as_posix()}\n".encode())
    return whole.hexdigest()


def _inner(path: Path) -> list[Path]:
    return sorted(file for name in _BESIDE for file in (path / name).rglob("*"))
