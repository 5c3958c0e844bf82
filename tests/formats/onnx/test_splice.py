"""A result is spliced from ranges of its file, and is the message that protobuf would write."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from onnx import GraphProto, ModelProto

from exporter.errors import ExporterError
from exporter.formats.onnx import OnnxModel, editor, files, from_bytes, lazy_parse, open_file
from exporter.formats.onnx.external_data import ExternalData, is_external
from exporter.formats.onnx.protos import all_tensors
from exporter.formats.onnx.splice import content_of
from exporter.formats.onnx.wire import WITH_LENGTH, fields
from exporter.graph.gathered import Gathered
from exporter.planning.cut import CutOptions, plan_cut
from tests.builders import mode_cells
from tests.builders.proof_models import CUTS, MODELS, head_of

ONNX_MODELS = [name for name, (kind, _) in MODELS.items() if kind == "onnx"]


# --- another encoding of the same message ---------------------------------------------------------


def odd(message: Message) -> bytes:
    """A message as no library writes it: its fields reversed, long lengths, an unknown field."""
    parts = [b"\xfa\xff\x01\x03odd"]  # field 4095
    for field, value in reversed(message.ListFields()):
        if field.message_type is None:
            only = type(message)()
            if field.is_repeated:
                getattr(only, field.name).extend(value)
            else:
                setattr(only, field.name, value)
            parts.append(only.SerializeToString())
            continue
        for child in value if field.is_repeated else [value]:
            content = odd(child)
            parts.append(tag(field.number) + long_length(len(content)) + content)
    return b"".join(parts)


def tag(number: int) -> bytes:
    value = number << 3 | WITH_LENGTH
    return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])


def long_length(value: int) -> bytes:
    """Five bytes, although less would do."""
    return bytes([value >> 7 * i & 127 | 128 for i in range(4)]) + bytes([value >> 28])


ENCODINGS: dict[str, Callable[[ModelProto], bytes]] = {
    "usual": ModelProto.SerializeToString,
    "odd": odd,
}

# --- both routes ----------------------------------------------------------------------------------


def without_unknown(content: bytes) -> ModelProto:
    model = ModelProto()
    model.ParseFromString(content)
    model.DiscardUnknownFields()
    return model


def encoded(model: OnnxModel) -> ModelProto:
    """The message that is written without the file that the model was made from."""
    external = model._external or ExternalData(Path())
    return without_unknown(content_of(model.proto, external, None))


def messages(content: bytes, place: range, name: str) -> Iterator[bytes]:
    """The bytes of each message in a repeated field of the graph."""
    number = GraphProto.DESCRIPTOR.fields_by_name[name].number
    view = memoryview(content)
    for graph in fields(view, place.start, place.stop):
        if graph.number == ModelProto.DESCRIPTOR.fields_by_name["graph"].number:
            for field in fields(view, graph.inner, graph.stop):
                if field.number == number:
                    yield content[field.start : field.stop]


def check_spliced(content: bytes, result: OnnxModel) -> None:
    """The result is the encoded message, and what did not change has its bytes."""
    spliced = result.to_bytes()
    assert without_unknown(spliced) == encoded(result)
    for name in ("node", "initializer", "value_info"):
        before = list(messages(content, range(len(content)), name))
        after = list(messages(spliced, range(len(spliced)), name))
        olds, news = (
            getattr(ModelProto.FromString(each).graph, name) for each in (content, spliced)
        )
        kept = [old for old, message in zip(before, olds, strict=True) if message in news]
        assert [each for each in after if each in kept] == kept
        changed = [each for each, message in zip(after, news, strict=True) if message not in olds]
        assert not set(changed) & set(before)


def result_of(opened: OnnxModel, options: dict[str, Any]) -> OnnxModel | None:
    """The cut model; None if the mode cannot cut it."""
    try:
        return opened.apply(plan_cut(opened, CutOptions(**options)).plan)
    except ExporterError:
        return None


@pytest.fixture
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as large, and so do most of its constants."""
    monkeypatch.setattr(files, "_LARGE_FILE", 0)
    for module in (lazy_parse, editor):
        monkeypatch.setattr(module, "LARGE_BYTES", 16)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ONNX_MODELS)
def test_every_cut_of_a_model(name: str, encoding: str) -> None:
    content = ENCODINGS[encoding](ModelProto.FromString(MODELS[name][1]()))
    opened = from_bytes(content, "net")
    results = (result_of(opened, {**options, **head_of(name)}) for options in CUTS.values())
    made = list(filter(None, results))
    assert len(made) > 1
    for result in made:
        check_spliced(content, result)


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ONNX_MODELS)
def test_large_constants_are_never_parsed(name: str, encoding: str, tmp_path: Path) -> None:
    """The same bytes as from a file that was parsed completely."""
    content = ENCODINGS[encoding](ModelProto.FromString(MODELS[name][1]()))
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    opened, whole = open_file(path), from_bytes(content, "net.onnx")
    whole.sha256 = opened.sha256
    assert any(map(is_external, all_tensors(opened.proto.graph)))
    for options in CUTS.values():
        pair = [result_of(model, {**options, **head_of(name)}) for model in (opened, whole)]
        if pair[0] is None or pair[1] is None:
            assert pair == [None, None]
            continue
        target = tmp_path / "small.onnx"
        pair[0].write(target)
        assert without_unknown(target.read_bytes()) == without_unknown(pair[1].to_bytes())
        check_spliced(content, pair[0])


@pytest.mark.parametrize("precision", mode_cells.PRECISIONS)
@pytest.mark.parametrize("head", ["softmax", "sigmoid", mode_cells.CALIBRATED])
def test_matrix_of_modes(head: str, precision: str) -> None:
    built = mode_cells.built(head, "onnx", precision)
    assert isinstance(built, OnnxModel)
    content = odd(built.proto)
    opened = from_bytes(content, "net")
    for mode, probabilities in itertools.product(mode_cells.MODES, mode_cells.PROBABILITIES):
        cell = mode_cells.Cell(mode, probabilities, head, "onnx", precision)
        result = result_of(opened, mode_cells.options_of(cell))
        if result is not None:
            check_spliced(content, result)
            again = result_of(from_bytes(result.to_bytes(), "again"), {"keep": [0, 1]})
            assert again is None or again.to_bytes() != result.to_bytes()


@pytest.mark.usefixtures("_large")
def test_a_gathered_constant_is_hashed_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof of a cut never has a kept head in memory."""
    path = tmp_path / "net.onnx"
    path.write_bytes(MODELS["softmax float32.onnx"][1]())
    opened, whole = open_file(path), from_bytes(path.read_bytes(), "net.onnx")
    found, expected = (result_of(model, {"keep": [0, 2, 3]}) for model in (opened, whole))
    assert found is not None
    assert expected is not None
    monkeypatch.setattr(Gathered, "read", None)
    constants = found.structure().constants
    assert any(constant.blocks for constant in constants.values())
    digests = {name: constant.digest for name, constant in constants.items()}
    assert digests == {n: c.digest for n, c in expected.structure().constants.items()}


def test_a_file_with_a_group_is_written_as_a_new_message() -> None:
    """Protobuf reads groups; no version of ONNX has one, and the wire walker refuses them."""
    content = MODELS["softmax float32.onnx"][1]() + b"\xfb\x7f\xfc\x7f"
    result = result_of(from_bytes(content, "net"), {"keep": [0, 2, 3]})
    assert result is not None
    assert without_unknown(result.to_bytes()) == encoded(result)
