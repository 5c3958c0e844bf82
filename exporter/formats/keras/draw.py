"""Draw the neutral graph of a live Keras model.

Names of tensors, for example of a Dense layer `scores` with softmax:

- `scores`: the output of its first call; `scores@1` of the second; `inner/scores` in a model
  `inner` inside the model; `name:1` for a second output.
- `scores/kernel`: a weight.
- `scores/linear`: the values before the activation inside the layer. The activation is the node
  `scores/softmax`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from exporter.errors import ModelError
from exporter.formats.keras.calls import KerasCall, calls, follow, is_plain_model, producer_name
from exporter.formats.keras.layer_parts import LayerPart
from exporter.formats.keras.table import translate
from exporter.graph import Array, Graph, Node, Tensor
from exporter.graph.operations import Elementwise, Linear, Opaque
from exporter.graph.walk import computed_inputs, upstream


@dataclass(frozen=True)
class Drawing:
    """The graph, and the Keras object of each name in it.

    Attributes:
        layers: node name -> the Keras operation that the node is, or is a part of.
        weights: constant name -> (the layer that has it, Keras variable).
        inner: tensor before an activation inside a layer -> (layer, path of the activation in the
            layer's configuration).
        hidden: the other tensors inside layers, which Keras cannot return.
        aliases: name of an output -> the tensor's other name.
    """

    graph: Graph
    layers: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    inner: dict[str, tuple[Any, str]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)


def draw(model: Any, outputs: Sequence[str] = ()) -> Drawing:
    """Draw a model.

    Args:
        model: built, Functional or Sequential.
        outputs: names of its outputs, if other than Keras' names.

    Raises:
        ModelError: the model is not Functional or Sequential, or is not built.
    """
    check_structure(model)
    drawer = _Drawer()
    inputs = [drawer.add_tensor(producer_name(tensor), tensor) for tensor in model.inputs]
    results = follow(model, inputs, drawer.add_call)
    names = tuple(outputs or output_names(model))
    for tensor, result, name in zip(model.outputs, results, names, strict=True):
        drawer.name_output(tensor, result, name)
    graph = Graph(tuple(drawer.nodes), drawer.tensors, tuple(inputs), names)
    layers = drawer.drawing.layers
    labels = {name: found for name in names if (found := _labels(graph, layers, name))}
    return replace(drawer.drawing, graph=replace(graph, labels=labels))


def _labels(graph: Graph, layers: Mapping[str, Any], output: str) -> tuple[str, ...] | None:
    """The labels of a UnitMask between the head and its output."""

    def single_input(node: Node) -> str | None:
        computed = computed_inputs(graph, node)
        return None if isinstance(node.operation, Linear) or len(computed) != 1 else computed[0]

    for node, _ in upstream(graph.producers, output, single_input):
        layer: Any = layers.get(node.name)
        if type(layer).__name__ == "UnitMask" and layer.labels is not None:
            return tuple(layer.labels)
    return None


def check_structure(model: Any) -> None:
    """Refuse a model that is not Functional or Sequential, or not built (raises ModelError)."""
    if not is_plain_model(model):
        raise ModelError(
            f"the model is of the class {type(model).__name__!r}; only Functional and Sequential "
            "models show their layers",
            "wrap its layers in keras.Model(inputs, outputs)",
        )
    try:
        built = bool(model.inputs) and bool(model.outputs)
    except AttributeError:
        built = False
    if not built:
        raise ModelError(
            f"the model {model.name!r} is not built: the shape of its input is not known",
            "start it with keras.Input(shape), or call it once",
        )


def output_names(model: Any) -> tuple[str, ...]:
    """One name per output: the name of its layer, with a number if another tensor has that name.

    Another tensor may be an earlier output, or the output of an earlier call of the same layer.
    """
    first_calls: dict[int, KerasCall] = {}
    for call in calls(model):
        first_calls.setdefault(id(call.operation), call)
    named_first = {id(call.outputs[0]) for call in first_calls.values()}
    taken = {call.operation.name for call in first_calls.values()}
    names: list[str] = []
    for tensor in model.outputs:
        name = layer = producer_name(tensor)
        number = 0
        while name in names or (name in taken and (number or id(tensor) not in named_first)):
            number += 1
            name = f"{layer}_{number}"
        names.append(name)
    return tuple(names)


class _Drawer:
    def __init__(self) -> None:
        self.drawing = Drawing(Graph((), {}, (), ()))
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.constants: dict[int, dict[int, str]] = {}  # layer -> variable -> name

    def add_tensor(self, name: str, tensor: Any) -> str:
        self.tensors[name] = Tensor(name, tuple(tensor.shape), str(tensor.dtype))
        return name

    def add_call(self, name: str, call: KerasCall, names: Mapping[int, str]) -> tuple[str, ...]:
        """Draw a call.

        Args:
            names: of its inputs, by identity.

        Returns:
            The names of its outputs.
        """
        inputs = tuple(names[id(tensor)] for tensor in call.inputs)
        outputs = tuple(
            self.add_tensor(name if i == 0 else f"{name}:{i}", tensor)
            for i, tensor in enumerate(call.outputs)
        )
        constants = self.add_weights(name, call.operation)
        parts = translate(call)
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            results = outputs if last else (self.add_inner(name, call, part, parts[i + 1]),)
            if isinstance(part.operation, Opaque) and not part.weights:
                weights = tuple(constants.values())
            else:
                weights = tuple(constants[id(weight)] for weight in part.weights)
            ends = (*weights, *inputs) if part.weights_first else (*inputs, *weights)
            node = Node(
                f"{name}{part.suffix}", part.operator, part.operation, ends, results, part.products
            )
            self.nodes.append(node)
            self.drawing.layers[node.name] = call.operation
            inputs = results
        return outputs

    def add_inner(self, name: str, call: KerasCall, before: LayerPart, after: LayerPart) -> str:
        """Add the tensor inside a layer between two of its parts."""
        if after.setting:
            inner = f"{name}/linear"
            self.drawing.inner[inner] = (call.operation, after.setting)
        else:
            inner = f"{name}{before.suffix or '/product'}"
            self.drawing.hidden.add(inner)
        output = call.outputs[0]
        shape = tuple(output.shape)
        if after.channels is not None:
            shape = (*shape[:-1], after.channels)
        self.tensors[inner] = Tensor(inner, shape, str(output.dtype))
        return inner

    def add_weights(self, name: str, layer: Any) -> dict[int, str]:
        """Add the layer's weights as constants, once for all of its calls."""
        if id(layer) not in self.constants:
            found = self.constants[id(layer)] = {}
            for suffix, variable in layer_weights(layer):
                constant = f"{name}/{suffix}"
                shape = tuple(int(n) for n in variable.shape)
                read = _reader(variable)
                self.tensors[constant] = Tensor(constant, shape, str(variable.dtype), read)
                self.drawing.weights[constant] = (layer, variable)
                found[id(variable)] = constant
        return self.constants[id(layer)]

    def name_output(self, tensor: Any, known: str, name: str) -> None:
        """Add an alias if an output has another name than its tensor.

        This happens if one tensor is returned twice, is a further output of a layer, or comes from
        a model inside the model.
        """
        if known != name:
            self.add_tensor(name, tensor)
            self.drawing.aliases[name] = known
            self.nodes.append(Node(f"{name}/output", "Identity", Elementwise(), (known,), (name,)))


def layer_weights(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name within the layer, variable) for every weight of a layer and of layers inside."""
    seen: set[str] = set()
    for variable in getattr(layer, "weights", ()):
        unique = suffix = _name_within(layer, str(variable.path))
        while unique in seen:
            unique = f"{suffix}_{len(seen)}"
        seen.add(unique)
        yield unique, variable


def _name_within(layer: Any, path: str) -> str:
    prefix = f"{layer.path}/"
    if path.startswith(prefix):
        return path.removeprefix(prefix)
    names = path.split("/")
    return "/".join(names[names.index(layer.name) + 1 :] if layer.name in names else names[-1:])


def _reader(variable: Any) -> Callable[[], Array]:
    return lambda: np.asarray(keras.ops.convert_to_numpy(variable.value))
