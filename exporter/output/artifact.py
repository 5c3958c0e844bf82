"""Write a model file with everything that belongs to it: all files appear, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from exporter.output.c_source import write_forms
from exporter.output.files import write_atomically, write_text
from exporter.output.sidecar import sidecar_path
from exporter.remap import Remap


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
