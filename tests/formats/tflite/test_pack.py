"""A file is written from the bytes of the original; the library's schema is the reference."""

from __future__ import annotations

import runpy
import struct
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as library
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import ModelError
from exporter.formats.tflite import from_bytes, schema
from exporter.formats.tflite.layout import UNITS, Layout, fields_of
from exporter.formats.tflite.pack import pack
from exporter.formats.tflite.record import Record
from exporter.formats.tflite.schema_tables import TABLES
from tests.builders.tflite_builder import classifier
from tests.builders.tflite_objects import objects, plain

PROJECT = Path(__file__).parent.parent.parent.parent
GOOD = classifier().content("y")


def test_the_tables_are_those_of_the_library() -> None:
    tool = runpy.run_path(str(PROJECT / "tools" / "tflite_schema.py"))
    assert tool["TARGET"].read_text() == tool["text"]()
    names = {name for line in TABLES.splitlines() for name in fields_of(line.partition(" ")[0])}
    assert not names & set(dir(Record))  # a field of that name could not be read


# --- edits of records and of the library's objects ----------------------------------------------


def made(like: Any, table: str, **values: Any) -> Any:
    """A new table, of the class that the others of this model have."""
    return (
        Record(table, **values)
        if isinstance(like, Record)
        else getattr(library, f"{table}T")(**values)
    )


def set_shape(model: Any, n: int) -> None:
    model.subgraphs[0].tensors[n % 3].shape = np.array([1, n], np.int32)


def set_signature(model: Any, n: int) -> None:
    model.subgraphs[0].tensors[n % 3].shapeSignature = np.array([-1, n], np.int32)


def rename(model: Any, n: int) -> None:
    model.subgraphs[0].tensors[n % 3].name = f"tensor {n}" if n % 2 else None


def set_data(model: Any, n: int) -> None:
    model.buffers[n % 4] = made(model, "Buffer", data=np.arange(n, dtype=np.uint8))


def drop_data(model: Any, n: int) -> None:
    model.buffers[n % 4].data = None


def add_buffer(model: Any, n: int) -> None:
    model.buffers.append(made(model, "Buffer", data=np.full(n, n, np.uint8)))


def add_metadata(model: Any, n: int) -> None:
    entry = made(model, "Metadata", name=f"note {n}", buffer=n % 3)
    model.metadata = [*(model.metadata or ()), entry]


def copy_tensor(model: Any, n: int) -> None:
    tensors = model.subgraphs[0].tensors
    tensors.append(copy(tensors[n % 3]))


def quantize(model: Any, n: int) -> None:
    scale, zero = np.full(n, 0.5, np.float32), np.arange(n, dtype=np.int64)
    quantization = made(model, "QuantizationParameters", scale=scale, zeroPoint=zero)
    model.subgraphs[0].tensors[n % 3].quantization = quantization


def drop_operator(model: Any, _n: int) -> None:
    del model.subgraphs[0].operators[-1:]


def reverse_tensors(model: Any, _n: int) -> None:
    model.subgraphs[0].tensors.reverse()


def add_subgraph(model: Any, n: int) -> None:
    tensor = made(model, "Tensor", name=b"lonely", type=n % 4, hasRank=True)
    model.subgraphs.append(made(model, "SubGraph", tensors=[tensor], inputs=np.zeros(1, np.int32)))


def set_activation(model: Any, n: int) -> None:
    for operator in model.subgraphs[0].operators:
        if hasattr(operator.builtinOptions, "fusedActivationFunction"):
            operator.builtinOptions.fusedActivationFunction = n % 4


def describe(model: Any, n: int) -> None:
    model.description = f"version {n}"


def nothing(_model: Any, _n: int) -> None:
    pass


EDITS: tuple[Callable[[Any, int], None], ...] = (
    *(set_shape, set_signature, rename, set_data, drop_data, add_buffer, add_metadata),
    *(copy_tensor, quantize, drop_operator, reverse_tensors, add_subgraph, set_activation),
    *(describe, nothing),
)


