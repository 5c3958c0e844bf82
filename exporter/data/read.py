"""Read the users' data: the form of `--data`, and the reader of each form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from exporter.data.arrays import read_arrays
from exporter.data.audio import SUFFIXES as SOUNDS
from exporter.data.audio import read_audio
from exporter.data.images import SUFFIXES as IMAGES
from exporter.data.images import read_images
from exporter.data.inputs import with_lengths
from exporter.data.options import DataOptions
from exporter.data.samples import Samples, check_count, fill_fixed_batches
from exporter.data.tables import read_table
from exporter.data.text import read_text_file
from exporter.errors import UsageError, refuse_pointer
from exporter.graph import Graph
from exporter.selection.text_file import refuse_special


class Form(NamedTuple):
    """One form of data.

    Attributes:
        title: in messages.
        suffixes: of its files.
        is_folder: a folder of such files is data too.
        options: the options that it reads.
    """

    title: str
    suffixes: tuple[str, ...]
    is_folder: bool
    options: frozenset[str]
    read: Callable[[Path, Graph, int | None, DataOptions], Samples]


def read_samples(
    path: Path, graph: Graph, limit: int | None = None, options: DataOptions | None = None
) -> Samples:
    """Read the user's inputs.

    Args:
        path: see `FORMS`; docs/data.md describes each form.
        limit: read only this many samples.
        options: those that the form does not read are refused.

    Raises:
        UsageError: the data is missing, damaged or empty, or does not fit the model; see the
            reader of each form.
    """
    check_count(limit)
    refuse_special(path)
    options = options or DataOptions()
    if path.is_file():
        with path.open("rb") as file:
            refuse_pointer(path, file.read(64))
    form = FORMS[form_of(path)]
    if unused := [name for name in options.given() if name not in form.options]:
        able = " or ".join(each.title for each in FORMS.values() if unused[0] in each.options)
        raise UsageError(
            f"{unused[0]} is for {able}, and {path} is {form.title}", f"leave {unused[0]} out"
        )
    closed = with_lengths(graph, options.lengths)
    return fill_fixed_batches(form.read(path, closed, limit, options), closed)


def form_of(path: Path) -> str:
    """The name of the form of data, by the suffix; of a folder, by the files in it.

    Raises:
        UsageError: there is no such file, or a folder has files of none or of several forms.
    """
    if not path.is_dir():
        suffix = path.suffix.lower()
        return next((name for name, each in FORMS.items() if suffix in each.suffixes), "arrays")
    suffixes = {file.suffix.lower() for file in path.rglob("*") if not file.name.startswith(".")}
    folders = {name: each for name, each in FORMS.items() if each.is_folder}
    found = [name for name, each in folders.items() if suffixes & set(each.suffixes)]
    if len(found) == 1:
        return found[0]
    able = ", ".join(suffix for each in folders.values() for suffix in each.suffixes)
    if found:
        raise UsageError(
            f"{path} contains {' and '.join(folders[name].title for name in found)}",
            "give a folder with one kind of files",
        )
    raise UsageError(f"{path} contains no data", f"a folder has files that end in {able}")


FORMS: Mapping[str, Form] = {
    "images": Form(
        "images", IMAGES, True, frozenset({"--normalize", "--resize", "--skip-bad"}), read_images
    ),
    "sound": Form(
        "WAV files", SOUNDS, True, frozenset({"--sample-rate", "--skip-bad"}), read_audio
    ),
    "table": Form(
        "a table", (".csv", ".parquet", ".tsv"), False, frozenset({"--label-column"}), read_table
    ),
    "text": Form("a text file", (".txt",), False, frozenset({"--tokenizer"}), read_text_file),
    "arrays": Form(
        "an array file", (".npz", ".npy"), False, frozenset({"--normalize"}), read_arrays
    ),
}
