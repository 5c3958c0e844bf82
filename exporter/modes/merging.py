"""Merged units: the probability of a merged unit is the exact sum of its members'.

They are computed after the output of a slice: per group one gather and one reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Array
from exporter.graph.edits import Compute, ComputeStep
from exporter.graph.operations import Elementwise
from exporter.graph.walk import REARRANGE
from exporter.modes.mask_value import (
    joins_probabilities_of_parts,
    quantization_attributes,
    why_not_computable,
)
from exporter.modes.semantics import Semantics
from exporter.remap.head_remap import OldUnits
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitTensor


def check_merge(head: Head, semantics: Semantics) -> None:
    """Raise an error if the units of the head cannot be merged.

    1. Probabilities of a softmax add up. Logits and log-probabilities merge to the logarithm of the
       sum of their exponentials.
    2. The units of a sigmoid do not exclude each other, so their probabilities do not add up. Other
       activations return no probabilities.

    Raises:
        UsageError: case 2.
        ModelError: after the activation, the head does more than move values; or other outputs or
            a ranking read the units before the output.
    """
    if not semantics.merge:
        return
    title = f"units of head {head.name!r} cannot be merged"
    if reason := _why_no_sum(head):
        hint = "merge units of a softmax, of a log-softmax or of logits"
        raise UsageError(f"{title}: {reason}", hint)
    if reason := next(_other_readers(head), ""):
        raise ModelError(f"{title}: {reason}", "leave out --merge")


def _why_no_sum(head: Head) -> str:
    if head.activation not in MERGES or (head.activation == "softmax" and not head.competes):
        return f"their probabilities do not add up ({head.activation})"
    if joins_probabilities_of_parts(head):
        return "the output joins parts that have probabilities of their own"
    return ""


def _other_readers(head: Head) -> Iterator[str]:
    for output in head.other_outputs:
        yield f"output {output!r} returns them too"
    for node in head.tail[1:]:
        moves = isinstance(node.operation, REARRANGE | Elementwise)
        if not moves or node.name in head.factors:
            yield f"{node} changes the output of the activation"
    for ranking in head.readers.rankings:
        if ranking.source != head.output:
            yield f"{ranking.node} ranks them before {head.output!r}"


def merge_edits(head: Head, kept: Sequence[int], semantics: Semantics) -> tuple[Compute, ...]:
    """Compute each group by a gather and a reduction, and join the results with the other units.

    All units that remain are gathered first: onnxruntime uses other kernels, with other roundings,
    for a quantized tensor that several operations read.

    Args:
        head: before the cut.
        kept: the kept units, the members of a group next to each other. The output contains these
            units, or all units if probabilities are absolute.
        semantics: resolved.
    """
    tensor = head.tensor(head.output)
    _check_output(head, tensor, len(merge_units(kept, semantics)))
    kept_positions = tensor.unit_axis.positions(kept)
    steps = MergeSteps(tensor)
    steps.gather(0, kept_positions if semantics.absolute else np.arange(len(kept_positions)))
    combine = MERGES[head.activation]
    parts = [
        combine(steps, positions) if is_group else steps.gather(ALL_KEPT, positions)
        for is_group, positions in _stretches(tensor.unit_axis.units[kept_positions], semantics)
    ]
    if len(parts) > 1:
        length = sum(steps.length(part) for part in parts)
        steps.add("concat", parts, length, axis=tensor.unit_axis.axis)
    return (Compute(head.output, tuple(steps.made)),)


def merge_units(kept: Sequence[int], semantics: Semantics) -> tuple[OldUnits, ...]:
    """The kept units in order, with the members of each group as one entry: (0, (2, 7), 9)."""
    groups = semantics.group_of
    if not groups:
        return tuple(kept)
    return tuple(groups.get(unit, unit) for unit in kept if unit == groups.get(unit, (unit,))[0])


def merge_values(head: Head, kept: Sequence[int], values: Array, semantics: Semantics) -> Array:
    """The expected output after merging, in float64.

    Args:
        head: before the cut.
        kept: the kept units.
        values: the output before merging, with these units and the positions that belong to no
            unit; may have further leading axes.
        semantics: resolved.
    """
    output = head.tensor(head.output)
    axis = output.unit_axis.axis - len(output.shape)
    units = output.unit_axis.units[output.unit_axis.positions(kept)].tolist()
    rows = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    result = []
    for position, unit in enumerate(units):
        members = semantics.group_of.get(unit, (unit,))
        if unit == members[0]:
            others = [rows[units.index(member)] for member in members[1:]]
            result.append(_join(head.activation, [rows[position], *others]))
    merged = np.moveaxis(np.stack(result), 0, axis)
    return merged if output.quantization is None else output.quantization.nearest(merged)


def _join(activation: str, rows: list[Array]) -> Array:
    if activation == "softmax":
        return np.asarray(np.sum(rows, axis=0))
    return np.asarray(np.logaddexp.reduce(rows, axis=0))


def _check_output(head: Head, tensor: UnitTensor, width: int) -> None:
    if reason := why_not_computable(tensor):
        raise ModelError(
            f"units of {tensor.name!r} cannot be merged: {reason}", "leave out --merge"
        )
    for ranking in head.readers.rankings:
        count = ranking.stated.value[0] if ranking.stated is not None else 0
        if count > width:
            raise ModelError(
                f"{ranking.node} returns {count} units, but only {width} would remain",
                f"keep at least {count} units and groups",
            )


def _stretches(units: Array, semantics: Semantics) -> Iterator[tuple[bool, Array]]:
    """Whether it is a group, and the positions: of each group, and of the units between groups."""
    between: list[int] = []
    for position, unit in enumerate(units.tolist()):
        members = semantics.group_of.get(unit)
        if members is None:
            between.append(position)
        elif unit == members[0]:
            if between:
                yield False, np.asarray(between)
            yield True, np.flatnonzero(np.isin(units, members))
            between = []
    if between:
        yield False, np.asarray(between)


ALL_KEPT = 1  # number of the first step, which gathers all kept units


class MergeSteps:
    """The steps of a computation along the unit axis; a step is named by its number, from 1."""

    def __init__(self, tensor: UnitTensor) -> None:
        self.made: list[ComputeStep] = []
        self._tensor, self._axis = tensor, tensor.unit_axis.axis
        self._quantization: dict[str, Any] | None = None
        if tensor.quantization is not None:
            self._quantization = quantization_attributes(tensor)

    def length(self, number: int) -> int:
        length = self.made[number - 1].shape[self._axis]
        assert length is not None  # noqa: S101 - narrows the type; `add` sets a number
        return length

    def add(
        self,
        operation: str,
        inputs: Sequence[int],
        length: int,
        operands: tuple[Array, ...] = (),
        **attributes: Any,
    ) -> int:
        """Add a step with a result of this length along the unit axis; returns its number."""
        shape = self._tensor.with_width(length)
        self.made.append(ComputeStep(operation, tuple(inputs), operands, attributes, shape))
        return len(self.made)

    def gather(self, number: int, positions: Array) -> int:
        indices = positions.astype(np.int32)
        return self.add("gather", [number], len(positions), (indices,), axis=self._axis)

    def members(self, positions: Array) -> int:
        """The real values of the members of a group."""
        gathered = self.gather(ALL_KEPT, positions)
        if self._quantization is None:
            return gathered
        return self.add("dequantize", [gathered], len(positions), **self._quantization)

    def reduce(self, function: str, number: int) -> int:
        return self.add(f"reduce_{function}", [number], 1, axis=self._axis)

    def quantize(self, number: int) -> int:
        """The merged value, quantized if the output is; it saturates."""
        if self._quantization is None:
            return number
        return self.add("quantize", [number], 1, **self._quantization)


def _sum(steps: MergeSteps, positions: Array) -> int:
    return steps.quantize(steps.reduce("sum", steps.members(positions)))


def _log_sum_exp(steps: MergeSteps, positions: Array) -> int:
    """The largest value is subtracted first, so that no exponential is infinite."""
    values = steps.members(positions)
    largest = steps.reduce("max", values)
    powers = steps.add("exp", [steps.add("sub", [values, largest], len(positions))], len(positions))
    log = steps.add("log", [steps.reduce("sum", powers)], 1)
    return steps.quantize(steps.add("add", [log, largest], 1))


MERGES: Mapping[str, Callable[[MergeSteps, Array], int]] = {
    "softmax": _sum,
    "log_softmax": _log_sum_exp,
    "linear": _log_sum_exp,
}