def as_bytes(tree: Any) -> Any:
    """Strings as the bytes that a file has for them."""
    if isinstance(tree, str):
        return tree.encode()
    if isinstance(tree, list):
        return [as_bytes(each) for each in tree]
    if isinstance(tree, tuple) and isinstance(tree[1], dict):
        return tree[0], {key: as_bytes(value) for key, value in tree[1].items()}
    return tree


steps = st.lists(st.tuples(st.sampled_from(EDITS), st.integers(1, 40)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=1, max_size=3))
def test_written_files_have_the_edited_objects(rounds: list[list[Any]]) -> None:
    content = GOOD
    reference = library.ModelT.InitFromObj(library.Model.GetRootAs(content))
    for edits in rounds:  # each round starts from the file that the one before wrote
        file = schema.unpack(content)
        for edit, number in edits:
            edit(file.model, number)
            edit(reference, number)
        content = pack(file, "edited.tflite")
        assert objects(content) == as_bytes(plain(reference))
        assert pack(file, "edited.tflite") == content
        assert len(content) < len(GOOD) + 200 * sum(map(len, rounds)) + 400
        Layout(content)


def test_unchanged_bytes_are_copied_and_aligned() -> None:
    """The builder of the tests does not align buffers; a file that was written once is aligned."""
    first = schema.unpack(GOOD)
    schema.set_metadata(first.model, "note", b"aligned from here on")
    aligned = pack(first, "aligned.tflite")
    file = schema.unpack(aligned)
    kept = [buffer.data.tobytes() for buffer in file.model.buffers if buffer.data is not None]
    file.model.subgraphs[0].name = "another"
    content = pack(file, "named.tflite")
    assert len(content) < len(aligned) + 150
    start = min(aligned.index(data) for data in kept)
    stop = max(aligned.index(data) + len(data) for data in kept)
    assert aligned[start:stop] in content
    for buffer in schema.unpack(content).model.buffers:
        if buffer.data is not None:
            assert content.index(buffer.data.tobytes()) % 16 == 0
    Interpreter(model_content=content).allocate_tensors()


def test_removed_bytes_are_gone_and_nothing_piles_up() -> None:
    content, secret = GOOD, b"not in the file any more"
    sizes = []
    for text in (secret * 9, b"short", b"other", b"short", b"other"):
        file = schema.unpack(content)
        schema.set_metadata(file.model, "note", text)
        content = pack(file, "noted.tflite")
        sizes.append(len(content))
    assert secret not in content
    assert sizes[0] > sizes[1]
    assert len(set(sizes[1:])) == 1


# --- damaged files ------------------------------------------------------------------------------


def flatbuffer(build: Callable[[flatbuffers.Builder], int]) -> bytes:
    builder = flatbuffers.Builder(64)
    builder.Finish(build(builder), b"TFL3")
    return bytes(builder.Output())


def _thousand_times(builder: flatbuffers.Builder, place: int) -> int:
    builder.StartVector(4, 1000, 4)
    for _ in range(1000):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def repeated(builder: flatbuffers.Builder) -> int:
    """A thousand subgraphs that are one, with a thousand tensors that are one."""
    library.TensorStart(builder)
    tensors = _thousand_times(builder, library.TensorEnd(builder))
    library.SubGraphStart(builder)
    library.SubGraphAddTensors(builder, tensors)
    subgraphs = _thousand_times(builder, library.SubGraphEnd(builder))
    library.ModelStart(builder)
    library.ModelAddSubgraphs(builder, subgraphs)
    return int(library.ModelEnd(builder))


def shared(builder: flatbuffers.Builder) -> int:
    """A thousand buffers that share one vector of all their bytes."""
    data = builder.CreateByteVector(bytes(100_000))
    tables = []
    for _ in range(1000):
        library.BufferStart(builder)
        library.BufferAddData(builder, data)
        tables.append(library.BufferEnd(builder))
    builder.StartVector(4, len(tables), 4)
    for table in tables:
        builder.PrependUOffsetTRelative(table)
    buffers = builder.EndVector()
    library.ModelStart(builder)
    library.ModelAddBuffers(builder, buffers)
    return int(library.ModelEnd(builder))


