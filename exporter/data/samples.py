"""Inputs to compare and time models on: the user's own, or seeded ones."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.errors import UsageError
from exporter.graph import Array, Graph, Node, Shape, Tensor
from exporter.graph.operations import (
    Concat,
    Expand,
    Gather,
    Slice,
    Split,
)
from exporter.graph.walk import REARRANGE, dependents, only_moves

DEFAULT_COUNT = 16


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


def to_model_inputs(feed: Mapping[str, Array], graph: Graph) -> dict[str, Array]:
    """The same values as a graph takes them: as codes, where its input holds codes of reals."""
    return {name: _coded(values, graph.tensors.get(name)) for name, values in feed.items()}


def _coded(values: Array, tensor: Tensor | None) -> Array:
    known = tensor.quantization if tensor is not None else None
    if known is None or tensor is None or values.dtype.kind != "f":
        return values
    return known.quantize(values).astype(tensor.dtype)


def synthetic_samples(
    graph: Graph,
    count: int = DEFAULT_COUNT,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Samples:
    """Seeded samples that fit the graph's inputs.

    What indexes tables: ids below the smallest of them. Other floats: half of the samples
    normal(0, 1), half uniform(0, 1). Codes, and integers of one byte: over the whole range. Other
    integers: 0 and 1.

    Args:
        shapes: input name -> whole shape, for dimensions that the graph leaves open. An open
            leading dimension is the batch, and 1.

    Raises:
        UsageError: an open dimension without a shape, a shape that does not fit, an input that
            does not exist, no input at all, a dtype that cannot be made up, or no sample.
    """
    _check_count(count)
    if not graph.inputs:
        raise UsageError("the model has no input, so that there is nothing to run it on")
    given = dict(shapes or {})
    for name in sorted(given.keys() - set(graph.inputs)):
        known = ", ".join(repr(i) for i in graph.inputs)
        raise UsageError(f"the model has no input {name!r}", f"its inputs are {known}")
    random = np.random.default_rng(seed)
    values = {
        name: _make(graph, name, (count, *_fixed(graph, name, given.get(name))), random)
        for name in graph.inputs
    }
    return Samples(values, f"synthetic, seed {seed}")


def read_samples(path: Path, graph: Graph, limit: int | None = None) -> Samples:
    """The user's own inputs.

    Args:
        path: `.npz` with one array an input, under the input's name (any name where there is only
            one), or `.npy`. The first axis counts the samples; a sample comes with or without the
            batch of 1 in front.
        limit: take only so many from the front.

    Raises:
        UsageError: no such file, a damaged one, arrays that do not fit the inputs, no sample,
            values that are not finite or that the input's dtype cannot hold, or ids behind the end
            of the table that they index.
    """
    _check_count(limit)
    arrays = _named(path, _load(path), graph)
    values = {name: _fitted(path, graph, name, array) for name, array in arrays.items()}
    counts = {len(array) for array in values.values()}  # before a limit makes them look equal
    if len(counts) > 1:
        told = ", ".join(f"{len(a)} of {name!r}" for name, a in values.items())
        raise UsageError(f"{path}: the inputs differ in their number of samples: {told}")
    return Samples({name: array[:limit] for name, array in values.items()}, path.name)


def join_batches(samples: Samples, graph: Graph, batch: int) -> Samples:
    """Several samples at a time, for files with a fixed batch; the last are filled up in turn.

    Args:
        graph: only inputs whose leading dimension it leaves open are joined.
        batch: how many.
    """
    if batch == 1:
        return samples
    joined = {
        name: _joined(values, batch) if _is_open(graph.tensors[name]) else values
        for name, values in samples.values.items()
    }
    return Samples(joined, f"{samples.source}, {batch} at a time")


def _is_open(tensor: Tensor) -> bool:
    return tensor.shape is None or tensor.shape[:1] == (None,)


def _joined(values: Array, batch: int) -> Array:
    """(samples, 1, ...) -> (feeds, batch, ...); samples of another batch stay as they are."""
    if values.ndim == 1 or values.shape[1] != 1:
        return values
    feeds = -(-len(values) // batch)
    turns = np.arange(feeds * batch) % len(values)
    return np.asarray(values[turns].reshape(feeds, batch, *values.shape[2:]))


def _check_count(count: int | None) -> None:
    if count is not None and count < 1:
        raise UsageError(f"{count} samples were asked for", "at least one is needed")


# --- synthetic ----------------------------------------------------------------------------------


def _fixed(graph: Graph, name: str, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The whole shape of one sample."""
    shape = graph.tensors[name].shape
    if given is not None:
        if shape is not None and not _fits(given, shape):
            told = _shown(given)
            raise UsageError(f"input {name!r} has the shape {_shown(shape)}, not {told}")
        if any(n < 1 for n in given):
            raise UsageError(f"the shape {_shown(given)} for input {name!r} holds no value")
        return given
    if shape is None or any(n is None for n in shape[1:]):
        told = "an unknown rank" if shape is None else f"the open shape {_shown(shape)}"
        known = ["..."] if shape is None else ["?" if n is None else str(n) for n in shape[1:]]
        option = f"--input-shape {name}={','.join(['1', *known])}"
        raise UsageError(f"input {name!r} has {told}", f"give it, with numbers: {option}")
    return tuple(1 if n is None else n for n in shape)


