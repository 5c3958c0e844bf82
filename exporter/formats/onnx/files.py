"""Open ONNX files, and list the files that a model consists of."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from exporter.errors import ModelError, UsageError
from exporter.formats.onnx.external_data import ExternalData, is_external
from exporter.formats.onnx.inline import without_functions
from exporter.formats.onnx.lazy_parse import parse_without_values
from exporter.formats.onnx.model import OnnxModel, prepared
from exporter.formats.onnx.protos import (
    LARGEST_MESSAGE,
    TOO_LARGE,
    FileNode,
    all_tensors,
    file_nodes,
)
from exporter.formats.onnx.shared_body import without_statement
from exporter.formats.onnx.splice import Source
from exporter.formats.onnx.validate import check_model
from exporter.output.files import sha256_of_source

_LARGE_FILE = 1 << 20  # bytes; smaller files are read and parsed completely


def open_file(path: Path) -> OnnxModel:
    """Open an ONNX file; its content is checked, its suffix is not.

    Raises:
        UsageError: the file cannot be read.
        ModelError: empty, truncated, damaged, another kind of file, or a file next to it is
            missing, unsafe or too short.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_MESSAGE:
            raise ModelError(
                TOO_LARGE.format(path.name), "save the model with its weights in a file next to it"
            )
        if not size:
            raise ModelError(f"{path.name} is empty")
        sha256 = sha256_of_source(path)
        source = _parse(path)
        proto = without_statement(source.model, path.parent, path.name)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise _damaged(path.name) from error
    external = ExternalData(path.parent, source.values)
    model = from_proto(proto, path.name, external, source)
    model.sha256 = sha256
    return model


def from_bytes(content: bytes, name: str) -> OnnxModel:
    """Open the content of an ONNX file that is in memory (raises as `open_file` does)."""
    if not content:
        raise ModelError(f"{name} is empty")
    try:
        source = Source(memoryview(content), ModelProto.FromString(content))
    except DecodeError as error:
        raise _damaged(name) from error
    return from_proto(source.model, name, source=source)


def from_proto(
    proto: ModelProto,
    name: str,
    external: ExternalData | None = None,
    source: Source | None = None,
) -> OnnxModel:
    """A model from a parsed file.

    Args:
        proto: kept, and never changed; the caller must not change it either.
        name: of the model, in messages and in the remap.
        external: the values of constants that `proto` does not contain.
        source: the file that `proto` was parsed from.

    Raises:
        ModelError: no graph or operator set, a damaged remap, or a file next to the model is
            missing, unsafe or too short.
    """
    nodes: Sequence[FileNode] = file_nodes(proto.graph)
    check_model(proto, nodes, name)
    if proto.functions:
        proto = without_functions(proto, name)
        nodes = file_nodes(proto.graph)
    proto, nodes = prepared(proto, nodes)
    if external is None:
        missing = next((t for t in all_tensors(proto.graph) if is_external(t)), None)
        if missing is not None:
            raise ModelError(
                f"{name} has the constant {missing.name!r} in another file",
                "save the model with its weights in the same file",
            )
    else:
        external.check(proto)
    model = OnnxModel(proto, name, external, nodes=nodes, source=source)
    model.graph()  # drawn here, so that an inconsistent graph is refused
    return model


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of a model: its own, then those with its constants (ModelError: damaged)."""
    try:
        source = _parse(path)
    except DecodeError as error:
        raise _damaged(path.name) from error
    others = ExternalData(path.parent, source.values).files(source.model)
    return (path, *(path.parent / location for location in sorted(others)))


def _parse(path: Path) -> Source:
    """The message, without the large constants of a large file.

    Raises:
        OSError: the file cannot be read.
        DecodeError: it is not an ONNX file.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < _LARGE_FILE:
            content = memoryview(file.read())
        else:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            model = parse_without_values(content)
            if model is not None:
                return Source(content, model, lacks_values=True)
    return Source(content, ModelProto.FromString(content))


def _damaged(name: str) -> ModelError:
    return ModelError(
        f"{name} is not an ONNX file, or it is damaged or truncated", "save or copy the model again"
    )
