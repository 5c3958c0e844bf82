"""Compare two structures, and find where they differ first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from exporter.formats.structure import Constant, End, Step, Structure
from exporter.graph import Array, Shape
from exporter.proof.digests import Digests

INTERFACE, CONSTANT, NODE, TABLE = "interface", "constant", "node", "table"


@dataclass(frozen=True)
class Difference:
    """One place where a file differs from the expected one.

    Attributes:
        kind: INTERFACE, CONSTANT, NODE or TABLE.
        text: what differs: expected against found.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


def compare_structures(expected: Structure, found: Structure) -> list[Difference]:
    """All differences, first of the interface; none if the files compute the same.

    Operations and constants that no output depends on may be missing, since writers drop them. A
    file with more of them than expected is different.
    """
    return [
        *_interface(expected, found),
        *_facts(expected.facts, found.facts),
        *_operator_sets(expected.operator_sets, found.operator_sets),
        *_graphs(expected, found),
        *_bodies(expected.bodies, found.bodies),
    ]


# --- interface and facts --------------------------------------------------------------------------


def _interface(expected: Structure, found: Structure) -> Iterator[Difference]:
    for title, left, right in (
        ("input", expected.inputs, found.inputs),
        ("output", expected.outputs, found.outputs),
    ):
        needed = [[end for end in ends if end.default is None] for ends in (left, right)]
        names = [[end.name for end in ends] for ends in needed]
        if names[0] != names[1]:
            yield Difference(INTERFACE, f"the {title}s are {names[1]}, expected {names[0]}")
            continue
        for one, other in zip(*needed, strict=True):
            yield from _end(f"{title} {one.name!r}", one, other)
    yield from _optional_inputs(expected, found)


def _optional_inputs(expected: Structure, found: Structure) -> Iterator[Difference]:
    left, right = (
        {end.name: end for end in each.inputs if end.default is not None}
        for each in (expected, found)
    )
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right:
            shown = "missing" if name in left else "not expected"
            yield Difference(NODE, f"the optional input {name!r} is {shown}")
        else:
            yield from _end(f"optional input {name!r}", left[name], right[name])


def _end(title: str, expected: End, found: End) -> Iterator[Difference]:
    if expected.dtype != found.dtype:
        yield Difference(INTERFACE, f"{title} is {found.dtype}, expected {expected.dtype}")
    if expected.shape != found.shape:
        shapes = describe_shape(found.shape), describe_shape(expected.shape)
        yield Difference(INTERFACE, f"{title} has the shape {shapes[0]}, expected {shapes[1]}")
    defaults = [end.default and end.default.digest for end in (expected, found)]
    if defaults[0] != defaults[1]:
        yield Difference(INTERFACE, f"{title} has another default value")
    for key in sorted(expected.facts.keys() | found.facts.keys()):
        values = [_short(each.facts.get(key, "absent")) for each in (found, expected)]
        if values[0] != values[1]:
            yield Difference(INTERFACE, f"{key} of {title} is {values[0]}, expected {values[1]}")


def describe_shape(shape: Shape | None) -> str:
    if shape is None:
        return "of unknown rank"
    return f"[{', '.join('?' if n is None else str(n) for n in shape)}]"


def _facts(expected: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Difference]:
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            values = (_short(each.get(key, "absent")) for each in (found, expected))
            yield Difference(TABLE, f"{key} is {next(values)}, expected {next(values)}")


def _operator_sets(expected: Mapping[str, int], found: Mapping[str, int]) -> Iterator[Difference]:
    """Domains that only one file uses are seen by their operations."""
    for domain in sorted(expected.keys() & found.keys()):
        if expected[domain] != found[domain]:
            versions = f"{found[domain]}, expected {expected[domain]}"
            yield Difference(TABLE, f"the operator set {domain or 'ai.onnx'!r} is {versions}")


_LONGEST = 60


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _bodies(
    expected: Mapping[str, Structure], found: Mapping[str, Structure]
) -> Iterator[Difference]:
    for key in sorted(expected.keys() | found.keys()):
        if key not in found or key not in expected:
            yield Difference(NODE, f"{key} is {'missing' if key in expected else 'not expected'}")
            continue
        for each in compare_structures(expected[key], found[key]):
            yield Difference(each.kind, f"{key}: {each.text}")


# --- nodes and constants --------------------------------------------------------------------------


def _graphs(
    expected: Structure, found: Structure, outer: tuple[Digests, Digests] | None = None
) -> Iterator[Difference]:
    left, right = (
        Digests(each, around)
        for each, around in zip((expected, found), outer or (None, None), strict=True)
    )
    found_here = list(_Walk(left, right).differences())
    yield from found_here
    if left.outputs != right.outputs and not found_here:
        yield Difference(NODE, "other operations or constants compute an output")
    yield from _stated_types(left, right)
    known = set(left.parts())
    for name, digest in right.unused():
        if digest not in known:
            yield Difference(NODE, f"{name} is not expected; no output depends on it")
    if left.effects() != right.effects():
        yield Difference(NODE, "operations without outputs, such as writes to variables, differ")


