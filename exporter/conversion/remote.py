"""Keras models and SavedModels in the child process, usable like any other model."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from exporter.conversion.options import LARGE_HEAD_BYTES, ConvertOptions
from exporter.conversion.process import Child
from exporter.conversion.serialization import decode_graph, encode_plan
from exporter.errors import ModelError, UsageError, first_line, interpreting
from exporter.formats import KINDS
from exporter.formats.isolation import call
from exporter.formats.keras.validate import check_hdf5, check_without_libraries, custom_class_of
from exporter.formats.model import RunOptions, in_turn
from exporter.formats.savedmodel.files import check_folder
from exporter.graph import Array, Graph
from exporter.graph.edits import Plan
from exporter.output.scratch import scratch_folder
from exporter.remap import Remap

# kind -> the library that converts to it
ROUTES: Mapping[str, str] = {name: kind.route for name, kind in KINDS.items() if kind.converter}


_MOST_SAMPLES, _MOST_BYTES = 16, 16 << 20  # that the child gets at once
_READING_S = 8.0  # to read the structure of an HDF5 file, which takes less than 1 s


@dataclass(frozen=True)
class Conversion:
    """A converted file.

    Attributes:
        route: how it was converted, for the report.
        warnings: one line each.
    """

    path: Path
    route: str
    warnings: tuple[str, ...] = ()


class RemoteKerasModel:
    """A Keras model or a SavedModel in the child; fulfills the protocol `Model`."""

    def __init__(self, child: Child, opened: Mapping[str, Any], remap: Remap | None = None) -> None:
        """Wrap the child's answer to `open` or `apply`."""
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
        answer = self._request("graph", "reading the layers of")
        return decode_graph(answer["graph"], self._read)

    def graph(self) -> Graph:
        return self._graph

    @in_turn
    def apply(self, plan: Plan) -> RemoteKerasModel:
        opened = self._request("apply", "pruning", edits=encode_plan(plan))
        return RemoteKerasModel(self._child, opened, plan.remap or self.remap)

    def runner(self, options: RunOptions) -> RemoteRunner:  # noqa: ARG002 - Keras takes no options
        engine = self._request("engine", "running")["engine"]
        return RemoteRunner(engine, self._child, partial(self._request, "run", "running"))

    def write(self, path: Path) -> None:
        self._request("write", "writing", path=str(path.absolute()))

    def convert(self, kind: str, path: Path, options: ConvertOptions) -> Conversion:
        """Write the model as another kind at exactly this path.

        Raises:
            UsageError: no route to this kind, or a dimension that it needs is not known.
            ConversionError: it failed, or the result is not one that the kind's runtimes can run.
        """
        if kind not in ROUTES:
            known = ", ".join(ROUTES)
            raise UsageError(f"there is no route to {kind!r}", f"routes: {known}")
        answer = self._request(
            "convert",
            f"converting to {kind}",
            kind=kind,
            path=str(path.absolute()),
            options=asdict(options),
        )
        return Conversion(path, answer["route"], tuple(answer["warnings"]))

    def _request(self, method: str, action: str, **parameters: Any) -> dict[str, Any]:
        return self._child.request(
            method, f"{action} {self.name}", handle=self._handle, **parameters
        )

    def _read(self, constant: str) -> Array:
        path = Path(self._request("read", "reading the weights of", constant=constant)["path"])
        values: Array = np.load(path, "r", allow_pickle=False)  # mapped: a head may be large
        path.unlink()
        return values


class RemoteRunner:
    """Runs a model in the child; inputs and outputs cross as files."""

    def __init__(self, engine: str, child: Child, run: partial[dict[str, Any]]) -> None:
        self.engine = engine
        self._child = child
        self._run = run

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        (outputs,) = self.run_each([inputs])
        return outputs

    def run_each(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """See `exporter.formats.model.run_each`: the child runs several samples together."""
        together: list[Mapping[str, Array]] = []
        size = 0
        for feed in inputs:
            together.append(feed)
            size += sum(values.nbytes for values in feed.values())
            if len(together) == _MOST_SAMPLES or size >= _MOST_BYTES:
                yield from self._answers(together)
                together, size = [], 0
        if together:
            yield from self._answers(together)

    def _answers(self, feeds: Sequence[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        with scratch_folder(self._child.folder) as folder:
            path = folder / "inputs.npz"
            np.savez(path, *(values for feed in feeds for values in feed.values()))
            answer = self._run(names=list(feeds[0]), count=len(feeds), path=str(path))
            with np.load(answer["path"], allow_pickle=False) as values:
                numbers = count()
                found = [
                    {name: values[f"arr_{next(numbers)}"] for name in answer["names"]}
                    for _ in feeds
                ]
        yield from found


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
    # Most bad files are refused before the child imports TensorFlow.
    with interpreting(f"opening {path}"):
        archive = check_without_libraries(path)
        check = partial(check_hdf5, path, archive)
        call(f"h5py reading {path}", path.stat().st_size, check, most_s=_READING_S)
    parameters = {"path": str(path.absolute()), "large_head_bytes": large_head_bytes}
    return RemoteKerasModel(child, child.open("keras", "open", f"opening {path}", **parameters))


def open_folder(path: Path, child: Child, signature: str | None = None) -> RemoteKerasModel:
    """Open a SavedModel folder in the child.

    Args:
        signature: name of the signature; None for serving_default, or the only one.

    Raises:
        UsageError: there is no such folder or signature, or there are several to choose from.
        ModelError: not a SavedModel, a damaged one, or one that does more than compute.
        ConversionError: the loader crashed.
    """
    with interpreting(f"opening {path}"):
        check_folder(path)
    parameters = {"path": str(path.absolute()), "signature": signature}
    return RemoteKerasModel(
        child, child.open("savedmodel", "open_folder", f"opening {path}", **parameters)
    )


def open_live(model: Any, child: Child) -> RemoteKerasModel:
    """Open a copy of a live `keras.Model` in the child, through a file.

    A model with custom classes crosses as a SavedModel, which this process exports: the child can
    run and convert it, but not look into it.

    Raises:
        ModelError: it has Lambda layers, or was never called.
    """
    reason, action = custom_class_of(model), f"opening {model.name}"
    with scratch_folder(child.folder) as folder:
        if reason is not None:
            path, info = folder / "saved", _export_info(model, reason)
            _export(model, path)
            opened = child.request("open_exported", action, path=str(path), info=info)
            return RemoteKerasModel(child, opened)
        path = folder / "live.keras"
        model.save(path)
        check_without_libraries(path)
        # built whole, because the file is removed
        parameters = {"path": str(path), "large_head_bytes": sys.maxsize}
        opened = child.request("open", action, **parameters)
    return RemoteKerasModel(child, {**opened, "name": str(model.name), "sha256": None})


def _export(model: Any, path: Path) -> None:
    try:
        model.export(str(path), format="tf_saved_model", verbose=False)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(
            f"the model {model.name!r} cannot be exported: {first_line(error)}",
            "call it once on data of the right shape",
        ) from error


def _export_info(model: Any, reason: str) -> dict[str, Any]:
    """The values of a `ModelInfo` (see `exporter.formats.savedmodel.model`)."""
    outputs = getattr(model, "output_names", None) or ()
    return {
        "name": str(model.name),
        "kind": "keras",
        "operator": type(model).__name__,
        "reason": reason,
        "outputs": list(outputs) if len(set(outputs)) == len(outputs) else [],
    }
