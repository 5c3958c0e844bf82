"""A model file with its sidecar `NAME.remap.json`, which contains its remap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from exporter.errors import ModelError
from exporter.output.c_source import write_forms
from exporter.output.files import write_atomically, write_text
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


def write_artifact(
    path: Path,
    write: Callable[[Path], object],
    remap: Remap | None,
    forms: Iterable[str] = (),
    *,
    force: bool = False,
) -> None:
    """Write a model file, its other forms, and its remap in a sidecar.

    Args:
        write: writes the model at the path that it is given.
        remap: None if nothing was cut; then there is no sidecar.
        forms: keys of FORMS.
        force: replace existing files.

    Raises:
        OutputError: a file exists or cannot be written.
    """

    def write_all(temporary: Path) -> None:
        write(temporary)
        write_forms(temporary, path, forms, remap, force=force)
        if remap is not None:
            text = remap.to_json()
            write_atomically(sidecar_path(path), lambda file: write_text(file, text), force=force)

    write_atomically(path, write_all, force=force)
