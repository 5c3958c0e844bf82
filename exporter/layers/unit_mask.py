"""A layer that switches units on and off while the model is in use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt

from exporter.errors import UsageError
from exporter.layers.masking_ops import (
    FLOOR,
    Values,
    along,
    check_values,
    floored,
    renormalized,
    unit_axis,
    zeroed,
)
from exporter.selection import Selection, select

Units = str | Iterable[int | str]


@keras.saving.register_keras_serializable(package="exporter")
class UnitMask(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Answers for the units that are on; the others are off, and learn nothing.

    All units are on at first. The mask is a variable that is not trained: it can change at any
    time, before training or after, and is saved with the model.

        x = keras.layers.Dense(10)(features)
        mask = exporter.UnitMask(labels=names)
        model = keras.Model(inputs, keras.layers.Softmax()(mask(x)))
        mask.keep(["macaw", "owl"])

    1. On logits, in front of the softmax or sigmoid: units that are off have the value `floor`,
       which both turn into exactly 0. The gradient of such a unit, and of its row of the head, is
       exactly 0.
    2. On probabilities: units that are off have the value 0. Nothing flows back from it, but a
       softmax in front couples all units; put the layer in front of the softmax to train.

    Input and output: (batch, ..., units, ...), any floating dtype; the same shape.

    Args:
        values: what the input holds, "logits" or "probabilities".
        axis: the axis of the units, not the batch.
        floor: the logit of a unit that is off.
        renormalize: probabilities of the units that are on are divided by their sum.
        labels: one a unit, by which they can be named.
        options: of `keras.layers.Layer`.

    Attributes:
        mask: the variable: (units,) bool.

    Raises:
        UsageError: settings that contradict each other; labels that are not one a unit.
    """

    def __init__(
        self,
        values: Values = "logits",
        axis: int = -1,
        floor: float = FLOOR,
        *,
        renormalize: bool = False,
        labels: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_values(values, renormalize=renormalize)
        self.values = values
        self.axis = int(axis)
        self.floor = float(floor)
        self.renormalize = bool(renormalize)
        self.labels = None if labels is None else tuple(labels)
        self.supports_masking = True

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the mask, all on."""
        units = input_shape[unit_axis(self.axis, len(input_shape))]
        if units is None:
            raise UsageError(f"{self.name}: the number of units is not known", "give it a width")
        if self.labels is not None:
            Selection(units, (0,), self.labels)
        self.mask = self.add_weight(
            name="mask", shape=(units,), dtype="bool", initializer="ones", trainable=False
        )

    def call(self, inputs: Any) -> Any:
        """The inputs, with the units that are off at the floor or at 0."""
        rank = len(inputs.shape)
        axis = unit_axis(self.axis, rank)
        on = along(self.mask, axis, rank)
        if self.values == "logits":
            return floored(on, inputs, self.floor)
        shown = zeroed(on, inputs)
        return renormalized(shown, axis) if self.renormalize else shown

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """That of the input."""
        return input_shape

    def keep(self, units: Units) -> Self:
        """Switch these units on, and all others off.

        Args:
            units: indices and labels, or a string in the selection language (`0-3,owl`).

        Raises:
            UsageError: the layer was never called on anything, or the selection does not fit.
        """
        return self._choose(select(units=self._units(), keep=units, labels=self.labels))

    def remove(self, units: Units) -> Self:
        """Switch these units off, and all others on; raises as `keep`."""
        return self._choose(select(units=self._units(), remove=units, labels=self.labels))

    def reset(self) -> Self:
        """Switch all units on."""
        return self.switch(np.ones(self._units(), bool))

    def switch(self, on: npt.ArrayLike) -> Self:
        """Set the whole mask: (units,) bool; all may be off. UsageError for another shape."""
        flags, units = np.asarray(on), self._units()
        if flags.shape != (units,) or flags.dtype != bool:
            raise UsageError(
                f"{self.name}: the mask is {flags.dtype} of shape {flags.shape}",
                f"give bool of shape ({units},), or name units: layer.keep([0, 3])",
            )
        self.mask.assign(flags)
        return self

    @property
    def kept(self) -> tuple[int, ...]:
        """The units that are on."""
        self._units()
        on = keras.ops.convert_to_numpy(self.mask)
        return tuple(int(unit) for unit in np.flatnonzero(on))

    def _choose(self, selection: Selection) -> Self:
        flags = np.zeros(selection.units, bool)
        flags[list(selection.kept)] = True
        return self.switch(flags)

    def _units(self) -> int:
        if not self.built:
            raise UsageError(
                f"{self.name} does not know its units yet", "call it, or the model it is in, once"
            )
        return int(self.mask.shape[0])

    def get_config(self) -> dict[str, Any]:
        """The arguments; the mask is saved as a weight."""
        return {
            **super().get_config(),
            "values": self.values,
            "axis": self.axis,
            "floor": self.floor,
            "renormalize": self.renormalize,
            "labels": None if self.labels is None else list(self.labels),
        }
