"""The models and selections of a plan: names, globs, lists of files, and tables in CSV."""

from __future__ import annotations

import csv
import glob
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import UsageError
from exporter.jobs.job import Job
from exporter.planning.option_values import options_by_key, read_options
from exporter.planning.options import CutOptions
from exporter.selection.text_file import read_text, text_lines
from exporter.storage.urls import local_path, scheme_of, with_local_references

KNOWN = options_by_key("run", CutOptions, Job)
UNIT_COLUMNS = ("unit", "units", "label", "class")  # of a table with a row for each unit
_NAME = re.compile(r"\w[\w.-]*")
_MOST_CHARACTERS = 120  # of a name: it is a part of a folder's name


@dataclass(frozen=True)
class Named:
    """A model or a selection, with the options that belong to it.

    Attributes:
        group: the key of the plan that it comes from; several of a glob have the same.
        path: of a model, relative to the folder of the plan; "" for a selection.
    """

    name: str
    group: str
    path: str
    options: Mapping[str, Any]


def models_of(tables: Mapping[str, Any], folder: Path) -> list[Named]:
    """The models of the table `[models]`.

    Args:
        tables: key -> a path, a glob, @FILE with a path or a glob on each line, a list of them, or
            a table with one of these as `path`, and options.
        folder: that paths are relative to.

    Raises:
        UsageError: nothing matches, or a name is not unique.
    """
    found = []
    for key, value in tables.items():
        table = dict(value) if isinstance(value, Mapping) else {"path": value}
        paths = table.pop("path", None)
        if paths is None:
            raise UsageError(f"the model {key} has no path", 'give path = "net.onnx"')
        options = read_options(table, KNOWN, f"the model {key}")
        names = list(_paths(paths, folder, key))
        if names == [paths]:  # one file, which has the name that the plan gives it
            found.append(Named(checked_name(key), key, paths, options))
            continue
        stems = _unique(names)
        found += [Named(stems[name], key, name, options) for name in names]
    return _distinct(found, "model")


def selections_of(tables: Mapping[str, Any], folder: Path) -> list[Named]:
    """The selections of the table `[selections]`.

    Args:
        tables: key -> units to keep; or a table with options; or one with `csv`, a file with a row
            for each selection or for each unit of it; or with `files`, a glob of files of units.
    """
    found: list[Named] = []
    for key, value in tables.items():
        table = dict(value) if isinstance(value, Mapping) else {"keep": value}
        file, files = table.pop("csv", None), table.pop("files", None)
        options = read_options(table, KNOWN, f"the selection {key}")
        if file is not None:
            rows = _table(folder / str(file))
            found += [
                Named(checked_name(n), key, "", {**options, **row}) for n, row in rows.items()
            ]
        elif files is not None:
            names = list(_paths(files, folder, key))
            stems = _unique(names)
            kept = {name: {**options, "keep": f"@{name}"} for name in names}
            found += [Named(stems[name], key, "", kept[name]) for name in names]
        else:
            found.append(Named(checked_name(key), key, "", options))
    return _distinct(found, "selection")


def with_local_files(value: Any) -> Any:
    """A value of a plan, in which each URL is the path of its local copy (raises UsageError)."""
    if isinstance(value, Mapping):
        return {key: with_local_files(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [with_local_files(each) for each in value]
    if isinstance(value, str) and scheme_of(value):
        return str(local_path(value))
    return with_local_references(value)


def _paths(value: Any, folder: Path, key: str) -> Iterator[str]:
    """The paths that a text, or a list of them, names; globs and lists of files are followed."""
    for text in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(text, str) or not text:
            raise UsageError(f"{key} is {text!r}", "give a path or a glob, in quotes")
        if text.startswith("@"):
            lines = text_lines(read_text(folder / text[1:]))
            names = [with_local_files(line.strip()) for line in lines]
            yield from _paths([each for each in names if each and each[0] != "#"], folder, key)
        elif glob.has_magic(text) and not (folder / text).exists():
            found = sorted(glob.glob(text, root_dir=folder, recursive=True))  # noqa: PTH207 - a path may be absolute
            if not found:
                raise UsageError(f"no file matches {text} of {key}", f"the folder is {folder}")
            yield from found
        else:
            yield text


def _unique(paths: Iterable[str]) -> dict[str, str]:
    """Path -> a name: its stem, with suffix or folders as far as stems are not unique."""
    left = dict.fromkeys(paths)
    forms = (
        lambda path: path.stem,
        lambda path: path.name,
        lambda path: "-".join(part for part in path.parts if part not in {"/", "..", "."}),
    )
    names: dict[str, str] = {}
    for form in forms:
        made = {path: re.sub(r"[^\w.-]+", "_", form(Path(path))).lstrip(".-") for path in left}
        count = list(made.values())
        names |= {path: name for path, name in made.items() if count.count(name) == 1}
        left = {path: None for path in left if path not in names}
    return {path: checked_name(name) for path, name in names.items()}


def checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > _MOST_CHARACTERS:
        raise UsageError(
            f"{name!r} cannot name a folder",
            f"use letters, digits, dots and dashes, at most {_MOST_CHARACTERS}",
        )
    return name


def _distinct(found: list[Named], what: str) -> list[Named]:
    seen: dict[str, str] = {}
    for each in found:
        other = seen.setdefault(each.name.lower(), each.name)  # some file systems ignore case
        if other is not each.name:
            raise UsageError(f"two {what}s have the name {each.name}", "give each its own name")
    return found


# --- tables -------------------------------------------------------------------------------------


def _table(path: Path) -> dict[str, dict[str, Any]]:
    """Name of a selection -> its options, from a CSV or TSV file.

    The first column names the selection. The other columns are options of `run`; an empty cell
    sets none. Instead of `keep` there may be a column `unit` or `label`, with a row for each unit.
    """
    text = read_text(path)
    delimiter = "\t" if path.suffix == ".tsv" else ";" if ";" in text.partition("\n")[0] else ","
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    header = [title.strip() for title in rows[0]] if rows else []
    if len(header) < 2:  # noqa: PLR2004 - a name and at least one option
        raise UsageError(
            f"{path.name} has no columns", "its first line names them: name, keep, or options"
        )
    found: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(row):
            continue
        if len(row) != len(header):
            raise UsageError(
                f"line {number} of {path.name} has {len(row)} cells, and the first {len(header)}",
                "quote cells with commas",
            )
        cells = {key: text.strip() for key, text in zip(header[1:], row[1:], strict=True)}
        where = f"line {number} of {path.name}"
        given = {key: with_local_files(text) for key, text in cells.items() if text}
        _add(found, row[0].strip(), given, where)
    if not found:
        raise UsageError(f"{path.name} has no selections", "give a line for each")
    return found


def _add(found: dict[str, dict[str, Any]], name: str, cells: dict[str, str], where: str) -> None:
    """Add one row to the selections."""
    unit = next((cells.pop(key) for key in UNIT_COLUMNS if key in cells), None)
    options = read_options(cells, KNOWN, where)
    if unit is None:
        if name in found:
            raise UsageError(f"{where} names {name!r} again", "give each selection its own name")
        found[name] = options
        return
    units = found.get(name, {}).get("keep", ())
    entry = int(unit) if unit.isdecimal() else f"={unit}"
    found[name] = {**found.get(name, {}), **options, "keep": (*units, entry)}
