"""The calls that make up a Keras model, also those inside of models in the model.

Keras keeps with every symbolic tensor the call that made it. Going back along these calls from a
model's outputs serves Functional and Sequential models alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import keras

T = TypeVar("T")


class Call(NamedTuple):
    """One call of one Keras operation (a layer, mostly) on symbolic tensors.

    Attributes:
        arguments: as Keras recorded them, tensors and all else.
    """

    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    arguments: Any

    def filled(self, values: Mapping[int, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Positional and named arguments with other tensors, given by the old ones' identity."""
        positional, named = self.arguments.fill_in(values)
        return positional, named


Visit = Callable[[str, Call, Mapping[int, T]], Sequence[T]]


def follow(model: Any, given: Sequence[T], visit: Visit[T], prefix: str = "") -> list[T]:
    """Go through a model's calls in running order, and through those of the models in it.

    Args:
        model: built, Functional or Sequential.
        given: a value for each of its inputs.
        visit: told the call's name (that of the operation, `@1` and so on behind it for its further
            calls, in front of it the names of the models that it is in), the call, and the values
            known by now by the identity of their tensors; gives a value for each of its outputs.

    Returns:
        The values of the model's outputs.
    """
    values = dict(zip(map(id, model.inputs), given, strict=True))
    times = Counter[int]()
    for call in calls(model):
        operation = call.operation
        if isinstance(operation, keras.layers.InputLayer):
            continue
        nth = times[id(operation)]
        times[id(operation)] += 1
        name = f"{prefix}{operation.name}@{nth}" if nth else f"{prefix}{operation.name}"
        if is_entered(call):
            inner = [values[id(tensor)] for tensor in call.inputs]
            results: Sequence[T] = follow(operation, inner, visit, f"{name}/")
        else:
            results = visit(name, call, values)
        values.update(zip(map(id, call.outputs), results, strict=True))
    return [values[id(tensor)] for tensor in model.outputs]


def calls(model: Any) -> list[Call]:
    """Every call that the outputs need, each behind those that it needs itself."""
    done: dict[tuple[int, int], Call] = {}
    waiting = [(tensor, False) for tensor in reversed(model.outputs)]
    while waiting:
        tensor, entered = waiting.pop()
        operation, index, _ = made_by(tensor)
        key = (id(operation), index)
        if key in done:
            continue
        node = operation._inbound_nodes[index]  # noqa: SLF001 - Keras has no public way
        if entered:
            ends = tuple(node.input_tensors), tuple(node.output_tensors)
            done[key] = Call(operation, *ends, node.arguments)
        else:
            waiting.append((tensor, True))
            waiting += [(needed, False) for needed in reversed(node.input_tensors)]
    return list(done.values())


def first_calls(model: Any) -> list[Call]:
    """Of each operation the call that bears its name."""
    found: dict[int, Call] = {}
    for call in calls(model):
        found.setdefault(id(call.operation), call)
    return list(found.values())


def made_by(tensor: Any) -> tuple[Any, int, int]:
    """The operation that makes a symbolic tensor, which of its calls, and which of its outputs."""
    operation, call, index = tensor._keras_history  # noqa: SLF001 - Keras has no public way
    return operation, call, index


def input_name(tensor: Any) -> str:
    """What to call one of a model's inputs: the tensor itself has a number where nobody named it,
    another one in each process.
    """
    return str(made_by(tensor)[0].name)


def is_plain_model(operation: Any) -> bool:
    """Is it a Functional or Sequential model, and of no class that inherits from them?"""
    kind = type(operation)
    own = str(kind.__module__).startswith("keras.src.models.")
    return own and kind.__name__ in {"Functional", "Sequential"}


def is_entered(call: Call) -> bool:
    """Is it the call of a model whose own calls can be followed in its place?"""
    model = call.operation
    return is_plain_model(model) and len(model.inputs) == len(call.inputs)
