"""The kinds of model: each draws itself as a neutral graph, applies plans, runs, and is written.

A kind is one row of `KINDS` and one package; the package is imported when a file of its kind is
opened, so that nothing heavy loads for the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import ModelError, UsageError

if TYPE_CHECKING:
    from exporter.formats.model import Model


@dataclass(frozen=True)
class Kind:
    """One kind of model file.

    Attributes:
        title: what people call it.
        suffixes: of its files; the first is the one that is written. None: it is a folder, and
            none is written.
        package: holds `open_file(path) -> Model`, and `files_of(path)`: all files that hold a part
            of a model.
        matches: do a file's first bytes say that it is of this kind?
        edge: it runs in an edge runtime (is benched; what Keras models are converted to).
        member: the file in a folder by which it is known to be of this kind; "" for files.
        containers: suffix -> the first bytes of a file that is rightly called so, of a kind whose
            files differ in that.
    """

    title: str
    suffixes: tuple[str, ...]
    package: str
    matches: Callable[[bytes], bool]
    edge: bool
    member: str = ""
    containers: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def written(self) -> bool:
        """Can models be written as this kind?"""
        return bool(self.suffixes)


def open_model(path: str | Path) -> Model:
    """Open a model file, whatever its suffix says; the kind is told by its content.

    A Keras file is opened in this process: TensorFlow is imported, and a damaged file can take the
    process down with it. The command line opens Keras files in a child process instead.

    Raises:
        UsageError: there is no such file.
        ModelError: empty, truncated, damaged, or of no kind that is known.
    """
    path = Path(path)
    package = import_module(KINDS[kind_of(path)].package)
    model: Model = package.open_file(path)
    return model


def size_bytes(path: Path) -> int:
    """Of a model that can be opened: all the files that hold a part of it."""
    package = import_module(KINDS[kind_of(path)].package)
    return sum(file.stat().st_size for file in package.files_of(path))


def copy_model(source: Path, target: Path) -> None:
    """Copy a model file that can be opened, and into the target's folder the files beside it."""
    package = import_module(KINDS[kind_of(source)].package)
    for file in package.files_of(source):
        beside = target.parent / file.relative_to(source.parent)
        if file != source and not beside.exists():
            beside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, beside)
    shutil.copyfile(source, target)


def suffixes_of(path: Path) -> tuple[str, ...]:
    """What the name of a copy of a model file may end with (raises as `open_model` does)."""
    kind = KINDS[kind_of(path)]
    if not kind.containers:
        return kind.suffixes
    start = _first_bytes(path)
    return tuple(s for s in kind.suffixes if start.startswith(kind.containers[s]))


def kind_of(path: Path) -> str:
    """The kind of a file by its first bytes (raises as `open_model` does)."""
    if path.is_dir():
        return _kind_of_folder(path)
    for kind in KINDS.values():
        if path.name == kind.member:
            raise UsageError(f"{path} is a part of a {kind.title}", "name the folder that holds it")
    start = _first_bytes(path)
    if not start:
        raise ModelError(f"{path} is empty", "save or copy the model again")
    for name, kind in KINDS.items():
        if kind.matches(start):
            return name
    titles = ", ".join(kind.title for kind in KINDS.values() if kind.suffixes)
    suffixes = ", ".join(suffix for kind in KINDS.values() for suffix in kind.suffixes)
    raise ModelError(
        f"{path} is not a model file of a known kind ({titles})", f"models are {suffixes} files"
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no file {path}", "check the path; it starts where you are"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _kind_of_folder(path: Path) -> str:
    members = {kind.member: name for name, kind in KINDS.items() if kind.member}
    for member, name in members.items():
        if (path / member).is_file():
            return name
    raise UsageError(
        f"{path} is a folder without a {' or '.join(members)}",
        "name a model file, or a SavedModel folder",
    )


def kind_of_suffix(path: Path) -> str | None:
    """The kind that a file name promises, or None."""
    suffix = path.suffix.lower()
    return next((name for name, kind in KINDS.items() if suffix in kind.suffixes), None)


def _is_flatbuffer(start: bytes) -> bool:
    return start[4:8] == b"TFL3"


_ARCHIVE, _HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"


def _is_archive_or_hdf5(start: bytes) -> bool:
    return start.startswith((_ARCHIVE, _HDF5))


def _is_never_a_file(_start: bytes) -> bool:
    return False


def _is_protobuf(start: bytes) -> bool:
    """Protobuf has no magic; writers put the IR version, field 1 and a small number, first."""
    return start.startswith(b"\x08") and len(start) > 1 and 0 < start[1] < _NEWEST_IR_VERSION


_NEWEST_IR_VERSION = 0x40  # generous: 13 in 2026

KINDS: Mapping[str, Kind] = {
    "keras": Kind(
        "Keras",
        (".keras", ".h5", ".hdf5"),
        "exporter.formats.keras",
        _is_archive_or_hdf5,
        edge=False,
        containers={".keras": _ARCHIVE, ".h5": _HDF5, ".hdf5": _HDF5},
    ),
    "savedmodel": Kind(
        "SavedModel",
        (),
        "exporter.formats.savedmodel",
        _is_never_a_file,
        edge=False,
        member="saved_model.pb",
    ),
    "onnx": Kind("ONNX", (".onnx",), "exporter.formats.onnx", _is_protobuf, edge=True),
    "tflite": Kind("TFLite", (".tflite",), "exporter.formats.tflite", _is_flatbuffer, edge=True),
}
