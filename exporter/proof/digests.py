"""A digest for each tensor of a structure: equal digests mean that equal operations compute them.

The digest of a constant covers its values. The digest of a computed tensor covers its operation,
the attributes, and the digests of all inputs. So one comparison of two digests compares everything
that a tensor depends on, whatever its name and whatever the order of the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from exporter.formats.structure import Constant, Step, Structure, joined_digest


class Digests:
    """The digests of one structure.

    Args:
        structure: a file, or a graph inside one.
        outer: the graph around a graph inside a node, whose tensors it may read.
    """

    def __init__(self, structure: Structure, outer: Digests | None = None) -> None:
        self.structure = structure
        self._outer = outer
        self.of: dict[str, bytes] = {"": b"absent"}
        self.steps: list[tuple[Step, bytes]] = []  # every operation with its digest, in order
        needed = [end for end in structure.inputs if end.default is None]
        for place, end in enumerate(needed):
            self.of[end.tensor] = joined_digest("input", str(place))
        for end in structure.inputs:
            self.of.setdefault(end.tensor, joined_digest("optional input", end.name))
        for step in structure.steps:
            self._add(step)
        self.outputs = tuple(self.tensor(end.tensor) for end in structure.outputs)

    def tensor(self, key: str) -> bytes:
        """The digest of a tensor."""
        if key not in self.of:
            if key in self.structure.constants:
                self.of[key] = joined_digest("constant", self.structure.constants[key].digest)
            elif self._outer is not None:
                self.of[key] = self._outer.tensor(key)
            else:  # a variable, or a tensor that nothing computes
                self.of[key] = joined_digest("tensor", self._facts(key))
        return self.of[key]

    def _facts(self, key: str) -> str:
        return repr(sorted(self.structure.tensors.get(key, {}).items()))

    def _add(self, step: Step) -> None:
        parts: list[str | bytes] = [step.operator, *(self.tensor(key) for key in step.inputs)]
        for name, value in sorted(step.attributes.items()):
            parts += [name, self.attribute(value)]
        parts += [self._facts(key) for key in step.outputs]
        whole = joined_digest(*parts)
        for slot, key in enumerate(step.outputs):
            self.of[key] = joined_digest(whole, str(slot))
        self.steps.append((step, whole))

    def attribute(self, value: str | Constant | Structure) -> bytes:
        """The digest of an attribute; that of a graph depends on the tensors around it."""
        if isinstance(value, str):
            return joined_digest("text", value)
        if isinstance(value, Constant):
            return joined_digest("constant", value.digest)
        return Digests(value, self).whole

    def constant(self, key: str) -> Constant | None:
        """The constant with this key, of the graph or of one around it."""
        if key in self.structure.constants or self._outer is None:
            return self.structure.constants.get(key)
        return self._outer.constant(key)

    @cached_property
    def whole(self) -> bytes:
        """The digest of all outputs, and of the types of inputs."""
        ends = (repr((end.dtype, end.shape)) for end in self.structure.inputs)
        return joined_digest("graph", *ends, *self.outputs)

    @cached_property
    def producers(self) -> Mapping[str, tuple[Step, int]]:
        """Tensor -> the operation that computes it, and the slot of the output."""
        return {
            key: (step, slot)
            for step in self.structure.steps
            for slot, key in enumerate(step.outputs)
            if key
        }

    def unused(self) -> Iterator[tuple[str, bytes]]:
        """Name and digest of the operations and constants that no output depends on.

        An operation without outputs, such as a write to a variable, is always used.
        """
        used = {end.tensor for end in self.structure.outputs}
        for step in reversed(self.structure.steps):
            if not step.outputs or not used.isdisjoint(step.outputs):
                used.update(step.inputs)
                for value in step.attributes.values():
                    if isinstance(value, Structure):
                        used.update(names_read(value))
        for step, digest in self.steps:
            if step.outputs and used.isdisjoint(step.outputs):
                yield f"{step.operator} {step.name!r}", digest
        for key in self.structure.constants:
            if key not in used:
                yield f"constant {self.structure.name(key)!r}", self.tensor(key)

    def effects(self) -> list[bytes]:
        """The digests of the operations without outputs, in running order."""
        return [digest for step, digest in self.steps if not step.outputs]


def names_read(graph: Structure) -> Iterator[str]:
    """All names that a graph inside a node reads, its own ones too."""
    yield from (end.tensor for end in graph.outputs)
    for step in graph.steps:
        yield from step.inputs
        for value in step.attributes.values():
            if isinstance(value, Structure):
                yield from names_read(value)
