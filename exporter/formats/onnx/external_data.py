"""Constants that a parsed model does not contain.

Their values are in files next to the model (ONNX's external data), in the model's own file (see
`lazy_parse`), or in arrays. Files are checked first, then mapped into memory, never read whole.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.errors import ModelError, refuse_pointer
from exporter.formats.onnx.lazy_parse import WITHIN
from exporter.formats.onnx.protos import (
    all_tensors,
    copy_without,
    dtype_name,
    model_without,
    read_tensor,
)
from exporter.graph import Array
from exporter.graph.gathered import Gathered
from exporter.graph.mapped import parts_of
from exporter.output.files import apply_umask, byte_chunks

_ALIGNMENT = 64  # bytes: whole cache lines, and every element type
_SMALL = 1024  # bytes; smaller constants stay in the model
_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}
_BYTE = 8


class ExternalData:
    """The values of constants that a model does not contain.

    Attributes:
        folder: of the model and of the files next to it.
        has_files: did a file next to the model contain a constant when the model was checked?
    """

    def __init__(self, folder: Path, content: memoryview | None = None) -> None:
        """Args: content: the model's own file, if its large constants were not parsed."""
        self.folder = folder.resolve()
        self.has_files = False
        self._maps: dict[str, memoryview] = {} if content is None else {WITHIN: content}
        self._arrays: dict[str, Array | Gathered] = {}

    def copy(self) -> ExternalData:
        """The same values, to which others can be added."""
        result = copy(self)
        result._arrays = dict(self._arrays)  # noqa: SLF001 - of the same class
        return result

    def add_array(self, name: str, values: Array | Gathered) -> TensorProto:
        """A constant with its values in an array, which may be a view or a memory map."""
        location = f"\0array {len(self._arrays)}"
        self._arrays[location] = values
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = TensorProto(name=name, dims=values.shape, data_type=kind)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        return tensor

    def is_in_file(self, tensor: TensorProto) -> bool:
        """Is a constant in a file next to the model?"""
        return is_external(tensor) and not self.holds(tensor)

    def holds(self, tensor: TensorProto) -> bool:
        """Is a constant in an array, or in the model's own file?"""
        location = _entries(tensor)["location"]
        return location in self._arrays or (location == WITHIN and WITHIN in self._maps)

    def check(self, model: ModelProto) -> None:
        """Check every constant that is in a file; its values are not read.

        Raises:
            ModelError: names the constant and the file that is missing, unsafe or too short.
        """
        for tensor in all_tensors(model.graph):
            if self.is_in_file(tensor):
                self.has_files = True
                self._check_path(tensor)
                self._check_length(tensor)

    def files(self, model: ModelProto) -> set[str]:
        """The files next to the model, as paths relative to it."""
        return {_entries(t)["location"] for t in all_tensors(model.graph) if self.is_in_file(t)}

    def read(self, tensor: TensorProto) -> Array:
        """The values of any constant; external ones are views of their file or array.

        Positions that are still to be gathered are gathered each time.
        """
        if not is_external(tensor):
            return read_tensor(tensor)
        if (gathered := self.gathered(tensor)) is not None:
            return gathered.read()
        values = self._arrays.get(_entries(tensor)["location"])
        if isinstance(values, np.ndarray):
            return values
        raw = self._raw(tensor)
        if dtype_name(tensor.data_type) in _BITS:
            packed = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            packed.raw_data = bytes(raw)
            return read_tensor(packed)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return np.frombuffer(raw, dtype).reshape(tuple(tensor.dims))

    def gathered(self, tensor: TensorProto) -> Gathered | None:
        """The values of a constant, if they are positions that are still to be gathered."""
        values = self._arrays.get(_entries(tensor)["location"])
        return values if isinstance(values, Gathered) else None

    def inside(self, tensor: TensorProto) -> TensorProto:
        """A constant in a file as one that is written into the model's own file."""
        result = copy_without(tensor, "external_data")
        location = f"\0array {len(self._arrays)}"
        self._arrays[location] = np.frombuffer(self._raw(tensor), np.uint8)
        result.external_data.add(key="location", value=location)
        return result

    def chunks(self, tensor: TensorProto) -> Iterator[Any]:
        """The bytes of any constant, as buffers; each is valid until the next one."""
        values = self._arrays.get(_entries(tensor)["location"])
        if not is_external(tensor):
            yield _raw_data(tensor)
        elif values is None:
            yield from parts_of(self._raw(tensor))
        elif isinstance(values, Gathered):
            yield from values.blocks()
        else:
            yield from byte_chunks(values)

    def _raw(self, tensor: TensorProto) -> memoryview:
        """The bytes of a constant in a file."""
        entries, size = _entries(tensor), size_bytes(tensor)
        start = int(entries.get("offset", 0))
        found = self._map(entries["location"])[start : start + size]
        if len(found) < size:
            raise _error(tensor, "is too short")
        return found

    def _map(self, location: str) -> memoryview:
        if location not in self._maps:
            with (self.folder / location).open("rb") as file:
                empty = os.fstat(file.fileno()).st_size == 0
                content = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps[location] = memoryview(content)
        return self._maps[location]

    def _check_path(self, tensor: TensorProto) -> None:
        location = _entries(tensor)["location"]
        relative = PurePosixPath(location)
        if not location or relative.is_absolute() or PureWindowsPath(location).anchor:
            raise _error(tensor, "is not a path relative to the model")
        if ".." in (*relative.parts, *PureWindowsPath(location).parts):
            raise _error(tensor, "leads out of the model's folder")
        path = self.folder
        found = path.lstat()
        try:
            for part in relative.parts:
                path /= part
                found = path.lstat()
                if stat.S_ISLNK(found.st_mode):
                    raise _error(tensor, "is a link")
        except OSError as error:
            raise _error(tensor, f"cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise _error(tensor, "is not a path") from error
        if not stat.S_ISREG(found.st_mode):
            raise _error(tensor, "is not a regular file")
        if found.st_nlink > 1:
            raise _error(tensor, "is a link: the same file has another name too")

    def _check_length(self, tensor: TensorProto) -> None:
        entries, needed = _entries(tensor), size_bytes(tensor)
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", needed))
        except ValueError as error:
            raise _error(tensor, "is read at an offset or a length that is not a number") from error
        if length != needed:
            raise _error(
                tensor, f"is read for {length} bytes, but the constant's shape needs {needed}"
            )
        size = (self.folder / entries["location"]).stat().st_size
        if offset < 0 or offset + needed > size:
            refuse_pointer(entries["location"], bytes(self._map(entries["location"])[:64]))
            raise _error(
                tensor, f"is too short: {size} bytes, but {needed} are needed from byte {offset} on"
            )


def is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def size_bytes(tensor: TensorProto) -> int:
    """The number of bytes that the shape and the type of a constant need."""
    bits = _BITS.get(dtype_name(tensor.data_type))
    if bits is None:
        bits = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * _BYTE
    return int(-(-prod(tensor.dims) * bits // _BYTE))


def write_with_file(
    model: ModelProto,
    external: ExternalData,
    path: Path,
    stem: str,
    encode: Callable[[ModelProto], bytes],
) -> None:
    """Write a model, and its large constants into a file in the same folder.

    The second file is complete before the model is written. Its name contains a digest of the model
    and of a CRC-32 of its content: a model that is already there keeps its file, whatever fails on
    the way. A SHA-256 of the content would take three times as long as writing it.

    Args:
        model: not changed; its constants may be external or not.
        external: values of the external ones.
        path: of the model.
        stem: start of the second file's name.
        encode: gives the bytes of the model with the constants in the second file.

    Raises:
        OSError: a file cannot be written; a new second file is removed then.
    """
    light = _without_values(model, external)
    if not any(map(_is_placed, all_tensors(light.graph))):
        replace_file(path, [encode(light)])
        return
    handle, name = tempfile.mkstemp(".data", f".{stem}.", path.parent)
    temporary = Path(name)
    new_file = None
    try:
        with os.fdopen(handle, "wb") as file:
            checksum = _write_summed(file, _layout(model, light, external))
        digest = hashlib.sha256(encode(light) + checksum.to_bytes(4, "big")).hexdigest()
        location = f"{stem}-{digest[:16]}.data"
        for tensor in filter(_is_placed, all_tensors(light.graph)):
            tensor.external_data.add(key="location", value=location)
        if not (path.parent / location).exists():
            new_file = path.parent / location
        apply_umask(temporary)
        temporary.replace(path.parent / location)
        replace_file(path, [encode(light)])
    except OSError:
        if new_file is not None:
            new_file.unlink(missing_ok=True)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, chunks: Iterable[Any]) -> None:
    """Write a file. One that is there stays as it is until the new one is complete.

    It may be a model that is open: a process dies if a file that it has mapped gets shorter.
    """
    path = path.resolve()
    handle, name = tempfile.mkstemp(path.suffix, ".exporter-", path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(chunks)
        apply_umask(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_summed(file: BinaryIO, chunks: Iterable[Any]) -> int:
    """Write chunks; returns their CRC-32, which is computed at the same time."""
    checksum = 0
    with ThreadPoolExecutor(1) as other:
        for chunk in chunks:
            view = memoryview(chunk)
            for start in range(0, len(view), _SUMMED_BYTES):
                part = view[start : start + _SUMMED_BYTES]
                summed = other.submit(zlib.crc32, part, checksum)
                file.write(part)
                checksum = summed.result()  # the next chunk may use the same memory
    return checksum


_SUMMED_BYTES = 1 << 23


def _without_values(model: ModelProto, external: ExternalData) -> ModelProto:
    """The model with every large constant external, but without a location yet."""
    light = model_without(model, "initializer")
    for tensor in model.graph.initializer:
        if is_external(tensor) or is_large(tensor):
            named = light.graph.initializer.add()
            named.CopyFrom(copy_without(tensor, *VALUES))
            named.data_location = TensorProto.EXTERNAL
        else:
            light.graph.initializer.append(tensor)
    for tensor in filter(external.is_in_file, all_tensors(light.graph)):
        del tensor.external_data[:]
        if not size_bytes(tensor):  # onnxruntime maps no range of no bytes
            tensor.ClearField("data_location")
            tensor.raw_data = b""
    return light


VALUES = (
    "external_data",
    "raw_data",
    *(f"{kind}_data" for kind in ("float", "double", "int32", "int64", "uint64")),
)


def _is_placed(tensor: TensorProto) -> bool:
    """Does the second file contain a constant? Its name is not known yet."""
    return is_external(tensor) and not _entries(tensor)["location"]


def is_large(tensor: TensorProto) -> bool:
    """Is a constant worth a place in another file?"""
    return tensor.data_type != TensorProto.STRING and size_bytes(tensor) >= _SMALL


def _layout(model: ModelProto, light: ModelProto, external: ExternalData) -> Iterator[Any]:
    """The bytes of the second file; records the position of each constant in the light model."""
    position = 0
    pairs = zip(all_tensors(model.graph), all_tensors(light.graph), strict=True)
    for source, target in pairs:
        if not _is_placed(target):
            continue
        gap = padding(position)
        yield bytes(gap)
        position += gap
        yield from external.chunks(source)
        target.external_data.add(key="offset", value=str(position))
        target.external_data.add(key="length", value=str(size_bytes(source)))
        position += size_bytes(source)


def padding(position: int) -> int:
    """The number of bytes between a position in a file and the next constant."""
    return -position % _ALIGNMENT


def _raw_data(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    raw: bytes = numpy_helper.from_array(read_tensor(tensor)).raw_data
    return raw


def _entries(tensor: TensorProto) -> dict[str, str]:
    """Where an external constant is: location, and perhaps offset and length."""
    return {"location": "", **{entry.key: entry.value for entry in tensor.external_data}}


def _error(tensor: TensorProto, problem: str) -> ModelError:
    location = _entries(tensor)["location"]
    return ModelError(
        f"the constant {tensor.name!r} is stored in {location!r}, which {problem}",
        "put the files that belong to the model next to it, as they were written",
    )
