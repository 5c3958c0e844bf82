"""The values of units that are off: operations that both layers share."""

from __future__ import annotations

from typing import Any, Literal

from keras import ops

from exporter.errors import UsageError

Values = Literal["logits", "probabilities"]

VALUES: tuple[Values, ...] = ("logits", "probabilities")
FLOOR = -1e4  # exactly 0 after softmax and sigmoid, in half precision too


def check_values(values: Values, *, renormalize: bool) -> None:
    """Raise UsageError for settings that contradict each other."""
    if values not in VALUES:
        raise UsageError(f"values is {values!r}", f"use one of {', '.join(VALUES)}")
    if renormalize and values == "logits":
        raise UsageError(
            "renormalize needs probabilities",
            "leave it out: the softmax after the layer normalizes",
        )


def unit_axis(axis: int, rank: int) -> int:
    """The axis as a positive index; UsageError if it is the batch axis or does not exist."""
    if not -rank < axis < rank or axis == 0:
        raise UsageError(f"the input of rank {rank} has no unit axis {axis}", "0 is the batch")
    return axis % rank


def broadcast_along(values: Any, axis: int, rank: int) -> Any:
    """A vector (units,) in a shape that broadcasts along the unit axis."""
    return ops.reshape(values, [-1 if i == axis else 1 for i in range(rank)])


def with_floor(on: Any, logits: Any, floor: float) -> Any:
    """The logits, with the floor for units that are off; their gradient is 0."""
    return ops.where(on, logits, ops.cast(floor, logits.dtype))


def with_zeros(on: Any, values: Any) -> Any:
    """The values, with 0 for units that are off, even if they are NaN."""
    return ops.where(on, values, ops.cast(0.0, values.dtype))


def renormalize_values(values: Any, axis: int) -> Any:
    """The values divided by their sum over the units; unchanged if all are 0."""
    total = ops.sum(values, axis=axis, keepdims=True)
    return values / ops.where(total > 0, total, ops.cast(1.0, values.dtype))


def masked_softmax(on: Any, logits: Any, axis: int) -> Any:
    """The softmax over the units that are on; 0 for the others, and for all if none is on."""
    low = -6e4 if str(logits.dtype).endswith("float16") else -1e30  # below any logit
    return with_zeros(on, ops.softmax(with_floor(on, logits, low), axis=axis))


def masked_sigmoid(on: Any, logits: Any, axis: int) -> Any:  # noqa: ARG001 - each unit by itself
    """The sigmoid of the units that are on; 0 for the others."""
    return with_zeros(on, ops.sigmoid(logits))
