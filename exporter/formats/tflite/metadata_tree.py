"""TFLite metadata as plain data: every table is a dictionary, as in its JSON form.

    {"subgraph_metadata": [{"output_tensor_metadata": [{"name": "scores"}]}]}

The metadata is a flatbuffer of the schema M001, inside a buffer of the model. The writer that comes
with MediaPipe needs 500 MB of other packages, and tflite-support is no longer maintained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import flatbuffers

from exporter.errors import ModelError
from exporter.formats.tflite.flatbuffer import OutsideError, Table
from exporter.formats.tflite.metadata import IDENTIFIER, NAME

Tree = dict[str, Any]


class NewerSchemaError(Exception):
    """The metadata has fields that this version does not know, and would lose."""


def read_tree(data: bytes) -> Tree:
    """The metadata, without the fields that are absent.

    Raises:
        ModelError: damaged.
        NewerSchemaError: it could not be written again without a loss.
    """
    try:
        return _Reader().table(Table.root(data), _ROOT)
    except OutsideError as error:
        raise ModelError(
            f"{NAME} is damaged: an offset points outside", "write the metadata again"
        ) from error


def write_tree(tree: Tree) -> bytes:
    """The flatbuffer; equal trees give equal bytes."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, _ROOT, tree), IDENTIFIER)
    return bytes(builder.Output())


class _Reader:
    def __init__(self) -> None:
        self._tables = 0

    def table(self, table: Table, name: str) -> Tree:
        self._tables += 1
        fields = list(_fields(name))
        if self._tables > _MOST_TABLES:
            raise OutsideError
        if any(table.has(slot) for slot in range(len(fields), table.slots)):
            raise NewerSchemaError
        tree: Tree = {}
        for slot, (field, kind) in enumerate(fields):
            if table.has(slot):
                tree[field] = self._value(table, slot, _member(kind, tree.get(f"{field}_type")))
        return tree

    def _value(self, table: Table, slot: int, kind: str) -> Any:
        inner = kind.strip("[]")
        if kind == "string":
            return table.text(slot)
        if kind == "[string]":
            return table.texts(slot)
        if kind in _SCALARS:
            return table.number(slot, _SCALARS[kind])
        if inner in _SCALARS:
            return list(table.numbers(slot, _SCALARS[inner]))
        if kind.startswith("["):
            return [self.table(each, inner) for each in table.tables(slot)]
        return self.table(table.table(slot), kind)


def _write_table(builder: flatbuffers.Builder, name: str, tree: Tree) -> int:
    fields = list(_fields(name))
    places: dict[int, int] = {}
    for slot, (field, kind) in enumerate(fields):
        if field in tree and kind not in _SCALARS:
            member = _member(kind, tree.get(f"{field}_type"))
            places[slot] = _write_value(builder, member, tree[field])
    builder.StartObject(len(fields))
    for slot, (field, kind) in enumerate(fields):
        if slot in places:
            builder.PrependUOffsetTRelativeSlot(slot, places[slot], 0)
        elif field in tree:
            getattr(builder, f"Prepend{_WRITERS[kind]}Slot")(slot, tree[field], 0)
    return int(builder.EndObject())


