"""Write an ONNX model as ranges of the file that it was read from, with new pieces between them.

A model that is cut differs from its file in a few constants, shapes and attributes. What did not
change is copied as bytes, and its weights are never parsed.

1. The messages of the file and of the result are compared from the outside inward. Equal ones are
   copied. Of a model, a graph, a node or an attribute that differs, the fields are compared; other
   messages are small and written anew. A message around a change gets its new length.
2. The elements of a list are matched by their names. New ones are written after those that they
   follow in the result; the ones in the file keep their places.
3. The values of large constants are written from where they are: a range of the file, an array, or
   positions that are gathered a block at a time.
4. A model that was not read from a file, or whose bytes do not match its messages, is written as a
   new message.
5. If the file were larger than readers accept, its large constants go into a second file.

Ranges are written from the mapped file, whose pages are mapped first. On Linux this takes four
fifths of the time of `sendfile` and `copy_file_range`, which share no blocks if a range does not
start at one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from exporter.errors import ModelError
from exporter.formats.onnx.external_data import (
    ExternalData,
    is_external,
    replace_file,
    size_bytes,
    write_with_file,
)
from exporter.formats.onnx.protos import LARGEST_MESSAGE, copy_without, serialized
from exporter.formats.onnx.wire import WITH_LENGTH, Field, WireError, field_start, fields, number_of
from exporter.graph.mapped import parts_of

LARGEST_BYTES = LARGEST_MESSAGE  # of a file

# Bytes of the result, a range of the source, or a constant that supplies its values.
Piece = bytes | range | TensorProto


@dataclass(frozen=True, eq=False)
class Source:
    """A file that was opened.

    Attributes:
        content: of the file.
        model: that was parsed from it.
        lacks_values: was it parsed without its large constants?
    """

    content: memoryview
    model: ModelProto
    lacks_values: bool = False
    _fields: dict[range, list[Field]] = field(default_factory=dict)

    @property
    def values(self) -> memoryview | None:
        """Where the large constants are; None if the model contains them."""
        return self.content if self.lacks_values else None

    def fields(self, place: range) -> list[Field]:
        """The fields of a message; they are read once for all variants (raises WireError)."""
        if place not in self._fields:
            self._fields[place] = list(fields(self.content, place.start, place.stop))
        return self._fields[place]


def write(
    model: ModelProto,
    external: ExternalData,
    path: Path,
    stem: str,
    source: Source | None = None,
) -> None:
    """Write a model, with a second file next to it if its constants are in other files.

    A model of more than 2 GiB gets a second file too.

    Args:
        model: its constants may be external.
        external: their values.
        path: of the result.
        stem: start of the second file's name, which also contains a digest of its content.
        source: the file from which the model was made, if it was.

    Raises:
        ModelError: a constant's file is shorter than the constant.
    """
    if not external.has_files:
        pieces = _pieces(model, external, source)
        if _length(pieces) <= LARGEST_BYTES:
            replace_file(path, _chunks(pieces, external, source))
            return

    def encode(light: ModelProto) -> bytes:
        return content_of(light, external, source, inside=False)

    write_with_file(model, external, path, stem, encode)


def write_light(
    model: ModelProto, external: ExternalData, path: Path, source: Source, name: str
) -> None:
    """Write a model without the constants that it states to be in a file next to it.

    Args:
        name: of the model, in messages.

    Raises:
        ModelError: the file would be larger than readers accept.
    """
    pieces = _pieces(model, external, source, inside=False)
    if _length(pieces) > LARGEST_BYTES:
        raise ModelError(f"the rest of {name} is too large for a file", "leave out --share-body")
    replace_file(path, _chunks(pieces, external, source))


def content_of(
    model: ModelProto, external: ExternalData, source: Source | None = None, *, inside: bool = True
) -> bytes:
    """The bytes of the model's own file.

    Args:
        inside: the file contains all constants, those in other files too.
    """
    pieces = _pieces(model, external, source, inside=inside)
    return b"".join(map(bytes, _chunks(pieces, external, source)))


def _chunks(
    pieces: Iterable[Piece], external: ExternalData, source: Source | None
) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        elif isinstance(piece, TensorProto):
            yield from external.chunks(piece)
        elif source is not None:
            yield from parts_of(source.content[piece.start : piece.stop])


def _length(pieces: Iterable[Piece]) -> int:
    return sum(size_bytes(p) if isinstance(p, TensorProto) else len(p) for p in pieces)


def _pieces(
    model: ModelProto, external: ExternalData, source: Source | None, *, inside: bool = True
) -> list[Piece]:
    encoder = _Encoder(external, inside=inside)
    if source is None:
        return encoder.message(model)
    try:
        splice = _Splice(source, encoder)
        return splice.message(range(len(source.content)), source.model, model)
    except WireError:
        return encoder.message(model)


# --- new messages ---------------------------------------------------------------------------------


class _Encoder:
    """Writes messages, with the values of constants that they do not contain.

    Args:
        external: their values.
        inside: also write the values of constants that are in files next to the model.
    """

    def __init__(self, external: ExternalData, *, inside: bool) -> None:
        self._external = external
        self._inside = inside

    def message(self, message: Message) -> list[Piece]:
        if isinstance(message, TensorProto):
            return self._tensor(message)
        names = [name for name in _NESTED.get(type(message), ()) if self._holds(message, name)]
        if not names:
            return [serialized(message)]
        pieces: list[Piece] = [serialized(copy_without(message, *names))]
        for name in names:
            for child in _listed(message, name):
                pieces += nested(number_of(message, name), self.message(child))
        return pieces

    def _holds(self, message: Any, name: str) -> bool:
        """Is a value of a constant in this field missing in the message?"""
        if name == "attribute" and message.op_type != "Constant":
            return False
        return any(
            self._is_written(child)
            if isinstance(child, TensorProto)
            else any(self._holds(child, inner) for inner in _NESTED[type(child)])
            for child in _listed(message, name)
        )

    def _is_written(self, tensor: TensorProto) -> bool:
        """Is a value written that the message does not contain?"""
        return is_external(tensor) and (self._inside or self._external.holds(tensor))

    def _tensor(self, tensor: TensorProto) -> list[Piece]:
        if not self._is_written(tensor):
            return [serialized(tensor)]
        header = copy_without(tensor, "data_location", "external_data")
        start = field_start(number_of(tensor, "raw_data"), size_bytes(tensor))
        return [serialized(header) + start, tensor]


# The fields that may contain a constant whose value is not in the message; see `lazy_parse`.
_NESTED: dict[type[Message], tuple[str, ...]] = {
    ModelProto: ("graph",),
    GraphProto: ("initializer", "node"),
    NodeProto: ("attribute",),
    AttributeProto: ("t",),
}


_GRAPH = "graph"  # a field of the model


def nested(number: int, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces of a message as a field of another one."""
    return [field_start(number, _length(pieces)), *pieces]


