"""The key of a cell: a hash of everything that its result follows from.

A cell whose folder states the same key, and whose files are as they were written, is finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from exporter.batches.plan import Cell
from exporter.errors import UsageError
from exporter.formats import KINDS, kind_of
from exporter.jobs.job import Job
from exporter.jobs.source import default_kinds
from exporter.output.files import sha256_of_source
from exporter.output.sidecar import sidecar_path
from exporter.planning.command_line import option_values
from exporter.planning.option import options_of
from exporter.planning.options import CutOptions
from exporter.quantization import PRECISIONS
from exporter.report.machine import versions
from exporter.selection.nearby_labels import candidates

# Options that change how a result is made, and not the result.
WITHOUT_EFFECT = {"force", "timeout_s", "memory_limit_bytes"}
_REFERENCE = re.compile(r"""(?:^|,)\s*@(?:'([^']*)'|"([^"]*)"|([^,]*))""")  # @FILE in a SPEC
# Files that are read if they are next to a model or its data.
_NEIGHBORS = (
    *("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    *("config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt"),
)
_NEIGHBOR_SUFFIX = ".model"  # of SentencePiece
_PATHS = {
    each.name
    for record in (CutOptions, Job)
    for each in options_of(record, "run")
    if each.parse == "path"
}
_SPECS = {
    each.name for each in options_of(CutOptions, "run") if "SPEC" in str(each.metavar)
} - _PATHS


@dataclass(frozen=True)
class Key:
    """What the result of a cell follows from.

    Attributes:
        digest: of all of it, in hex.
        files: path as the plan names it -> SHA-256 of the file or the folder.
        versions: of the libraries that the cell uses.
        options: every option with its value.
        kind, kinds: of the model, and of the files that are written.
    """

    digest: str
    files: Mapping[str, str]
    versions: Mapping[str, str]
    options: Mapping[str, Any]
    kind: str
    kinds: tuple[str, ...]


class Keys:
    """Makes the keys of a plan. A file that several cells read is read once."""

    def __init__(self, folder: Path) -> None:
        """Set the folder that paths are relative to."""
        self._folder = folder
        self._digest = cache(digest_of)
        self._files_of_model = cache(self._read_model)

    def of(self, cell: Cell) -> Key:
        """The key of a cell.

        Raises:
            UsageError: a file cannot be read.
            ModelError: the model is of no known kind.
        """
        cut, job = cell.records()
        options = option_values("run", cut, job)
        kind, near = self._files_of_model(cell.path)
        kinds = job.kinds or default_kinds(kind)
        paths = dict.fromkeys((cell.path, *near, *_paths(options, self._folder)))
        files = {path: self._digest(self._folder / path) for path in paths}
        used = {name: each for name, each in options.items() if name not in WITHOUT_EFFECT}
        needed = versions_of((kind, *kinds), job.precisions)
        content = {"model": cell.path, "files": files, "versions": needed, "options": used}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return Key(digest, files, needed, options, kind, kinds)

    def _read_model(self, path: str) -> tuple[str, tuple[str, ...]]:
        """The kind of a model, and further files of it."""
        source = self._folder / path
        return kind_of(source), tuple(_neighbors(source, self._folder))


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, or of the names and hashes of all files in a folder.

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    try:
        if not path.is_dir():
            return sha256_of_source(path)
        found = sorted(each for each in path.rglob("*") if each.is_file())
        lines = (f"{sha256_of_source(each)}  {each.relative_to(path).as_posix()}" for each in found)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "check the path") from error


def versions_of(kinds: Iterable[str], precisions: Iterable[str]) -> dict[str, str]:
    """Library -> version, of those that cells with these kinds and precisions use."""
    libraries = {"python", "unit-exporter", "numpy"}
    for kind in kinds:
        libraries.update(KINDS[kind].libraries)
    for name in precisions:
        libraries.update(each.library for each in PRECISIONS[name].quantizers.values())
    return {name: version for name, version in all_versions().items() if name in libraries}


@cache
def all_versions() -> Mapping[str, str]:
    """Library -> version, of all that exporter uses."""
    return versions()


def _neighbors(source: Path, folder: Path) -> Iterator[str]:
    """Further files of a model, and files next to it that are read too."""
    own = KINDS[kind_of(source)].files_of(source) if source.is_file() else ()
    near = [sidecar_path(source), *(source.with_name(name) for name in _NEIGHBORS)]
    if source.name.startswith("pruned."):
        near.append(source.with_name("remap.json"))
    near += [*sorted(source.parent.glob(f"*{_NEIGHBOR_SUFFIX}")), *candidates(source)]
    for path in (*own, *(each for each in near if each.is_file())):
        if path != source:
            yield os.path.relpath(path, folder)


def _paths(options: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The files that options name."""
    for name, value in options.items():
        if name in _PATHS and isinstance(value, str):
            yield value
            near = (folder / value).parent
            yield from (os.path.relpath(near / each, folder) for each in _outside(near))
        elif name in _SPECS:
            specs = value.values() if isinstance(value, Mapping) else [value]
            for spec in specs:
                yield from _references(spec)


def _outside(folder: Path) -> Iterator[str]:
    """Tokenizers next to data."""
    yield from (name for name in _NEIGHBORS if (folder / name).is_file())
    yield from sorted(path.name for path in folder.glob(f"*{_NEIGHBOR_SUFFIX}"))


def _references(spec: Any) -> Iterator[str]:
    if isinstance(spec, str):
        yield from (next(filter(None, found), "") for found in _REFERENCE.findall(spec))
    elif isinstance(spec, list | tuple):
        yield from (each[1:] for each in spec if isinstance(each, str) and each.startswith("@"))
