"""The remap file next to a model file, `NAME.remap.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from exporter.errors import ModelError
from exporter.output.files import write_atomically
from exporter.remap import Remap


def sidecar_path(path: Path) -> Path:
    """Where the remap of a model file stands beside it."""
    return path.with_name(f"{path.name}.remap.json")


def read_sidecar(path: Path) -> Remap | None:
    """The remap beside a model file, or None where there is none."""
    return _read_remap(sidecar_path(path))


def _read_remap(beside: Path) -> Remap | None:
    try:
        return Remap.from_json(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ModelError, OSError, UnicodeDecodeError) as error:
        line = str(error).partition("\n")[0]
        raise ModelError(f"cannot read {beside}: {line}", "remove it, or mend it") from error


def write_with_remap(
    path: Path, write: Callable[[Path], None], remap: Remap, *, force: bool = False
) -> None:
    """Write a model file and its remap beside it; if one cannot be written, neither appears.

    Args:
        write: writes the model at the path it is given.
    """
    text = remap.to_json()

    def both(temporary: Path) -> None:
        write(temporary)
        write_atomically(sidecar_path(path), lambda file: write_text(file, text), force=force)

    write_atomically(path, both, force=force)


def write_text(path: Path, text: str) -> None:
    """UTF-8, with the line ends that the text has."""
    path.write_text(text, encoding="utf-8", newline="")
