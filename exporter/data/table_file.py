"""Read CSV and Parquet files in batches of rows. pyarrow reads both without other libraries."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.stream import BLOCK_BYTES
from exporter.errors import UsageError, first_line, no_such_file
from exporter.graph import Array
from exporter.selection.text_file import bounded_lines

_ROWS = 4096  # of a batch of Parquet
_LARGEST_WHOLE = 2.0**53  # float64 represents all whole numbers up to this one
_SHOWN = 40  # characters of a cell in a message


@dataclass(frozen=True)
class TableFile:
    """An opened table.

    Attributes:
        columns: their names, in order.
        delimiter: of a CSV file; None for Parquet.
        widths: values in a cell of each column; above 1 for lists.
    """

    path: Path
    columns: tuple[str, ...]
    delimiter: str | None
    widths: tuple[int, ...]

    def width(self, column: str) -> int:
        """The number of values in each cell of a column."""
        return self.widths[self.columns.index(column)]

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
        """The number of the first row, from 1, and a pyarrow array per column."""
        first = 1
        with _readable(self.path):
            rows = _csv_batches if self.delimiter else _parquet_batches
            for batch in filter(len, rows(self, columns)):
                yield first, [batch.column(name) for name in columns]
                first += len(batch)


def open_table(path: Path) -> TableFile:
    """Read the names of the columns.

    Raises:
        UsageError: the file is missing or damaged, has no rows, or two columns have one name.
    """
    with _readable(path):
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet, types  # noqa: PLC0415 - an optional library

            with parquet.ParquetFile(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
                is_list = [
                    types.is_list(f.type) or types.is_fixed_size_list(f.type) for f in schema
                ]
                first = next(file.iter_batches(1), None)
            names, delimiter = tuple(schema.names), None
            cells = [
                None if first is None else first.column(i)[0].as_py() for i in range(len(names))
            ]
            widths = tuple(
                len(c or ()) if many else 1 for c, many in zip(cells, is_list, strict=True)
            )
        else:
            names, delimiter, rows = _csv_header(path)
            widths = (1,) * len(names)
    if not rows:
        raise UsageError(f"{path} has no rows", "write a header and one row per sample")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{path} has two columns {repeated[0]!r}", "give each column its own name")
    return TableFile(path, names, delimiter, widths)


def _csv_header(path: Path) -> tuple[tuple[str, ...], str, bool]:
    """The names, the delimiter, and whether a row follows."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = next(bounded_lines(file, path), "")
        delimiter = next((each for each in ",;\t" if each in line), ",")
        file.seek(0)
        rows = csv.reader(bounded_lines(file, path), delimiter=delimiter)
        names = next(rows, [])
        has_rows = next(rows, None) is not None
    if names and all(_is_number(name) for name in names):
        raise UsageError(
            f"{path} has no header: its first line contains numbers only",
            "write the names of the columns in the first line",
        )
    return tuple(names), delimiter, has_rows


def _csv_batches(table: TableFile, columns: Sequence[str]) -> Iterator[Any]:
    """Cells stay text, so that a message can show the one that is no number."""
    import pyarrow as pa  # noqa: PLC0415 - an optional library
    from pyarrow import csv as reader  # noqa: PLC0415 - likewise

    convert = reader.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()),
        include_columns=list(columns),
        strings_can_be_null=True,
        null_values=[""],
    )
    # without threads, a message about a row of another length contains its number
    read = reader.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    parse = reader.ParseOptions(delimiter=table.delimiter or ",", newlines_in_values=True)
    with reader.open_csv(table.path, read, parse, convert) as file:
        yield from file


def _parquet_batches(table: TableFile, columns: Sequence[str]) -> Iterator[Any]:
    from pyarrow import parquet  # noqa: PLC0415 - an optional library

    with parquet.ParquetFile(table.path) as file:
        yield from file.iter_batches(_ROWS, columns=list(columns), use_threads=False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa  # noqa: PLC0415 - an optional library

    hint = "write UTF-8 CSV with a header and equally many cells in each row, or Parquet"
    try:
        yield
    except FileNotFoundError as error:
        raise no_such_file(path, "check the path of --data") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a readable table: {first_line(error)}", hint) from error


def number_values(path: Path, first: int, name: str, cells: Any, *, is_whole: bool) -> Array:
    """The numbers in a column: (rows,) float64, or (rows, width) of lists.

    Args:
        first: number of the first row, for messages.
        name: of the column.
        cells: a pyarrow array.
        is_whole: refuse fractions, and whole numbers that float64 cannot represent.
    """
    import pyarrow as pa  # noqa: PLC0415 - an optional library
    from pyarrow import compute  # noqa: PLC0415 - likewise

    if pa.types.is_list(cells.type) or pa.types.is_fixed_size_list(cells.type):
        return _list_values(path, first, name, cells, is_whole=is_whole)
    _refuse_empty(path, first, name, cells)
    try:
        number = compute.cast(cells, pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        wrong = next((i, cell) for i, cell in enumerate(cells.to_pylist()) if not _is_number(cell))
        raise _wrong_cell(path, first + wrong[0], name, wrong[1], "a number") from error
    values = np.asarray(number.to_numpy(zero_copy_only=False), np.float64)
    bad, wanted = ~np.isfinite(values), "a finite number"
    if is_whole and not bad.any():
        bad, wanted = (values != np.rint(values)) | (abs(values) > _LARGEST_WHOLE), "a whole number"
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise _wrong_cell(path, first + i, name, cells[i].as_py(), wanted)
    return values


def label_values(path: Path, first: int, name: str, cells: Any) -> Array:
    """(rows,) class names or unit indices, as objects; arguments as for `number_values`."""
    import pyarrow as pa  # noqa: PLC0415 - an optional library

    _refuse_empty(path, first, name, cells)
    if pa.types.is_dictionary(cells.type):  # categories of pandas
        cells = cells.dictionary_decode()
    if pa.types.is_floating(cells.type):
        numbers = number_values(path, first, name, cells, is_whole=True)
        return numbers.astype(np.int64).astype(object)
    values = cells.to_pylist()
    for i, value in enumerate(values):
        if not isinstance(value, str | int):
            raise _wrong_cell(path, first + i, name, value, "a class name or unit index")
    return np.array([v.strip() if isinstance(v, str) else int(v) for v in values], object)


def _list_values(path: Path, first: int, name: str, cells: Any, *, is_whole: bool) -> Array:
    _refuse_empty(path, first, name, cells)
    lengths = [len(cell) for cell in cells.to_pylist()]
    for i, length in enumerate(lengths):
        if length != lengths[0]:
            raise UsageError(
                f"{path}: row {first + i}, column {name!r} has {length} values, the row before "
                f"{lengths[i - 1]}",
                "write lists of one length",
            )
    flat = number_values(path, first, name, cells.flatten(), is_whole=is_whole)
    return flat.reshape(len(lengths), -1)


def _refuse_empty(path: Path, first: int, name: str, cells: Any) -> None:
    if cells.null_count:
        i = int(np.flatnonzero(cells.is_null().to_numpy(zero_copy_only=False))[0])
        raise UsageError(
            f"{path}: row {first + i}, column {name!r} is empty",
            "fill the cell, or remove the row",
        )


def _wrong_cell(path: Path, row: int, name: str, cell: Any, wanted: str) -> UsageError:
    shown = repr(cell)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    return UsageError(
        f"{path}: row {row}, column {name!r} contains {shown}, not {wanted}",
        "correct the cell, remove the column, or name the label column with --label-column",
    )


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True
