"""Samples from `.npz` and `.npy` files, read in blocks."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from exporter.data.inputs import InputFit, shape_text
from exporter.data.options import DataOptions
from exporter.data.pixel_range import RangeCheck
from exporter.data.samples import Label, Samples
from exporter.data.stream import read_blocks, rows_per_block
from exporter.errors import UsageError, no_such_file
from exporter.graph import Array, Graph

LABELS = "labels"  # the array of an .npz that contains the class of each sample
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_SUFFIX = ".npy"
_IMAGE_RANK = 4  # batch, height, width and channels
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# Exceptions that NumPy and zipfile raise for damaged files.
_DAMAGED = (
    *(OSError, ValueError, EOFError, MemoryError, RuntimeError, SyntaxError, TypeError, KeyError),
    *(OverflowError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class _StoredArray:
    """An array in a file.

    Attributes:
        member: of the zip archive; None in a .npy file.
        shape: (samples, ...).
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def blocks(self, limit: int | None) -> Iterator[Array]:
        """The first `limit` samples, (samples, ...) block after block."""
        total = self.shape[0] if limit is None else min(limit, self.shape[0])
        with _readable(self.path), _opened(self.path, self.member) as stream:
            _, is_fortran, _ = _read_header(stream)
            row = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=object))
            size = rows_per_block(row)
            if is_fortran:  # a sample is not in one piece: the whole array is read
                content = _read_exactly(stream, row * self.shape[0])
                whole = np.frombuffer(content, self.dtype).reshape(self.shape[::-1]).T
                yield from (whole[i : min(i + size, total)] for i in range(0, total, size))
                return
            for first in range(0, total, size):
                count = min(size, total - first)
                values = np.frombuffer(_read_exactly(stream, row * count), self.dtype)
                yield values.reshape(count, *self.shape[1:])
            if total == self.shape[0]:
                stream.read(1)  # zipfile compares the checksum at the end


def read_arrays(path: Path, graph: Graph, limit: int | None, options: DataOptions) -> Samples:
    """The samples of an `.npz` or `.npy` file.

    Only the first `limit` samples are read, and large arrays stay in the file. A normalization does
    not change the values: images of another range are warned of.

    Raises:
        UsageError: the file is missing, damaged or empty; an array does not fit its input or names
            none; a value is not finite or cannot be represented in the input's dtype; or an index
            is beyond the end of its table.
    """
    found = _stored_arrays(path)
    labels = None if LABELS in graph.inputs else found.pop(LABELS, None)
    arrays = _by_input(path, found, graph)
    fits = {
        name: InputFit(f"{path}: the array for input {name!r}", graph, name, a.shape, a.dtype)
        for name, a in arrays.items()
    }
    counts = {array.shape[0] for array in arrays.values()}
    if len(counts) > 1:
        shown = ", ".join(f"{a.shape[0]} of {name!r}" for name, a in arrays.items())
        raise UsageError(
            f"{path}: the inputs differ in their number of samples: {shown}",
            "write one entry per sample in each array",
        )
    if options.normalize is not None:
        images = [name for name in graph.inputs if len(graph.shape(name)) == _IMAGE_RANK]
        graph = replace(graph, normalization=dict.fromkeys(images, options.normalize))
    ranges = {name: RangeCheck(graph, name) for name in arrays}

    def again(name: str) -> Iterator[Array]:
        return map(fits[name].cast, arrays[name].blocks(limit))

    def blocks(name: str) -> Iterator[Array]:
        first = 0
        for block in arrays[name].blocks(limit):
            values = fits[name](block, first)
            ranges[name].see(values)
            first += len(block)
            yield values

    return Samples(
        {n: read_blocks(partial(blocks, n), partial(again, n)) for n in arrays},  # type: ignore[misc]
        path.name,
        _checked_labels(path, labels, counts.pop(), limit),
        tuple(filter(None, (each.warning() for each in ranges.values()))),
        files=(path,),
    )


def _stored_arrays(path: Path) -> dict[str, _StoredArray]:
    """Every array of an `.npz` by name, or the array of an `.npy` under the name ""."""
    with _readable(path):
        with path.open("rb") as file:
            is_zip = file.read(4) in _ZIP
        if not is_zip:
            return {"": _stored_array(path, None)}
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        return {name.removesuffix(_SUFFIX): _stored_array(path, name) for name in members}


def _stored_array(path: Path, member: str | None) -> _StoredArray:
    with _opened(path, member) as stream:
        shape, _, dtype = _read_header(stream)
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError(f"{member} contains Python objects, or has a negative length")
    return _StoredArray(path, member, shape, dtype)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise no_such_file(path, "check the path of --data") from error
    except _DAMAGED as error:
        raise UsageError(
            f"{path} is not a readable .npz or .npy file",
            "write it with numpy.savez, without objects",
        ) from error


@contextmanager
def _opened(path: Path, member: str | None) -> Iterator[Any]:
    if member is None:
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        yield file


def _read_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return _HEADERS[np.lib.format.read_magic(stream)](stream)


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


def _by_input(
    path: Path, arrays: dict[str, _StoredArray], graph: Graph
) -> Mapping[str, _StoredArray]:
    if len(arrays) == 1 and len(graph.inputs) == 1:
        return {graph.inputs[0]: next(iter(arrays.values()))}
    missing = [name for name in graph.inputs if name not in arrays]
    if missing:
        found = ", ".join(repr(name) for name in arrays) or "nothing"
        raise UsageError(f"{path} has no array for input {missing[0]!r}", f"it contains {found}")
    if unknown := [name for name in arrays if name not in graph.inputs]:
        known = ", ".join(repr(name) for name in graph.inputs)
        raise UsageError(
            f"{path}: the array {unknown[0]!r} is not an input of the model",
            f"its inputs are {known}; {LABELS!r} may name the class of each sample",
        )
    return {name: arrays[name] for name in graph.inputs}


def _checked_labels(
    path: Path, labels: _StoredArray | None, count: int, limit: int | None
) -> Sequence[Label | tuple[Label, ...]] | None:
    if labels is None:
        return None
    blocks = list(labels.blocks(limit)) if labels.shape[:1] == (count,) else []
    rank = 2  # samples x units
    if blocks and len(labels.shape) == rank and all(np.isin(b, (0, 1)).all() for b in blocks):
        return [tuple(np.flatnonzero(row).tolist()) for block in blocks for row in block]
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise UsageError(
            f"{path}: the array {LABELS!r} has the shape {shape_text(labels.shape)} and dtype "
            f"{labels.dtype}",
            f"give one class name or unit index per sample: shape [{count}]; or 0 and 1 for each "
            f"unit: shape [{count}, units]",
        )
    return [label for block in blocks for label in block.tolist()]
