"""A file as records of the schema: checked, opened, and small helpers to read and edit it.

Data that the file keeps outside of the flatbuffer (buffers and custom options given by their offset
in the file) would be lost when it is written, so `bring_inside` moves it into the records. An
archive that follows the flatbuffer is kept unchanged. `exporter.formats.tflite.pack` writes a file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite import archive
from exporter.formats.tflite.flatbuffer import OutsideError
from exporter.formats.tflite.layout import Layout, enumeration
from exporter.formats.tflite.record import Record
from exporter.graph import Array

_OPERATORS = {code: name for name, code in enumeration("BuiltinOperator").items()}
_CUSTOM = enumeration("BuiltinOperator")["CUSTOM"]
IDENTIFIER = b"TFL3"
SAVE_AGAIN = "save, copy or download the file again"
LIMIT_BYTES = 2**31 - 1  # flatbuffer offsets are signed; the verifier skips larger files
_MAIN_VECTORS = {"operator codes": "operatorCodes", "subgraph": "subgraphs", "buffers": "buffers"}
_MIN_OFFSET = 2  # the schema: an offset is "only valid if > 1"


@dataclass(eq=False)
class File:
    """An unpacked file. Its objects may be edited, the values of its arrays may not.

    Attributes:
        model: a record "Model"; its arrays are read-only views of the file's content.
        tail: the archive after the flatbuffer, or b"".
        tail_start: the archive's offset in the file.
    """

    model: Any
    tail: bytes
    tail_start: int

    @property
    def main(self) -> Any:
        """subgraph 0, which runs first."""
        return self.model.subgraphs[0]


def layout_of(content: bytes, name: str) -> Layout:
    """Find every object of a file, and check each offset.

    The runtime's verifier crashes on a file without one of the main vectors.

    Raises:
        ModelError: another kind of file, larger than 2 GB, damaged or truncated.
    """
    if content[4:8] != IDENTIFIER:
        raise ModelError(f"{name} is not a TFLite file", "a .tflite file has TFL3 at byte 4")
    check_size(len(content), name)
    try:
        layout = Layout(content)
    except (OutsideError, struct.error) as error:
        raise ModelError(
            f"{name} is damaged or truncated: an offset points outside", SAVE_AGAIN
        ) from error
    model = Record.at(layout, "Model", 0)
    for vector, field in _MAIN_VECTORS.items():
        if not getattr(model, field):
            raise ModelError(f"{name} is damaged: it has no {vector}", SAVE_AGAIN)
    return layout


def check_size(size: int, name: str) -> None:
    """Raise ModelError if a file of `size` bytes is too large to be verified or written."""
    if size > LIMIT_BYTES:
        raise ModelError(
            f"{name} is larger than 2 GB, which cannot be checked or written",
            "quantize the model before it is cut, or cut the model from which it was converted",
        )


def unpack(content: bytes, layout: Layout | None = None) -> File:
    """The records of a file; call `check_bounds` before using them."""
    start = archive.start(content)
    model = Record.at(layout or Layout(content), "Model", 0)
    return File(model, content[start:], start)


def bring_inside(file: File, content: bytes, name: str) -> None:
    """Read the data that offsets point to; raise ModelError if an offset points outside.

    As in the runtime, an offset has no effect if the data is in the flatbuffer too.
    """
    states = file.model.layout.states  # reading the fields of all buffers takes long
    for buffer in file.model.buffers or () if states("Buffer", "offset", "size") else ():
        if buffer.offset or buffer.size:
            if buffer.offset >= _MIN_OFFSET and buffer.data is None:
                buffer.data = _bytes_at(content, buffer.offset, buffer.size, name)
            buffer.offset = buffer.size = 0
    is_outside = states("Operator", "largeCustomOptionsOffset", "largeCustomOptionsSize")
    for operator in operators(file.model) if is_outside else ():
        if operator.largeCustomOptionsOffset or operator.largeCustomOptionsSize:
            if operator.largeCustomOptionsOffset >= _MIN_OFFSET and operator.customOptions is None:
                where = operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize
                operator.customOptions = _bytes_at(content, *where, name)
            operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0


def _bytes_at(content: bytes, offset: int, size: int, name: str) -> Array:
    if offset + size > len(content):
        raise ModelError(f"{name} is truncated: a buffer is outside of the file", SAVE_AGAIN)
    return np.frombuffer(content, np.uint8, size, offset)


def operators(model: Any) -> Iterator[Any]:
    """Every operator of every subgraph."""
    for subgraph in model.subgraphs or ():
        yield from subgraph.operators or ()


def integers(values: Any) -> list[int]:
    """A vector of the file as Python integers; [] if it is absent."""
    return [] if values is None else [int(value) for value in values]


def text(value: bytes | str | None) -> str:
    """A string of the file; bytes that are not UTF-8 are replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