def _listed(message: Any, name: str) -> list[Any]:
    """The messages in a field."""
    value = getattr(message, name)
    if hasattr(value, "extend"):
        return list(value)
    return [value] if message.HasField(name) else []


# --- changed messages -----------------------------------------------------------------------------


class _Splice:
    """Compares messages with the bytes that they were parsed from."""

    def __init__(self, source: Source, encoder: _Encoder) -> None:
        self._source = source
        self._encoder = encoder

    def message(self, place: range, old: Any, new: Any) -> list[Piece]:
        """The pieces of a message.

        Args:
            place: of the bytes that `old` was parsed from.
            old: of the file.
            new: of the result, of the same type.

        Raises:
            WireError: the bytes are not those of `old`.
        """
        if type(new) not in _NESTED:
            return self._encoder.message(new)
        values = [{f.name: value for f, value in each.ListFields()} for each in (old, new)]
        names = values[0].keys() | values[1].keys()
        # the lists of a graph are compared one by one, and the whole not before
        changed = sorted(n for n in names if n == _GRAPH or values[0].get(n) != values[1].get(n))
        found: dict[int, list[Field]] = {number_of(new, name): [] for name in changed}
        for each in self._source.fields(place):
            if each.number in found:
                found[each.number].append(each)
        replaced, added = dict[Field, list[Piece]](), list[Piece]()
        for name in changed:
            places = found[number_of(new, name)]
            self._field(name, places, (old, new), replaced, added)
        pieces, copied = list[Piece](), place.start
        for old_field in sorted(replaced, key=lambda f: f.start):
            pieces += [range(copied, old_field.start), *replaced[old_field]]
            copied = old_field.stop
        return [*pieces, range(copied, place.stop), *added]

    def _field(
        self,
        name: str,
        places: list[Field],
        messages: tuple[Any, Any],
        replaced: dict[Field, list[Piece]],
        added: list[Piece],
    ) -> None:
        """What replaces the places of a field in the file, and what is added at the end."""
        number = number_of(messages[1], name)
        if messages[1].DESCRIPTOR.fields_by_name[name].message_type is None:
            replaced |= {place: [] for place in places}
            added.append(_only(messages[1], name))
            return
        olds, news = (_listed(message, name) for message in messages)
        if len(places) != len(olds) or any(place.kind != WITH_LENGTH for place in places):
            raise WireError
        known = {key: index for index, key in reversed([*enumerate(_keys(olds))])}
        following, waiting = 0, list[Piece]()
        for each, key in zip(news, _keys(news), strict=True):
            index = known.get(key, -1)
            if index < following:
                waiting += nested(number, self._encoder.message(each))
                continue
            place = places[index]
            for skipped in places[following:index]:
                replaced[skipped] = []
            content = range(place.inner, place.stop)
            inner: list[Piece] = [content]
            if name == _GRAPH or olds[index] != each:
                inner = self.message(content, olds[index], each)
            if inner != [content]:
                replaced[place] = [*waiting, *nested(number, inner)]
            elif waiting:
                replaced[place] = [*waiting, range(place.start, place.stop)]
            following, waiting = index + 1, []
        for skipped in places[following:]:
            replaced[skipped] = []
        added += waiting


def _keys(messages: Sequence[Any]) -> list[str]:
    """What identifies each element of a list; "" if nothing does, or if there is one graph only."""
    if not messages or isinstance(messages[0], GraphProto):
        return [""] * len(messages)
    if isinstance(messages[0], NodeProto):
        return [each.name or "\0".join(each.output) for each in messages]
    known = messages[0].DESCRIPTOR.fields_by_name
    field = next((name for name in ("name", "key") if name in known), None)
    return [str(getattr(each, field)) if field else "" for each in messages]


def _only(message: Any, name: str) -> bytes:
    """One field of a message without messages in it."""
    others = (field.name for field, _ in message.ListFields() if field.name != name)
    return serialized(copy_without(message, *others))