def _stated_types(expected: Digests, found: Digests) -> Iterator[Difference]:
    """Types of inner tensors, where both files state one: a runtime may rely on them."""
    known = {expected.of[k]: t for k, t in expected.structure.stated.items() if k in expected.of}
    for key, (dtype, shape) in found.structure.stated.items():
        stated = known.get(found.of.get(key, b""))
        if stated is not None and not (stated[0] == dtype and _agree(stated[1], shape)):
            texts = f"{dtype} {describe_shape(shape)}", f"{stated[0]} {describe_shape(stated[1])}"
            yield Difference(NODE, f"{key!r} is stated as {texts[0]}, expected {texts[1]}")
    inner = {each.whole: each for each in expected.inner}
    for each in found.inner:
        if each.whole in inner:
            yield from _stated_inside(inner[each.whole], each)


def _stated_inside(expected: Digests, found: Digests) -> Iterator[Difference]:
    """The same for a graph inside an operation, whose ends may also be stated or not."""
    one, other = expected.structure, found.structure
    for left, right in zip(
        (*one.inputs, *one.outputs), (*other.inputs, *other.outputs), strict=False
    ):
        if not _agree(left.shape, right.shape):
            texts = describe_shape(right.shape), describe_shape(left.shape)
            yield Difference(NODE, f"{right.name!r} is stated as {texts[0]}, expected {texts[1]}")
    yield from _stated_types(expected, found)


def _agree(expected: Shape | None, found: Shape | None) -> bool:
    """Are the lengths equal where both are known?"""
    if expected is None or found is None:
        return True
    return len(expected) == len(found) and all(
        None in pair or pair[0] == pair[1] for pair in zip(expected, found, strict=True)
    )


class _Walk:
    """Walks from the outputs of two graphs towards their inputs, as long as digests differ."""

    def __init__(self, expected: Digests, found: Digests) -> None:
        self._left, self._right = expected, found
        self._seen: set[tuple[str, str]] = set()
        self._known = {digest: key for key, digest in expected.of.items()}

    def differences(self) -> Iterator[Difference]:
        pending = list(_pairs(self._left.structure.outputs, self._right.structure.outputs))[::-1]
        while pending:
            left, right = pending.pop()
            pair = self._left.copied(left), self._right.copied(right)
            if pair in self._seen:
                continue
            self._seen.add(pair)
            if self._left.tensor(pair[0]) == self._right.tensor(pair[1]):
                continue
            found, deeper = self._at(*pair)
            yield from found
            pending += deeper[::-1]

    def _at(self, left: str, right: str) -> tuple[list[Difference], list[tuple[str, str]]]:
        """The differences at a pair of tensors, and the pairs that they are computed from."""
        constants = [side.constant(key) for side, key in ((self._left, left), (self._right, right))]
        if constants[0] and constants[1]:
            name = self._left.structure.name(left)
            return [Difference(CONSTANT, _constants(name, constants[0], constants[1]))], []
        maker, other_maker = self._left.producers.get(left), self._right.producers.get(right)
        if maker is None or other_maker is None:
            return [self._connection(left, right)], []
        (one, slot), (other, other_slot) = maker, other_maker
        title = f"{one.operator} {one.name!r}"
        if one.operator != other.operator:
            text = f"{other.operator} {other.name!r} computes the values of {title}"
            return [Difference(NODE, text)], []
        if slot != other_slot:
            return [Difference(NODE, f"output {other_slot} of {title} is read, not {slot}")], []
        found = [*self._attributes(title, one, other), *self._types(title, one, other)]
        return self._inputs(title, one, other, found)

    def _connection(self, left: str, right: str) -> Difference:
        shown = (
            _describe_tensor(side, key) for side, key in ((self._right, right), (self._left, left))
        )
        return Difference(NODE, f"{next(shown)} is read where {next(shown)} is expected")

    def _attributes(self, title: str, one: Step, other: Step) -> Iterator[Difference]:
        for name in sorted(one.attributes.keys() | other.attributes.keys()):
            values = one.attributes.get(name), other.attributes.get(name)
            match values:
                case Structure() as expected, Structure() as found:
                    for each in _graphs(expected, found, (self._left, self._right)):
                        yield Difference(each.kind, f"{name} of {title}: {each.text}")
                case Constant() as expected, Constant() as found:
                    if expected.digest != found.digest:
                        text = _constants(f"{name} of {title}", expected, found)
                        yield Difference(CONSTANT, text)
                case expected, found if expected != found:
                    shown = [_short(str(each or "absent")) for each in (found, expected)]
                    text = f"{name} of {title} is {shown[0]}, expected {shown[1]}"
                    yield Difference(NODE, text)

    def _types(self, title: str, one: Step, other: Step) -> Iterator[Difference]:
        for left, right in zip_longest(one.outputs, other.outputs, fillvalue=""):
            sides = (self._left, left), (self._right, right)
            facts = [side.structure.tensors.get(key, {}) for side, key in sides]
            for key in sorted(facts[0].keys() | facts[1].keys()):
                values = [each.get(key, "absent") for each in facts]
                if values[0] != values[1]:
                    text = f"{key} of the result of {title} is {_short(values[1])}, expected "
                    yield Difference(NODE, text + _short(values[0]))

    def _inputs(
        self, title: str, one: Step, other: Step, found: list[Difference]
    ) -> tuple[list[Difference], list[tuple[str, str]]]:
        left = [self._left.tensor(key) for key in one.inputs]
        right = [self._right.tensor(key) for key in other.inputs]
        if len(left) != len(right):
            text = f"{title} has {len(right)} inputs, expected {len(left)}"
            return [*found, Difference(NODE, text)], []
        if left != right and Counter(left) == Counter(right):
            return [*found, Difference(NODE, f"the inputs of {title} are swapped")], []
        deeper = []
        for slot, pair in enumerate(zip(one.inputs, other.inputs, strict=True)):
            if left[slot] == right[slot]:
                continue
            elsewhere = self._known.get(right[slot])
            if elsewhere is not None and elsewhere not in self._left.structure.constants:
                shown = [_describe_tensor(self._left, key) for key in (elsewhere, pair[0])]
                text = f"input {slot} of {title} is {shown[0]}, expected {shown[1]}"
                found.append(Difference(NODE, text))
            else:
                deeper.append(pair)
        return found, deeper


