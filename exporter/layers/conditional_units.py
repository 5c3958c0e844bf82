"""A layer that chooses units by their values, sample by sample."""

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
    floored,
    renormalized,
    sigmoid_of,
    softmax_of,
    unit_axis,
    zeroed,
)
from exporter.selection.conditions import Condition, LargestUnits, Threshold, parse_condition

Function = Callable[[Any], Any]  # the layer's input -> bool of the same shape
Activation = Literal["linear", "softmax", "sigmoid"]

_KEY = "registered"  # a saved function is its registered name under this key


class Registered(NamedTuple):
    """A function, and the name under which Keras knows it."""

    name: str
    function: Function

    def passed(self, inputs: Any, layer: str) -> Any:
        """What the function gives, if that is bool of the inputs' shape (UsageError otherwise)."""
        on = self.function(inputs)
        shape = tuple(getattr(on, "shape", ()))
        kind = keras.backend.standardize_dtype(getattr(on, "dtype", "float32"))
        if shape != tuple(inputs.shape) or kind != "bool":
            raise UsageError(
                f"{layer}: the function {self.name!r} gives {kind} of shape {shape}",
                f"it has to give bool of the input's shape, {tuple(inputs.shape)}",
            )
        return on


@keras.saving.register_keras_serializable(package="exporter")
class ConditionalUnits(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Answers for the units that meet a condition; chosen anew for each sample.

        logits = keras.layers.Dense(10)(features)
        scores = exporter.ConditionalUnits("logit > 0", activation="softmax")(logits)

    1. On logits with an activation: the softmax over the units that passed, or their sigmoid; the
       others are exactly 0, and if none passed all are.
    2. On logits without one: units that did not pass have the value `floor`.
    3. On probabilities: units that did not pass have the value 0.

    The gradient of a unit that did not pass is exactly 0 at the layer's input. All shapes are
    static, so that the layer can be exported.

    Input and output: (batch, ..., units, ...), any floating dtype; the same shape.

    Args:
        condition: see `exporter.selection.conditions`; or a function from the input to a bool
            tensor of its shape, registered with `keras.saving.register_keras_serializable`.
        activation: what the layer makes of logits, "softmax", "sigmoid" or "linear".
        values: what the input holds, "logits" or "probabilities".
        axis: the axis of the units, not the batch.
        floor: the logit of a unit that did not pass, without an activation.
        renormalize: probabilities of the units that passed are divided by their sum.
        options: of `keras.layers.Layer`.

    Raises:
        UsageError: a condition that does not parse, or asks for a value that is not there; a
            function that is not registered; settings that contradict each other.
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
        if activation not in _SHOWN or (activation != "linear" and values != "logits"):
            raise UsageError(
                f"the activation is {activation!r} on {values}",
                f"on logits it is one of {', '.join(_SHOWN)}; on probabilities leave it out",
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
                f"the condition {str(condition)!r} asks for a logit, and the input holds "
                "probabilities",
                "compare the probability, or put the layer in front of the activation",
            )

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Check that there are as many units as shall be chosen."""
        units = input_shape[unit_axis(self.axis, len(input_shape))]
        if isinstance(self.condition, LargestUnits):
            if units is None:
                raise UsageError(f"{self.name}: the number of units is not known", "give a width")
            self.condition.check_units(units)

    def call(self, inputs: Any) -> Any:
        """The values of the units that passed."""
        axis = unit_axis(self.axis, len(inputs.shape))
        on = self.passed(inputs)
        if self.values == "probabilities":
            shown = zeroed(on, inputs)
            return renormalized(shown, axis) if self.renormalize else shown
        if self.activation == "linear":
            return floored(on, inputs, self.floor)
        return _SHOWN[self.activation](on, inputs, axis)

    def passed(self, inputs: Any) -> Any:
        """Which units pass: bool, of the shape of the inputs."""
        axis = unit_axis(self.axis, len(inputs.shape))
        match self.condition:
            case Threshold() as condition:
                return self._compared(condition, inputs, axis)
            case LargestUnits(count):
                return _largest(inputs, count, axis)
            case chosen:
                return chosen.passed(inputs, self.name)

    def _compared(self, condition: Threshold, inputs: Any, axis: int) -> Any:
        values = inputs
        if self.values == "logits":
            seen = condition.subject_for(self.activation)
            if seen == "abs":
                values = ops.abs(inputs)
            elif seen == "probability":
                values = _ACTIVATED[self.activation](inputs, axis)
        return _COMPARED[condition.comparison](values, ops.cast(condition.number, values.dtype))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments; a function by its registered name."""
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
        raise UsageError(f"the condition is {given!r}", "give a string or a registered function")
    name = str(keras.saving.get_registered_name(given))
    if _registered(name, UsageError) is not given:
        raise UsageError(f"another function is registered as {name!r}", "register it anew")
    return Registered(name, given)


def _registered(name: str, refusal: type[ModelError | UsageError]) -> Function:
    found: Function | None = keras.saving.get_registered_object(name)
    if found is None:
        raise refusal(
            f"the function {name!r} is not registered with Keras",
            "put @keras.saving.register_keras_serializable() in front of it, and import it before "
            "the model is loaded",
        )
    return found


def _largest(values: Any, count: int, axis: int) -> Any:
    """The `count` largest; of equal ones the first, whatever the backend's top-k does with them."""
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
_SHOWN: Mapping[str, Callable[[Any, Any, int], Any]] = {
    "linear": lambda on, logits, _: floored(on, logits, FLOOR),
    "softmax": softmax_of,
    "sigmoid": sigmoid_of,
}
