"""The manifest of a result folder: SHA256SUMS, which `sha256sum -c` reads too.

It is the last file that a run writes: a folder without it is not complete.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import CheckError
from exporter.output.files import sha256_of, write_text
from exporter.output.folder import JOURNAL, MANIFEST, OUTSIDE
from exporter.output.place import is_place
from exporter.selection.text_file import refuse_special

_LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}  # of sha256sum, in lines that start with \


@dataclass(frozen=True)
class ManifestCheck:
    """The files of a folder compared with its manifest.

    Attributes:
        matching: files with the SHA-256 of the manifest.
        missing, changed: files of the manifest.
        extra: files that are not in the manifest.
    """

    matching: tuple[str, ...]
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not (self.missing or self.changed or self.extra)


def write_manifest(folder: Path, outside: Iterable[str] = ()) -> None:
    """Write the SHA-256 of every file in a folder, in the order of their names.

    A folder in it that has a manifest is not read again.

    Args:
        outside: further files, next to the folder: "../NAME".
    """
    names, known = sorted({*_files(folder), *outside}), dict[str, str]()
    for name in names:
        if name.endswith(f"/{MANIFEST}"):
            part = name.removesuffix(MANIFEST)
            with suppress(CheckError):  # damaged: its files are read
                inner = _read(folder / part).items()
                known |= {posixpath.normpath(part + each): digest for each, digest in inner}
    lines = (_line(known.get(name) or sha256_of(folder / name), name) for name in names)
    write_text(folder / MANIFEST, "".join(lines))


def check_manifest(folder: Path) -> ManifestCheck:
    """Compare the files of a folder with its manifest.

    Raises:
        CheckError: the folder is an unfinished result, or has no manifest that can be read.
        OSError: a file cannot be read.
    """
    expected = _read(folder)
    found = {*_files(folder), *(name for name in _outside(expected) if (folder / name).is_file())}
    present = sorted(expected.keys() & found)
    matching = tuple(name for name in present if sha256_of(folder / name) == expected[name])
    return ManifestCheck(
        matching,
        missing=tuple(sorted(expected.keys() - found)),
        changed=tuple(name for name in present if name not in matching),
        extra=tuple(sorted(found - expected.keys())),
    )


def outside_files(folder: Path) -> list[str]:
    """The files next to a folder that its manifest lists; none without one that can be read."""
    try:
        return _outside(_read(folder))
    except (CheckError, OSError):
        return []


def _outside(names: Iterable[str]) -> list[str]:
    """Names of files next to a folder. Others that lead out of it are missing in any case."""
    return [n for n in names if n.startswith(OUTSIDE) and "/" not in n.removeprefix(OUTSIDE)]


def _files(folder: Path) -> list[str]:
    """The paths of all files in a folder, relative to it, without its manifest and its journal."""
    paths = (path for path in folder.rglob("*") if not path.is_dir())
    return sorted({path.relative_to(folder).as_posix() for path in paths} - {MANIFEST, JOURNAL})


def _line(digest: str, name: str) -> str:
    escaped = "".join(_ESCAPES.get(character, character) for character in name)
    mark = "" if escaped == name else "\\"
    return f"{mark}{digest}  {escaped}\n"


def _read(folder: Path) -> dict[str, str]:
    """File -> SHA-256."""
    hint = "run the job again, or copy the folder again"
    if any(map(is_place, (folder.resolve(), *folder.resolve().parents))):
        raise CheckError(f"{folder} is the unfinished result of an interrupted run", hint)
    try:
        refuse_special(folder / MANIFEST)
        text = (folder / MANIFEST).read_text("utf-8")
    except FileNotFoundError as error:
        raise CheckError(
            f"{folder} has no {MANIFEST}, the last file of a run: it was interrupted while it was "
            "written or copied, or an older version wrote it",
            hint,
        ) from error
    except UnicodeDecodeError as error:
        raise CheckError(f"{folder / MANIFEST} is damaged", hint) from error
    lines = [_LINE.fullmatch(line) for line in text.split("\n")[:-1]]
    if not text.endswith("\n") or None in lines:
        raise CheckError(f"{folder / MANIFEST} is damaged or incomplete", hint)
    return {_unescaped(line[3]) if line[1] else line[3]: line[2] for line in lines if line}


def _unescaped(name: str) -> str:
    back = {escape: character for character, escape in _ESCAPES.items()}
    return re.sub(r"\\.", lambda found: back.get(found[0], found[0]), name)
