"""Open TFLite files, from a path or from bytes."""

from __future__ import annotations

from copy import copy
from pathlib import Path

from exporter.errors import ModelError, UsageError
from exporter.formats.tflite.model import TfliteModel
from exporter.formats.tflite.schema import check_size

_KEPT_BYTES = 16 << 20
_KEPT_OBJECTS = 1 << 16  # each takes about half a kB of memory
_last: list[TfliteModel] = []  # the file that was read last, if it is at most that large


def open_file(path: Path) -> TfliteModel:
    """Open a TFLite file; its content is checked, its suffix is not.

    Raises:
        UsageError: the file cannot be read.
        ModelError: empty, truncated, damaged, or another kind of file.
    """
    try:
        check_size(path.stat().st_size, path.name)  # before so much is read
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    return from_bytes(content, path.name)


def files_of(path: Path) -> tuple[Path, ...]:
    """All files of a model: a TFLite file contains all of its weights."""
    return (path,)


def from_bytes(content: bytes, name: str) -> TfliteModel:
    """Open the content of a TFLite file (raises as `open_file` does).

    Args:
        content: the whole file; kept, never changed.
        name: the model's name in messages and in the remap.
    """
    if not content:
        raise ModelError(f"{name} is empty")
    for known in _last:  # a loop over selections opens one file again and again
        if known.name == name and known.content == content:
            return copy(known)
    model = TfliteModel(content, name)
    model.read()
    if len(content) <= _KEPT_BYTES and len(model.layout.starts) <= _KEPT_OBJECTS:
        _last[:] = [copy(model)]
    return model
