"""A constraint that keeps removed units dead in further training."""

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
    """Positions of a weight that stay exactly 0, whatever the optimizer does.

    An optimizer moves the weight, by gradient, momentum, decay or an average over time, and then
    asks the constraint, which puts the positions back to 0.

    A running average of weights (`use_ema`) has seen the weight before that, and would bring the
    positions back at the end of `fit`: they are put to 0 in the average too, in every step.

        exporter.freeze_pruned(model)           # on a model cut with mode="zero"
        keras.layers.Dense(10, kernel_constraint=exporter.ZeroedUnits([3, 7]),
                           bias_constraint=exporter.ZeroedUnits([3, 7]))

    Args:
        removed: positions, counted from 0.
        axis: along which they are counted; of kernels and biases mostly the last.
        also: a constraint that holds besides; it is asked first.

    Raises:
        UsageError: a negative position, or one that the weight does not have (when it is asked).
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
        """The weight, of the same shape, with 0 at the positions.

        Asked by an optimizer, the average that it keeps of this weight is put right too.
        """
        for average in _averages(w):
            average.assign(self.zeroed(average))
        return self.zeroed(w if self.also is None else self.also(w))

    def zeroed(self, w: Any) -> Any:
        """The values with exactly 0 at the positions, also where they are NaN."""
        shape = tuple(w.shape)
        if not -len(shape) <= self.axis < len(shape):
            raise UsageError(f"a weight of shape {shape} has no axis {self.axis}")
        width = shape[self.axis]
        if self.removed and self.removed[-1] >= width:
            raise UsageError(
                f"a weight of shape {shape} has no position {self.removed[-1]} on axis {self.axis}",
                f"it has {width}, from 0",
            )
        alive = np.ones(width, bool)
        alive[list(self.removed)] = False
        along = [1] * len(shape)
        along[self.axis] = width
        return ops.where(ops.reshape(alive, along), w, ops.zeros_like(w))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        also = None if self.also is None else keras.constraints.serialize(self.also)
        return {"removed": list(self.removed), "axis": self.axis, "also": also}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ZeroedUnits:
        """Out of what `get_config` gives."""
        return cls(**{**config, "also": keras.constraints.get(config["also"])})


def _averages(weight: Any) -> Iterator[Any]:
    """The average of this weight that the optimizer keeps which is asking, if it keeps one.

    Keras 3 tells a constraint nothing of who asks, and has no public way to find out; but the
    optimizer's name scope is open meanwhile. `tests/layers/test_zeroed_units.py` fails if that
    changes.
    """
    scopes = global_state.get_global_attribute("name_scope_stack", default=[])
    for optimizer in {id(scope.caller): scope.caller for scope in scopes}.values():
        if isinstance(optimizer, keras.optimizers.Optimizer):
            yield from averages_of(optimizer, weight)


def averages_of(optimizer: Any, weight: Any) -> Iterator[Any]:
    """The average of a weight that an optimizer, or one inside of it, keeps; None keeps none."""
    inner = getattr(optimizer, "inner_optimizer", None)
    for each in (*([inner] if inner else ()), *getattr(optimizer, "optimizers", ())):
        yield from averages_of(each, weight)
    known = getattr(optimizer, "_trainable_variables", ())
    averages = getattr(optimizer, "_model_variables_moving_average", ())
    for variable, average in zip(known, averages, strict=False):  # without `use_ema` there are none
        if variable is weight and average is not None:
            yield average
