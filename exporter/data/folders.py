"""The files of a folder, with their labels: the names of the sub-folders, or labels.csv."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from exporter.errors import UsageError
from exporter.selection.text_file import LARGEST_RECORDS, read_text, refuse_special

LABEL_FILE = "labels.csv"


@dataclass(frozen=True)
class FileSet:
    """Files below a folder, in the order of their paths; or one file.

    Attributes:
        root: the folder, or the file.
        hashes: SHA-256 in hex of the files that were read so far.
    """

    root: Path
    paths: tuple[Path, ...]
    hashes: dict[Path, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def outside(self) -> tuple[Path, ...]:
        """The files that are in no sub-folder."""
        return tuple(path for path in self.paths if path.parent == self.root)

    def without(self, bad: Iterable[Path]) -> FileSet:
        """The set without these files."""
        left_out = set(bad)
        return FileSet(self.root, tuple(p for p in self.paths if p not in left_out), self.hashes)

    def read(self, path: Path) -> bytes:
        """The content of a file; its hash is kept, so that no report reads the files again."""
        content = path.read_bytes()
        if path not in self.hashes:
            self.hashes[path] = hashlib.sha256(content).hexdigest()
        return content

    def names(self, paths: Iterable[Path]) -> list[str]:
        """The paths below the root; of one file its name."""
        root = self.root.parent if self.root.is_file() else self.root
        return [path.relative_to(root).as_posix() for path in paths]

    def labels(self) -> tuple[str | tuple[str, ...], ...] | None:
        """One label per file; None if neither sub-folders nor labels.csv give any.

        A column `labels` in labels.csv gives any number of labels per file.

        Raises:
            UsageError: labels.csv is damaged, or has no row for a file.
        """
        if self.root.is_file():
            return None
        table = self.root / LABEL_FILE
        if table.is_file():
            named = _read_labels(table)
            files = self.names(self.paths)
            missing = [file for file in files if file not in named]
            if missing:
                raise UsageError(
                    f"{table} has no row for {missing[0]}", "add one, with the path in the folder"
                )
            return tuple(named[file] for file in files)
        if self.outside:
            return None
        return tuple(path.relative_to(self.root).parts[0] for path in self.paths)

    def label_warning(self) -> str:
        """A sentence if some files, but not all, are in sub-folders; else ""."""
        if not self.outside or len(self.outside) == len(self.paths):
            return ""
        name = self.outside[0].name
        return f"{name} is in no sub-folder, so the sub-folders are not used as labels"


def files_below(root: Path, suffixes: Iterable[str]) -> FileSet:
    """The files with these suffixes; hidden ones are ignored, links to folders not followed."""
    if root.is_file():
        return FileSet(root, (root,))
    wanted = frozenset(suffixes)
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in wanted
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    for path in found:
        refuse_special(path, "remove it from the folder")
    return FileSet(root, tuple(found))


def refuse_bad(files: FileSet, bad: Iterable[Path], *, skip: bool) -> FileSet:
    """The files that can be decoded.

    Args:
        skip: leave bad files out; else they are an error.

    Raises:
        UsageError: a file cannot be decoded, or with `skip` none can.
    """
    found = list(bad)
    if found and not skip:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UsageError(f"{found[0]} cannot be decoded{more}", "remove it, or give --skip-bad")
    good = files.without(found)
    if not good.paths:
        raise UsageError(
            f"none of the {len(found)} files in {files.root} can be decoded",
            "check the files with another program",
        )
    return good


def skipped_warning(files: FileSet, good: FileSet, kind: str) -> str:
    """How many files were left out; "" if none was.

    Args:
        kind: of one file, such as "image".
    """
    count = len(files.paths) - len(good.paths)
    if not count:
        return ""
    are = f"{kind}s of {files.name} cannot be decoded and were"
    shown = are if count > 1 else f"{kind} of {files.name} cannot be decoded and was"
    return f"{count} {shown} left out"


def _read_labels(path: Path) -> dict[str, str | tuple[str, ...]]:
    """File, relative to the folder -> label; or labels, separated by semicolons."""
    try:
        rows = list(csv.DictReader(StringIO(read_text(path, LARGEST_RECORDS)), restval=""))
    except csv.Error as error:
        raise UsageError(f"{path} is not valid CSV: {error}", "check its quotes") from error
    columns = rows[0].keys() if rows else set[str]()
    if "file" not in columns or ("label" in columns) == ("labels" in columns):
        raise UsageError(
            f"{path} has no columns file and label",
            "write a header: file,label; or file,labels for any number of labels per file",
        )
    labels: dict[str, str | tuple[str, ...]] = {}
    for row in rows:
        file = row["file"].strip()
        label: str | tuple[str, ...] = (
            row["label"].strip() if "label" in columns else _several(row["labels"])
        )
        if label == "":
            raise UsageError(f"{path} has no label for {file!r}", "write one in each row")
        if labels.setdefault(file, label) != label:
            raise UsageError(
                f"{path} has two labels for {file!r}: {labels[file]!r} and {label!r}",
                "remove one of the rows",
            )
    return labels


def _several(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(";"))))
