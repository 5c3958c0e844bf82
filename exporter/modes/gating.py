"""The mode `gate`: units are chosen while the model runs; the width stays.

A unit is *on* if it is kept and the gate lets it pass: by a condition on its value, or by one more
input. Units that are off answer as removed ones do in the mode `mask`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Array
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.edits import Edit
from exporter.graph.operations import Activation, Elementwise, Reshape
from exporter.modes.activation_tail import apply_tail, select_units
from exporter.modes.gate_branch import GateBranch, real_dtype, recomputes_activation
from exporter.modes.mask_value import FLOOR, lowest_value, returns_probabilities
from exporter.modes.mode import Expected, ModeFunctions
from exporter.modes.semantics import INPUT, INPUT_FLOAT, PLAIN, Semantics
from exporter.selection.conditions import Threshold, parse_condition
from exporter.trace.head import Head


def resolve_gate(head: Head, semantics: Semantics) -> Semantics:
    """The gate in its own words, and the floor; refused where the head has no place for it."""
    if semantics.gate is None:
        raise UsageError(
            "the mode gate needs to know how units are chosen", 'say --gate input or --gate "COND"'
        )
    if (
        semantics.absolute
        or semantics.restore_width
        or semantics.for_quantization
        or semantics.merge
    ):
        raise UsageError(
            "a gate takes no absolute probabilities, restored width, groups or quantization",
            "leave these options out",
        )
    if reason := _no_place(head):
        raise ModelError(
            f"head {head.name!r} has no place for a gate: {reason}", "use --mode mask, or slice"
        )
    if semantics.gate in {INPUT, INPUT_FLOAT}:
        return replace(semantics, floor=_floor(head))
    condition = parse_condition(semantics.gate)
    if isinstance(condition, Threshold):
        condition.subject_for(head.activation)
    return replace(semantics, floor=_floor(head), gate=str(condition))


def _floor(head: Head) -> float | None:
    """What stands at z for a unit that is off; None where z stays what it is."""
    return None if recomputes_activation(head) else _lowest(head, head.z)


def _lowest(head: Head, tensor: str) -> float:
    coded = head.tensor(tensor).quantization is not None
    return lowest_value(head, tensor) if coded else FLOOR


def _no_place(head: Head) -> str:
    """Why a head cannot be gated; "" if it can."""
    return next(_obstacles(head), "")


def _obstacles(head: Head) -> Iterator[str]:
    function = ACTIVATIONS.get(head.activation)
    for ranking in head.readers.rankings:
        yield f"{ranking.node} ranks its units"
    if head.readers.detections:
        yield "a post-process reads its units"
    for output in head.other_outputs:
        yield f"the output {output!r} shows its units too"
    for node in head.tail:
        if node.name in head.factors:
            yield f"{node} scales its probabilities"
        elif not isinstance(node.operation, Activation | Reshape | Elementwise):
            yield f"{node} stands behind its activation"
    if function is not None and function.mixes and not function.probability:
        yield f"{head.activation} gives units that are off no lowest value"
    yield from _foreign(head)


def _foreign(head: Head) -> Iterator[str]:
    for tensor in (head.tensor(head.z), head.tensor(head.output)):
        if not np.array_equal(tensor.unit_axis.units, np.arange(head.units)):
            yield f"other things than units stand on the axis of {tensor.name!r}"
        known = tensor.quantization
        if tensor.dtype not in (_FLOATS if known is None else _CODES):
            yield f"{tensor.name!r} is {tensor.dtype}"
        if known is not None and known.scale.size > 1:
            yield f"{tensor.name!r} has a scale for each unit"


_FLOATS = {"float16", "float32", "float64"}
_CODES = {"uint8", "int8", "int16"}


# --- how to edit --------------------------------------------------------------------------------


def gate_edits(
    head: Head, kept: Sequence[int], semantics: Semantics = PLAIN, /
) -> tuple[Edit, ...]:
    """The floor at z for units that are off and, where the output may hide it, once more there.

    1. What is on is computed in a branch, behind z or from the new input.
    2. Codes are dequantized, and quantized again behind the choice: units that are on keep theirs.
    3. A softmax of codes has no code at z with no share in it. It is made anew, in float, from z to
       the output; z stays what it is.
    """
    settled = resolve_gate(head, semantics)
    gate, branch = settled.gate or "", GateBranch([], head, kept)
    on = branch.given(gate) if gate in {INPUT, INPUT_FLOAT} else branch.chosen(gate)
    if settled.floor is None:
        branch.make_anew(on, FLOOR)
        return tuple(branch.edits)
    branch.choose(head.z, on, settled.floor)
    if head.activation != "linear":
        branch.choose(head.output, on, _shown(head))
    return tuple(branch.edits)


def _shown(head: Head) -> float:
    """What the output of an activation shows of a unit that is off."""
    return 0.0 if returns_probabilities(head) else _lowest(head, head.output)


# --- what must be answered ----------------------------------------------------------------------


def gate_oracle(
    head: Head,
    kept: Sequence[int],
    z: Array,
    semantics: Semantics = PLAIN,
    present: Sequence[int] | None = None,
    /,
) -> Expected:
    """The floor, or 0, for units that are off.

    Args:
        kept: of a gate by input, the units that are on in this sample.
    """
    labels = head.tensor(head.z).unit_axis
    standing = labels.units if present is None else labels.units[labels.positions(present)]
    whole = select_units(z, labels, present)
    values = np.moveaxis(whole, labels.axis, -1)
    on = np.isin(standing, kept) & np.ones(values.shape, bool)
    if semantics.gate not in {INPUT, INPUT_FLOAT}:
        condition = parse_condition(semantics.gate or "")
        if isinstance(condition, Threshold):
            on &= _meets(condition, values, head)
        else:
            on = _first_largest(np.where(on, values, -np.inf), condition.count) & on
    on = np.moveaxis(on, -1, labels.axis)
    floored = np.where(on, whole, FLOOR if semantics.floor is None else semantics.floor)
    answer = apply_tail(head, floored, present)
    if head.activation != "linear":
        answer = np.where(on.reshape(answer.shape), answer, _shown(head))
    return Expected(whole if semantics.floor is None else floored, answer)


def _meets(condition: Threshold, values: Array, head: Head) -> Array:
    """(..., units) float64 -> bool; values and number as the runtime holds them."""
    held = real_dtype(head.tensor(head.z))
    values, number = values.astype(held).astype(np.float64), float(held.type(condition.number))
    match condition.subject_for(head.activation):
        case "abs":
            values = np.abs(values)
        case "probability":
            operation = head.tail[0].operation
            assert isinstance(operation, Activation)  # noqa: S101 - narrows the type
            compute = ACTIVATIONS[head.activation].compute
            values = compute(values, -1, dict(operation.parameters))
    return np.asarray(_COMPARISONS[condition.comparison](values, number))


_COMPARISONS: Mapping[str, Callable[[Array, float], Array]] = {
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
}


def _first_largest(values: Array, count: int) -> Array:
    order = np.argsort(-values, axis=-1, kind="stable")[..., :count]
    on = np.zeros(values.shape, bool)
    np.put_along_axis(on, order, values=True, axis=-1)
    return on


FUNCTIONS = ModeFunctions(gate_edits, gate_oracle, resolve_gate)
