"""Inputs to compare and time models on: the user's own, or seeded ones."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.errors import UsageError
from exporter.graph import Array, Graph, Shape
from exporter.operations import Elementwise, Gather, Reshape

DEFAULT_COUNT = 16
_FEW_IDS = 2  # where no table says how many ids there are, 0 and 1 are the ones most likely valid


@dataclass(frozen=True, eq=False)
class Samples:
    """Values for every input.

    Attributes:
        values: input name -> (samples, ...): each sample is fed as it stands, batch included.
        source: "synthetic, seed 0", or the file's name.
    """

    values: Mapping[str, Array]
    source: str

    @property
    def count(self) -> int:
        return min((len(values) for values in self.values.values()), default=0)

    def feeds(self) -> Iterator[dict[str, Array]]:
        """What to feed for each sample."""
        for i in range(self.count):
            yield {name: values[i] for name, values in self.values.items()}


def synthetic(
    graph: Graph,
    count: int = DEFAULT_COUNT,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Samples:
    """Seeded samples that fit the graph's inputs.

    Floats: half of the samples normal(0, 1), half uniform(0, 1). Integers of one byte: over the
    dtype's range. Other integers are ids below the smallest table that they index.

    Args:
        shapes: input name -> whole shape, for dimensions that the graph leaves open. An open
            leading dimension is the batch, and 1.

    Raises:
        UsageError: an open dimension without a shape, a shape that does not fit, an input that
            does not exist, or a dtype that cannot be made up.
    """
    given = dict(shapes or {})
    for name in given.keys() - set(graph.inputs):
        known = ", ".join(repr(i) for i in graph.inputs)
        raise UsageError(f"the model has no input {name!r}", f"its inputs are {known}")
    random = np.random.default_rng(seed)
    values = {
        name: _make(graph, name, (count, *_fixed(graph, name, given.get(name))), random)
        for name in graph.inputs
    }
    return Samples(values, f"synthetic, seed {seed}")


def from_file(path: Path, graph: Graph, limit: int | None = None) -> Samples:
    """The user's own inputs.

    Args:
        path: `.npz` with one array an input, under the input's name (any name where there is only
            one), or `.npy`. The first axis counts the samples; a sample comes with or without the
            batch of 1 in front.
        limit: take only so many from the front.

    Raises:
        UsageError: no such file, a damaged one, arrays that do not fit the inputs, no sample, or
            values that are not finite.
    """
    arrays = _named(path, _load(path), graph)
    values = {name: _fitted(path, graph, name, array)[:limit] for name, array in arrays.items()}
    counts = {len(array) for array in values.values()}
    if len(counts) > 1:
        told = ", ".join(f"{len(a)} of {name!r}" for name, a in values.items())
        raise UsageError(f"{path}: the inputs differ in their number of samples: {told}")
    return Samples(values, path.name)


# --- synthetic ----------------------------------------------------------------------------------


def _fixed(graph: Graph, name: str, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The whole shape of one sample."""
    shape = graph.tensors[name].shape
    if given is not None:
        if shape is not None and not _fits(given, shape):
            told = _shown(given)
            raise UsageError(f"input {name!r} has the shape {_shown(shape)}, not {told}")
        return given
    if shape is None or any(n is None for n in shape[1:]):
        told = "an unknown rank" if shape is None else f"the open shape {_shown(shape)}"
        raise UsageError(f"input {name!r} has {told}", f"give it: --input-shape {name}=1,...")
    return tuple(1 if n is None else n for n in shape)


def _make(graph: Graph, name: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    dtype = graph.tensors[name].dtype
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(np.bool_)
    if dtype in {"int8", "uint8"}:
        bounds = np.iinfo(dtype)
        return random.integers(bounds.min, bounds.max, shape, dtype=dtype, endpoint=True)
    if dtype.startswith(("int", "uint")):
        return random.integers(0, ids(graph, name), shape).astype(dtype)
    if dtype.startswith("float"):
        half = shape[0] // 2
        normal = random.normal(size=(shape[0] - half, *shape[1:]))
        uniform = random.uniform(size=(half, *shape[1:]))
        return np.concatenate([normal, uniform]).astype(dtype)
    raise UsageError(f"no values can be made up for input {name!r} of dtype {dtype}", "use --data")


def ids(graph: Graph, name: str) -> int:
    """How many ids an integer input may take: the rows of the smallest table that it indexes.

    The input is followed through operations that leave its values as they are.
    """
    rows: list[int] = []
    waiting, seen = [name], {name}
    while waiting:
        for node, slot in graph.consumers.get(waiting.pop(), ()):
            if isinstance(node.operation, Gather) and slot == 1:
                length = graph.shape(node.inputs[0])[node.operation.axis]
                rows += [length] if length else []
            elif isinstance(node.operation, Elementwise | Reshape):
                new = [output for output in node.outputs if output not in seen]
                waiting += new
                seen.update(new)
    return min(rows, default=_FEW_IDS)


# --- from a file --------------------------------------------------------------------------------


def _load(path: Path) -> dict[str, Array]:
    """Every array of the file, the one of a `.npy` under the name ""."""
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} is not a readable .npz or .npy file", "write it with numpy.savez, no objects"
        ) from error


def _named(path: Path, arrays: dict[str, Array], graph: Graph) -> dict[str, Array]:
    if len(arrays) == 1 and len(graph.inputs) == 1:
        return {graph.inputs[0]: next(iter(arrays.values()))}
    missing = [name for name in graph.inputs if name not in arrays]
    if missing:
        held = ", ".join(repr(name) for name in arrays) or "nothing"
        raise UsageError(f"{path} has no array for input {missing[0]!r}", f"it holds {held}")
    return {name: arrays[name] for name in graph.inputs}


def _fitted(path: Path, graph: Graph, name: str, array: Array) -> Array:
    """(samples, batch, ...) in the input's dtype."""
    tensor = graph.tensors[name]
    shape = tensor.shape
    where = f"{path}: the array for input {name!r}"
    if not array.ndim or not array.size:
        raise UsageError(f"{where} is empty")
    if array.dtype.kind not in "biuf" or not _converts(array.dtype, tensor.dtype):
        raise UsageError(f"{where} is of dtype {array.dtype}, the input of {tensor.dtype}")
    if array.dtype.kind == "f" and (broken := array.size - int(np.isfinite(array).sum())):
        raise UsageError(f"{where} holds {broken} values that are NaN or infinite")
    if shape is None or _fits(array.shape[1:], shape):
        return array.astype(tensor.dtype)
    if shape and shape[0] in {None, 1} and _fits(array.shape[1:], shape[1:]):
        return array.astype(tensor.dtype)[:, np.newaxis]
    got = _shown(array.shape)
    raise UsageError(f"{where} has the shape {got}; one sample is {_shown(shape)}")


def _converts(given: np.dtype[Any], wanted: str) -> bool:
    """Between floats, and between integers where the values are checked by the table's width."""
    try:
        return np.can_cast(given, np.dtype(wanted), casting="same_kind")
    except TypeError:  # a dtype that NumPy does not know
        return False


def _fits(shape: tuple[int, ...], stated: Shape) -> bool:
    return len(shape) == len(stated) and all(
        wanted in {None, got} for got, wanted in zip(shape, stated, strict=True)
    )


def _shown(shape: Shape) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
