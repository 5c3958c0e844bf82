"""TFLite files: read and written through the schema, run by LiteRT. TensorFlow is not imported."""

from __future__ import annotations

from pathlib import Path

from exporter.errors import ModelError, UsageError
from exporter.formats.tflite.model import TfliteModel
from exporter.formats.tflite.schema import check_size

__all__ = ["TfliteModel", "files_of", "from_bytes", "open_file"]


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
    """A TFLite file holds all of its weights."""
    return (path,)


def from_bytes(content: bytes, name: str) -> TfliteModel:
    """Open the content of a TFLite file that is in memory (raises as `open_file` does).

    Args:
        content: the whole file; kept, never changed.
        name: what messages and the remap call it.
    """
    if not content:
        raise ModelError(f"{name} is empty")
    return TfliteModel(content, name)
