"""The structure of a model file: everything that decides its results, in plain data.

Two files with the same structure compute the same in the same runtime. The order of nodes, the
names of inner tensors and nodes, and the encoding of values in the file are not part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from exporter.formats.model import Model
from exporter.graph import Array, Shape
from exporter.remap import Remap

_BLOCK = 1 << 24  # bytes that are hashed at a time; a constant in a file is never read whole


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant of a file.

    Attributes:
        dtype: as the file names it.
        read: returns the values; a view of the file where possible.
        facts: what else decides its meaning, such as its quantization.
        blocks: returns the bytes of the values in parts, if they are not in one array.
    """

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Array]
    facts: Mapping[str, str] = field(default_factory=dict)
    blocks: Callable[[], Iterator[Any]] | None = None

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of dtype, shape, facts and values; the values bit by bit."""
        return joined_digest(
            self.dtype, repr(self.shape), repr(sorted(self.facts.items())), self.values_digest
        )

    @cached_property
    def values_digest(self) -> bytes:
        result = hashlib.sha256()
        for block in self.blocks() if self.blocks else _blocks(self.read()):
            result.update(block)
        return result.digest()


def _blocks(values: Array) -> Iterator[Any]:
    if values.dtype == object:  # strings
        yield repr(values.tolist()).encode()
        return
    flat: Any = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _BLOCK):
        yield flat[start : start + _BLOCK]


def facts_of(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The facts of a file. Of a key that it states several times, readers may use any value."""
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: "; and again: ".join(values) for key, values in found.items()}


def joined_digest(*parts: str | bytes) -> bytes:
    """SHA-256 of several parts, each with its length, so that they cannot be confused."""
    result = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        result.update(len(content).to_bytes(8, "little"))
        result.update(content)
    return result.digest()


@dataclass(frozen=True, eq=False)
class Step:
    """One operation of a file.

    Attributes:
        name: for messages.
        operator: with its domain, such as "com.microsoft.FusedConv".
        attributes: name -> value: a text for plain values; those with their default are left out.
        inputs, outputs: keys of tensors; "" where an optional one is absent.
    """

    name: str
    operator: str
    attributes: Mapping[str, str | Constant | Structure]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class End:
    """An input or output of a file.

    Attributes:
        tensor: its key.
        shape: None where the rank is unknown.
        default: of an input that a run may leave out.
        facts: what else decides the meaning of its values, such as their quantization.
    """

    name: str
    tensor: str
    dtype: str
    shape: Shape | None
    default: Constant | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Structure:
    """The structure of a file, or of a graph inside it.

    Attributes:
        steps: in an order in which they can run.
        constants: key of a tensor -> constant.
        facts: what else the file states, such as its metadata and labels.
        operator_sets: domain -> version, of the domains that the file uses (ONNX).
        tensors: key of a computed tensor -> its type, where the runtime relies on it (TFLite).
        stated: key of a computed tensor -> dtype and shape, where a file may leave them out (ONNX).
        names: key of a tensor -> its name, where they differ.
        bodies: graphs that operations call by their name or index.
    """

    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, Constant]
    facts: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    stated: Mapping[str, tuple[str, Shape | None]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    bodies: Mapping[str, Structure] = field(default_factory=dict)
    operator_sets: Mapping[str, int] = field(default_factory=dict)

    def name(self, tensor: str) -> str:
        """The name of the tensor with this key."""
        return self.names.get(tensor, tensor)

    def key(self, name: str) -> str:
        """The key of the tensor with this name; "" if there is none."""
        if not self.names:
            return name
        return next((key for key, each in self.names.items() if each == name), "")


@runtime_checkable
class HasStructure(Protocol):
    """A model that shows its structure; a Keras model does not.

    Attributes:
        stated_precision: that the file says it was quantized to, apart from its remap; None if it
            does not say.
    """

    stated_precision: str | None

    def structure(self) -> Structure:
        """The structure of the file. No large constant is read before it is needed."""

    def starting_at(self, tensors: Collection[str]) -> Model:
        """The part of the model from these computed tensors on, which become its first inputs.

        It has the outputs that depend on them.
        """


def quantized_since(original: Model, file: Model, remap: Remap | None) -> str | None:
    """The precision that a file states, and its original does not; None if both state the same.

    Args:
        remap: in the file, or next to it.
    """
    after, before = _stated(file, remap), _stated(original, original.remap)
    return None if after == before else after


def _stated(model: Model, remap: Remap | None) -> str | None:
    stated = model.stated_precision if isinstance(model, HasStructure) else None
    return (remap and remap.precision) or stated
