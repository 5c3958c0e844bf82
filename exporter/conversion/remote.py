"""Keras models that live in the child; to the rest of the program, models like any other."""

from __future__ import annotations

import sys
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from exporter.conversion.process import Child
from exporter.conversion.serialization import decode_graph, encode_plan
from exporter.errors import ModelError, UsageError
from exporter.formats import KINDS
from exporter.formats.keras.files import check_file, own_class
from exporter.formats.model import RunOptions
from exporter.formats.savedmodel.files import check_folder
from exporter.graph import Array, Graph
from exporter.graph.edits import Plan
from exporter.remap import Remap

LARGE_HEAD_BYTES = 256 * 10**6

# kind -> the library that converts to it
ROUTES: Mapping[str, str] = {name: kind.route for name, kind in KINDS.items() if kind.converter}


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        opset: of the standard ONNX operators.
        batch: leading dimension, for kinds that need a fixed one and where Keras leaves it open.
        input_shapes: input name -> whole shape, batch included, for unknown dimensions. The batch
            written there counts for nothing.
        signature: of a SavedModel; None for the usual one.
        large_head_bytes: a head with a kernel of this size goes to TFLite as a stub that is given
            its weights back afterwards, and is not built in Keras where a file holds it.
    """

    opset: int = 17
    batch: int = 1
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    signature: str | None = None
    large_head_bytes: int = LARGE_HEAD_BYTES


@dataclass(frozen=True)
class Conversion:
    """A converted file.

    Attributes:
        route: by which way, for the report.
        warnings: what the user should know, one line each.
    """

    path: Path
    route: str
    warnings: tuple[str, ...] = ()


class RemoteKerasModel:
    """A Keras model or a SavedModel in the child; fulfils the protocol `Model`."""

    def __init__(self, child: Child, opened: Mapping[str, Any], remap: Remap | None = None) -> None:
        """Wrap what the child answered to `open` or `apply`."""
        self.kind: str = opened["kind"]
        self.name: str = opened["name"]
        self.sha256: str | None = opened["sha256"]
        self.precision: str = opened["precision"]
        self.remap = remap
        self._child = child
        self._handle: str = opened["handle"]
        weakref.finalize(self, child.forget, self._handle)

    @cached_property
    def _graph(self) -> Graph:
        answer = self._ask("graph", "reading the layers of")
        return decode_graph(answer["graph"], self._read)

    def graph(self) -> Graph:
        return self._graph

    def apply(self, plan: Plan) -> RemoteKerasModel:
        opened = self._ask("apply", "pruning", edits=encode_plan(plan))
        return RemoteKerasModel(self._child, opened, plan.remap or self.remap)

    def runner(self, options: RunOptions) -> RemoteRunner:  # noqa: ARG002 - Keras takes no options
        engine = self._ask("engine", "running")["engine"]
        return RemoteRunner(engine, self._child, partial(self._ask, "run", "running"))

    def write(self, path: Path) -> None:
        self._ask("write", "writing", path=str(path.absolute()))

    def convert(self, kind: str, path: Path, options: ConvertOptions) -> Conversion:
        """Write the model as another kind at exactly this path.

        Raises:
            UsageError: no route to this kind, or a dimension that it needs is not known.
            ConversionError: it failed, or gave what the kind's runtimes do not know.
        """
        if kind not in ROUTES:
            known = ", ".join(ROUTES)
            raise UsageError(f"there is no route to {kind!r}", f"routes: {known}")
        answer = self._ask(
            "convert",
            f"converting to {kind}",
            kind=kind,
            path=str(path.absolute()),
            opset=options.opset,
            batch=options.batch,
            input_shapes={name: list(shape) for name, shape in options.input_shapes.items()},
            large_head_bytes=options.large_head_bytes,
        )
        return Conversion(path, answer["route"], tuple(answer["warnings"]))

    def _ask(self, method: str, doing: str, **parameters: Any) -> dict[str, Any]:
        return self._child.request(
            method, f"{doing} {self.name}", handle=self._handle, **parameters
        )

    def _read(self, constant: str) -> Array:
        path = Path(self._ask("read", "reading the weights of", constant=constant)["path"])
        values: Array = np.load(path, "r", allow_pickle=False)  # mapped: a head may be large
        path.unlink()
        return values


class RemoteRunner:
    """Runs a model in the child; values cross as files."""

    def __init__(self, engine: str, child: Child, run: partial[dict[str, Any]]) -> None:
        self.engine = engine
        self._child = child
        self._run = run

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        with tempfile.TemporaryDirectory(dir=self._child.folder) as folder:
            names = list(inputs)
            given = Path(folder) / "inputs.npz"
            np.savez(given, *(inputs[name] for name in names))
            answer = self._run(names=names, path=str(given))
            with np.load(answer["path"], allow_pickle=False) as values:
                return {name: values[f"arr_{i}"] for i, name in enumerate(answer["names"])}


def open_keras(
    path: Path, child: Child, large_head_bytes: int = LARGE_HEAD_BYTES
) -> RemoteKerasModel:
    """Open a `.keras` or `.h5` file in the child.

    Args:
        large_head_bytes: as in `ConvertOptions`.

    Raises:
        UsageError: there is no such file.
        ModelError: empty, truncated, foreign, or with Lambda or custom layers.
        ConversionError: the loader crashed.
    """
    check_file(path)  # most bad files are told here, before TensorFlow is imported
    place = str(path.absolute())
    opened = child.request("open", f"opening {path}", path=place, large_head_bytes=large_head_bytes)
    return RemoteKerasModel(child, opened)


def open_folder(path: Path, child: Child, signature: str | None = None) -> RemoteKerasModel:
    """Open a SavedModel folder in the child.

    Args:
        signature: which of its signatures; None for the usual one.

    Raises:
        UsageError: there is no such folder or signature, or there are several to choose from.
        ModelError: not a SavedModel, a damaged one, or one that does more than to compute.
        ConversionError: the loader crashed.
    """
    check_folder(path)
    given = {"path": str(path.absolute()), "signature": signature}
    return RemoteKerasModel(child, child.request("open_folder", f"opening {path}", **given))


def open_live(model: Any, child: Child) -> RemoteKerasModel:
    """Give the child a copy of a live `keras.Model`, by way of a file.

    A model with classes that are not of Keras crosses as a SavedModel, which its own process
    writes: it can be run and converted there, and is not looked into.

    Raises:
        ModelError: it has Lambda layers, or was never called.
    """
    reason = own_class(model)
    with tempfile.TemporaryDirectory(dir=child.folder) as folder:
        if reason is not None:
            return RemoteKerasModel(child, _export(model, Path(folder), reason, child))
        path = Path(folder) / "live.keras"
        model.save(path)
        check_file(path)
        doing = f"opening {model.name}"
        bound = sys.maxsize  # its file will be gone
        opened = child.request("open", doing, path=str(path), large_head_bytes=bound)
    return RemoteKerasModel(child, {**opened, "name": str(model.name), "sha256": None})


def _export(model: Any, folder: Path, reason: str, child: Child) -> dict[str, Any]:
    try:
        model.export(str(folder / "saved"), format="tf_saved_model", verbose=False)
    except (ValueError, TypeError, NotImplementedError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"the model {model.name!r} cannot be exported: {line}",
            "call it once on data of the right shape",
        ) from error
    names = getattr(model, "output_names", None) or ()
    told = {
        "name": str(model.name),
        "kind": "keras",
        "what": type(model).__name__,
        "reason": reason,
        "outputs": list(names) if len(set(names)) == len(names) else [],
    }
    doing = f"opening {model.name}"
    return child.request("open_exported", doing, path=str(folder / "saved"), told=told)
