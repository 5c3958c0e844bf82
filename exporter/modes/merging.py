"""Merged units: one whose probability is the exact sum of its members', behind any slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Array
from exporter.graph.edits import Compute, ComputeStep
from exporter.graph.operations import Elementwise
from exporter.graph.walk import REARRANGE
from exporter.modes.mask_value import joins_probabilities_of_parts, quantization_attributes
from exporter.modes.semantics import Semantics
from exporter.remap.head_remap import OldUnits
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitTensor

_REAL = ("float16", "float32", "float64")
_CODES = ("uint8", "int8", "int16")


def resolve_merge(head: Head, semantics: Semantics) -> Semantics:
    """Refuse what has no sum of probabilities, or shows it in more places than one.

    1. Under a softmax over the units the members' probabilities add up; logits, and logarithms of
       probabilities, to the logarithm of the sum of their exponentials.
    2. The units of a sigmoid do not exclude each other: the sum of their probabilities may exceed
       1 and is none. What other activations answer is no probability.

    Raises:
        UsageError: case 2.
        ModelError: something behind the activation does more than move values; other outputs or a
            ranking read the units elsewhere.
    """
    if not semantics.merge:
        return semantics
    if head.activation not in MERGES or (head.activation == "softmax" and not head.competes):
        raise UsageError(
            f"units of head {head.name!r} cannot be merged: under {head.activation} they do not "
            "share one probability, and a sum of theirs would be none",
            "merge units of a softmax, of a log-softmax or of logits",
        )
    if joins_probabilities_of_parts(head):
        raise UsageError(
            f"units of head {head.name!r} cannot be merged: its parts are probabilities already, "
            "each of its own",
            "merge units of a softmax, of a log-softmax or of logits",
        )
    if head.other_outputs:
        raise ModelError(
            f"units of head {head.name!r} cannot be merged: output {head.other_outputs[0]!r} "
            "shows them too",
            "leave out --merge",
        )
    for node in head.tail[1:]:
        moves = isinstance(node.operation, REARRANGE | Elementwise)
        if not moves or node.name in head.factors:
            raise ModelError(f"units cannot be merged behind {node}", "leave out --merge")
    for ranking in head.readers.rankings:
        if ranking.source != head.output:
            raise ModelError(
                f"units cannot be merged: {ranking.node} ranks them before {head.output!r}",
                "leave out --merge",
            )
    return semantics


def merge_edits(head: Head, kept: Sequence[int], semantics: Semantics) -> tuple[Compute, ...]:
    """Each group by its own gather and reduction, joined with what lies between the groups.

    One gather of all that is left stands in front: a tensor of codes that several operations read
    is computed by other kernels in onnxruntime, whose codes are others.

    Args:
        head: as it was, before any cut.
        kept: the units that are left, the members of each group side by side; the output shows
            them, or all units where the probabilities are absolute.
        meaning: settled.
    """
    tensor = head.tensor(head.output)
    _check(head, tensor, len(merge_units(kept, semantics)))
    left = tensor.unit_axis.positions(kept)
    steps = MergeSteps(tensor)
    steps.gather(0, left if semantics.absolute else np.arange(len(left)))
    combine = MERGES[head.activation]
    parts = [
        combine(steps, positions) if joined else steps.gather(MEMBERS, positions)
        for joined, positions in _parts(tensor.unit_axis.units[left], semantics)
    ]
    if len(parts) > 1:
        length = sum(steps.length(part) for part in parts)
        steps.add("concat", parts, length, axis=tensor.unit_axis.axis)
    return (Compute(head.output, tuple(steps.made)),)


def merge_units(kept: Sequence[int], semantics: Semantics) -> tuple[OldUnits, ...]:
    """Kept units and groups in the order of their places."""
    lowest = {members[0]: members for members in semantics.merge.values()}
    inside = {unit for members in semantics.merge.values() for unit in members[1:]}
    return tuple(lowest.get(unit, unit) for unit in kept if unit not in inside)


def merge_values(head: Head, kept: Sequence[int], values: Array, semantics: Semantics) -> Array:
    """What the output must hold, from the values of the units that are left, in float64.

    Args:
        head: as it was, before any cut.
        kept: the units that are left.
        values: of these units (and of what is no unit) in the output before anything is merged;
            further axes may stand in front.
    """
    labels = head.tensor(head.output).unit_axis
    axis = labels.axis - len(head.tensor(head.output).shape)
    units = labels.units[labels.positions(kept)].tolist()
    owner = {unit: members for members in semantics.merge.values() for unit in members}
    rows = dict(enumerate(np.moveaxis(np.asarray(values, np.float64), axis, 0)))
    result = []
    for position, unit in enumerate(units):
        members = owner.get(unit, (unit,))
        if unit == members[0]:
            others = [rows[units.index(member)] for member in members[1:]]
            result.append(_join(head.activation, [rows[position], *others]))
    answer = np.moveaxis(np.stack(result), 0, axis)
    known = head.tensor(head.output).quantization
    return answer if known is None else known.nearest(answer)


def _join(activation: str, rows: list[Array]) -> Array:
    if activation == "softmax":
        return np.asarray(np.sum(rows, axis=0))
    return np.asarray(np.logaddexp.reduce(rows, axis=0))


def _check(head: Head, tensor: UnitTensor, width: int) -> None:
    known = tensor.quantization
    plain = known is None or known.scale.size == 1
    fitting = tensor.dtype in (_REAL if known is None else _CODES)
    if not (plain and fitting):
        raise ModelError(
            f"units of {tensor.name!r} cannot be merged: its values are {tensor.dtype}"
            + ("" if plain else ", with a scale for each unit"),
            "leave out --merge",
        )
    for ranking in head.readers.rankings:
        if ranking.stated is not None and ranking.stated.value[0] > width:
            raise ModelError(
                f"{ranking.node} returns {ranking.stated.value[0]} units, of which {width} would "
                "be left",
                f"leave at least {ranking.stated.value[0]} units and groups",
            )


def _parts(units: Array, semantics: Semantics) -> Iterator[tuple[bool, Array]]:
    """Positions of a group's members, or of what lies between two groups, in their order."""
    owner = {unit: members for members in semantics.merge.values() for unit in members}
    plain: list[int] = []
    for position, unit in enumerate(units.tolist()):
        if unit not in owner:
            plain.append(position)
        elif unit == owner[unit][0]:
            if plain:
                yield False, np.asarray(plain)
            yield True, np.flatnonzero(np.isin(units, owner[unit]))
            plain = []
    if plain:
        yield False, np.asarray(plain)


