"""Other forms of an artifact, written beside it: C source and header for firmware."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from importlib import import_module
from pathlib import Path

from exporter.errors import OutputError, UsageError
from exporter.models import FORMS, KINDS
from exporter.models.files import write_whole
from exporter.remap import Remap


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


def write_forms(
    written: Path, path: Path, forms: Iterable[str], remap: Remap | None, *, force: bool = False
) -> None:
    """Write an artifact's other forms beside the place that it gets.

    Args:
        written: where its bytes stand by now.
        path: the place.
        forms: keys of FORMS, of the artifact's kind.
        remap: of the artifact.

    Raises:
        ModelError: the form cannot hold what the model carries.
        OutputError: a file cannot be written.
    """
    for form in forms:
        module = import_module(FORMS[form].module)
        texts = module.sources(written.read_bytes(), path.name, remap)
        for name, text in texts.items():
            write_whole(path.with_name(name), partial(_write, text=text), force=force)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
