"""A plan: models, selections, and the cells that combine them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from exporter.batches.sources import (
    KNOWN,
    Named,
    checked_name,
    models_of,
    selections_of,
    with_local_files,
)
from exporter.errors import UsageError, nearest
from exporter.jobs.job import Job
from exporter.planning.option import options_of
from exporter.planning.option_values import merged, read_options
from exporter.planning.options import CutOptions
from exporter.selection.text_file import read_text

_TABLES = {"output", "options", "models", "selections", "matrix", "cell"}
_AXES = {"precisions": "precision", "formats": "to"}  # key of a matrix -> the option that it varies
_OF_MATRIX = {"models", "selections", "exclude", "each", *_AXES}
_CUT_FIELDS = {each.name for each in options_of(CutOptions)}


@dataclass(frozen=True)
class Cell:
    """One job of a plan.

    Attributes:
        name: MODEL/SELECTION, with the values of further axes; also its folder in the output.
        path: of the model, relative to the folder of the plan.
        layers: its options; a later layer wins.
    """

    name: str
    model: str
    selection: str
    path: str
    layers: tuple[Mapping[str, Any], ...]

    def records(self, **more: Any) -> tuple[CutOptions, Job]:
        """The options of the cut, and of the job.

        Args:
            more: further fields of `Job`.

        Raises:
            UsageError: values that exclude each other; the message names the cell.
        """
        values = {**merged(self.layers), **more}
        cut = {name: value for name, value in values.items() if name in _CUT_FIELDS}
        try:
            return (
                CutOptions(**cut),
                Job(**{name: v for name, v in values.items() if name not in cut}),
            )
        except UsageError as error:
            raise UsageError(f"the cell {self.name}: {error.message}", error.hint) from error


@dataclass(frozen=True)
class Plan:
    """The cells of a plan.

    Attributes:
        folder: that paths are relative to.
        output: the folder to write, if the plan names one: a URL, or relative to `folder`.
    """

    folder: Path
    output: str | None
    cells: tuple[Cell, ...]


def read_plan(plan: str | Path | Mapping[str, Any], overrides: Mapping[str, Any]) -> Plan:
    """Read a plan from a TOML file, or from the same tables in a mapping.

    Args:
        overrides: options of all cells, which win over options of the plan.

    Raises:
        UsageError: the file cannot be read, or the plan names something that does not exist.
    """
    if isinstance(plan, Mapping):
        return _plan(plan, Path(), overrides)
    import tomllib  # noqa: PLC0415 - only a plan in a file needs it

    path = Path(plan)
    try:
        tables = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}", "see docs/batch.md") from error
    return _plan(tables, path.parent, overrides)


def _plan(tables: Mapping[str, Any], folder: Path, overrides: Mapping[str, Any]) -> Plan:
    for key in tables:
        if key not in _TABLES | _AXES.keys():
            similar = nearest(key, _TABLES | _AXES.keys())
            hint = f"did you mean {similar!r}?" if similar else f"use {', '.join(sorted(_TABLES))}"
            raise UsageError(f"the plan has the key {key!r}", hint)
    tables = {k: v if k == "output" else with_local_files(v) for k, v in tables.items()}
    models = models_of(_mapping(tables, "models"), folder)
    selections = selections_of(_mapping(tables, "selections"), folder)
    defaults = read_options(_mapping(tables, "options"), KNOWN, "[options]")
    own = [dict(each) for each in _tables(tables, "cell")]
    axes = {key: tables[key] for key in _AXES if key in tables}
    matrices = [{**axes, **each} for each in _tables(tables, "matrix")]
    if not matrices and (selections or not own):
        matrices = [axes]
    cells = [
        *(c for each in matrices for c in _matrix(each, models, selections, defaults, overrides)),
        *(_own_cell(each, models, selections, defaults, overrides) for each in own),
    ]
    if not cells:
        raise UsageError("the plan has no cells", "give [models] and [selections], or [[cell]]")
    names: dict[str, str] = {}
    for cell in cells:
        if names.setdefault(cell.name.lower(), cell.name) is not cell.name:
            raise UsageError(
                f"the plan has two cells with the name {cell.name}",
                "let their matrices vary precisions, formats or `each`, or name them in [[cell]]",
            )
        cell.records()
    output = tables.get("output")
    if not (output is None or isinstance(output, str)):
        raise UsageError(f"output is {output!r}", "give a folder, in quotes")
    return Plan(folder, output, tuple(cells))


def _mapping(tables: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = tables.get(key, {})
    if not isinstance(found, Mapping):
        raise UsageError(f"{key} is {found!r}", f"write a table [{key}]")
    return found


def _tables(tables: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The tables of `[[key]]`, or the one of `[key]`."""
    found = tables.get(key, [])
    found = [found] if isinstance(found, Mapping) else found
    if not isinstance(found, list | tuple) or not all(isinstance(each, Mapping) for each in found):
        raise UsageError(f"{key} is {found!r}", f"write tables [[{key}]]")
    return list(found)


