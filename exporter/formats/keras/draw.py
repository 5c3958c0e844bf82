"""The neutral graph of a live Keras model.

Names: a tensor is called after the call that makes it (`dense`, `dense@1` for a second call,
`inner/dense` in a model in the model), `name:1` and so on for its further outputs; a constant
`layer/weight`; the values before an activation inside a layer `layer/linear`, and that activation
`layer/softmax`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from exporter.errors import ModelError
from exporter.formats.keras.calls import (
    Call,
    first_calls,
    follow,
    input_name,
    is_plain_model,
    made_by,
)
from exporter.formats.keras.layer_parts import Part
from exporter.formats.keras.table import translate
from exporter.graph import Array, Graph, Node, Tensor
from exporter.graph.operations import Elementwise, Linear, Opaque
from exporter.graph.walk import computed_inputs, upstream


@dataclass(frozen=True)
class Picture:
    """The graph, and what its names stand for in Keras.

    Attributes:
        layers: node name -> the Keras operation that it is, or is a part of.
        weights: constant name -> (the layer that holds it, Keras variable).
        inner: tensor before an activation inside a layer -> (layer, path to the activation in its
            configuration).
        hidden: the other tensors inside layers, which cannot be had.
        aliases: name of an output -> the tensor's other name.
    """

    graph: Graph
    layers: dict[str, Any]
    weights: dict[str, tuple[Any, Any]]
    inner: dict[str, tuple[Any, str]]
    hidden: set[str]
    aliases: dict[str, str]


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
    inputs = [artist.add_tensor(input_name(tensor), tensor) for tensor in model.inputs]
    made = follow(model, inputs, artist.add_call)
    named = tuple(
        artist.name_output(tensor, known, name)
        for tensor, known, name in zip(
            model.outputs, made, outputs or output_names(model), strict=True
        )
    )
    graph = Graph(tuple(artist.nodes), artist.tensors, tuple(inputs), named)
    labels = {name: found for name in named if (found := _labels(graph, artist.layers, name))}
    graph = replace(graph, labels=labels)
    return Picture(
        graph, artist.layers, artist.weights, artist.inner, artist.hidden, artist.aliases
    )


def _labels(graph: Graph, layers: Mapping[str, Any], output: str) -> tuple[str, ...] | None:
    """Those that a UnitMask between the head and its output has for the units."""

    def follow(node: Node) -> str | None:
        computed = computed_inputs(graph, node)
        return None if isinstance(node.operation, Linear) or len(computed) != 1 else computed[0]

    for node, _ in upstream(graph.producers, output, follow):
        layer: Any = layers.get(node.name)
        if type(layer).__name__ == "UnitMask" and layer.labels is not None:
            return tuple(layer.labels)
    return None


def check_structure(model: Any) -> None:
    """Refuse what is no built Functional or Sequential model (raises ModelError)."""
    if not is_plain_model(model):
        raise ModelError(
            f"the model is of the class {type(model).__name__!r}; only Functional and Sequential "
            "models show their layers",
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
    """One name an output: that of the layer that makes it, numbered where that would not be unique.

    Not unique is a name that another tensor of the picture bears: of an earlier output, or of an
    earlier call of the same layer.
    """
    calls = first_calls(model)
    first = {id(call.outputs[0]) for call in calls}
    taken = {call.operation.name for call in calls}
    names: list[str] = []
    for tensor in model.outputs:
        name = own = made_by(tensor)[0].name
        number = 0
        while name in names or (name in taken and (number or id(tensor) not in first)):
            number += 1
            name = f"{own}_{number}"
        names.append(name)
    return tuple(names)


@dataclass
class _Artist:
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    inner: dict[str, tuple[Any, str]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    constants: dict[int, dict[int, str]] = field(default_factory=dict)  # layer -> variable -> name

    def add_tensor(self, name: str, tensor: Any) -> str:
        self.tensors[name] = Tensor(name, tuple(tensor.shape), str(tensor.dtype))
        return name

    def add_call(self, name: str, call: Call, names: Mapping[int, str]) -> tuple[str, ...]:
        """Draw a call whose inputs have these names; gives those of its outputs."""
        inputs = tuple(names[id(tensor)] for tensor in call.inputs)
        outputs = tuple(
            self.add_tensor(name if i == 0 else f"{name}:{i}", tensor)
            for i, tensor in enumerate(call.outputs)
        )
        constants = self.add_weights(name, call.operation)
        parts = translate(call)
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            results = outputs if last else (self.add_inner(name, call, parts[i : i + 2]),)
            if isinstance(part.operation, Opaque) and not part.weights:
                given = tuple(constants.values())
            else:
                given = tuple(constants[id(weight)] for weight in part.weights)
            ends = (*given, *inputs) if part.constants_first else (*inputs, *given)
            node = Node(f"{name}{part.suffix}", part.operator, part.operation, ends, results)
            self.nodes.append(node)
            self.layers[node.name] = call.operation
            inputs = results
        return outputs

    def add_inner(self, name: str, call: Call, around: Sequence[Part]) -> str:
        """A tensor inside a layer, between two of its parts."""
        part, following = around
        if following.setting:
            inner = f"{name}/linear"
            self.inner[inner] = (call.operation, following.setting)
        else:
            inner = f"{name}{part.suffix or '/product'}"
            self.hidden.add(inner)
        whole = call.outputs[0]
        shape = None if following.reshapes else tuple(whole.shape)
        self.tensors[inner] = Tensor(inner, shape, str(whole.dtype))
        return inner

    def add_weights(self, name: str, layer: Any) -> dict[int, str]:
        """The layer's weights as constants, once for all of its calls."""
        if id(layer) not in self.constants:
            found = self.constants[id(layer)] = {}
            for suffix, variable in layer_weights(layer):
                constant = f"{name}/{suffix}"
                shape = tuple(int(n) for n in variable.shape)
                read = _reader(variable)
                self.tensors[constant] = Tensor(constant, shape, str(variable.dtype), read)
                self.weights[constant] = (layer, variable)
                found[id(variable)] = constant
        return self.constants[id(layer)]

    def name_output(self, tensor: Any, known: str, name: str) -> str:
        """The graph's name of an output, which is Keras' name for it."""
        if known != name:
            # one tensor twice, a further output of a layer, or made in a model in the model
            self.add_tensor(name, tensor)
            self.aliases[name] = known
            self.nodes.append(Node(f"{name}/output", "Identity", Elementwise(), (known,), (name,)))
        return name


def layer_weights(layer: Any) -> Iterator[tuple[str, Any]]:
    """Name within the layer, and variable, of every weight of a layer and what it holds."""
    seen: set[str] = set()
    for variable in getattr(layer, "weights", ()):
        unique = suffix = _within(layer, str(variable.path))
        while unique in seen:
            unique = f"{suffix}_{len(seen)}"
        seen.add(unique)
        yield unique, variable


def _within(layer: Any, path: str) -> str:
    own = f"{layer.path}/"
    if path.startswith(own):
        return path.removeprefix(own)
    steps = path.split("/")
    return "/".join(steps[steps.index(layer.name) + 1 :] if layer.name in steps else steps[-1:])


def _reader(variable: Any) -> Callable[[], Array]:
    return lambda: np.asarray(keras.ops.convert_to_numpy(variable.value))
