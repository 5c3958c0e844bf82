"""A digest for each tensor of a structure: equal digests mean that equal operations compute them.

The digest of a constant covers its values. The digest of a computed tensor covers its operation,
the attributes, and the digests of all inputs. So one comparison of two digests compares everything
that a tensor depends on, whatever its name and whatever the order of the nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property

from exporter.formats.structure import Constant, Step, Structure, joined_digest

# An operator of ONNX that returns its input: writers add and drop it.
COPY = "Identity"

# Operators that return other values each time.
RANDOM = frozenset({
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike", "MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM",
})  # fmt: skip

# Operators whose result depends on operations without outputs that ran before.
STATEFUL = frozenset({
    "ASSIGN_VARIABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT", "HASHTABLE_SIZE", "READ_VARIABLE",
})  # fmt: skip


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
        self.depth: int = 0 if outer is None else outer.depth + 1
        self._variables = 0  # tensors that nothing computes, and that keep their values
        self._written = b""  # of the last operation without outputs
        self.inner: list[Digests] = []  # of the graphs inside its operations
        self._random: Counter[str] = Counter()  # operations by their operator
        needed = [end for end in structure.inputs if end.default is None]
        for place, end in enumerate(needed):  # inputs of a graph inside a node are others
            self.of[end.tensor] = joined_digest("input", str(self.depth), str(place))
        for end in structure.inputs:
            whole = joined_digest("optional input", str(self.depth), end.name)
            self.of.setdefault(end.tensor, whole)
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
            else:  # of two variables of one type, the order of their use decides which is which
                self._variables += 1
                self.of[key] = joined_digest("tensor", self._facts(key), str(self._variables))
        return self.of[key]

    def _facts(self, key: str) -> str:
        return repr(sorted(self.structure.tensors.get(key, {}).items()))

    def _add(self, step: Step) -> None:
        if step.operator == COPY and len(step.inputs) == len(step.outputs) == 1:
            self.of[step.outputs[0]] = self.tensor(step.inputs[0])
            self.steps.append((step, self.of[step.outputs[0]]))
            return
        parts: list[str | bytes] = [step.operator, *(self.tensor(key) for key in step.inputs)]
        for name, value in sorted(step.attributes.items()):
            parts += [name, self.attribute(value)]
        parts += [self._facts(key) for key in step.outputs]
        if step.operator in RANDOM:  # two of them give different values
            self._random[step.operator] += 1
            parts.append(str(self._random[step.operator]))
        if step.operator in STATEFUL:  # its result depends on the last write before it
            parts.append(self._written)
        whole = joined_digest(*parts)
        if not step.outputs:
            self._written = whole
        for slot, key in enumerate(step.outputs):
            self.of[key] = joined_digest(whole, str(slot))
        self.steps.append((step, whole))

    def attribute(self, value: str | Constant | Structure) -> bytes:
        """The digest of an attribute; the digest of a graph depends on the tensors around it."""
        if isinstance(value, str):
            return joined_digest("text", value)
        if isinstance(value, Constant):
            return joined_digest("constant", value.digest)
        self.inner.append(Digests(value, self))
        return self.inner[-1].whole

    def constant(self, key: str) -> Constant | None:
        """The constant with this key, of the graph or of one around it."""
        if key in self.structure.constants or self._outer is None:
            return self.structure.constants.get(key)
        return self._outer.constant(key)

    @cached_property
    def whole(self) -> bytes:
        """The digest of all outputs, and of the dtypes of inputs."""
        ends = (end.dtype for end in self.structure.inputs)
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

    def copied(self, key: str) -> str:
        """The tensor that a tensor is a copy of; itself if it is none."""
        while key in self.producers and self.producers[key][0].operator == COPY:
            key = self.producers[key][0].inputs[0]
        return key

    def parts(self) -> Iterator[bytes]:
        """The digests of all tensors, constants and operations, also of graphs inside."""
        yield from self.of.values()
        yield from (self.tensor(key) for key in self.structure.constants)
        yield from (digest for _, digest in self.steps)
        for each in self.inner:
            yield from each.parts()

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
        for each in self.inner:
            yield from each.unused()

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