MEMBERS = 1  # the step in front, which takes all that is left


class MergeSteps:
    """The steps of a computation along one axis, with their shapes."""

    def __init__(self, tensor: UnitTensor) -> None:
        self.made: list[ComputeStep] = []
        self._axis = tensor.unit_axis.axis
        self._shape = tensor.shape
        self._codes: dict[str, Any] | None = None
        if tensor.quantization is not None:
            self._codes = quantization_attributes(tensor)

    def length(self, number: int) -> int:
        length = self.made[number - 1].shape[self._axis]
        assert length is not None  # noqa: S101 - narrows the type; `add` is given a number
        return length

    def add(
        self,
        operation: str,
        inputs: Sequence[int],
        length: int,
        operands: tuple[Array, ...] = (),
        **attributes: Any,
    ) -> int:
        """One more step, whose result has that length on the axis; its number."""
        shape = (*self._shape[: self._axis], length, *self._shape[self._axis + 1 :])
        self.made.append(ComputeStep(operation, tuple(inputs), operands, attributes, shape))
        return len(self.made)

    def gather(self, number: int, positions: Array) -> int:
        where = positions.astype(np.int32)
        return self.add("gather", [number], len(positions), (where,), axis=self._axis)

    def members(self, positions: Array) -> int:
        """Their real values."""
        select_units = self.gather(MEMBERS, positions)
        if self._codes is None:
            return select_units
        return self.add("dequantize", [select_units], len(positions), **self._codes)

    def reduce(self, function: str, number: int) -> int:
        return self.add(f"reduce_{function}", [number], 1, axis=self._axis)

    def coded(self, number: int) -> int:
        """The one value as the tensor holds it: a code that saturates, where it holds codes."""
        return number if self._codes is None else self.add("quantize", [number], 1, **self._codes)


def _sum(steps: MergeSteps, positions: Array) -> int:
    return steps.coded(steps.reduce("sum", steps.members(positions)))


def _log_sum_exp(steps: MergeSteps, positions: Array) -> int:
    """With the largest taken out first, so that no exponential is infinite."""
    values = steps.members(positions)
    largest = steps.reduce("max", values)
    powers = steps.add("exp", [steps.add("sub", [values, largest], len(positions))], len(positions))
    log = steps.add("log", [steps.reduce("sum", powers)], 1)
    return steps.coded(steps.add("add", [log, largest], 1))


MERGES: Mapping[str, Callable[[MergeSteps, Array], int]] = {
    "softmax": _sum,
    "log_softmax": _log_sum_exp,
    "linear": _log_sum_exp,
}