# --- signatures ----------------------------------------------------------------------------------


def signatures(model: Any) -> list[Any]:
    """The signatures of subgraph 0."""
    return [each for each in model.signatureDefs or () if each.subgraphIndex == 0]


def add_signature(
    model: Any, inputs: Iterable[tuple[str, int]], outputs: Iterable[tuple[str, int]]
) -> None:
    """Add a signature of subgraph 0 with these names and tensor indices."""
    ends = ([signature_end(*pair) for pair in pairs] for pairs in (inputs, outputs))
    given, returned = ends
    key = "serving_default"
    signature = Record("SignatureDef", inputs=given, outputs=returned, signatureKey=key)
    model.signatureDefs = [*(model.signatureDefs or ()), signature]


def signature_end(name: str, index: int) -> Any:
    """An input or output of a signature."""
    return Record("TensorMap", name=name, tensorIndex=index)


# --- operator codes ------------------------------------------------------------------------------


def builtin_code(code: Any) -> int:
    """The BuiltinOperator of an operator code; files from before 2020 have the old field only."""
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def operator_name(model: Any, operator: Any) -> str:
    """The schema's name of an operator, or a custom operator's own."""
    code = model.operatorCodes[operator.opcodeIndex]
    builtin = builtin_code(code)
    custom = text(code.customCode) if builtin == _CUSTOM else ""
    return custom or _OPERATORS.get(builtin, f"operator {builtin}")


def operator_code(model: Any, builtin: int, version: int) -> int:
    """The index of a builtin operator's code, which is added if the file lacks it."""
    codes = list(model.operatorCodes or ())
    for index, code in enumerate(codes):
        if builtin_code(code) == builtin and code.version == version:
            return index
    # Some runtimes read the new field only, others the old one.
    old = min(builtin, _OLD_FIELD_MAX)
    codes.append(
        Record("OperatorCode", deprecatedBuiltinCode=old, version=version, builtinCode=builtin)
    )
    model.operatorCodes = codes
    return len(codes) - 1


_OLD_FIELD_MAX = 127  # the old field is a signed byte; this value refers to the new field


# --- metadata ------------------------------------------------------------------------------------


def metadata(model: Any, name: str) -> Array | None:
    """The metadata of that name as uint8, or None."""
    return next(all_metadata(model, name), None)


def all_metadata(model: Any, name: str) -> Iterator[Array]:
    """All metadata of that name, each as uint8."""
    for entry in model.metadata or ():
        if text(entry.name) == name:
            data: Array | None = model.buffers[entry.buffer].data
            yield np.empty(0, np.uint8) if data is None else data


def set_metadata(model: Any, name: str, value: bytes) -> None:
    """Add metadata, or replace the metadata of the same name."""
    data = np.frombuffer(value, np.uint8)
    for entry in model.metadata or ():
        if text(entry.name) == name:
            model.buffers[entry.buffer] = Record("Buffer", data=data)
            return
    model.buffers.append(Record("Buffer", data=data))
    entry = Record("Metadata", name=name, buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or ()), entry]


def raise_runtime(model: Any, version: str) -> None:
    """Require at least this runtime version, if the file states the version that it requires."""
    stated = metadata(model, RUNTIME)
    if stated is None:
        return
    known = stated.tobytes().rstrip(b"\0").decode("ascii", "replace")
    if _version_key(known) < _version_key(version):
        set_metadata(model, RUNTIME, version.encode().ljust(_RUNTIME_BYTES, b"\0"))


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


RUNTIME = "min_runtime_version"
_RUNTIME_BYTES = 16
