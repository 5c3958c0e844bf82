"""Read which associated files TFLite's metadata names for each output.

The metadata is a flatbuffer inside a buffer. No package that this one needs has its schema, and
four of its tables matter here, so they are read by field index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

from exporter.errors import ModelError, UsageError
from exporter.formats.tflite.flatbuffer import OutsideError, Table
from exporter.graph.normalization import Normalization

T = TypeVar("T")

NAME = "TFLITE_METADATA"  # of the metadata entry
UNKNOWN_PIXELS = "The normalization is unknown; it is stated as none."  # description of an input
AXIS_LABELS, VALUE_LABELS, SCORE_CALIBRATION = 2, 3, 4  # AssociatedFileType

IDENTIFIER = b"M001"
_ROOT_SUBGRAPHS = 3  # fields by their index in the schema
_SUBGRAPH_INPUTS, _SUBGRAPH_OUTPUTS = 2, 3
_TENSOR_DESCRIPTION, _TENSOR_CONTENT, _TENSOR_PROCESS_UNITS = 1, 3, 4
_CONTENT_TYPE, _CONTENT = 0, 1
_AUDIO = 4  # ContentProperties
_SAMPLE_RATE = 0
_UNIT_TYPE, _UNIT_OPTIONS = 0, 1
NORMALIZATION = 1  # ProcessUnitOptions
_MEAN, _STD = 0, 1
_TENSOR_FILES = 6
_FILE_NAME, _FILE_TYPE, _FILE_LOCALE = 0, 2, 3


@dataclass(frozen=True)
class AssociatedFile:
    """A file of the archive that belongs to an output of subgraph 0.

    Attributes:
        output: the position of the output.
        type: AssociatedFileType, such as AXIS_LABELS.
        locale: the language; "" if the metadata names none.
    """

    output: int
    name: str
    type: int
    locale: str


def normalizations(data: bytes) -> list[Normalization | None]:
    """How pixels become the values of each input, in the file's order; None if it is not stated.

    Raises:
        ModelError: an offset points outside.
    """
    return list(_read(data, _normalizations))


def _normalizations(root: Table) -> Iterator[Normalization | None]:
    for tensor in _inputs(root):
        units = tensor.tables(_TENSOR_PROCESS_UNITS)
        stated = [u.table(_UNIT_OPTIONS) for u in units if u.byte(_UNIT_TYPE) == NORMALIZATION]
        known = stated and tensor.text(_TENSOR_DESCRIPTION) != UNKNOWN_PIXELS
        yield _normalization(stated[0]) if known else None


def sample_rates(data: bytes) -> list[int | None]:
    """Samples of sound per second of each input, in the file's order; None if it is not stated.

    Raises:
        ModelError: an offset points outside.
    """
    return list(_read(data, _sample_rates))


def _sample_rates(root: Table) -> Iterator[int | None]:
    for tensor in _inputs(root):
        content = tensor.optional_table(_TENSOR_CONTENT)
        is_audio = content is not None and content.byte(_CONTENT_TYPE) == _AUDIO
        audio = content.table(_CONTENT) if content is not None and is_audio else None
        yield None if audio is None else audio.uint32(_SAMPLE_RATE) or None


def _inputs(root: Table) -> Iterator[Table]:
    """The inputs of subgraph 0."""
    for subgraph in islice(root.tables(_ROOT_SUBGRAPHS), 1):
        yield from subgraph.tables(_SUBGRAPH_INPUTS)


def _normalization(options: Table) -> Normalization | None:
    """None if the numbers are unusable: a model without them works as well."""
    try:
        return Normalization(options.floats(_MEAN), options.floats(_STD))
    except UsageError:
        return None


def associated_files(data: bytes, outputs: int) -> list[AssociatedFile]:
    """The files of the first `outputs` outputs; none if the data is not TFLite metadata.

    Raises:
        ModelError: an offset points outside.
    """
    return list(_read(data, partial(_files, outputs)))


def _read(data: bytes, read: Callable[[Table], Iterator[T]]) -> Iterator[T]:
    """Read from the root table; nothing if the data is not TFLite metadata."""
    if data[4:8] != IDENTIFIER:
        return
    try:
        yield from read(Table.root(data))
    except OutsideError as error:
        raise ModelError(
            f"{NAME} is damaged: an offset points outside", "write the metadata again"
        ) from error


def _files(outputs: int, root: Table) -> Iterator[AssociatedFile]:
    for subgraph in islice(root.tables(_ROOT_SUBGRAPHS), 1):
        for i, tensor in enumerate(islice(subgraph.tables(_SUBGRAPH_OUTPUTS), outputs)):
            for file in tensor.tables(_TENSOR_FILES):
                texts = file.text(_FILE_NAME), file.byte(_FILE_TYPE), file.text(_FILE_LOCALE)
                yield AssociatedFile(i, *texts)
