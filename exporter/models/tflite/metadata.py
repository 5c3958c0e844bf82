"""The part of TFLite's own metadata that names a file's labels: a flatbuffer inside a buffer.

Its schema comes with no package that this one needs, and four of its tables matter here, so they
are read by hand. Nothing has verified the flatbuffer before: every step is checked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from exporter.errors import ModelError

NAME = "TFLITE_METADATA"  # of the buffer
AXIS_LABELS, VALUE_LABELS, SCORE_CALIBRATION = 2, 3, 4  # AssociatedFileType

_IDENTIFIER = b"M001"
_ROOT_SUBGRAPHS = 3  # fields by their number in the schema
_SUBGRAPH_OUTPUTS = 3
_TENSOR_FILES = 6
_FILE_NAME, _FILE_TYPE, _FILE_LOCALE = 0, 2, 3


@dataclass(frozen=True)
class AssociatedFile:
    """A file of the archive, as an output of subgraph 0 speaks of it.

    Attributes:
        output: which of the subgraph's outputs.
        type: AssociatedFileType; AXIS_LABELS and so on.
        locale: of the language; "" where none is said.
    """

    output: int
    name: str
    type: int
    locale: str


def associated_files(data: bytes, outputs: int) -> list[AssociatedFile]:
    """The files that belong to the first so many outputs; none where the metadata is foreign.

    Raises:
        ModelError: an offset points outside.
    """
    if data[4:8] != _IDENTIFIER:
        return []
    try:
        return list(_files(data, outputs))
    except _OutsideError as error:
        raise ModelError(f"{NAME} is damaged: an offset points outside") from error


def _files(data: bytes, outputs: int) -> Iterator[AssociatedFile]:
    root = _Table(data, _number(data, "I", 0))
    for subgraph in islice(root.tables(_ROOT_SUBGRAPHS), 1):
        for i, tensor in enumerate(islice(subgraph.tables(_SUBGRAPH_OUTPUTS), outputs)):
            for file in tensor.tables(_TENSOR_FILES):
                texts = file.text(_FILE_NAME), file.byte(_FILE_TYPE), file.text(_FILE_LOCALE)
                yield AssociatedFile(i, *texts)


class _OutsideError(Exception):
    """An offset points outside."""


def _number(data: bytes, form: str, place: int) -> int:
    if not 0 <= place <= len(data) - struct.calcsize(form):
        raise _OutsideError
    return int(struct.unpack_from(f"<{form}", data, place)[0])


class _Table:
    """A table, and where it stands."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self._place = place
        self._fields = place - _number(data, "i", place)
        self._bytes = _number(data, "H", self._fields)

    def byte(self, field: int) -> int:
        place = self._at(field)
        return 0 if place is None else _number(self._data, "B", place)

    def text(self, field: int) -> str:
        place = self._follow(field)
        if place is None:
            return ""
        first = place + 4
        stop = first + _number(self._data, "I", place)
        if stop > len(self._data):
            raise _OutsideError
        return self._data[first:stop].decode(errors="replace")

    def tables(self, field: int) -> Iterator[_Table]:
        place = self._follow(field)
        count = 0 if place is None else _number(self._data, "I", place)
        for i in range(count):
            entry = (place or 0) + 4 * (i + 1)
            yield _Table(self._data, entry + _number(self._data, "I", entry))

    def _at(self, field: int) -> int | None:
        """Where a field stands; None where it has its default."""
        slot = 4 + 2 * field
        if slot + 2 > self._bytes:
            return None
        offset = _number(self._data, "H", self._fields + slot)
        return self._place + offset if offset else None

    def _follow(self, field: int) -> int | None:
        place = self._at(field)
        return None if place is None else place + _number(self._data, "I", place)
