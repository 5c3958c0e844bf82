"""TFLite metadata for tests, written and read with flatbuffers from the published schema."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table

AXIS_LABELS, VALUE_LABELS, SCORE_CALIBRATION, VOCABULARY = 2, 3, 4, 5


@dataclass(frozen=True)
class Associated:
    """An AssociatedFile."""

    name: str
    type: int = AXIS_LABELS
    locale: str = ""


def metadata(*outputs: Sequence[Associated], author: str = "a test") -> bytes:
    """A ModelMetadata with one subgraph, whose outputs have these files."""
    builder = flatbuffers.Builder(64)
    tensors = [_tensor(builder, f"output {i}", files) for i, files in enumerate(outputs)]
    listed = _vector(builder, tensors)
    subgraph = _table(builder, 9, {3: listed})
    subgraphs = _vector(builder, [subgraph])
    fields = {0: builder.CreateString("net"), 3: subgraphs, 4: builder.CreateString(author)}
    builder.Finish(_table(builder, 8, fields), b"M001")
    return bytes(builder.Output())


def input_metadata(mean: Sequence[float], std: Sequence[float]) -> bytes:
    """A ModelMetadata with one input that states a normalization (ProcessUnit 1)."""
    builder = flatbuffers.Builder(64)
    vectors = {0: _floats(builder, mean), 1: _floats(builder, std)}
    options = _table(builder, 2, vectors)
    builder.StartObject(2)
    builder.PrependUint8Slot(0, 1, 0)
    builder.PrependUOffsetTRelativeSlot(1, options, 0)
    units = _vector(builder, [int(builder.EndObject())])
    tensors = _vector(builder, [_table(builder, 7, {4: units})])
    subgraphs = _vector(builder, [_table(builder, 9, {2: tensors})])
    builder.Finish(_table(builder, 8, {3: subgraphs}), b"M001")
    return bytes(builder.Output())


def sound_metadata(rate: int, content: int = 4) -> bytes:
    """A ModelMetadata with one input of AudioProperties (4); without content if that is 0."""
    builder = flatbuffers.Builder(64)
    builder.StartObject(2)
    builder.PrependUint32Slot(0, rate, 0)
    audio = int(builder.EndObject())
    builder.StartObject(2)
    builder.PrependUint8Slot(0, content, 0)
    builder.PrependUOffsetTRelativeSlot(1, audio, 0)
    properties = int(builder.EndObject())
    tensors = _vector(builder, [_table(builder, 7, {3: properties} if content else {})])
    subgraphs = _vector(builder, [_table(builder, 9, {2: tensors})])
    builder.Finish(_table(builder, 8, {3: subgraphs}), b"M001")
    return bytes(builder.Output())


def _floats(builder: flatbuffers.Builder, values: Sequence[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return int(builder.EndVector())


def _tensor(builder: flatbuffers.Builder, name: str, files: Sequence[Associated]) -> int:
    listed = _vector(builder, [_file(builder, file) for file in files])
    return _table(builder, 7, {0: builder.CreateString(name), 6: listed})


def _file(builder: flatbuffers.Builder, file: Associated) -> int:
    name, locale = builder.CreateString(file.name), builder.CreateString(file.locale)
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependInt8Slot(2, file.type, 0)
    if file.locale:
        builder.PrependUOffsetTRelativeSlot(3, locale, 0)
    return int(builder.EndObject())


def _table(builder: flatbuffers.Builder, size: int, fields: Mapping[int, int]) -> int:
    builder.StartObject(size)
    for number, place in fields.items():
        builder.PrependUOffsetTRelativeSlot(number, place, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, places: Sequence[int]) -> int:
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def zipped(
    content: bytes,
    files: Mapping[str, bytes],
    *,
    compression: int = zipfile.ZIP_STORED,
    counted_from_the_file: bool = True,
) -> bytes:
    """A model followed by an archive."""
    file = io.BytesIO(content if counted_from_the_file else b"")
    with zipfile.ZipFile(file, "a", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.comment = b"of a test"
    return file.getvalue() if counted_from_the_file else content + file.getvalue()


def unzipped(content: bytes) -> dict[str, bytes]:
    """The files in the archive after a model, in order."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# --- read, without the code under test ------------------------------------------------------------


class Read:
    """A table of TFLite metadata; fields by their slot in the published schema."""

    def __init__(self, table: Table) -> None:
        self._table = table

    @classmethod
    def of(cls, content: bytes) -> Read:
        """The ModelMetadata in a TFLite file."""
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
        (entry,) = [e for e in model.metadata if e.name == b"TFLITE_METADATA"]
        data = model.buffers[entry.buffer].data.tobytes()
        assert data[4:8] == b"M001"
        return cls(Table(data, encode.Get(packer.uoffset, data, 0)))

    def _offset(self, slot: int) -> int:
        return int(self._table.Offset(4 + 2 * slot))

    def has(self, slot: int) -> bool:
        return self._offset(slot) != 0

    def text(self, slot: int) -> str:
        place = self._offset(slot) + self._table.Pos
        return str(self._table.String(place).decode()) if self.has(slot) else ""

    def number(self, slot: int) -> int:
        if not self.has(slot):
            return 0
        return int(self._table.Get(number_types.Uint8Flags, self._offset(slot) + self._table.Pos))

    def one(self, slot: int) -> Read:
        place = self._table.Indirect(self._offset(slot) + self._table.Pos)
        return Read(Table(self._table.Bytes, place))

    def several(self, slot: int) -> list[Read]:
        if not self.has(slot):
            return []
        first, count = (
            self._table.Vector(self._offset(slot)),
            self._table.VectorLen(self._offset(slot)),
        )
        places = (self._table.Indirect(first + 4 * i) for i in range(count))
        return [Read(Table(self._table.Bytes, place)) for place in places]

    def floats(self, slot: int) -> list[float]:
        values = self._table.GetVectorAsNumpy(number_types.Float32Flags, self._offset(slot))
        return [float(value) for value in values]

    def tensors(self, end: str) -> list[Read]:
        """The TensorMetadata of the inputs or outputs of the first subgraph."""
        return self.several(3)[0].several({"inputs": 2, "outputs": 3}[end])

    def files(self) -> list[tuple[str, int]]:
        """Name and type of each associated file of a TensorMetadata."""
        return [(file.text(0), file.number(2)) for file in self.several(6)]

    def normalization(self) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation of a TensorMetadata; None if it states none."""
        units = [unit for unit in self.several(4) if unit.number(0) == 1]
        return (units[0].one(1).floats(0), units[0].one(1).floats(1)) if units else None
