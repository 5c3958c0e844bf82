"""A layer that chooses units by their values, for each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras
from keras import ops

from exporter.errors import ModelError, UsageError
from exporter.layers.masking_ops import (
    FLOOR,
    Values,
    check_values,
    masked_sigmoid,
    masked_softmax,
    renormalize_values,
    unit_axis,
    with_floor,
    with_zeros,
)
from exporter.selection.conditions import Condition, LargestUnits, Threshold, parse_condition

Function = Callable[[Any], Any]  # the layer's input -> bool of the same shape
Activation = Literal["linear", "softmax", "sigmoid"]

_KEY = "registered"  # a saved function is its registered name under this key


class Registered(NamedTuple):
    """A function and its registered name in Keras."""

    name: str
    function: Function

    def call(self, inputs: Any, layer: str) -> Any:
        """The mask that the function returns; UsageError unless it is bool in the inputs' shape."""
        on = self.function(inputs)
        shape = tuple(getattr(on, "shape", ()))
        kind = keras.backend.standardize_dtype(getattr(on, "dtype", "float32"))
        if shape != tuple(inputs.shape) or kind != "bool":
            raise UsageError(
                f"{layer}: the function {self.name!r} returns {kind} of shape {shape}",
                f"it must return bool of the input's shape, {tuple(inputs.shape)}",
            )
        return on


