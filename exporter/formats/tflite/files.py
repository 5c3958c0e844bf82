"""Open TFLite files, from a path or from bytes."""

from __future__ import annotations

from pathlib import Path

from exporter.errors import ModelError, UsageError
from exporter.formats.tflite.model import TfliteModel
from exporter.formats.tflite.schema import check_size


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
    model = TfliteModel(content, name)
    model.read()
    return model
