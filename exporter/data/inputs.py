"""The inputs of a model, and whether values fit them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from exporter.errors import UsageError
from exporter.graph import Array, Graph, Node, Shape
from exporter.graph.lengths import Lengths
from exporter.graph.operations import Concat, Expand, Gather, Slice, Split
from exporter.graph.walk import REARRANGE, dependents, only_moves

FLOATS = frozenset({"float16", "float32", "float64"})
INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def dtype_named(name: str) -> np.dtype[Any]:
    """The dtype of that name; types that NumPy does not have are those of `ml_dtypes`."""
    if name not in FLOATS | INTEGERS | {"bool"}:
        import ml_dtypes  # noqa: F401, PLC0415 - it adds its names to NumPy's
    return np.dtype(name)


def shape_text(shape: Shape) -> str:
    """A shape in a message, such as [?, 3]."""
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"


def fits(shape: tuple[int, ...], expected: Shape) -> bool:
    """Is this the expected shape, where None takes any length?"""
    return len(shape) == len(expected) and all(
        wanted in {None, length} for length, wanted in zip(shape, expected, strict=True)
    )


def check_lengths(graph: Graph, given: Lengths) -> None:
    """Refuse inputs and dimensions that the model does not have, and shapes that contradict it.

    Raises:
        UsageError: an unknown input or dimension, another shape than the model's, or an empty
            batch.
    """
    named = {n for name in graph.inputs for n in graph.tensors[name].symbols if n}
    for name in given.dims:
        if name not in named:
            raise UsageError(
                f"no input has an open dimension named {name!r}",
                f"the names are {', '.join(sorted(named))}" if named else "use --input-shape",
            )
    for name, whole in sorted(given.shapes.items()):
        shape = tuple(whole)
        if name not in graph.inputs:
            known = ", ".join(repr(i) for i in graph.inputs)
            raise UsageError(f"the model has no input {name!r}", f"its inputs are {known}")
        expected = graph.tensors[name].shape
        if expected is not None and not fits(shape, expected):
            raise UsageError(
                f"input {name!r} has the shape {shape_text(expected)}, not {shape_text(shape)}",
                "give numbers for its open dimensions (?) only",
            )
        if min(shape, default=1) < 0 or shape[:1] == (0,):
            raise UsageError(
                f"the shape {shape_text(shape)} for input {name!r} has no values",
                "give a batch of at least 1",
            )


def with_lengths(graph: Graph, given: Lengths) -> Graph:
    """The graph with the given lengths of its inputs; the batch stays as the model has it."""
    check_lengths(graph, given)
    tensors = dict(graph.tensors)
    for name in graph.inputs:
        before = tensors[name].shape
        shape = given.shapes.get(name, before)
        if shape is None:
            continue
        symbols = tensors[name].symbols or ("",) * len(shape)
        pairs = zip(shape, symbols, strict=True)
        known = tuple(given.dims.get(symbol) if n is None else n for n, symbol in pairs)
        batch = before[:1] if before is not None else known[:1]
        tensors[name] = replace(tensors[name], shape=(*batch, *known[1:]))
    return replace(graph, tensors=tensors)


def table_lengths(graph: Graph, name: str) -> list[int]:
    """The length of every table that the values of an input index."""
    lengths: list[int] = []
    for tensor in dependents(graph, [name], _keeps_values):
        for node, slot in graph.consumers.get(tensor, ()):
            if isinstance(node.operation, Gather) and slot == 1:
                length = dict(enumerate(graph.shape(node.inputs[0]))).get(node.operation.axis)
                lengths += [length] if length else []
    return lengths


def _keeps_values(node: Node, _slot: int) -> bool:
    """Not arithmetic: index + 1 could be beyond the table."""
    return only_moves(node, "cast", kinds=REARRANGE | Expand | Concat | Split | Slice)


class InputFit:
    """Turns arrays of samples into the shape and dtype of an input, block after block.

    Args:
        where: begins the messages, such as "data.npz: the array for input 'x'".
        shape: of all samples, (samples, ...).

    Raises:
        UsageError: the shape or the dtype does not fit the input.
    """

    def __init__(
        self, where: str, graph: Graph, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._where = where
        self._dtype = graph.tensors[name].dtype
        self._rows = min(table_lengths(graph, name), default=None)
        if not shape or not np.prod(shape, dtype=object):
            raise UsageError(f"{where} is empty", "write at least one sample")
        if dtype.kind not in _accepted_kinds(self._dtype):
            raise UsageError(
                f"{where} has dtype {dtype}, the input {self._dtype}",
                "convert the values to the dtype of the input",
            )
        expected = graph.tensors[name].shape
        self._adds_batch = False
        if expected is not None and not fits(shape[1:], expected):
            self._adds_batch = bool(expected) and fits(shape[1:], expected[1:])
            if not self._adds_batch:
                raise UsageError(
                    f"{where} has the shape {shape_text(shape)}; one sample is "
                    f"{shape_text(expected)}",
                    "save (samples, ...) with one sample of that shape each; a folder of images is "
                    "resized to it",
                )

    def __call__(self, block: Array, first: int) -> Array:
        """The same values, (samples, batch, ...) in the dtype of the input.

        Args:
            block: (samples, ...), the samples from number `first` on.
        """
        if self._dtype == "string":
            return self.cast(block)
        self._check(~np.isfinite(block), first, "that are NaN or infinite")
        values = self.cast(block)
        if block.dtype != values.dtype:
            whole = values.reshape(block.shape)
            represented = np.isfinite(whole) if "float" in self._dtype else whole == block
            self._check(~represented, first, f"that {self._dtype} cannot represent")
        if self._rows is not None and block.max() >= self._rows:
            raise UsageError(
                f"{self._where} contains the index {block.max()}",
                f"the table that it indexes has {self._rows} rows",
            )
        return values

    def cast(self, block: Array) -> Array:
        """The same values, (samples, batch, ...) in the dtype of the input, without checks."""
        if self._dtype == "string":
            values = block
        else:
            with np.errstate(over="ignore"):
                values = block.astype(dtype_named(self._dtype), copy=False)
        return values[:, np.newaxis] if self._adds_batch else values

    def _check(self, wrong: Array, first: int, problem: str) -> None:
        if not wrong.any():
            return
        counts = wrong.reshape(len(wrong), -1).sum(axis=1).tolist()
        sample = next(i for i, count in enumerate(counts) if count)
        raise UsageError(
            f"{self._where} contains values {problem}: {counts[sample]} in sample {first + sample}",
            "correct the values, or leave the sample out",
        )


def _accepted_kinds(dtype: str) -> str:
    """The NumPy dtype kinds that an input of this dtype accepts, if every value fits."""
    if "float" in dtype:
        return "biuf"
    if "int" in dtype:
        return "biu"
    return {"bool": "b", "string": "U"}.get(dtype, "")