def patched(position: int, value: int) -> bytes:
    content = bytearray(GOOD)
    struct.pack_into("<I", content, position, value)
    return bytes(content)


ROOT = struct.unpack_from("<I", GOOD)[0]
DAMAGED = {
    "objects that are repeated without end": flatbuffer(repeated),
    "a vector that is read without end": flatbuffer(shared),
    "the root is outside": patched(0, 1 << 30),
    "the root is not aligned": patched(0, ROOT + 1),
    "the root points to itself": patched(0, 0),
    "the vtable is outside": patched(ROOT, 1 << 31),
    "the vtable is not aligned": patched(ROOT, 1),
    "cut off": GOOD[: len(GOOD) // 2],
    "only a start": GOOD[:8],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"^damaged\.tflite is damaged or truncated: an offset"):
        from_bytes(DAMAGED[name], "damaged.tflite")


def test_each_cut_of_the_file_is_refused() -> None:
    for size in range(9, len(GOOD) - 16, 7):
        with pytest.raises(ModelError):
            from_bytes(GOOD[:size], "short.tflite")


def outcome(content: bytes) -> str:
    """How opening a file and writing it with another description ends."""
    try:
        file = schema.unpack(content, schema.layout_of(content, "net.tflite"))
    except ModelError:
        return "refused when opened"
    describe(file.model, 1)
    try:
        written = pack(file, "net.tflite")
    except ModelError as error:
        assert error.message == "net.tflite is damaged: its objects overlap"  # noqa: PT017 - of many
        return "refused when written"
    reference = library.ModelT.InitFromObj(library.Model.GetRootAs(content))
    describe(reference, 1)
    assert objects(written) == as_bytes(plain(reference))
    return "written"


def test_an_object_may_start_in_the_padding_of_a_table() -> None:
    """The size of a table that is stored with it may count bytes that the next object uses."""
    content = bytearray(GOOD + bytes(12))  # a table may be the last object
    sizes = {s.vtable: s.size for s in schema.layout_of(GOOD, "net.tflite").shapes.values()}
    for vtable, size in sizes.items():
        struct.pack_into("<H", content, vtable + 2, size + 12)
    layout = schema.layout_of(bytes(content), "net.tflite")
    starts, stops, vtables = map(np.array, (layout.starts, layout.stops, layout.vtables))
    assert np.isin(stops[vtables >= 0] - 12, starts).any()
    assert outcome(bytes(content)) == "written"


def other_offset(layout: Layout, random: np.random.Generator) -> bytes:
    """Let an offset point to any later position, mostly into or at another object."""
    at = random.choice(layout.at)
    return patched(at, UNITS * random.integers(1, (len(GOOD) - at) // UNITS))


def other_vtable(layout: Layout, random: np.random.Generator) -> bytes:
    """Let a table have any bytes as its vtable."""
    tables = [s for s, v in zip(layout.starts, layout.vtables, strict=True) if v >= 0]
    start = random.choice(tables)
    return patched(start, (start - 2 * random.integers(0, len(GOOD) // 2)) % 2**32)


@pytest.mark.parametrize("damage", [other_offset, other_vtable])
def test_offsets_that_contradict_each_other(
    damage: Callable[[Layout, np.random.Generator], bytes],
) -> None:
    """A file is refused, or written with the objects that the library reads in it."""
    random, layout = np.random.default_rng(0), Layout(GOOD)
    found = {outcome(damage(layout, random)) for _ in range(600)}
    assert found == {"refused when opened", "refused when written", "written"}


def test_a_string_must_end() -> None:
    content = bytearray(GOOD)
    place = content.index(b"z/kernel\0") + len(b"z/kernel")
    content[place] = 1
    with pytest.raises(ModelError, match="damaged"):
        from_bytes(bytes(content), "endless.tflite")
