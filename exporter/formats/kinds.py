"""The kinds of model file. A kind is one row of `KINDS` and one package.

The package translates files into neutral graphs, applies plans, runs and writes them. It is
imported when a file of its kind is opened, so that no other kind pays for its libraries.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from exporter.errors import ModelError, UsageError, interpreting, no_such_file
from exporter.formats.foreign_files import (
    FIRST_BYTES,
    refuse_foreign,
    refuse_foreign_folder,
    refuse_named,
)
from exporter.output.files import refuse_url
from exporter.selection.text_file import refuse_special

if TYPE_CHECKING:
    from exporter.formats.model import Model, SizedModel
    from exporter.graph.lengths import Lengths


_READABLE = "check the path, and the permissions of the file and of its folders"


@dataclass(frozen=True)
class Kind:
    """One kind of model file, and its roles.

    Attributes:
        title: the name of the format.
        help: one line for the command line.
        package: of the format.
        opener: module of the package with `open_file(path) -> Model`.
        matches: returns True for the first bytes of a file of this kind.
        files: module of the package with `files_of(path)`, which returns all files of a model. ""
            if a model is always one file.
        suffixes: of its files; models are written with the first. () for a kind that is a folder.
        first_bytes: suffix -> first bytes of such a file, for a kind whose files differ in them.
        member: the file by which a folder of this kind is recognized; "" for files.
        opened_here: jobs open it in their own process; other kinds are opened in a child process.
        convertible: it can be converted to the kinds that have a converter.
        converter: module that converts other kinds to this one; "" without one.
        route: the library that the converter uses, for reports.
        default_target: convertible kinds are converted to it if the user names no kind.
        quantizable: the libraries in `quantization` can quantize its files.
        states_normalization: its files state how image pixels become input values.
        sized: its models are `SizedModel`s.
        shares: its models are `SharingModel`s.
        benchmarked: its files are timed, in the runtime that devices use.
        libraries: distributions that it needs.
        runtime: how its files are run, for reports: delegate, optimization level, threads.
    """

    title: str
    help: str
    package: str
    opener: str
    matches: Callable[[bytes], bool]
    files: str = ""
    suffixes: tuple[str, ...] = ()
    first_bytes: Mapping[str, bytes] = field(default_factory=dict)
    member: str = ""
    opened_here: bool = False
    convertible: bool = False
    converter: str = ""
    route: str = ""
    default_target: bool = False
    quantizable: bool = False
    states_normalization: bool = False
    sized: bool = False
    shares: bool = False
    benchmarked: bool = False
    libraries: tuple[str, ...] = ()
    runtime: str = ""

    @property
    def written(self) -> bool:
        """Models can be cut and written as this kind."""
        return bool(self.suffixes)

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """All files of a model."""
        if not self.files:
            return (path,)
        files: tuple[Path, ...] = import_module(f"{self.package}.{self.files}").files_of(path)
        return files


def open_model(path: str | Path, lengths: Lengths | None = None) -> Model:
    """Open a model file. The content tells its kind, not the suffix.

    A Keras file is opened in this process: TensorFlow is imported, and a damaged file may end the
    process. The command line opens Keras files in a child process instead.

    Args:
        path: of a file, or of a SavedModel folder.
        lengths: of open dimensions of inputs, for files whose layers they decide.

    Raises:
        UsageError: there is no such file.
        ModelError: empty, truncated, damaged, or of an unknown kind.
    """
    path = Path(path)
    kind = KINDS[kind_of(path)]
    with interpreting(f"opening {path.name}"):
        model: Model = import_module(f"{kind.package}.{kind.opener}").open_file(path)
        if lengths and kind.sized:
            model = cast("SizedModel", model).with_lengths(lengths)
    return model


def size_bytes(path: Path) -> int:
    """The size of all files of a model together."""
    return sum(file.stat().st_size for file in KINDS[kind_of(path)].files_of(path))


def copy_model(source: Path, target: Path) -> None:
    """Copy a model file, and its external data files into the folder of the target."""
    for file in KINDS[kind_of(source)].files_of(source):
        copy = target.parent / file.relative_to(source.parent)
        if file != source and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    shutil.copyfile(source, target)


def suffixes_of(path: Path) -> tuple[str, ...]:
    """The suffixes that a copy of a model file may have (raises as `open_model` does)."""
    kind = KINDS[kind_of(path)]
    if not kind.first_bytes:
        return kind.suffixes
    start = read_first_bytes(path)
    return tuple(s for s in kind.suffixes if start.startswith(kind.first_bytes[s]))


def kind_of(path: Path) -> str:
    """The kind of a file by its first bytes (raises as `open_model` does)."""
    refuse_url(path)
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", _READABLE) from error
    if is_folder:
        return _kind_of_folder(path)
    for kind in KINDS.values():
        if path.name == kind.member:
            raise UsageError(f"{path} is a part of a {kind.title}", "give its folder")
    start = read_first_bytes(path)
    if not start:
        raise ModelError(f"{path} is empty", "save or copy the model again")
    refuse_foreign(path, start)
    for name, kind in KINDS.items():
        if kind.matches(start):
            return name
    refuse_named(path, start)
    titles = ", ".join(kind.title for kind in KINDS.values() if kind.suffixes)
    suffixes = ", ".join(suffix for kind in KINDS.values() for suffix in kind.suffixes)
    raise ModelError(
        f"{path} is not a model file of a known kind ({titles})", f"models are {suffixes} files"
    )


def read_first_bytes(path: Path) -> bytes:
    refuse_special(path)
    try:
        with path.open("rb") as file:
            return file.read(FIRST_BYTES)
    except FileNotFoundError as error:
        raise no_such_file(path, "check the path; it starts in the current folder") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", _READABLE) from error


def _kind_of_folder(path: Path) -> str:
    members = {kind.member: name for name, kind in KINDS.items() if kind.member}
    for member, name in members.items():
        if (path / member).is_file():
            return name
    refuse_foreign_folder(path, sorted(each.name for each in path.iterdir()))
    raise UsageError(
        f"{path} is a folder without a {' or '.join(members)}",
        "give a model file, or a SavedModel folder",
    )


def kind_of_suffix(path: Path) -> str | None:
    """The kind that the suffix of a file name belongs to, or None."""
    suffix = path.suffix.lower()
    return next((name for name, kind in KINDS.items() if suffix in kind.suffixes), None)


_ZIP, _HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
_NEWEST_IR_VERSION = 0x40  # far above the newest one, which is 13 in 2026


def _is_protobuf(start: bytes) -> bool:
    """ONNX has no magic number; writers put the IR version, field 1 and a small number, first."""
    return start.startswith(b"\x08") and len(start) > 1 and 0 < start[1] < _NEWEST_IR_VERSION


KINDS: Mapping[str, Kind] = {
    "keras": Kind(
        title="Keras",
        help="a .keras file",
        package="exporter.formats.keras",
        opener="model",
        matches=lambda start: start.startswith((_ZIP, _HDF5)),
        suffixes=(".keras", ".h5", ".hdf5"),
        first_bytes={".keras": _ZIP, ".h5": _HDF5, ".hdf5": _HDF5},
        convertible=True,
        libraries=("tensorflow", "keras"),
    ),
    "savedmodel": Kind(
        title="SavedModel",
        help="a SavedModel folder",
        package="exporter.formats.savedmodel",
        opener="model",
        files="files",
        matches=lambda _: False,
        member="saved_model.pb",
        convertible=True,
        libraries=("tensorflow",),
    ),
    "onnx": Kind(
        title="ONNX",
        help="an .onnx file for onnxruntime",
        package="exporter.formats.onnx",
        opener="files",
        files="files",
        matches=_is_protobuf,
        suffixes=(".onnx",),
        opened_here=True,
        sized=True,
        shares=True,
        converter="exporter.conversion.to_onnx",
        route="tf2onnx",
        default_target=True,
        quantizable=True,
        benchmarked=True,
        libraries=("onnx", "onnxruntime", "tf2onnx"),
        runtime="CPU provider, all graph optimizations, one inter-op thread, no spinning",
    ),
    "tflite": Kind(
        title="TFLite",
        help="a .tflite file for LiteRT",
        package="exporter.formats.tflite",
        opener="files",
        matches=lambda start: start[4:8] == b"TFL3",
        suffixes=(".tflite",),
        opened_here=True,
        converter="exporter.conversion.to_tflite",
        route="TFLiteConverter",
        default_target=True,
        quantizable=True,
        states_normalization=True,
        benchmarked=True,
        libraries=("ai-edge-litert",),
        runtime="default delegates (XNNPACK)",
    ),
}
