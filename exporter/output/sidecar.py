"""A model file with its sidecar `NAME.remap.json`, which contains its remap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import ModelError, UsageError
from exporter.output.c_source import sources
from exporter.remap import Remap
from exporter.selection.text_file import read_text

if TYPE_CHECKING:
    from exporter.output.draft import Draft


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
        path.lstat()
    except OSError:
        return None
    try:
        return Remap.from_json(read_text(path))
    except (ModelError, UsageError) as error:
        raise ModelError(f"cannot read {path}: {error.message}", "remove or repair it") from error


def write_artifact(
    draft: Draft,
    write: Callable[[Path], object],
    remap: Remap | None,
    forms: Iterable[str] = (),
) -> None:
    """Prepare a model file, its other forms, and its remap in a sidecar.

    Args:
        write: writes the model at the path that it is given.
        remap: None if nothing was cut; then there is no sidecar.
        forms: keys of FORMS.

    Raises:
        OutputError: a file cannot be written.
    """
    draft.write(write)
    for name, text in sources(draft.path, draft.path.name, forms, remap).items():
        draft.add_text(name, text)
    if remap is not None:
        draft.add_text(sidecar_path(draft.path).name, remap.to_json())
