"""Read the two containers of Keras files, `.keras` archives and HDF5, without Keras."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from exporter.errors import ModelError, first_line
from exporter.formats.keras.hdf5_in_zip import member_offset, open_hdf5_at
from exporter.formats.kinds import read_first_bytes

Container = Literal[".keras", ".h5"]

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
WEIGHTS = "model.weights.h5"
MEMBERS = ("config.json", "metadata.json", WEIGHTS)
HINT_SAVE_AGAIN = "save or copy the model again"
HINT_OUTSIDE = "save the model again with all of its data inside the file"
_HINT_WHOLE = "save the whole model with model.save(...)"


@dataclass(frozen=True)
class KerasFile:
    """The configuration of a Keras file.

    Attributes:
        container: found by content, whatever the suffix is.
        config: configuration of the model, parsed.
        version: of the Keras that wrote it; None if an HDF5 file does not say.
    """

    path: Path
    container: Container
    config: Any
    version: str | None = None


def container_of(path: Path) -> Container:
    """Find the container by the first bytes (UsageError: no such file; ModelError: neither)."""
    start = read_first_bytes(path)
    if start.startswith(HDF5_SIGNATURE):
        return ".h5"
    if not start:
        raise ModelError(f"{path} is empty", HINT_SAVE_AGAIN)
    if not start.startswith(b"PK"):
        raise ModelError(
            f"{path} is neither a .keras archive nor an HDF5 file", "name a model that Keras saved"
        )
    return ".keras"


def read_archive(path: Path) -> KerasFile:
    """Read the configuration of a `.keras` archive, and check the checksum of every member.

    Raises:
        ModelError: truncated, damaged, not a `.keras` archive, or a member has an unsafe name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            missing = [name for name in MEMBERS if name not in names]
            if missing:
                raise ModelError(
                    f"{path} is not a .keras archive: it does not contain {', '.join(missing)}",
                    _HINT_WHOLE,
                )
            _check_members(names, path)
            _check_sizes(archive.infolist(), path)
            damaged = archive.testzip()
            if damaged:
                raise ModelError(
                    f"{path} is damaged: the checksum of {damaged} does not match", HINT_SAVE_AGAIN
                )
            metadata = _parse(archive.read("metadata.json"), path, "metadata.json")
            config = _parse(archive.read("config.json"), path, "config.json")
            return KerasFile(path, ".keras", config, str(metadata.get("keras_version", "3")))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise ModelError(
            f"{path} is damaged or truncated: {first_line(error)}", HINT_SAVE_AGAIN
        ) from error


def _check_members(names: list[str], path: Path) -> None:
    """Refuse a name that occurs twice or points out of the archive; other extra members pass."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ModelError(f"{path} contains {name!r} twice", HINT_SAVE_AGAIN)
        folders = name.replace("\\", "/").split("/")
        if ".." in folders or not folders[0] or ":" in name:
            raise ModelError(
                f"{path} contains {name!r}, a path outside of the archive", HINT_OUTSIDE
            )


def _check_sizes(members: list[zipfile.ZipInfo], path: Path) -> None:
    """Refuse an archive that unpacks to far more than its size, before it is unpacked."""
    for member in members:
        if member.file_size > _LARGEST_RATIO * member.compress_size + _SMALL_BYTES:
            raise ModelError(
                f"{path}: {member.filename} unpacks from {member.compress_size} to "
                f"{member.file_size} bytes",
                "save the model again; Keras does not compress weights",
            )
        if member.filename != WEIGHTS and member.file_size > _LARGEST_TEXT:
            raise ModelError(f"{path}: {member.filename} has {member.file_size} bytes")


_LARGEST_RATIO, _SMALL_BYTES = 100, 1 << 24
_LARGEST_TEXT = 1 << 28  # bytes of a configuration; a large model has a few million


@contextmanager
def open_hdf5(path: Path, container: Container) -> Iterator[Any]:
    """Open the `h5py.File` of either container for reading; imports h5py (ModelError: damaged)."""
    import h5py  # noqa: PLC0415 - loads a C library that not every caller needs

    try:
        if container == ".h5":
            with h5py.File(path, "r") as file:
                yield file
            return
        with zipfile.ZipFile(path) as archive:
            offset = member_offset(path, archive.getinfo(WEIGHTS))
            if offset is not None:
                with open_hdf5_at(path, offset) as file:
                    yield file
            else:
                with archive.open(WEIGHTS) as member, h5py.File(member, "r") as file:
                    yield file
    except OSError as error:
        raise ModelError(
            f"{path.name} is damaged or truncated: h5py reports: {first_line(error)}",
            HINT_SAVE_AGAIN,
        ) from error


def hdf5_config(file: Any, path: Path) -> KerasFile:
    """Read the configuration of an open HDF5 file (ModelError: it contains weights only)."""
    config, version = file.attrs.get("model_config"), file.attrs.get("keras_version")
    if config is None:
        raise ModelError(f"{path.name} does not contain a model, at most weights", _HINT_WHOLE)
    if isinstance(version, bytes):
        version = version.decode("ascii", "replace")
    parsed = _parse(config, path, "model_config")
    return KerasFile(path, ".h5", parsed, None if version is None else str(version))


def _parse(text: str | bytes, path: Path, part: str) -> Any:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its {part} is not JSON", HINT_SAVE_AGAIN) from error
    if not isinstance(parsed, dict):
        raise ModelError(f"{path}: its {part} is not a JSON object", HINT_SAVE_AGAIN)
    return parsed
