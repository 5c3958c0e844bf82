"""The neutral graph of a live Keras model.

Keras keeps with every symbolic tensor the call that made it; the picture is drawn by going back
along these calls from the model's outputs, which serves Functional and Sequential models alike.

Names: a tensor is called after the operation that makes it, `name:1` and so on for its further
outputs; a constant `layer/weight`; the values before an activation inside a Dense `layer/linear`,
and that activation `layer/softmax`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from exporter.errors import ModelError
from exporter.graph import Array, Graph, Node, Tensor
from exporter.models.keras.table import Part, translate
from exporter.operations import Elementwise, Opaque


class Call(NamedTuple):
    """One call of one Keras operation (a layer, mostly) on symbolic tensors."""

    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class Picture:
    """The graph, and which symbolic tensor each of its computed tensors is.

    Attributes:
        tensors: tensor name -> symbolic tensor; those inside a layer have none.
        layers: node name -> the Keras operation that it is, or is a part of.
        weights: constant name -> (layer's name, Keras variable).
    """

    graph: Graph
    tensors: dict[str, Any]
    layers: dict[str, Any]
    weights: dict[str, tuple[str, Any]]


def draw(model: Any, outputs: Sequence[str] = ()) -> Picture:
    """Draw a model.

    Args:
        model: built, Functional or Sequential.
        outputs: what to call its outputs, if not as Keras does.

    Raises:
        ModelError: it is not Functional or Sequential, or was never built.
    """
    check_structure(model)
    artist = _Artist()
    for tensor in model.inputs:
        artist.add_tensor(tensor.name, tensor)
    calls = _calls(model)
    times = Counter(id(call.operation) for call in calls)
    seen = Counter[int]()
    for call in calls:
        nth = seen[id(call.operation)]
        seen[id(call.operation)] += 1
        if isinstance(call.operation, keras.layers.InputLayer):
            continue
        name = call.operation.name if nth == 0 else f"{call.operation.name}@{nth}"
        artist.add_call(name, call, times[id(call.operation)])
    named = tuple(
        artist.name_output(tensor, name)
        for tensor, name in zip(model.outputs, outputs or output_names(model), strict=True)
    )
    inputs = tuple(tensor.name for tensor in model.inputs)
    graph = Graph(tuple(artist.nodes), artist.tensors, inputs, named)
    return Picture(graph, artist.symbolic, artist.layers, artist.weights)


def check_structure(model: Any) -> None:
    """Refuse what is no built Functional or Sequential model (raises ModelError)."""
    kind = type(model)
    own = kind.__module__.startswith("keras.") and kind.__name__ in {"Functional", "Sequential"}
    if not own:
        raise ModelError(
            f"the model is of the class {kind.__name__!r}; only Functional and Sequential models "
            "show their layers",
            "wrap its layers in keras.Model(inputs, outputs)",
        )
    try:
        ready = bool(model.inputs) and bool(model.outputs)
    except AttributeError:
        ready = False
    if not ready:
        raise ModelError(
            f"the model {model.name!r} is not built: the shape of its input is not known",
            "put keras.Input(shape) in front, or call it once",
        )


def output_names(model: Any) -> tuple[str, ...]:
    """One name an output: that of the layer that makes it, numbered where one makes several."""
    makers = [made_by(tensor)[0].name for tensor in model.outputs]
    before = [makers[:i].count(name) for i, name in enumerate(makers)]
    return tuple(f"{name}_{n}" if n else name for name, n in zip(makers, before, strict=True))


def made_by(tensor: Any) -> tuple[Any, int, int]:
    """The operation that makes a symbolic tensor, which of its calls, and which of its outputs."""
    operation, call, index = tensor._keras_history  # noqa: SLF001 - Keras has no public way
    return operation, call, index


def _calls(model: Any) -> list[Call]:
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
            done[key] = Call(operation, tuple(node.input_tensors), tuple(node.output_tensors))
        else:
            waiting.append((tensor, True))
            waiting += [(needed, False) for needed in reversed(node.input_tensors)]
    return list(done.values())


@dataclass
class _Artist:
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    symbolic: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, tuple[str, Any]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # of symbolic tensors, by identity

    def add_tensor(self, name: str, tensor: Any) -> str:
        self.tensors[name] = Tensor(name, tuple(tensor.shape), str(tensor.dtype))
        self.symbolic[name] = tensor
        self.names[id(tensor)] = name
        return name

    def add_call(self, name: str, call: Call, times: int) -> None:
        inputs = tuple(self.names[id(tensor)] for tensor in call.inputs)
        outputs = tuple(
            self.add_tensor(name if i == 0 else f"{name}:{i}", tensor)
            for i, tensor in enumerate(call.outputs)
        )
        constants = self.add_weights(call.operation)
        for node in _nodes(name, _parts(call, times), inputs, outputs, constants):
            self.add_node(node, call)

    def add_node(self, node: Node, call: Call) -> None:
        for inner in node.outputs:
            if inner not in self.tensors:
                whole = call.outputs[0]
                self.tensors[inner] = Tensor(inner, tuple(whole.shape), str(whole.dtype))
        self.nodes.append(node)
        self.layers[node.name] = call.operation

    def add_weights(self, layer: Any) -> dict[str, str]:
        """The layer's weights as constants: weight's name in the layer -> constant's name."""
        found: dict[str, str] = {}
        for suffix, variable in layer_weights(layer):
            name = f"{layer.name}/{suffix}"
            shape = tuple(int(n) for n in variable.shape)
            self.tensors[name] = Tensor(name, shape, str(variable.dtype), _reader(variable))
            self.weights[name] = (layer.name, variable)
            found[suffix] = name
        return found

    def name_output(self, tensor: Any, name: str) -> str:
        """The graph's name of an output, which is Keras' name for it."""
        known = self.names[id(tensor)]
        if known == name:
            return name
        # the same tensor twice, or a further output of one layer: an alias, as Keras has none
        self.add_tensor(name, tensor)
        self.names[id(tensor)] = known
        self.nodes.append(Node(f"{name}/output", "Identity", Elementwise(), (known,), (name,)))
        return name


def layer_weights(layer: Any) -> Iterator[tuple[str, Any]]:
    """Name within the layer, and variable, of every weight of a layer and what it holds."""
    seen: set[str] = set()
    for variable in getattr(layer, "weights", ()):
        steps = variable.path.split("/")
        within = steps[steps.index(layer.name) + 1 :] if layer.name in steps else steps[-1:]
        unique = suffix = "/".join(within)
        while unique in seen:
            unique = f"{suffix}_{len(seen)}"
        seen.add(unique)
        yield unique, variable


def _parts(call: Call, times: int) -> tuple[Part, ...]:
    operator = type(call.operation).__name__
    if times > 1:
        return (Part(operator, Opaque(f"it is called {times} times, which is not cut")),)
    if len(call.inputs) != 1 or len(call.outputs) != 1:
        return (Part(operator, Opaque("it has several computed inputs or outputs")),)
    return translate(call.operation, len(call.outputs[0].shape))


def _nodes(
    name: str,
    parts: Sequence[Part],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    constants: dict[str, str],
) -> Iterator[Node]:
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        results = outputs if last else (f"{name}/linear",)
        named = tuple(constants[weight] for weight in part.weights)
        if isinstance(part.operation, Opaque):
            named = tuple(constants.values())
        ends = (*named, *inputs) if part.constants_first else (*inputs, *named)
        yield Node(f"{name}{part.suffix}", part.operator, part.operation, ends, results)
        inputs, constants = results, {}


def _reader(variable: Any) -> Callable[[], Array]:
    return lambda: np.asarray(keras.ops.convert_to_numpy(variable.value))
