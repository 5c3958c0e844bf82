"""Open what the user gave, wherever it has to be opened: Keras in a child process, files here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.conversion.process import Child
from exporter.conversion.remote import (
    ConvertOptions,
    RemoteKerasModel,
    open_folder,
    open_keras,
    open_live,
)
from exporter.errors import UsageError
from exporter.formats import KINDS, kind_of, open_model
from exporter.formats.model import Model
from exporter.output.sidecar import _read_remap, read_sidecar
from exporter.remap import Origin, Remap

Progress = Callable[[str], None]


def silent(_message: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Limits:
    """What a child process may use.

    Attributes:
        timeout_s: of one request, in seconds.
        memory_bytes: of resident memory; None for no limit.
    """

    timeout_s: float = 1800.0
    memory_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """An uncut model of the kind that is to be written, and how it came to be.

    Attributes:
        original: what it was converted from; None where it is the source itself.
        route: of the conversion; "" where there was none.
    """

    model: Model
    path: Path | None  # None for a live model
    original: Origin | None = None
    route: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Source:
    """An opened source.

    Attributes:
        path: None for a live model.
        child: holds the model, where it is a Keras one, and does what libraries do with it. It is
            not started before.
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
        """The source's own kind; for Keras the kinds that run on the edge."""
        if KINDS[self.model.kind].edge:
            return (self.model.kind,)
        return tuple(name for name, kind in KINDS.items() if kind.edge)

    def reopen(self, path: Path) -> Model:
        """A file that was just written, opened as the source was."""
        if not KINDS[kind_of(path)].edge:  # a Keras file
            return _open_keras(path, self.child, self.options)
        return open_model(path)

    def target(
        self, kind: str, folder: Path, say: Progress = silent, stem: str = "original"
    ) -> Target:
        """The source as a model of that kind, converted into the folder if it has to be.

        Args:
            stem: of the converted file's name, and of the names of files beside it.

        Raises:
            UsageError: there is no route from the source's kind to that one.
            ConversionError: the conversion failed.
        """
        if kind == self.model.kind:
            return Target(self.model, self.path)
        if not isinstance(self.model, RemoteKerasModel) or not KINDS[kind].edge:
            raise UsageError(
                f"there is no route from {KINDS[self.model.kind].title} to {KINDS[kind].title}",
                f"use --to {','.join(self.default_kinds())}, or start from the Keras model",
            )
        say(f"converting to {KINDS[kind].title}")
        path = folder / f"{stem}{KINDS[kind].suffixes[0]}"
        done = self.model.convert(kind, path, self.options)
        model = open_model(path)
        model.remap = self.model.remap  # of an earlier cut, which a converter knows nothing of
        return Target(model, path, self.origin, done.route, done.warnings)


@contextmanager
def opened(
    source: str | Path | Any,
    limits: Limits | None = None,
    options: ConvertOptions | None = None,
    say: Progress = silent,
) -> Iterator[Source]:
    """Open a path or a live Keras model; the child process ends with the block.

    Args:
        options: of a conversion; also which signature of a SavedModel to open.

    Raises:
        UsageError: no such file.
        ModelError: not a model file, or a damaged one.
        ConversionError: the child process died while it read the file.
    """
    limits, options = limits or Limits(), options or ConvertOptions()
    with _child(limits) as child:
        if not isinstance(source, str | Path):
            say("opening the Keras model")
            yield Source(open_live(source, child), None, child, (), options)
            return
        path = Path(source)
        kind = kind_of(path)
        warnings = _suffix_warning(path, kind)
        if KINDS[kind].edge:
            yield Source(open_model(path), path, child, warnings, options)
            return
        say(f"opening the {KINDS[kind].title} model")
        if KINDS[kind].member:
            yield Source(open_folder(path, child, options.signature), path, child, (), options)
        else:
            yield Source(_open_keras(path, child, options), path, child, warnings, options)


def _child(limits: Limits) -> Child:
    return Child(timeout_s=limits.timeout_s, memory_limit_bytes=limits.memory_bytes)


def _suffix_warning(path: Path, kind: str) -> tuple[str, ...]:
    if path.suffix.lower() in KINDS[kind].suffixes:
        return ()
    return (f"{path.name} is of the kind {KINDS[kind].title}, whatever its suffix says",)


def _read_folder_remap(path: Path) -> Remap | None:
    """The remap of a folder that a run has written, for the cut models in it."""
    folder = path.parent
    if not path.name.startswith("pruned.") or not (folder / "report.json").is_file():
        return None
    return _read_remap(folder / "remap.json")


def _open_keras(path: Path, child: Child, options: ConvertOptions) -> RemoteKerasModel:
    """A Keras file cannot carry its remap, which therefore stands beside it."""
    model = open_keras(path, child, options.large_head_bytes)
    model.remap = read_sidecar(path) or _read_folder_remap(path)
    return model
