"""A constraint that keeps the weights of removed units at 0 in further training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

from exporter.errors import UsageError


@keras.saving.register_keras_serializable(package="exporter")
class ZeroedUnits(keras.constraints.Constraint):  # type: ignore[misc]  # Keras has no types
    """Keeps positions of a weight at exactly 0.

    After each update of the weight (gradient, momentum, decay), the optimizer calls the constraint,
    which sets the positions to 0 again. With a running average of weights (`use_ema`), it sets them
    to 0 in the average too: otherwise the average would restore them at the end of `fit`.

        exporter.freeze_pruned(model)           # a model cut with mode="zero"
        keras.layers.Dense(10, kernel_constraint=exporter.ZeroedUnits([3, 7]),
                           bias_constraint=exporter.ZeroedUnits([3, 7]))

    Args:
        removed: positions, counted from 0.
        axis: the axis of the positions, for kernels and biases usually the last.
        also: another constraint, which is applied first.

    Raises:
        UsageError: a negative position; when called, a position that the weight does not have.
    """

    def __init__(
        self,
        removed: Sequence[int],
        axis: int = -1,
        also: keras.constraints.Constraint | None = None,
    ) -> None:
        self.removed = tuple(sorted({int(position) for position in removed}))
        if self.removed and self.removed[0] < 0:
            raise UsageError(f"a removed position is {self.removed[0]}", "count from 0")
        self.axis = int(axis)
        self.also = also

    def __call__(self, w: Any) -> Any:
        """The weight with 0 at the positions; also updates an optimizer's average of it."""
        for average in _averages(w):
            average.assign(self.zeroed(average))
        return self.zeroed(w if self.also is None else self.also(w))

    def zeroed(self, w: Any) -> Any:
        """The values with exactly 0 at the positions, even if they are NaN."""
        shape = tuple(w.shape)
        if not -len(shape) <= self.axis < len(shape):
            raise UsageError(f"a weight of shape {shape} has no axis {self.axis}")
        width = shape[self.axis]
        if self.removed and self.removed[-1] >= width:
            raise UsageError(
                f"a weight of shape {shape} has no position {self.removed[-1]} on axis {self.axis}",
                f"it has {width} positions, from 0",
            )
        is_kept = np.ones(width, bool)
        is_kept[list(self.removed)] = False
        along = [1] * len(shape)
        along[self.axis] = width
        return ops.where(ops.reshape(is_kept, along), w, ops.zeros_like(w))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        also = None if self.also is None else keras.constraints.serialize(self.also)
        return {"removed": list(self.removed), "axis": self.axis, "also": also}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ZeroedUnits:
        """Create the constraint from the result of `get_config`."""
        return cls(**{**config, "also": keras.constraints.get(config["also"])})


def _averages(weight: Any) -> Iterator[Any]:
    """The average of this weight in the optimizer that calls the constraint, if it has one.

    Keras 3 has no public way to find the calling optimizer, but its name scope is open during the
    call. `tests/layers/test_zeroed_units.py` fails if that changes.
    """
    scopes = global_state.get_global_attribute("name_scope_stack", default=[])
    for optimizer in {id(scope.caller): scope.caller for scope in scopes}.values():
        if isinstance(optimizer, keras.optimizers.Optimizer):
            yield from averages_of(optimizer, weight)


def averages_of(optimizer: Any, weight: Any) -> Iterator[Any]:
    """The average of a weight in an optimizer or its inner optimizers; None has none."""
    inner = getattr(optimizer, "inner_optimizer", None)
    for each in (*([inner] if inner else ()), *getattr(optimizer, "optimizers", ())):
        yield from averages_of(each, weight)
    known = getattr(optimizer, "_trainable_variables", ())
    averages = getattr(optimizer, "_model_variables_moving_average", ())
    for variable, average in zip(known, averages, strict=False):  # without `use_ema` there are none
        if variable is weight and average is not None:
            yield average