def _pairs(expected: Sequence[End], found: Sequence[End]) -> Iterator[tuple[str, str]]:
    """The tensors of each output in both graphs: by name if all names are there, else in order."""
    by_name = {end.name: end for end in found}
    if len(by_name) == len(found) and by_name.keys() == {end.name for end in expected}:
        found = [by_name[end.name] for end in expected]
    for one, other in zip(expected, found, strict=False):
        yield one.tensor, other.tensor


def _describe_tensor(side: Digests, key: str) -> str:
    if not key:
        return "nothing"
    if side.constant(key):
        return f"the constant {side.structure.name(key)!r}"
    maker = side.producers.get(key)
    if maker is not None:
        return f"the result of {maker[0].operator} {maker[0].name!r}"
    return f"the tensor {side.structure.name(key)!r}"


def _constants(name: str, expected: Constant, found: Constant) -> str:
    """How two constants differ: type, shape, quantization, or values and the largest difference."""
    if (expected.dtype, expected.shape) != (found.dtype, found.shape):
        types = (f"{each.dtype} {list(each.shape)}" for each in (found, expected))
        return f"the constant {name!r} is {next(types)}, expected {next(types)}"
    for key in sorted(expected.facts.keys() | found.facts.keys()):
        values = [each.facts.get(key, "absent") for each in (expected, found)]
        if values[0] != values[1]:
            shown = (_short(each) for each in reversed(values))
            return f"{key} of the constant {name!r} is {next(shown)}, expected {next(shown)}"
    return f"the constant {name!r} {describe_values(expected.read(), found.read())}"


_AT_ONCE = 1 << 22  # entries that are compared at a time


def describe_values(expected: Array, found: Array) -> str:
    """Where the values of two arrays of one shape and dtype differ first, and by how much."""
    left, right = np.ravel(expected), np.ravel(found)
    count, largest, first = 0, 0.0, -1
    for start in range(0, left.size, _AT_ONCE):
        one, other = left[start : start + _AT_ONCE], right[start : start + _AT_ONCE]
        if one.dtype == object:
            changed = np.flatnonzero(one != other)
        else:
            width = one.dtype.itemsize
            bits = [np.ascontiguousarray(each).view(f"V{width}") for each in (one, other)]
            changed = np.flatnonzero(bits[0] != bits[1])
        if not changed.size:
            continue
        first = start + int(changed[0]) if first < 0 else first
        count += changed.size
        if one.dtype != object:
            with np.errstate(invalid="ignore", over="ignore"):
                apart = one[changed].astype(np.float64) - other[changed].astype(np.float64)
            largest = max(largest, float(np.abs(apart).max()))
    place = np.unravel_index(first, np.shape(expected)) if np.ndim(expected) else ()
    where = f" at {[int(i) for i in place]}" if place else ""
    apart_text = "" if left.dtype == object else f"; the largest difference is {largest:.6g}"
    return (
        f"is {right[first]!s} instead of {left[first]!s}{where}: {count} of {left.size} values "
        f"differ{apart_text}"
    )
