"""What a Keras model takes and gives, as a flat function with names; the start of every route."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from exporter.errors import ConversionError, UsageError
from exporter.formats.keras.calls import input_name
from exporter.formats.keras.model import KerasModel
from exporter.formats.keras.rebuild import structure
from exporter.formats.keras.settings import entry_of
from exporter.formats.savedmodel.model import SavedModel
from exporter.graph.edits import Plan, SetAttribute

_OTHERS = {"float16", "mixed_float16", "bfloat16", "mixed_bfloat16", "float64"}
Shape = tuple[int | None, ...]
AnyModel = KerasModel | SavedModel


@dataclass(frozen=True)
class Interface:
    """Flat inputs and outputs in Keras' order.

    Attributes:
        name: of the model.
        call: flat input tensors -> tuple of output tensors, not in training.
        input_shapes: None where a dimension stays open.
        output_shapes: None where not even the rank is known.
    """

    name: str
    call: Callable[..., tuple[Any, ...]]
    input_names: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    input_dtypes: tuple[str, ...]
    output_names: tuple[str, ...]
    output_shapes: tuple[Shape | None, ...]

    def specs(self) -> list[Any]:
        """One `tf.TensorSpec` an input, called input_0, input_1, ...: any Keras name may follow."""
        return [
            tf.TensorSpec(shape, dtype, name=f"input_{i}")
            for i, (shape, dtype) in enumerate(
                zip(self.input_shapes, self.input_dtypes, strict=True)
            )
        ]


def interface_of(
    whole: AnyModel, given: Mapping[str, Sequence[int]], batch: int | None = None
) -> Interface:
    """Describe a model.

    Args:
        whole: the model.
        given: input name -> whole shape, for dimensions that Keras leaves open; its batch counts
            for nothing.
        batch: leading dimension where Keras leaves it open; None leaves it open too.

    Raises:
        UsageError: a shape for an input that is not there, or one that contradicts the model.
        ConversionError: a layer keeps a state between calls.
    """
    ends = _ends_of_saved(whole) if isinstance(whole, SavedModel) else _ends(whole)
    unknown = [name for name in given if name not in ends.inputs]
    if unknown:
        raise UsageError(
            f"the model has no input {unknown[0]!r}", f"inputs: {', '.join(map(repr, ends.inputs))}"
        )
    shapes = [_shape(name, own, given.get(name), batch) for name, (own, _) in ends.inputs.items()]
    return Interface(
        name=ends.name,
        call=ends.call,
        input_names=tuple(ends.inputs),
        input_shapes=tuple(shapes),
        input_dtypes=tuple(dtype for _, dtype in ends.inputs.values()),
        output_names=tuple(ends.outputs),
        output_shapes=tuple(ends.outputs.values()),
    )


class _Ends(NamedTuple):
    name: str
    call: Callable[..., tuple[Any, ...]]
    inputs: Mapping[str, tuple[Shape | None, str]]  # name -> shape and dtype
    outputs: Mapping[str, Shape | None]


def _ends(whole: KerasModel) -> _Ends:
    model = whole.model
    _refuse_states(model)
    inputs = {input_name(t): (tuple(t.shape), str(t.dtype)) for t in model.inputs}
    shapes = (tuple(tensor.shape) for tensor in model.outputs)
    return _Ends(
        str(model.name), _flat(model), inputs, dict(zip(whole.outputs, shapes, strict=True))
    )


def _ends_of_saved(whole: SavedModel) -> _Ends:
    graph = whole.graph()
    inputs = {name: (graph.tensors[name].shape, graph.tensors[name].dtype) for name in graph.inputs}
    return _Ends(
        whole.name, whole.call, inputs, {name: graph.tensors[name].shape for name in graph.outputs}
    )


def in_float32(whole: AnyModel) -> tuple[AnyModel, tuple[str, ...]]:
    """The model, rebuilt if any layer computes in another precision; and a warning if so.

    No converter takes such layers: the TFLite one refuses them, the ONNX one spreads casts.
    """
    if isinstance(whole, SavedModel):
        return whole, ()
    others: dict[int, tuple[str, str]] = {}  # layer -> its node and its policy
    edits: list[SetAttribute] = []
    for node, layer in whole.picture.layers.items():
        if id(layer) in others or not isinstance(layer, keras.Layer):
            continue
        config = layer.get_config()
        paths = [path for path in dtype_paths(config) if _policy(config, path) in _OTHERS]
        edits += [SetAttribute(node, path, "float32") for path in paths]
        if paths:
            others[id(layer)] = node, _policy(config, paths[0])
    if not others:
        return whole, ()
    policies = ", ".join(sorted({policy for _, policy in others.values()}))
    warning = f"{len(others)} layers of the policy {policies} were converted in float32"
    return whole.apply(Plan(tuple(edits))), (warning,)


def dtype_paths(config: Any, before: str = "") -> Iterator[str]:
    """Where a layer's configuration names a precision: its own, and those of layers inside it."""
    if isinstance(config, dict):
        for name, value in config.items():
            if name == "dtype":
                yield f"{before}{name}"
            else:
                yield from dtype_paths(value, f"{before}{name}.")
    elif isinstance(config, list | tuple):
        for i, value in enumerate(config):
            yield from dtype_paths(value, f"{before}{i}.")


def _policy(config: dict[str, Any], path: str) -> str:
    entry = entry_of(config, path)
    return str(entry["config"]["name"] if isinstance(entry, dict) else entry)


def _refuse_states(model: Any) -> None:
    """A converted model starts each call anew."""
    for layer in model._flatten_layers():  # noqa: SLF001 - Keras has no public way to inner layers
        if getattr(layer, "stateful", False):
            raise ConversionError(
                f"{type(layer).__name__} {layer.name!r} keeps its state from one call to the next",
                "build it with stateful=False",
            )


def _flat(model: Any) -> Callable[..., tuple[Any, ...]]:
    packed = structure(model)

    def call(*values: Any) -> tuple[Any, ...]:
        given = keras.tree.pack_sequence_as(packed, list(values))
        return tuple(keras.tree.flatten(model(given, training=False)))

    return call


def _shape(name: str, own: Shape | None, given: Sequence[int] | None, batch: int | None) -> Shape:
    if own is None:
        if given is None:
            raise UsageError(
                f"the rank of the input {name!r} is not known", f"give --input-shape {name}=1,..."
            )
        own = (None,) * len(given)
    wanted = own if given is None else tuple(given)
    if len(wanted) != len(own):
        raise UsageError(
            f"the shape given for the input {name!r} has {len(wanted)} dimensions, "
            f"the input has {len(own)}",
            "the batch is one of them",
        )
    first = batch if own[0] is None else own[0]
    rest = [_dimension(name, i, own[i], wanted[i]) for i in range(1, len(own))]
    return (first, *rest)


def _dimension(name: str, axis: int, own: int | None, wanted: int | None) -> int | None:
    if own is not None and wanted != own:
        raise UsageError(f"dimension {axis} of the input {name!r} is {own}, not {wanted}")
    return wanted
