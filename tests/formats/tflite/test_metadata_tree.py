"""TFLite metadata as a tree: every table of the schema is written and read without a loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import pytest

from exporter.errors import ModelError
from exporter.formats.tflite.metadata_tree import NewerSchemaError, Tree, read_tree, write_tree
from tests.builders.tflite_builder import read
from tests.builders.tflite_metadata import Associated, metadata

FILE = {"name": "a", "description": "b", "type": 2, "locale": "de", "version": "v1"}
UNITS = [
    {"mean": [1.0, 2.0], "std": [0.5, 4.0]},
    {"score_transformation": 1, "default_score": 0.25},
    {"global_score_threshold": 0.5},
    {"vocab_file": [FILE]},
    {"sentencePiece_model": [FILE], "vocab_file": [FILE]},
    {"delim_regex_pattern": "[a-z]", "vocab_file": [FILE]},
]
CONTENTS: list[Tree] = [
    {},
    {"color_space": 1, "default_size": {"width": 224, "height": 2**32 - 1}},
    {"index": [1, 0, 3, 2], "type": 1, "coordinate_type": 1},
    {"sample_rate": 16000, "channels": 2},
]
PROCESSING = [{"options_type": i, "options": each} for i, each in enumerate(UNITS, 1)]
TENSORS = [
    {
        "name": f"tensor {i}",
        "description": "ü",
        "dimension_names": ["batch", "class"],
        "content": {
            "content_properties_type": i,
            "content_properties": each,
            "range": {"min": -1, "max": 7},
        },
        "process_units": PROCESSING,
        "stats": {"max": [1.5], "min": [-1.5]},
        "associated_files": [FILE],
    }
    for i, each in enumerate(CONTENTS, 1)
]
EVERYTHING: Tree = {
    "name": "net",
    "description": "d",
    "version": "v",
    "subgraph_metadata": [
        {
            "name": "main",
            "description": "d",
            "input_tensor_metadata": TENSORS,
            "output_tensor_metadata": TENSORS[:1],
            "associated_files": [FILE],
            "input_process_units": PROCESSING,
            "output_process_units": PROCESSING[:1],
            "input_tensor_groups": [{"name": "g", "tensor_names": ["x", "y"]}],
            "output_tensor_groups": [{"name": "h", "tensor_names": []}],
            "custom_metadata": [{"name": "mine", "data": [0, 255, 7]}],
        },
        {"name": "second"},
    ],
    "author": "a",
    "license": "l",
    "associated_files": [FILE],
    "min_parser_version": "1.0.0",
}


@pytest.mark.parametrize("tree", [{}, EVERYTHING], ids=["nothing", "everything"])
def test_nothing_is_lost(tree: Tree) -> None:
    assert read_tree(write_tree(tree)) == tree
    assert write_tree(tree) == write_tree(tree)


def test_a_tree_of_a_file_by_another_writer() -> None:
    files = [Associated("labels.txt"), Associated("labels-de.txt", locale="de")]
    assert read_tree(metadata(files)) == {
        "name": "net",
        "author": "a test",
        "subgraph_metadata": [
            {
                "output_tensor_metadata": [
                    {
                        "name": "output 0",
                        "associated_files": [
                            {"name": "labels.txt", "type": 2},
                            {"name": "labels-de.txt", "type": 2, "locale": "de"},
                        ],
                    }
                ]
            }
        ],
    }


def test_custom_data_is_aligned() -> None:
    """The schema's force_align: its readers may map the data as it is."""
    data = write_tree({"subgraph_metadata": [{"custom_metadata": [{"data": list(b"0123456789")}]}]})
    assert data.index(b"0123456789") % 16 == 0


def _with_fields(count: int) -> bytes:
    """A ModelMetadata whose last field of `count` is an integer."""
    builder = flatbuffers.Builder(64)
    builder.StartObject(count)
    builder.PrependInt32Slot(count - 1, 7, 0)
    builder.Finish(builder.EndObject(), b"M001")
    return bytes(builder.Output())


def _with_union(kind: int) -> bytes:
    """A ModelMetadata with a process unit of this type."""
    builder = flatbuffers.Builder(64)

    def table(slots: int, **fields: Any) -> int:
        builder.StartObject(slots)
        for name, value in fields.items():
            if name == "kind":
                builder.PrependUint8Slot(0, value, 0)
            else:
                builder.PrependUOffsetTRelativeSlot(int(name[1:]), value, 0)
        return int(builder.EndObject())

    def vector(place: int) -> int:
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(place)
        return int(builder.EndVector())

    unit = table(2, kind=kind, _1=table(0))
    subgraph = table(10, _5=vector(unit))
    builder.Finish(table(8, _3=vector(subgraph)), b"M001")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_with_fields(9), id="a field after the last one"),
        pytest.param(_with_union(7), id="a union of another type"),
        pytest.param(_with_union(0), id="a union without a type"),
    ],
)
def test_a_newer_schema_is_recognized(data: bytes) -> None:
    with pytest.raises(NewerSchemaError):
        read_tree(data)


def test_damaged_metadata_is_refused() -> None:
    """Every byte is changed: no other error comes out."""
    source = write_tree(EVERYTHING)
    refused = 0
    for position in range(0, len(source), 3):
        broken = bytearray(source)
        broken[position] ^= 0xF1
        try:
            read_tree(bytes(broken))
        except (ModelError, NewerSchemaError):
            refused += 1
    assert refused > 100
    with pytest.raises(ModelError, match="TFLITE_METADATA is damaged"):
        read_tree(source[: len(source) // 2])


def test_tables_that_name_each_other_are_refused() -> None:
    """Four vectors of 60 entries that all point to the same table: 13 million tables in a tree."""
    builder = flatbuffers.Builder(64)

    def repeated(place: int) -> int:
        builder.StartVector(4, 60, 4)
        for _ in range(60):
            builder.PrependUOffsetTRelative(place)
        return int(builder.EndVector())

    def table(slots: int, field: int, place: int) -> int:
        builder.StartObject(slots)
        builder.PrependUOffsetTRelativeSlot(field, place, 0)
        return int(builder.EndObject())

    builder.StartObject(5)
    file = repeated(int(builder.EndObject()))
    tensor = repeated(table(7, 6, file))
    subgraph = repeated(table(10, 3, tensor))
    builder.Finish(table(8, 3, subgraph), b"M001")
    with pytest.raises(ModelError, match="is damaged"):
        read_tree(bytes(builder.Output()))


def test_files_of_the_zoo(zoo: Path) -> None:
    found = 0
    for path in sorted(zoo.glob("*metadata.tflite")):
        model = read(path.read_bytes())
        (entry,) = [e for e in model.metadata if e.name == b"TFLITE_METADATA"]
        tree = read_tree(model.buffers[entry.buffer].data.tobytes())
        assert tree["author"] == "TensorFlow"
        assert read_tree(write_tree(tree)) == tree
        found += 1
    assert found == 3
