"""The part of TFLite's own metadata that names a file's labels: a flatbuffer inside a buffer.

Its schema comes with no package that this one needs, and four of its tables matter here, so they
are read by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from exporter.errors import ModelError
from exporter.formats.tflite.flatbuffer import OutsideError, Table

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
    except OutsideError as error:
        raise ModelError(f"{NAME} is damaged: an offset points outside") from error


def _files(data: bytes, outputs: int) -> Iterator[AssociatedFile]:
    root = Table.root(data)
    for subgraph in islice(root.tables(_ROOT_SUBGRAPHS), 1):
        for i, tensor in enumerate(islice(subgraph.tables(_SUBGRAPH_OUTPUTS), outputs)):
            for file in tensor.tables(_TENSOR_FILES):
                texts = file.text(_FILE_NAME), file.byte(_FILE_TYPE), file.text(_FILE_LOCALE)
                yield AssociatedFile(i, *texts)
