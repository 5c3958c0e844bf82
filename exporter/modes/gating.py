"""The mode `gate`: units are chosen while the model runs; the width stays.

A unit is *on* if it is kept and the gate lets it pass: by a condition on its value, or by one more
input. Units that are off answer as removed ones do in the mode `mask`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exporter.activations import ACTIVATIONS
from exporter.conditions import Threshold, Top, parse_condition
from exporter.errors import ModelError, UsageError
from exporter.graph import Array, Shape
from exporter.head import Head, LabelledTensor
from exporter.modes.floors import FLOOR, is_integer, shows_probabilities
from exporter.modes.meaning import PLAIN, Meaning
from exporter.modes.mode import Expected
from exporter.modes.tail import run_tail, taken
from exporter.operations import Activation, Elementwise, Reshape
from exporter.plan import AddInput, Edit, Insert

INPUT = "input"  # one more input, bool
INPUT_FLOAT = "input:float"  # likewise, float32: on above 0.5
MASK = "unit_mask"  # the name of that input
_BRANCH = "gate"  # in front of the names of all that the gate computes


def settle_gate(head: Head, meaning: Meaning) -> Meaning:
    """The gate in its own words, and the floor; refused where the head has no place for it."""
    if meaning.gate is None:
        raise UsageError(
            "the mode gate needs to know how units are chosen", 'say --gate input or --gate "COND"'
        )
    if meaning.absolute or meaning.restore_width or meaning.for_quantization or meaning.merge:
        raise UsageError(
            "a gate takes no absolute probabilities, restored width, groups or quantization",
            "leave these options out",
        )
    if reason := _no_place(head):
        raise ModelError(f"head {head.name!r} has no place for a gate: {reason}", _HINT)
    if meaning.gate in {INPUT, INPUT_FLOAT}:
        return replace(meaning, floor=FLOOR)
    condition = parse_condition(meaning.gate)
    if isinstance(condition, Threshold):
        condition.seen(head.activation)
    return replace(meaning, floor=FLOOR, gate=str(condition))


_HINT = "use --mode mask, or slice"


def _no_place(head: Head) -> str:
    """Why a head cannot be gated; "" if it can."""
    return next(_obstacles(head), "")


def _obstacles(head: Head) -> Iterator[str]:
    function = ACTIVATIONS.get(head.activation)
    if is_integer(head):
        yield "it computes with integers, and a gate in float"
    for ranking in head.rankings:
        yield f"{ranking.node} ranks its units"
    if head.detections:
        yield "a post-process reads its units"
    for output in head.other_outputs:
        yield f"the output {output!r} shows its units too"
    for node in head.tail:
        if not isinstance(node.operation, Activation | Reshape | Elementwise):
            yield f"{node} stands behind its activation"
    if function is not None and function.mixes and not function.probability:
        yield f"{head.activation} gives units that are off no lowest value"
    yield from _foreign(head)


def _foreign(head: Head) -> Iterator[str]:
    for tensor in (head.tensor(head.z), head.tensor(head.output)):
        if not np.array_equal(tensor.labels.units, np.arange(head.units)):
            yield f"other things than units stand on the axis of {tensor.name!r}"
        if tensor.dtype not in _FLOATS:
            yield f"{tensor.name!r} is {tensor.dtype}"


_FLOATS = {"float16", "float32", "float64"}


# --- how to edit --------------------------------------------------------------------------------


def gate_edits(head: Head, kept: Sequence[int], meaning: Meaning = PLAIN, /) -> tuple[Edit, ...]:
    """The floor at z for units that are off and, where the output may hide it, once more there.

    What is on is computed in a branch, behind z or from the new input.
    """
    settled = settle_gate(head, meaning)
    gate, branch = settled.gate or "", _Branch([], head, kept)
    on = branch.given(gate) if gate in {INPUT, INPUT_FLOAT} else branch.chosen(gate)
    edits = [_choice(head.tensor(head.z), branch.at(on, head.z), FLOOR)]
    if head.activation != "linear":
        shown = 0.0 if shows_probabilities(head) else FLOOR
        edits.append(_choice(head.tensor(head.output), branch.at(on, head.output), shown))
    return (*branch.edits, *edits)


def _choice(tensor: LabelledTensor, on: str, otherwise: float) -> Insert:
    return Insert("where", tensor.name, (on, np.asarray(otherwise, tensor.dtype)))


@dataclass
class _Branch:
    """The operations that find out which units are on; each bears a name under `gate/`."""

    edits: list[Edit]
    head: Head
    kept: Sequence[int]
    batched: bool = False  # what is on is [batch, units]
    flat: bool = False  # or [units]

    def put(self, name: str, operation: str, after: str, *operands: str | Array, **how: Any) -> str:
        """Add an operation; gives the name of its result."""
        shape = how.pop("shape", None)
        named = f"{_BRANCH}/{name}"
        self.edits.append(Insert(operation, after, operands, how, shape, named))
        return named

    def given(self, gate: str) -> str:
        """From one more input: [units], or [batch, units] of a model that takes batches."""
        units, batch = self.head.units, self.head.tensor(self.head.z).shape[0]
        self.batched = batch != 1 and self.head.tensor(self.head.z).labels.axis > 0
        self.flat = not self.batched
        shape: Shape = (batch, units) if self.batched else (units,)
        dtype = "bool" if gate == INPUT else "float32"
        default = np.ones([n or 1 for n in shape], dtype)
        self.edits.append(AddInput(MASK, shape, dtype, default))
        on = MASK
        if gate == INPUT_FLOAT:
            on = self.put("given", "greater", on, np.asarray(0.5, np.float32))
        return self.alive(on, [units])

    def chosen(self, gate: str) -> str:
        """By a condition on the values at z."""
        condition, z = parse_condition(gate), self.head.tensor(self.head.z)
        along = [-1 if i == z.labels.axis else 1 for i in range(len(z.shape))]
        if isinstance(condition, Threshold):
            return self.alive(self.compared(condition, z), along)
        condition.fit(len(self.kept))
        return self.alive(self.largest(condition, z, along), along)

    def alive(self, on: str, shape: Sequence[int]) -> str:
        """Of what is on, the kept units."""
        if len(self.kept) == self.head.units:
            return on
        return self.put("kept", "and", on, self.flags().reshape(shape))

    def flags(self) -> Array:
        return np.isin(np.arange(self.head.units), self.kept)

    def compared(self, condition: Threshold, z: LabelledTensor) -> str:
        value = z.name
        match condition.seen(self.head.activation):
            case "abs":
                value = self.put("value", "abs", value)
            case "probability" if self.head.activation == "softmax":
                value = self.put("value", "softmax", value, axis=z.labels.axis)
            case "probability":
                value = self.put("value", "sigmoid", value)
        number = np.asarray(condition.number, z.dtype)
        return self.put("on", _COMPARED[condition.comparison], value, number)

    def largest(self, condition: Top, z: LabelledTensor, along: Sequence[int]) -> str:
        """The largest of the kept units; of equal ones the first.

        A runtime's own top-k may take any of those: here it only says how large the last one is.
        """
        axis, count = z.labels.axis, condition.count
        value = z.name
        if len(self.kept) < self.head.units:
            low = np.asarray(_lowest(z.dtype), z.dtype)
            value = self.put("value", "where", value, self.flags().reshape(along), low)
        many, one = (_with(z.shape, axis, n) for n in (count, 1))
        top = self.put("top", "top", value, count=count, axis=axis, shape=many)
        least = self.put(
            "least", "gather", top, np.asarray([count - 1], np.int32), axis=axis, shape=one
        )
        above = self.put("above", "greater", value, least)
        level = self.put("level", "equal", value, least)
        ahead = self.put("above_1", "cast", above, dtype="float32")
        ahead = self.put("ahead", "reduce_sum", ahead, axis=axis, shape=one)
        nth = self.put("level_1", "cast", level, dtype="float32")
        nth = self.put("nth", "cumsum", nth, axis=axis)
        rank = self.put("rank", "add", nth, ahead)
        early = self.put("early", "less_equal", rank, np.asarray(count, np.float32))
        return self.put("on", "or", above, self.put("tied", "and", level, early))

    def at(self, on: str, name: str) -> str:
        """What is on, in a shape that fits a tensor."""
        z, tensor = self.head.tensor(self.head.z), self.head.tensor(name)
        rank, axis = len(tensor.shape), tensor.labels.axis
        if self.flat or self.batched:
            shape = [self.head.units if i == axis else 1 for i in range(rank)]
            if axis == rank - 1 and (self.flat or rank == _BATCH_AND_UNITS):
                return on
            stated: Shape = tuple(shape)
            if self.batched:
                shape[0], stated = -1, (z.shape[0], *shape[1:])
        else:
            if tensor.shape == z.shape:
                return on
            shape, stated = [-1 if n is None else n for n in tensor.shape], tensor.shape
        place = "z" if name == z.name else "output"
        return self.put(f"at_{place}", "reshape", on, to=tuple(shape), shape=stated)


_BATCH_AND_UNITS = 2
_COMPARED = {">": "greater", ">=": "greater_equal", "<": "less", "<=": "less_equal"}


def _lowest(dtype: str) -> float:
    """Below every value that is one."""
    return -6e4 if dtype == "float16" else -1e30


def _with(shape: Shape, axis: int, length: int) -> Shape:
    return (*shape[:axis], length, *shape[axis + 1 :])


# --- what must be answered ----------------------------------------------------------------------


def gate_oracle(
    head: Head,
    kept: Sequence[int],
    z: Array,
    meaning: Meaning = PLAIN,
    places: Sequence[int] | None = None,
    /,
) -> Expected:
    """The floor, or 0, for units that are off.

    Args:
        kept: of a gate by input, the units that are on in this sample.
    """
    labels = head.tensor(head.z).labels
    standing = labels.units if places is None else labels.units[labels.positions(places)]
    values = np.moveaxis(taken(z, labels, places), labels.axis, -1)
    on = np.isin(standing, kept) & np.ones(values.shape, bool)
    if meaning.gate not in {INPUT, INPUT_FLOAT}:
        condition = parse_condition(meaning.gate or "")
        if isinstance(condition, Threshold):
            on &= _meets(condition, values, head)
        else:
            on = _first_largest(np.where(on, values, -np.inf), condition.count) & on
    floored = np.moveaxis(np.where(on, values, FLOOR), -1, labels.axis)
    answer = run_tail(head, floored, places)
    if head.activation != "linear":
        shown = np.moveaxis(on, -1, labels.axis).reshape(answer.shape)
        answer = np.where(shown, answer, 0.0 if shows_probabilities(head) else FLOOR)
    return Expected(floored, answer)


def _meets(condition: Threshold, values: Array, head: Head) -> Array:
    """(..., units) float64 -> bool; the number as the runtime holds it."""
    number = float(np.asarray(condition.number, head.tensor(head.z).dtype))
    match condition.seen(head.activation):
        case "abs":
            values = np.abs(values)
        case "probability":
            values = ACTIVATIONS[head.activation].compute(values, -1, {})
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