def _write_value(builder: flatbuffers.Builder, kind: str, value: Any) -> int:
    inner = kind.strip("[]")
    if kind == "string":
        return int(builder.CreateString(value))
    if not kind.startswith("["):
        return _write_table(builder, kind, value)
    if inner in _SCALARS:
        alignment = _DATA_ALIGNMENT if inner == "ubyte" else 1
        item_bytes = 1 if inner == "ubyte" else 4
        builder.StartVector(item_bytes, len(value), max(alignment, item_bytes))
        for each in reversed(value):
            getattr(builder, f"Prepend{_WRITERS[inner]}")(each)
        return int(builder.EndVector())
    places = [_write_value(builder, inner, each) for each in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def _fields(name: str) -> Iterator[tuple[str, str]]:
    """The fields of a table by slot; a union has a slot for its type before its value."""
    for field, kind in _TABLES[name].items():
        if kind in _UNIONS:
            yield f"{field}_type", "ubyte"
        yield field, kind


def _member(kind: str, union_type: int | None) -> str:
    """The table of a union's value; other kinds are returned as they are."""
    if kind not in _UNIONS:
        return kind
    members = _UNIONS[kind]
    if union_type is None or not 0 < union_type <= len(members):
        raise NewerSchemaError
    return members[union_type - 1]


# --- the schema ----------------------------------------------------------------------------------

_ROOT = "ModelMetadata"
_MOST_TABLES = 100_000  # offsets of a damaged file may name the same table again and again
_DATA_ALIGNMENT = 16  # the schema's force_align of custom data
_SCALARS: Mapping[str, str] = {"byte": "b", "ubyte": "B", "uint": "I", "int": "i", "float": "f"}
_WRITERS: Mapping[str, str] = {
    "byte": "Int8",
    "ubyte": "Uint8",
    "uint": "Uint32",
    "int": "Int32",
    "float": "Float32",
}
_UNIONS: Mapping[str, tuple[str, ...]] = {  # the value of its type is the position, from 1
    "ContentProperties": (
        "FeatureProperties",
        "ImageProperties",
        "BoundingBoxProperties",
        "AudioProperties",
    ),
    "ProcessUnitOptions": (
        "NormalizationOptions",
        "ScoreCalibrationOptions",
        "ScoreThresholdingOptions",
        "BertTokenizerOptions",
        "SentencePieceTokenizerOptions",
        "RegexTokenizerOptions",
    ),
}
_FILES = {"vocab_file": "[AssociatedFile]"}
_TABLES: Mapping[str, Mapping[str, str]] = {  # name of a field -> its type, in the schema's order
    "ModelMetadata": {
        "name": "string",
        "description": "string",
        "version": "string",
        "subgraph_metadata": "[SubGraphMetadata]",
        "author": "string",
        "license": "string",
        "associated_files": "[AssociatedFile]",
        "min_parser_version": "string",
    },
    "SubGraphMetadata": {
        "name": "string",
        "description": "string",
        "input_tensor_metadata": "[TensorMetadata]",
        "output_tensor_metadata": "[TensorMetadata]",
        "associated_files": "[AssociatedFile]",
        "input_process_units": "[ProcessUnit]",
        "output_process_units": "[ProcessUnit]",
        "input_tensor_groups": "[TensorGroup]",
        "output_tensor_groups": "[TensorGroup]",
        "custom_metadata": "[CustomMetadata]",
    },
    "TensorMetadata": {
        "name": "string",
        "description": "string",
        "dimension_names": "[string]",
        "content": "Content",
        "process_units": "[ProcessUnit]",
        "stats": "Stats",
        "associated_files": "[AssociatedFile]",
    },
    "AssociatedFile": {
        "name": "string",
        "description": "string",
        "type": "byte",
        "locale": "string",
        "version": "string",
    },
    "Content": {"content_properties": "ContentProperties", "range": "ValueRange"},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": "byte", "default_size": "ImageSize"},
    "ImageSize": {"width": "uint", "height": "uint"},
    "BoundingBoxProperties": {"index": "[uint]", "type": "byte", "coordinate_type": "byte"},
    "AudioProperties": {"sample_rate": "uint", "channels": "uint"},
    "ValueRange": {"min": "int", "max": "int"},
    "ProcessUnit": {"options": "ProcessUnitOptions"},
    "NormalizationOptions": {"mean": "[float]", "std": "[float]"},
    "ScoreCalibrationOptions": {"score_transformation": "byte", "default_score": "float"},
    "ScoreThresholdingOptions": {"global_score_threshold": "float"},
    "BertTokenizerOptions": _FILES,
    "SentencePieceTokenizerOptions": {"sentencePiece_model": "[AssociatedFile]", **_FILES},
    "RegexTokenizerOptions": {"delim_regex_pattern": "string", **_FILES},
    "Stats": {"max": "[float]", "min": "[float]"},
    "TensorGroup": {"name": "string", "tensor_names": "[string]"},
    "CustomMetadata": {"name": "string", "data": "[ubyte]"},
}
