"""Samples from CSV and Parquet tables: a row is a sample, its columns are the features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.inputs import INTEGERS, InputFit, shape_text
from exporter.data.options import DataOptions
from exporter.data.pixel_range import RangeCheck
from exporter.data.samples import Label, Samples
from exporter.data.stream import first_samples, read_blocks
from exporter.data.table_file import TableFile, label_values, number_values, open_table
from exporter.errors import UsageError
from exporter.graph import Array, Graph

LABEL_COLUMNS = ("label", "class", "target")


@dataclass(frozen=True)
class _InputColumns:
    """The columns that fill an input, and the shape of one sample."""

    columns: tuple[str, ...]
    shape: tuple[int, ...]


def read_table(path: Path, graph: Graph, limit: int | None, options: DataOptions) -> Samples:
    """The rows of a table.

    One input takes all columns except that of the labels, in their order. Several inputs take the
    columns of their names: `x`, or `x_0`, `x_1`, ...; a Parquet column of lists fills an input too.

    Raises:
        UsageError: the table is damaged or empty, its columns do not fit the inputs, or a cell is
            empty or no number; the message names row and column.
    """
    table = open_table(path)
    label = _label_column(table, graph, options.label_column)
    names = [name for name in table.columns if name != label]
    inputs = _input_columns(table, graph, names)
    ranges = {name: RangeCheck(graph, name) for name in inputs}
    values: dict[str, Any] = {
        name: read_blocks(_blocks(table, graph, (name, each), limit, ranges[name].see))
        for name, each in inputs.items()
    }
    labels: list[Label] | None = None
    if label is not None:
        found = table.batches((label,))
        blocks = (label_values(path, first, label, column) for first, (column,) in found)
        labels = [each for block in first_samples(blocks, limit) for each in block.tolist()]
    warnings = tuple(filter(None, (each.warning() for each in ranges.values())))
    return Samples(values, path.name, labels, warnings, files=(path,))


def _blocks(
    table: TableFile,
    graph: Graph,
    named: tuple[str, _InputColumns],
    limit: int | None,
    see: Callable[[Array], None],
) -> Callable[[], Iterator[Array]]:
    """Starts a pass over the values of an input, (samples, batch, ...) block after block."""
    name, wanted = named
    dtype = graph.tensors[name].dtype
    is_whole = dtype in INTEGERS or dtype == "bool"
    form = np.dtype(bool if dtype == "bool" else np.int64 if is_whole else np.float64)
    fit = InputFit(f"{table.path}: input {name!r}", graph, name, (1, *wanted.shape), form)

    def values() -> Iterator[Array]:
        for first, columns in table.batches(wanted.columns):
            parts = [
                number_values(table.path, first, column, cells, is_whole=is_whole)
                for column, cells in zip(wanted.columns, columns, strict=True)
            ]
            joined = np.concatenate(parts, axis=1) if parts[0].ndim > 1 else np.stack(parts, 1)
            yield joined.reshape(-1, *wanted.shape).astype(form)

    def blocks() -> Iterator[Array]:
        first = 0
        for block in first_samples(values(), limit):
            fitted = fit(block, first)
            see(fitted)
            first += len(block)
            yield fitted

    return blocks


def _label_column(table: TableFile, graph: Graph, given: str | None) -> str | None:
    if given is not None:
        if given not in table.columns:
            raise UsageError(
                f"{table.path} has no column {given!r}", f"its columns are {_listed(table.columns)}"
            )
        return given
    found = [
        name
        for name in table.columns
        if name.strip().casefold() in LABEL_COLUMNS and name not in graph.inputs
    ]
    if len(found) > 1:
        raise UsageError(
            f"{table.path} has several columns that may be labels: {_listed(found)}",
            "name one with --label-column",
        )
    return found[0] if found else None


def _input_columns(
    table: TableFile, graph: Graph, names: Sequence[str]
) -> Mapping[str, _InputColumns]:
    if len(graph.inputs) == 1:
        (name,) = graph.inputs
        return {name: _checked(table, graph, name, tuple(names))}
    taken: dict[str, tuple[str, ...]] = {}
    for name in graph.inputs:
        numbered = [f"{name}_{i}" for i in range(len(names))]
        found = [name] if name in names else [each for each in numbered if each in names]
        if not found:
            raise UsageError(
                f"{table.path} has no columns for input {name!r}",
                f"call them {name}_0, {name}_1, ...; the columns are {_listed(names)}",
            )
        taken[name] = tuple(found)
    if unknown := set(names) - {each for found in taken.values() for each in found}:
        raise UsageError(
            f"{table.path}: the column {min(unknown)!r} belongs to no input",
            "remove it, or name the label column with --label-column",
        )
    return {name: _checked(table, graph, name, found) for name, found in taken.items()}


def _checked(table: TableFile, graph: Graph, name: str, columns: tuple[str, ...]) -> _InputColumns:
    """The shape of one sample, batch included, if these columns fill it."""
    shape = graph.tensors[name].shape
    count = sum(table.width(column) for column in columns)
    expected = (None, None) if shape is None else shape
    sizes = [n or 1 for n in expected[:1]] + list(expected[1:])  # an open batch is 1
    known = int(np.prod([n for n in sizes if n is not None], dtype=object))
    is_open = sizes.count(None)
    if is_open > 1 or not known or (count % known if is_open else count != known) or not count:
        raise UsageError(
            f"{table.path} has {count} feature columns, and input {name!r} takes the shape "
            f"{shape_text(expected)}",
            "remove the other columns, or name the label column with --label-column; the columns "
            f"are {_listed(columns)}",
        )
    return _InputColumns(columns, tuple(count // known if n is None else n for n in sizes))


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
