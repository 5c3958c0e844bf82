"""A layer that switches units on and off while the model is used."""

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
    broadcast_along,
    check_values,
    renormalize_values,
    unit_axis,
    with_floor,
    with_zeros,
)
from exporter.selection import Selection, select

Units = str | Iterable[int | str]


@keras.saving.register_keras_serializable(package="exporter")
class UnitMask(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Returns the values of units that are on; units that are off get 0 or a floor.

    All units are on at first. The mask is a variable that is not trained. It can be changed at any
    time and is saved with the model.

        x = keras.layers.Dense(10)(features)
        mask = exporter.UnitMask(labels=names)
        model = keras.Model(inputs, keras.layers.Softmax()(mask(x)))
        mask.keep(["macaw", "owl"])

    1. On logits, before the softmax or sigmoid: units that are off have the value `floor`, which
       both turn into exactly 0. Their gradient, and the gradient of their weights, is exactly 0.
    2. On probabilities: units that are off have the value 0 and the gradient 0. A softmax before
       the layer still couples all units: for training, put the layer before the softmax.

    Input and output: (batch, ..., units, ...), any floating dtype; the same shape.

    Args:
        values: the kind of the input, "logits" or "probabilities".
        axis: the unit axis; not 0, the batch axis.
        floor: the logit of a unit that is off.
        renormalize: probabilities of the units that are on are divided by their sum.
        labels: one for each unit; `keep` and `remove` accept them.
        options: of `keras.layers.Layer`.

    Attributes:
        mask: the variable: (units,) bool.

    Raises:
        UsageError: settings that contradict each other, or a wrong number of labels.
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
        """Create the mask; all units are on."""
        units = input_shape[unit_axis(self.axis, len(input_shape))]
        if units is None:
            raise UsageError(f"{self.name}: the number of units is unknown", "give it a length")
        if self.labels is not None:
            Selection(units, (0,), self.labels)
        self.mask = self.add_weight(
            name="mask", shape=(units,), dtype="bool", initializer="ones", trainable=False
        )

    def call(self, inputs: Any) -> Any:
        """The inputs, with the floor or 0 for units that are off."""
        rank = len(inputs.shape)
        axis = unit_axis(self.axis, rank)
        on = broadcast_along(self.mask, axis, rank)
        if self.values == "logits":
            return with_floor(on, inputs, self.floor)
        shown = with_zeros(on, inputs)
        return renormalize_values(shown, axis) if self.renormalize else shown

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """The shape of the input."""
        return input_shape

    def keep(self, units: Units) -> Self:
        """Switch these units on, and all others off.

        Args:
            units: indices and labels, or a string in the selection language (`0-3,owl`).

        Raises:
            UsageError: the layer has not been called yet, or the selection does not fit.
        """
        return self._choose(select(units=self._units(), keep=units, labels=self.labels))

    def remove(self, units: Units) -> Self:
        """Switch these units off, and all others on; raises as `keep`."""
        return self._choose(select(units=self._units(), remove=units, labels=self.labels))

    def reset(self) -> Self:
        """Switch all units on."""
        return self.switch(np.ones(self._units(), bool))

    def switch(self, on: npt.ArrayLike) -> Self:
        """Set the mask: (units,) bool; all units may be off. UsageError for another shape."""
        flags, units = np.asarray(on), self._units()
        if flags.shape != (units,) or flags.dtype != bool:
            raise UsageError(
                f"{self.name}: the mask has dtype {flags.dtype} and shape {flags.shape}",
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
                f"{self.name} does not know its units yet", "call the layer or its model once"
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
