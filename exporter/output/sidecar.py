"""The remap file next to a model file: `NAME.remap.json`."""

from __future__ import annotations

from pathlib import Path

from exporter.errors import ModelError
from exporter.remap import Remap


def sidecar_path(path: Path) -> Path:
    """The path of the remap file that belongs to a model file."""
    return path.with_name(f"{path.name}.remap.json")


def read_sidecar(path: Path) -> Remap | None:
    """The remap in the sidecar of a model file; None if there is no sidecar."""
    return read_remap(sidecar_path(path))


def read_remap(path: Path) -> Remap | None:
    """The remap in a JSON file; None if there is no such file.

    Raises:
        ModelError: the file cannot be read, or does not contain a remap.
    """
    try:
        return Remap.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ModelError, OSError, UnicodeDecodeError) as error:
        line = str(error).partition("\n")[0]
        raise ModelError(f"cannot read {path}: {line}", "remove or repair it") from error
