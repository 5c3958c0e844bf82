"""Other forms of a model file, written next to it: C source and header for firmware."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.remap import Remap


def sources(content: Path, name: str, forms: Iterable[str], remap: Remap | None) -> dict[str, str]:
    """The texts of the other forms of a model file, by file name.

    Args:
        content: a file with the bytes of the model, possibly a temporary one.
        name: the final name of the model file, which gives the names of the forms.
        forms: keys of FORMS that exist for the kind of the model.

    Raises:
        ModelError: the form cannot represent the model.
    """
    texts: dict[str, str] = {}
    for form in forms:
        module = import_module(FORMS[form].module)
        texts |= module.sources(content.read_bytes(), name, remap)
    return texts


@dataclass(frozen=True)
class Form:
    """Another form of a model file.

    Attributes:
        help: one line for the command line.
        kind: of the model files that have this form, key of KINDS.
        module: contains `names(file_name)`, the names of the files of this form, and
            `sources(content, file_name, remap)`, which returns their texts by name.
    """

    help: str
    kind: str
    module: str


FORMS: Mapping[str, Form] = {
    "c-array": Form(
        "C source and header of the .tflite file", "tflite", "exporter.formats.tflite.c_array"
    )
}
