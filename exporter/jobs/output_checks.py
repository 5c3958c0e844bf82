"""Refuse an output that cannot be written, before any work is done."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from exporter.errors import OutputError, UsageError
from exporter.formats import KINDS, kind_of_suffix
from exporter.output.c_source import FORMS
from exporter.output.sidecar import sidecar_path


def check_forms(path: Path, kind: str, forms: Iterable[str], *, force: bool) -> None:
    """Refuse forms that could not be written, before any work is done.

    Args:
        path: of the artifact.
        kind: of the artifact, key of KINDS.
        forms: keys of FORMS.
        force: replace files that stand in their place.

    Raises:
        UsageError: files of that kind have no such form.
        OutputError: a file of theirs exists.
    """
    for form in forms:
        wanted = FORMS[form].kind
        if kind != wanted:
            raise UsageError(
                f"there is no {form} of a model of the kind {KINDS[kind].title}",
                f"start from the {KINDS[wanted].title} file, or from the Keras model",
            )
        for name in import_module(FORMS[form].module).names(path.name):
            if path.with_name(name).exists() and not force:
                raise OutputError(f"{path.with_name(name)} exists", "use --force to replace it")


def check_output(path: Path, kind: str, *, force: bool = False) -> None:
    """Refuse an output before any work is done.

    Raises:
        UsageError: the suffix is of another kind.
        OutputError: the file, or the remap beside it, exists; or there is no such folder.
    """
    if not KINDS[kind].written:
        raise UsageError(
            f"a {KINDS[kind].title} is not cut as it stands, and none is written",
            "`exporter run` converts it, and cuts what comes out",
        )
    if kind_of_suffix(path) != kind:
        wanted = KINDS[kind].suffixes[0]
        raise UsageError(
            f"the output {path.name} does not end in {wanted}",
            f"use -o NAME{wanted}; `exporter run` and `convert` write other kinds, and "
            "--to c-array C files beside a .tflite",
        )
    for target in (path, sidecar_path(path)):
        if target.exists() and not force:
            raise OutputError(f"{target} exists", "use --force to replace it")
    if not path.parent.is_dir():
        fact = "is not a folder" if path.parent.exists() else "does not exist"
        raise OutputError(f"the folder {path.parent} {fact}", "create it, or choose another")


def refuse_input(source: Path, out: Path) -> None:
    """An input is never changed: not even --force replaces it (UsageError)."""
    if out.exists() and source.exists() and out.samefile(source):
        raise UsageError(f"the output {out} is the model itself", "choose another name with -o")