def _matrix(
    table: Mapping[str, Any],
    models: list[Named],
    selections: list[Named],
    defaults: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> Iterator[Cell]:
    """Every model with every selection and every value of the axes."""
    own = {key: value for key, value in table.items() if key not in _OF_MATRIX}
    options = read_options(own, KNOWN, "[[matrix]]")
    chosen = [_chosen(table, key, found) for key, found in _both(models, selections)]
    axes = list(_axes(table))
    excluded = _list_of_texts(table.get("exclude", []), "exclude")
    for model, selection in itertools.product(*chosen):
        for values in itertools.product(*axes):
            suffix = "".join(f".{name}" for name, _ in values)
            name = f"{model.name}/{selection.name}{suffix}"
            if any(fnmatchcase(name, pattern) for pattern in excluded):
                continue
            varied = [each for _, each in values]
            layers = (defaults, options, model.options, selection.options, *varied, overrides)
            yield Cell(name, model.name, selection.name, model.path, layers)


def _both(models: list[Named], selections: list[Named]) -> Iterator[tuple[str, list[Named]]]:
    yield "models", models
    yield "selections", selections


def _chosen(table: Mapping[str, Any], key: str, found: list[Named]) -> list[Named]:
    """The models or selections that a matrix names, by name, group or glob; all by default."""
    if not found:
        raise UsageError(f"the plan has no {key}", f"write a table [{key}]")
    if key not in table:
        return found
    chosen: dict[str, Named] = {}
    for pattern in _list_of_texts(table[key], key):
        matching = [
            each for each in found if fnmatchcase(each.name, pattern) or each.group == pattern
        ]
        if not matching:
            names = [each.name for each in found]
            similar = nearest(pattern, names)
            raise UsageError(
                f"[[matrix]] names {pattern!r}, which is none of the {key}",
                f"did you mean {similar!r}?" if similar else f"they are {', '.join(names[:9])}",
            )
        chosen |= {each.name: each for each in matching}
    return list(chosen.values())


def _axes(table: Mapping[str, Any]) -> Iterator[list[tuple[str, Mapping[str, Any]]]]:
    """For each axis the values: a part of the cell's name, and the option."""
    each = table.get("each", {})
    if not isinstance(each, Mapping):
        raise UsageError(f"each is {each!r}", 'write a table: each = {mode = ["slice", "mask"]}')
    named = {option: table[key] for key, option in reversed(_AXES.items()) if key in table}
    for key, values in {**named, **each}.items():
        if not isinstance(values, list | tuple) or not values:
            raise UsageError(f"{key} of [[matrix]] is {values!r}", "give a list of values")
        options = [read_options({key: value}, KNOWN, "[[matrix]]") for value in values]
        yield [(_part(value), found) for value, found in zip(values, options, strict=True)]


def _part(value: Any) -> str:
    """A value of an axis as a part of a cell's name."""
    parts = value if isinstance(value, list | tuple) else [value]
    text = "+".join(str(each).lower() if isinstance(each, bool) else str(each) for each in parts)
    return "".join(c if c.isalnum() or c in "._-+" else "_" for c in text)


def _own_cell(
    table: dict[str, Any],
    models: list[Named],
    selections: list[Named],
    defaults: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> Cell:
    """A cell of `[[cell]]`: a model by name or path, a selection by name or its own options."""
    if not isinstance(table.get("model"), str):
        raise UsageError("a [[cell]] has no model", "give the name of a model, or a path")
    key = table.pop("model")
    model = next((each for each in models if each.name == key), None)
    if model is None:
        model = Named(checked_name(Path(key).stem), "", key, {})
    wanted = table.pop("selection", None)
    selection = next((each for each in selections if each.name == wanted), None)
    if wanted is not None and selection is None:
        similar = nearest(str(wanted), [each.name for each in selections])
        raise UsageError(
            f"a [[cell]] names the selection {wanted!r}, which the plan does not have",
            f"did you mean {similar!r}?" if similar else "write it in [selections]",
        )
    name = table.pop("name", wanted)
    if not isinstance(name, str):
        raise UsageError(f"a [[cell]] of {key} has no name", 'give name = "..."')
    options = read_options(table, KNOWN, f"the cell {name}")
    chosen = selection.options if selection else {}
    layers = (defaults, model.options, chosen, options, overrides)
    return Cell(
        f"{model.name}/{checked_name(name)}", model.name, wanted or name, model.path, layers
    )


def _list_of_texts(value: Any, key: str) -> Iterable[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise UsageError(f"{key} of [[matrix]] is {value!r}", "give a list of names")
    return found
