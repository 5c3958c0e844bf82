"""The calls of layers and operations in a Keras model, also in models inside the model.

Keras stores with every symbolic tensor the call that produced it. Following these calls back from
the model's outputs works for Functional and Sequential models alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import keras

T = TypeVar("T")


class KerasCall(NamedTuple):
    """One call of one Keras operation, mostly a layer, on symbolic tensors.

    Attributes:
        inputs: without a mask that the operation ignores.
        arguments: as Keras recorded them, tensors and other values.
    """

    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    arguments: Any

    def fill(self, values: Mapping[int, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Positional and named arguments with other tensors, given by the identity of the old."""
        positional, named = self.arguments.fill_in(values)
        return positional, named


VisitCall = Callable[[str, KerasCall, Mapping[int, T]], Sequence[T]]


def follow(model: Any, inputs: Sequence[T], visit: VisitCall[T], prefix: str = "") -> list[T]:
    """Visit the calls of a model in running order, and the calls of the models inside it.

    Args:
        model: built, Functional or Sequential.
        inputs: a value for each of its inputs.
        visit: receives the call's name, the call, and the values known so far, by the identity of
            their tensors; returns a value for each output of the call. The name is the operation's;
            further calls get `@1` and so on; models around it come first: `inner/dense@1`.

    Returns:
        The values of the model's outputs.
    """
    values = dict(zip(map(id, model.inputs), inputs, strict=True))
    times = Counter[int]()
    for call in calls(model):
        operation = call.operation
        if isinstance(operation, keras.layers.InputLayer):
            continue
        nth = times[id(operation)]
        times[id(operation)] += 1
        name = f"{prefix}{operation.name}@{nth}" if nth else f"{prefix}{operation.name}"
        if is_plain_model(operation) and len(operation.inputs) == len(call.inputs):
            inner = [values[id(tensor)] for tensor in call.inputs]
            results: Sequence[T] = follow(operation, inner, visit, f"{name}/")
        else:
            results = visit(name, call, values)
        values.update(zip(map(id, call.outputs), results, strict=True))
    return [values[id(tensor)] for tensor in model.outputs]


def calls(model: Any) -> list[KerasCall]:
    """Every call that the outputs need, in running order."""
    done: dict[tuple[int, int], KerasCall] = {}
    waiting = [(tensor, False) for tensor in reversed(model.outputs)]
    while waiting:
        tensor, entered = waiting.pop()
        operation, index, _ = tensor._keras_history  # noqa: SLF001 - Keras has no public way
        key = (id(operation), index)
        if key in done:
            continue
        node = operation._inbound_nodes[index]  # noqa: SLF001 - Keras has no public way
        if entered:
            unused = node.arguments.kwargs.get("mask") if _ignores_mask(operation) else None
            inputs = tuple(each for each in node.input_tensors if each is not unused)
            done[key] = KerasCall(operation, inputs, tuple(node.output_tensors), node.arguments)
        else:
            waiting.append((tensor, True))
            waiting += [(needed, False) for needed in reversed(node.input_tensors)]
    return list(done.values())


def _ignores_mask(operation: Any) -> bool:
    """Does inference compute the same with and without the mask that the layer is given?"""
    if isinstance(operation, keras.layers.TimeDistributed):
        return "mask" not in operation.layer.call_signature_parameters or _ignores_mask(
            operation.layer
        )
    return isinstance(operation, keras.layers.BatchNormalization)  # training counts with it


def producer_name(tensor: Any) -> str:
    """Name of the operation that produces a symbolic tensor.

    For inputs this is more stable than the tensor's name, which is a number of the process if it is
    not given.
    """
    return str(tensor._keras_history[0].name)  # noqa: SLF001 - Keras has no public way


def all_layers(layer: Any) -> list[Any]:
    """The layer itself, and the layers inside it."""
    return list(layer._flatten_layers())  # noqa: SLF001 - Keras has no public way


def is_plain_model(operation: Any) -> bool:
    """Is it a Functional or Sequential model, and not of a subclass?"""
    kind = type(operation)
    of_keras = str(kind.__module__).startswith("keras.src.models.")
    return of_keras and kind.__name__ in {"Functional", "Sequential"}
