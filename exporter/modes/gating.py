"""The mode `gate`: units are chosen while the model runs; the output keeps its width.

A unit is *on* if it is kept and the gate selects it: by a condition on its value, or by an input
that the mode adds. Units that are off get the values that removed units have in the mode `mask`.
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
from exporter.modes.activation_tail import apply_tail, present_units, select_units
from exporter.modes.gate_branch import GateBranch, real_dtype, recomputes_activation
from exporter.modes.mask_value import (
    FLOOR,
    lowest_value,
    returns_probabilities,
    why_not_computable,
)
from exporter.modes.mode import Expected, ModeFunctions
from exporter.modes.semantics import INPUT, INPUT_FLOAT, PLAIN, Semantics
from exporter.selection.conditions import Threshold, parse_condition
from exporter.trace.head import Head


def resolve_gate(head: Head, semantics: Semantics) -> Semantics:
    """With the condition in its normal form, and the floor at z."""
    gate = semantics.gate
    if gate is None:
        raise UsageError(
            "mode gate needs a rule that chooses units", 'give --gate input or --gate "CONDITION"'
        )
    if replace(semantics, gate=None, floor=None) != PLAIN:
        raise UsageError(
            "mode gate does not support absolute probabilities, a restored width, merged units or "
            "for_quantization",
            "leave these options out",
        )
    if reason := next(_obstacles(head), ""):
        raise ModelError(
            f"head {head.name!r} cannot have a gate: {reason}", "use --mode mask or --mode slice"
        )
    floor = None if recomputes_activation(head) else _off_value(head, head.z)
    if gate not in {INPUT, INPUT_FLOAT}:
        condition = parse_condition(gate)
        if isinstance(condition, Threshold):
            condition.subject_for(head.activation)
        gate = str(condition)
    return replace(semantics, floor=floor, gate=gate)


def _off_value(head: Head, tensor: str) -> float:
    quantized = head.tensor(tensor).quantization is not None
    return lowest_value(head, tensor) if quantized else FLOOR


def _off_output(head: Head) -> float:
    """The output of a unit that is off, after an activation."""
    return 0.0 if returns_probabilities(head) else _off_value(head, head.output)


def _obstacles(head: Head) -> Iterator[str]:
    """Why the head cannot have a gate."""
    function = ACTIVATIONS.get(head.activation)
    for ranking in head.readers.rankings:
        yield f"{ranking.node} ranks its units"
    if head.readers.detections:
        yield "a detector's post-processing reads its units"
    for output in head.other_outputs:
        yield f"output {output!r} returns its units too"
    if head.normalized:
        yield "its output joins several softmaxes"
    for node in head.tail:
        if node.name in head.factors:
            yield f"{node} scales its probabilities"
        elif not isinstance(node.operation, Activation | Reshape | Elementwise):
            yield f"{node} follows its activation"
    if function is not None and function.mixes and not function.probability:
        yield f"{head.activation} has no lowest value for units that are off"
    yield from _unsuitable_tensors(head)


def _unsuitable_tensors(head: Head) -> Iterator[str]:
    for tensor in (head.tensor(head.z), head.tensor(head.output)):
        if not np.array_equal(tensor.unit_axis.units, np.arange(head.units)):
            yield f"the unit axis of {tensor.name!r} contains more than its units"
        if reason := why_not_computable(tensor):
            yield reason


def gate_edits(
    head: Head, kept: Sequence[int], semantics: Semantics = PLAIN, /
) -> tuple[Edit, ...]:
    """Insert the floor at z for units that are off, and after an activation their output value.

    1. A branch after z, or a new input, computes which units are on.
    2. Quantized values are dequantized and quantized again after the Where; units that are on keep
       their values.
    3. No quantized logit makes the probability of a softmax exactly 0. A quantized softmax is
       therefore computed again in float, from z to the output; z does not change.
    """
    resolved = resolve_gate(head, semantics)
    gate, branch = resolved.gate or "", GateBranch([], head, kept)
    is_input = gate in {INPUT, INPUT_FLOAT}
    on = branch.mask_from_input(gate) if is_input else branch.mask_from_condition(gate)
    if resolved.floor is None:
        branch.recompute_activation(on, FLOOR)
        return tuple(branch.edits)
    branch.replace_off(head.z, on, resolved.floor)
    if head.activation != "linear":
        branch.replace_off(head.output, on, _off_output(head))
    return tuple(branch.edits)


# --- the oracle ---------------------------------------------------------------------------------


def gate_oracle(
    head: Head,
    kept: Sequence[int],
    z: Array,
    semantics: Semantics = PLAIN,
    present: Sequence[int] | None = None,
    /,
) -> Expected:
    """The floor or 0 for units that are off.

    Args:
        kept: for a gate by input, the units that are on in this sample.
    """
    axis = head.tensor(head.z).unit_axis
    original = select_units(z, axis, present)
    values = np.moveaxis(original, axis.axis, -1)
    on = np.isin(present_units(axis, present), kept) & np.ones(values.shape, bool)
    if semantics.gate not in {INPUT, INPUT_FLOAT}:
        condition = parse_condition(semantics.gate or "")
        if isinstance(condition, Threshold):
            on &= _meets(condition, values, head)
        else:
            on = _first_largest(np.where(on, values, -np.inf), condition.count) & on
    on = np.moveaxis(on, -1, axis.axis)
    masked = np.where(on, original, FLOOR if semantics.floor is None else semantics.floor)
    y = apply_tail(head, masked, present)
    if head.activation != "linear":
        y = np.where(on.reshape(y.shape), y, _off_output(head))
    return Expected(original if semantics.floor is None else masked, y)


def _meets(condition: Threshold, values: Array, head: Head) -> Array:
    """(..., units) float64 -> bool; values and number are rounded as in the runtime."""
    dtype = real_dtype(head.tensor(head.z))
    values, number = values.astype(dtype).astype(np.float64), float(dtype.type(condition.number))
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
