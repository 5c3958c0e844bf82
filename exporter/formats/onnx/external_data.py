"""Constants that lie elsewhere: in files beside the model, in its own, or in arrays.

Those in files beside it are checked first; all are mapped, and written beside a result.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx.lazy_parse import WITHIN, skim
from exporter.formats.onnx.protos import copy_without, dtype_name, every_tensor, read_tensor
from exporter.graph import Array
from exporter.output.files import apply_umask, byte_chunks, flush_to_disk

_ALIGNMENT = 64  # bytes: whole cache lines, and every element type
_INSIDE = 1024  # bytes; smaller constants stay in the model
_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}
_BYTE = 8


class Outside:
    """What holds constants of a model.

    Attributes:
        folder: of the files beside it.
        has_files: did any of these hold a constant when the model was checked?
    """

    def __init__(self, folder: Path, content: memoryview | None = None) -> None:
        """Args: content: the model's own file, where it was skimmed (see `skim`)."""
        self.folder = folder.resolve()
        self.has_files = False
        self._maps: dict[str, memoryview] = {} if content is None else {WITHIN: content}
        self._arrays: dict[str, Array] = {}

    def held(self, name: str, values: Array) -> TensorProto:
        """A constant whose values stay in an array, which may be a view or a map."""
        place = f"\0array {len(self._arrays)}"
        self._arrays[place] = values
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = TensorProto(name=name, dims=values.shape, data_type=kind)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        return tensor

    def is_beside(self, tensor: TensorProto) -> bool:
        """Does a constant lie in a file beside the model?"""
        known = {*self._arrays, WITHIN} if WITHIN in self._maps else self._arrays
        return is_outside(tensor) and _entry(tensor)["location"] not in known

    def check(self, model: ModelProto) -> None:
        """Check every constant that lies outside; nothing of it is read.

        Raises:
            ModelError: names the constant and the file that is not as it must be.
        """
        for tensor in every_tensor(model.graph):
            if self.is_beside(tensor):
                self.has_files = True
                entry = _entry(tensor)
                self._check_place(tensor, entry["location"])
                self._check_length(tensor, entry)

    def read(self, tensor: TensorProto) -> Array:
        """The values of any constant; those that lie outside are seen where they lie."""
        if not is_outside(tensor):
            return read_tensor(tensor)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if dtype_name(tensor.data_type) in _BITS:
            return read_tensor(_inside(tensor, bytes(self.raw(tensor))))
        return np.frombuffer(self.raw(tensor), dtype).reshape(tuple(tensor.dims))

    def raw(self, tensor: TensorProto) -> memoryview:
        """The bytes of a constant that does not lie inside, in the file's order."""
        entry = _entry(tensor)
        if (values := self._arrays.get(entry["location"])) is not None:
            plain: Any = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            return memoryview(plain)
        start = int(entry.get("offset", 0))
        found = self._map(entry["location"])[start : start + _size(tensor)]
        if len(found) < _size(tensor):
            raise _wrong(tensor, "is too short")
        return found

    def parts(self, tensor: TensorProto) -> Iterator[bytes | memoryview]:
        """The same, a part at a time where it would be copied."""
        values = self._arrays.get(_entry(tensor)["location"])
        if values is None:
            yield self.raw(tensor)
        else:
            yield from byte_chunks(values)

    def length(self, tensor: TensorProto) -> int:
        """How many bytes a constant that does not lie inside has."""
        return _size(tensor)

    def _map(self, location: str) -> memoryview:
        if location not in self._maps:
            with (self.folder / location).open("rb") as file:
                empty = os.fstat(file.fileno()).st_size == 0
                content = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps[location] = memoryview(content)
        return self._maps[location]

    def _check_place(self, tensor: TensorProto, location: str) -> None:
        place = PurePosixPath(location)
        if not location or place.is_absolute() or PureWindowsPath(location).anchor:
            raise _wrong(tensor, "is not a path relative to the model")
        if ".." in (*place.parts, *PureWindowsPath(location).parts):
            raise _wrong(tensor, "leads out of the model's folder")
        path = self.folder
        found = path.lstat()
        try:
            for part in place.parts:
                path /= part
                found = path.lstat()
                if stat.S_ISLNK(found.st_mode):
                    raise _wrong(tensor, "is a link")
        except OSError as error:
            raise _wrong(tensor, f"cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise _wrong(tensor, "is not a path") from error
        if not stat.S_ISREG(found.st_mode):
            raise _wrong(tensor, "is not a regular file")
        if found.st_nlink > 1:
            raise _wrong(tensor, "is a link: the same file stands elsewhere too")

    def _check_length(self, tensor: TensorProto, entry: dict[str, str]) -> None:
        try:
            offset = int(entry.get("offset", 0))
            length = int(entry["length"]) if "length" in entry else None
        except ValueError as error:
            raise _wrong(tensor, "is read at an offset or a length that is no number") from error
        needed = _size(tensor)
        if length is not None and length != needed:
            raise _wrong(tensor, f"is read {length} bytes long, and its shape needs {needed}")
        there = (self.folder / entry["location"]).stat().st_size
        if offset < 0 or offset + needed > there:
            raise _wrong(
                tensor,
                f"is too short: {there} bytes, and {needed} are needed from byte {offset} on",
            )


def files_of(path: Path) -> tuple[Path, ...]:
    """A model file, which has been opened before, and those that hold constants of it."""
    model, content = parsed(path)
    outside = Outside(path.parent, content)
    beside = (t for t in every_tensor(model.graph) if outside.is_beside(t))
    places = {_entry(tensor)["location"] for tensor in beside}
    return (path, *(path.parent / place for place in sorted(places)))


def parsed(path: Path) -> tuple[ModelProto, memoryview | None]:
    """A model file, and its content where its large constants were left in it.

    Raises:
        OSError: it cannot be read.
        DecodeError: it is not such a message.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size >= _SKIMMED:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            model = skim(content)
            if model is not None:
                return model, content
        model = ModelProto()
        model.ParseFromString(file.read())
    return model, None


_SKIMMED = 1 << 24  # bytes; a smaller file is parsed whole


def is_outside(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def write_beside(model: ModelProto, outside: Outside, path: Path, stem: str) -> None:
    """Write a model, and in the same folder the file of its large constants.

    That file is named after its content, appears whole, and stands there before the model does: a
    model that is already there keeps its own, whatever happens on the way.

    Args:
        model: kept; its constants may lie inside or outside.
        outside: where those outside lie.
        path: of the model.
        stem: how the name of the other file begins.

    Raises:
        OSError: something cannot be written; the other file is then not left behind.
    """
    light = _without_data(model)
    if not any(map(is_outside, every_tensor(light.graph))):
        path.write_bytes(light.SerializeToString(deterministic=True))
        return
    handle, name = tempfile.mkstemp(".data", f".{stem}.", path.parent)
    temporary = Path(name)
    data = None
    try:
        with os.fdopen(handle, "wb") as file:
            digest = hashlib.sha256()
            for chunk in _laid_out(model, light, outside):
                file.write(chunk)
                digest.update(chunk)
        location = f"{stem}-{digest.hexdigest()[:16]}.data"
        for tensor in every_tensor(light.graph):
            if is_outside(tensor):
                tensor.external_data.add(key="location", value=location)
        flush_to_disk(temporary)
        if not (path.parent / location).exists():
            data = path.parent / location
        apply_umask(temporary)
        temporary.replace(path.parent / location)
        path.write_bytes(light.SerializeToString(deterministic=True))
    except OSError:
        if data is not None:
            data.unlink(missing_ok=True)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _without_data(model: ModelProto) -> ModelProto:
    """The model with every large constant marked as lying outside, and nowhere yet."""
    light = copy_without(model, "graph")
    light.graph.CopyFrom(copy_without(model.graph, "initializer"))
    for tensor in model.graph.initializer:
        if is_outside(tensor) or _is_large(tensor):
            light.graph.initializer.append(_named(tensor))
        else:
            light.graph.initializer.append(tensor)
    for tensor in every_tensor(light.graph):
        if is_outside(tensor):
            del tensor.external_data[:]
    return light


def _is_large(tensor: TensorProto) -> bool:
    return tensor.data_type != TensorProto.STRING and _size(tensor) >= _INSIDE


def _named(tensor: TensorProto) -> TensorProto:
    result = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    result.doc_string = tensor.doc_string
    result.data_location = TensorProto.EXTERNAL
    return result


def _laid_out(
    model: ModelProto, light: ModelProto, outside: Outside
) -> Iterator[bytes | memoryview]:
    """The bytes of the constants one behind the other; notes in the light model where each is."""
    position = 0
    sources, targets = every_tensor(model.graph), every_tensor(light.graph)
    for source, target in zip(sources, targets, strict=True):
        if not is_outside(target):
            continue
        yield bytes(-position % _ALIGNMENT)
        position += -position % _ALIGNMENT
        yield from outside.parts(source) if is_outside(source) else [_raw_inside(source)]
        target.external_data.add(key="offset", value=str(position))
        target.external_data.add(key="length", value=str(_size(source)))
        position += _size(source)


def _raw_inside(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    raw: bytes = numpy_helper.from_array(read_tensor(tensor)).raw_data
    return raw


def _inside(tensor: TensorProto, raw: bytes) -> TensorProto:
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=raw)


def _size(tensor: TensorProto) -> int:
    bits = _BITS.get(dtype_name(tensor.data_type))
    if bits is None:
        bits = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * _BYTE
    return int(-(-prod(tensor.dims) * bits // _BYTE))


def _entry(tensor: TensorProto) -> dict[str, str]:
    return {"location": "", **{entry.key: entry.value for entry in tensor.external_data}}


def _wrong(tensor: TensorProto, what: str) -> ModelError:
    place = _entry(tensor)["location"]
    return ModelError(
        f"the constant {tensor.name!r} lies in {place!r}, which {what}",
        "put the files that belong to the model beside it, as they were written",
    )
