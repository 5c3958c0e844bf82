"""What a layer answers for units that are off: the meaning that both layers share."""

from __future__ import annotations

from typing import Any, Literal

from keras import ops

from exporter.errors import UsageError

Values = Literal["logits", "probabilities"]

VALUES: tuple[Values, ...] = ("logits", "probabilities")
FLOOR = -1e4  # exactly 0 behind softmax and sigmoid, in half precision too


def check_values(values: Values, *, renormalize: bool) -> None:
    """Refuse settings that contradict each other (UsageError)."""
    if values not in VALUES:
        raise UsageError(f"values is {values!r}", f"it is one of {', '.join(VALUES)}")
    if renormalize and values == "logits":
        raise UsageError(
            "logits are not renormalized", "a softmax behind the layer does it; leave it out"
        )


def unit_axis(axis: int, rank: int) -> int:
    """The axis counted from the front; UsageError if it is the batch or not there."""
    if not -rank < axis < rank or axis == 0:
        raise UsageError(f"the input of rank {rank} has no unit axis {axis}", "0 is the batch")
    return axis % rank


def along(values: Any, axis: int, rank: int) -> Any:
    """A vector (units,), to be broadcast along one axis."""
    return ops.reshape(values, [-1 if i == axis else 1 for i in range(rank)])


def floored(on: Any, logits: Any, floor: float) -> Any:
    """The logits, and the floor where a unit is off; nothing flows back to such a unit."""
    return ops.where(on, logits, ops.cast(floor, logits.dtype))


def zeroed(on: Any, values: Any) -> Any:
    """The values, and 0 where a unit is off, NaN or not."""
    return ops.where(on, values, ops.cast(0.0, values.dtype))


def renormalized(values: Any, axis: int) -> Any:
    """Divided by their sum over the units; all 0 stays so."""
    total = ops.sum(values, axis=axis, keepdims=True)
    return values / ops.where(total > 0, total, ops.cast(1.0, values.dtype))


def softmax_of(on: Any, logits: Any, axis: int) -> Any:
    """The softmax over the units that are on; 0 elsewhere, and everywhere if none is."""
    low = -6e4 if str(logits.dtype).endswith("float16") else -1e30  # below any logit
    return zeroed(on, ops.softmax(floored(on, logits, low), axis=axis))


def sigmoid_of(on: Any, logits: Any, axis: int) -> Any:  # noqa: ARG001 - each unit by itself
    """The sigmoid of the units that are on; 0 elsewhere."""
    return zeroed(on, ops.sigmoid(logits))