@keras.saving.register_keras_serializable(package="exporter")
class ConditionalUnits(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Returns the values of units that meet a condition, which is evaluated for each sample.

        logits = keras.layers.Dense(10)(features)
        scores = exporter.ConditionalUnits("logit > 0", activation="softmax")(logits)

    1. On logits, with an activation: the softmax over the units that meet the condition, or their
       sigmoid; the others are exactly 0.
    2. On logits, without an activation: the other units have the value `floor`.
    3. On probabilities: the other units have the value 0.

    The gradient of the other units is exactly 0 at the input of the layer. All shapes are static,
    so the layer can be exported.

    Input and output: (batch, ..., units, ...), any floating dtype; the same shape.

    Args:
        condition: text, see `exporter.selection.conditions`; or a function from the input to a
            bool tensor of its shape, registered with `keras.saving.register_keras_serializable`.
        activation: applied to logits, "softmax", "sigmoid" or "linear".
        values: the kind of the input, "logits" or "probabilities".
        axis: the unit axis; not 0, the batch axis.
        floor: the logit of the other units, without an activation.
        renormalize: divide probabilities by the sum of those that meet the condition.
        options: of `keras.layers.Layer`.

    Raises:
        UsageError: a syntax error in the condition, a condition on a value that the layer does not
            have, a function that is not registered, or settings that contradict each other.
    """

    def __init__(
        self,
        condition: str | Function | Mapping[str, str],
        activation: Activation = "linear",
        values: Values = "logits",
        axis: int = -1,
        floor: float = FLOOR,
        *,
        renormalize: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_values(values, renormalize=renormalize)
        if activation not in _OUTPUTS or (activation != "linear" and values != "logits"):
            raise UsageError(
                f"the activation is {activation!r} on {values}",
                f"on logits use one of {', '.join(_OUTPUTS)}; on probabilities leave it out",
            )
        self.activation = activation
        self.values = values
        self.axis = int(axis)
        self.floor = float(floor)
        self.renormalize = bool(renormalize)
        self.supports_masking = True
        self.condition = _read(condition)
        if isinstance(self.condition, Threshold):
            self._check_subject(self.condition)

    def _check_subject(self, condition: Threshold) -> None:
        if self.values == "logits":
            condition.subject_for(self.activation)
        elif condition.subject in ("logit", "abs"):
            raise UsageError(
                f"the condition {str(condition)!r} compares a logit, but the input contains "
                "probabilities",
                "compare the probability, or put the layer before the activation",
            )

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Check that the condition does not choose more units than exist."""
        units = input_shape[unit_axis(self.axis, len(input_shape))]
        if isinstance(self.condition, LargestUnits):
            if units is None:
                raise UsageError(
                    f"{self.name}: the number of units is unknown", "give the unit axis a length"
                )
            self.condition.check_units(units)

    def call(self, inputs: Any) -> Any:
        """The values of the units that meet the condition, 0 or the floor for the others."""
        axis = unit_axis(self.axis, len(inputs.shape))
        on = self.passed(inputs)
        if self.values == "probabilities":
            shown = with_zeros(on, inputs)
            return renormalize_values(shown, axis) if self.renormalize else shown
        if self.activation == "linear":
            return with_floor(on, inputs, self.floor)
        return _OUTPUTS[self.activation](on, inputs, axis)

    def passed(self, inputs: Any) -> Any:
        """Which units meet the condition: bool, in the shape of the inputs."""
        axis = unit_axis(self.axis, len(inputs.shape))
        match self.condition:
            case Threshold() as condition:
                return self._compare(condition, inputs, axis)
            case LargestUnits(count):
                return _largest(inputs, count, axis)
            case function:
                return function.call(inputs, self.name)

    def _compare(self, condition: Threshold, inputs: Any, axis: int) -> Any:
        values = inputs
        if self.values == "logits":
            subject = condition.subject_for(self.activation)
            if subject == "abs":
                values = ops.abs(inputs)
            elif subject == "probability":
                values = _ACTIVATED[self.activation](inputs, axis)
        return _COMPARED[condition.comparison](values, ops.cast(condition.number, values.dtype))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments; for a function its registered name."""
        chosen = self.condition
        return {
            **super().get_config(),
            "condition": {_KEY: chosen.name} if isinstance(chosen, Registered) else str(chosen),
            "activation": self.activation,
            "values": self.values,
            "axis": self.axis,
            "floor": self.floor,
            "renormalize": self.renormalize,
        }


def _read(given: str | Function | Mapping[str, str]) -> Condition | Registered:
    if isinstance(given, str):
        return parse_condition(given)
    if isinstance(given, Mapping):
        return Registered(given[_KEY], _registered(given[_KEY], ModelError))
    if not callable(given):
        raise UsageError(f"the condition is {given!r}", "give text or a registered function")
    name = str(keras.saving.get_registered_name(given))
    if _registered(name, UsageError) is not given:
        raise UsageError(
            f"another function is registered as {name!r}", "register this function again"
        )
    return Registered(name, given)


def _registered(name: str, refusal: type[ModelError | UsageError]) -> Function:
    found: Function | None = keras.saving.get_registered_object(name)
    if found is None:
        raise refusal(
            f"the function {name!r} is not registered with Keras",
            "decorate it with @keras.saving.register_keras_serializable(), and import it before "
            "you load the model",
        )
    return found


def _largest(values: Any, count: int, axis: int) -> Any:
    """The mask of the `count` largest; of equal ones the first, in every backend."""
    moved = ops.moveaxis(values, axis, -1)
    least = ops.top_k(moved, count)[0][..., -1:]
    above, level = ops.greater(moved, least), ops.equal(moved, least)
    left = count - ops.sum(ops.cast(above, "int32"), axis=-1, keepdims=True)
    early = ops.less_equal(ops.cumsum(ops.cast(level, "int32"), axis=-1), left)
    on = ops.logical_or(above, ops.logical_and(level, early))
    return ops.moveaxis(on, -1, axis)


_COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    ">": ops.greater,
    ">=": ops.greater_equal,
    "<": ops.less,
    "<=": ops.less_equal,
}
_ACTIVATED: Mapping[str, Callable[[Any, int], Any]] = {
    "softmax": lambda logits, axis: ops.softmax(logits, axis=axis),
    "sigmoid": lambda logits, _: ops.sigmoid(logits),
}
_OUTPUTS: Mapping[str, Callable[[Any, Any, int], Any]] = {
    "linear": lambda on, logits, _: with_floor(on, logits, FLOOR),
    "softmax": masked_softmax,
    "sigmoid": masked_sigmoid,
}
