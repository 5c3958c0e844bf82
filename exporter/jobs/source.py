"""Open the model of a job: ONNX and TFLite files in this process, Keras in a child process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from exporter.conversion.options import ConvertOptions
from exporter.errors import UsageError
from exporter.formats import KINDS, kind_of, open_model
from exporter.formats.isolated_process import Limits
from exporter.formats.isolation import isolated
from exporter.formats.model import Model
from exporter.graph.lengths import Lengths
from exporter.jobs.options import no_progress
from exporter.output.folder import REPORT
from exporter.output.sidecar import read_remap, read_sidecar
from exporter.remap import Origin, Remap

if TYPE_CHECKING:
    from exporter.conversion.process import Child
    from exporter.conversion.remote import RemoteKerasModel

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class UncutModel:
    """The original as a model of the kind that is written, converted if necessary.

    Attributes:
        path: None for a live model.
        original: the model that it was converted from; None without a conversion.
        route: of the conversion; "" without one.
    """

    model: Model
    path: Path | None
    original: Origin | None = None
    route: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """The model that a job starts from.

    Attributes:
        path: None for a live model.
        child: the process that holds a Keras model, converts and quantizes; starts when needed.
    """

    model: Model
    path: Path | None
    child: Child
    warnings: tuple[str, ...] = ()
    options: ConvertOptions = field(default_factory=ConvertOptions)

    @property
    def origin(self) -> Origin:
        return Origin(self.model.name, self.model.sha256)

    def default_kinds(self) -> tuple[str, ...]:
        """The kinds to write if the user names none."""
        return default_kinds(self.model.kind)

    def reopen(self, path: Path) -> Model:
        """Open a file that the job just wrote, in the same process as this model."""
        return _open_file(path, self.child, self.options)

    def as_kind(
        self, kind: str, folder: Path, progress: Progress = no_progress, stem: str = "original"
    ) -> UncutModel:
        """This model as a model of another kind, converted into the folder if necessary.

        Args:
            stem: of the name of the converted file, and of its external data files.

        Raises:
            UsageError: this kind cannot be converted to that one.
            ConversionError: the conversion failed.
        """
        if kind == self.model.kind:
            return UncutModel(self.model, self.path)
        if not (KINDS[self.model.kind].convertible and KINDS[kind].converter):
            raise UsageError(
                f"{KINDS[self.model.kind].title} cannot be converted to {KINDS[kind].title}",
                f"use --to {','.join(self.default_kinds())}, or start from the Keras model",
            )
        progress(f"converting to {KINDS[kind].title}")
        path = folder / f"{stem}{KINDS[kind].suffixes[0]}"
        conversion = cast("RemoteKerasModel", self.model).convert(kind, path, self.options)
        return self.as_converted(path, conversion.route, conversion.warnings)

    def as_converted(self, path: Path, route: str, warnings: tuple[str, ...]) -> UncutModel:
        """This model, from a file that it was converted to by that route."""
        model = open_model(path)
        if self.model.remap:  # converters lose the remap of an earlier cut
            model.remap = self.model.remap.without_logits()
        return UncutModel(model, path, self.origin, route, warnings)


def default_kinds(source: str) -> tuple[str, ...]:
    """The kinds to write from a model of one kind, if the user names none."""
    if not KINDS[source].convertible:
        return (source,)
    return tuple(name for name, kind in KINDS.items() if kind.default_target)


@contextmanager
def open_source(
    source: str | Path | Any,
    child: Child,
    options: ConvertOptions,
    progress: Progress,
    limits: Limits,
) -> Iterator[OpenedModel]:
    """Open a path or a live Keras model; the child process ends with the block.

    Args:
        child: not started yet.
        limits: of other libraries that read or run files in the block.
        options: of a conversion; also the signature of a SavedModel.

    Raises:
        UsageError: there is no such file.
        ModelError: not a model file, or a damaged one.
        ConversionError: the child process died while it read the file.
    """
    with child, isolated(limits):
        if not isinstance(source, str | Path):
            from exporter.conversion.remote import open_live

            progress("opening the Keras model")
            yield OpenedModel(open_live(source, child), None, child, (), options)
            return
        path = Path(source)
        kind = KINDS[kind_of(path)]
        warnings: tuple[str, ...] = ()
        if kind.suffixes and path.suffix.lower() not in kind.suffixes:
            warnings = (f"{path.name} is in {kind.title} format, despite its suffix",)
        if not kind.opened_here:
            progress(f"opening the {kind.title} model")
        yield OpenedModel(_open_file(path, child, options), path, child, warnings, options)


def _open_file(path: Path, child: Child, options: ConvertOptions) -> Model:
    name = kind_of(path)
    if KINDS[name].opened_here:
        return open_model(path, Lengths(options.input_shapes, options.dims))
    from exporter.conversion.remote import open_folder, open_keras

    if not KINDS[name].written:
        return open_folder(path, child, options.signature)
    model = open_keras(path, child, options.large_head_bytes)
    # Keras files cannot contain a remap.
    model.remap = read_sidecar(path) or _read_folder_remap(path)
    return model


def _read_folder_remap(path: Path) -> Remap | None:
    """The remap of a run's output folder, for the pruned models in it.

    It belongs to files of several kinds, with different names for the logits.
    """
    folder = path.parent
    if not path.name.startswith("pruned.") or not (folder / REPORT).is_file():
        return None
    remap = read_remap(folder / "remap.json")
    return remap and remap.without_logits()