def _make(graph: Graph, name: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    tensor = graph.tensors[name]
    dtype, rows = tensor.dtype, _tables(graph, name)
    if dtype in _FLOATS and not rows:
        half = shape[0] // 2
        normal = random.normal(size=(shape[0] - half, *shape[1:]))
        uniform = random.uniform(size=(half, *shape[1:]))
        return np.concatenate([normal, uniform]).astype(dtype)
    if dtype in _FLOATS | _INTEGERS | {"bool"}:
        low, high = (0, min(*rows, _exact(dtype)) - 1) if rows else _range(tensor)
        return random.integers(low, high, shape, endpoint=True).astype(dtype)
    raise UsageError(f"no values can be made up for input {name!r} of dtype {dtype}", "use --data")


def _range(tensor: Tensor) -> tuple[int, int]:
    """The lowest and the highest of the integers that an input takes."""
    if tensor.quantization is not None:
        return tensor.quantization.low, tensor.quantization.high
    if tensor.dtype in {"int8", "uint8"}:
        return int(np.iinfo(tensor.dtype).min), int(np.iinfo(tensor.dtype).max)
    return 0, 1  # truth values; or ids of a table that is not found, most likely valid


def _exact(dtype: str) -> int:
    """A number up to which a dtype holds all whole numbers."""
    if dtype in _FLOATS:
        return 1 << int(np.finfo(dtype).nmant)
    return 2 if dtype == "bool" else int(np.iinfo(dtype).max)


_FLOATS = frozenset({"float16", "float32", "float64"})
_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def _tables(graph: Graph, name: str) -> list[int]:
    """The rows of every table that an input indexes.

    The input is followed through operations that leave its values as they are.
    """
    rows: list[int] = []
    for tensor in dependents(graph, [name], _keeps_values):
        for node, slot in graph.consumers.get(tensor, ()):
            if isinstance(node.operation, Gather) and slot == 1:
                length = dict(enumerate(graph.shape(node.inputs[0]))).get(node.operation.axis)
                rows += [length] if length else []
    return rows


def _keeps_values(node: Node, _slot: int) -> bool:
    """Not arithmetic: indices + 1 would reach beyond the table."""
    return only_moves(node, "cast", kinds=REARRANGE | Expand | Concat | Split | Slice)


# --- from a file --------------------------------------------------------------------------------


def _load(path: Path) -> dict[str, Array]:
    """Every array of the file, the one of a `.npy` under the name ""."""
    try:
        with path.open("rb") as file:  # NumPy leaves a damaged one open
            loaded: Any = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            arrays = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except _DAMAGED as error:
        raise _unreadable(path) from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise _unreadable(path)  # a zip archive of other things, whose bytes NumPy hands out
    return arrays


# What NumPy lets through from below it, and MemoryError for a damaged header that claims much.
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def _unreadable(path: Path) -> UsageError:
    return UsageError(
        f"{path} is not a readable .npz or .npy file", "write it with numpy.savez, no objects"
    )


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
    shape = graph.tensors[name].shape
    where = f"{path}: the array for input {name!r}"
    if not array.ndim or not array.size:
        raise UsageError(f"{where} is empty")
    values = _converted(where, graph, name, array)
    if shape is None or _fits(array.shape[1:], shape):
        return values
    if shape and shape[0] in {None, 1} and _fits(array.shape[1:], shape[1:]):
        return values[:, np.newaxis]
    got = _shown(array.shape)
    raise UsageError(f"{where} has the shape {got}; one sample is {_shown(shape)}")


def _converted(where: str, graph: Graph, name: str, array: Array) -> Array:
    """The same values in the input's dtype."""
    dtype = graph.tensors[name].dtype
    if array.dtype.kind not in _kinds(dtype):
        raise UsageError(f"{where} is of dtype {array.dtype}, the input of {dtype}")
    if broken := array.size - int(np.isfinite(array).sum()):
        raise UsageError(f"{where} holds {broken} values that are NaN or infinite")
    with np.errstate(over="ignore"):
        values = array.astype(dtype)
    kept = np.isfinite(values) if dtype in _FLOATS else values == array
    if broken := array.size - int(kept.sum()):
        raise UsageError(f"{where} holds {broken} values that {dtype} cannot hold")
    rows = min(_tables(graph, name), default=None)
    if rows is not None and array.max() >= rows:
        raise UsageError(
            f"{where} holds the id {array.max()}", f"the table that it indexes has {rows} rows"
        )
    return values


def _kinds(dtype: str) -> str:
    """The kinds of arrays whose values an input of this dtype may hold; each value is checked."""
    if dtype in _FLOATS:
        return "biuf"
    if dtype in _INTEGERS:
        return "biu"
    return "b" if dtype == "bool" else ""


def _fits(shape: tuple[int, ...], stated: Shape) -> bool:
    return len(shape) == len(stated) and all(
        wanted in {None, got} for got, wanted in zip(shape, stated, strict=True)
    )


def _shown(shape: Shape) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
