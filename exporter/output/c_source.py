"""Other forms of an artifact, written beside it: C source and header for firmware."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.output.files import write_atomically

if TYPE_CHECKING:
    from exporter.remap import Remap


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
            write_atomically(path.with_name(name), partial(_write, text=text), force=force)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")


@dataclass(frozen=True)
class Form:
    """Another form of a model file, which is written beside it.

    Attributes:
        kind: key of KINDS; of the files that have it.
        module: holds `names(file_name)`, the names of the files that it is made of, and
            `sources(content, file_name, remap)`, which gives their texts by name.
    """

    kind: str
    module: str


FORMS: Mapping[str, Form] = {"c-array": Form("tflite", "exporter.formats.tflite.c_array")}
