"""The types of a file's tensors: as the file states them, completed by inference.

What onnx's inference does not find is looked for in this order:

1. The inference is repeated node by node, with the lengths that nodes compute.
2. onnxruntime names the shapes of its own operators.
3. Kernels state the rank of their products, and a result that of the values it is made from.
4. If that does not decide the last layers, the model runs once. The shapes of that run are kept
   apart: they help to trace a head, and the file does not state them.

Outputs may contradict what inference finds: onnxruntime only warns of it, and so such files exist.
The shapes that outputs state are therefore used only as far as nothing else is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TypeProto

from exporter.errors import ExporterError
from exporter.formats.isolation import RUNNING_BYTES, call
from exporter.formats.onnx.branches import PRODUCTS, is_choice, nested
from exporter.formats.onnx.classical.join import join
from exporter.formats.onnx.external_data import ExternalData
from exporter.formats.onnx.inference_skeleton import skeleton_of
from exporter.formats.onnx.kernel_shapes import add_from_kernels, add_from_results
from exporter.formats.onnx.protos import (
    FileNode,
    all_nodes,
    dtype_of,
    file_nodes,
    merged_type,
    model_without,
    shape_of,
    symbols_of,
    tensor_type,
)
from exporter.formats.onnx.shape_inference_by_node import (
    complete_types,
    fold_integers,
    is_incomplete,
)
from exporter.graph import Array, Shape, Tensor
from exporter.graph.lengths import Lengths, input_shapes
from exporter.remap import Remap


@dataclass(frozen=True, eq=False)
class Known:
    """What is known about a file besides its own content.

    Attributes:
        external: the values of constants that the file does not contain.
        lengths: given by the user for open dimensions of inputs.
        types: of the model of which this is a cut, as far as onnx does not infer them.
        measured: shapes in a run of that model, as they are after the cut.
        remap: of the plan that made this model, so that it need not be read from the file.
        work: the multiply-adds of the model of which this is a cut: no cut needs more.
    """

    external: ExternalData | None = None
    lengths: Lengths = field(default_factory=Lengths)
    types: Mapping[str, TypeProto] = field(default_factory=dict)
    measured: Mapping[str, Shape] = field(default_factory=dict)
    remap: Remap | None = None
    work: Callable[[], int | None] | None = None


@dataclass(frozen=True, eq=False)
class Inferred:
    """What is found about the tensors of a file, by name.

    Attributes:
        constants: that nodes compute from constants.
        types: of every tensor, for all inputs.
        measured: shapes in one run, of tensors whose type leaves lengths open.
    """

    constants: dict[str, Tensor]
    types: dict[str, TypeProto]
    measured: Mapping[str, Shape]


def infer(
    model: ModelProto, nodes: Sequence[FileNode], constants: Mapping[str, Tensor], known: Known
) -> Inferred:
    """Find the constants that nodes compute from constants, and the type of every tensor.

    Args:
        model: the parsed file.
        nodes: of its graph.
        constants: of the file.
        known: besides its content.

    Libraries work in another process, if the job isolates them: a damaged file can crash them, or
    make them compute with lengths of 10^9.
    """
    size = model.ByteSize()
    found = dict(call("shape inference", size, partial(_infer, model, nodes, constants)))
    types = _unpacked(found)
    folded = {name: _as_constant(name, value) for name, value in found.items()}
    every = {**constants, **folded}
    measured: Mapping[str, Shape] = {}
    unknown = _made(model, nodes, lambda n: n not in every and _lacks_rank(types.get(n)))
    if unknown or _is_undecided(model, nodes, types, every):
        _complete(model, nodes, every, known, types, unknown=unknown)
        if _is_undecided(model, nodes, types, every):
            wanted = _made(model, nodes, lambda n: n not in every and is_incomplete(types.get(n)))
            measured = known.measured
            loops = any(node.op_type in _LOOPS for node in all_nodes(model.graph))
            if not (loops or measured.keys() >= set(wanted)):
                measured = _measure(model, wanted, constants, known, types)
    return Inferred(folded, types, measured)


_TYPES = "\0types"  # no tensor of an ONNX file has this name


def _infer(
    model: ModelProto, nodes: Sequence[FileNode], constants: Mapping[str, Tensor]
) -> Mapping[str, Array]:
    folded = fold_integers(model, nodes, constants)
    known = {**constants, **{name: _as_constant(name, value) for name, value in folded.items()}}
    return {**folded, **_packed(_types_of(model, nodes, known))}


def _packed(types: Mapping[str, TypeProto]) -> dict[str, Array]:
    """Types as bytes, which another process can send."""
    graph = GraphProto()
    for name, kind in types.items():
        graph.value_info.add(name=name, type=kind)
    return {_TYPES: np.frombuffer(graph.SerializeToString(), np.uint8)}


def _unpacked(found: dict[str, Array]) -> dict[str, TypeProto]:
    """The types, which are removed from what was found."""
    graph = GraphProto.FromString(found.pop(_TYPES).tobytes())
    return {info.name: info.type for info in graph.value_info}


def _as_constant(name: str, value: Array) -> Tensor:
    return Tensor(name, value.shape, value.dtype.name, lambda: value)


def _types_of(
    model: ModelProto, nodes: Sequence[FileNode], constants: Mapping[str, Tensor]
) -> dict[str, TypeProto]:
    """Tensor name -> type.

    1. onnx infers shapes over a copy of the model without its large constants. It does not follow
       all chains that compute lengths.
    2. Results that are still incomplete are inferred node by node.
    """
    skeleton, nodes = skeleton_of(model, nodes, constants)
    types = _inferred(skeleton, nodes)
    if any(is_incomplete(types.get(name)) for node in nodes for name in node.outputs):
        complete_types(skeleton, nodes, types, constants, inferred=True)
    return types


def _inferred(skeleton: ModelProto, nodes: Sequence[FileNode]) -> dict[str, TypeProto]:
    """The types that onnx infers, completed by those that outputs state.

    Inner tensors for which the file states impossible types are inferred without them.
    """
    stated = {info.name: info.type for info in skeleton.graph.output}
    choices = any(is_choice(node) for node in nodes)
    light = model_without(skeleton, "output", *(["node"] if choices else []))
    light.graph.node.extend(node.proto for node in nodes if choices and not is_choice(node))
    for info in skeleton.graph.output:
        new = light.graph.output.add(name=info.name, type=info.type)
        if new.type.HasField("tensor_type"):
            new.type.tensor_type.ClearField("shape")
    graph = light.graph
    for attempt in (light, model_without(light, "value_info")):
        with suppress(onnx.shape_inference.InferenceError, ValueError):  # contradictions
            graph = onnx.shape_inference.infer_shapes(
                attempt, strict_mode=False, data_prop=True
            ).graph
            break
    found = {info.name: info.type for info in (*graph.value_info, *graph.input, *graph.output)}
    for name, kind in stated.items():
        found[name] = merged_type(kind, found.get(name, kind), trust_found=True)
    return found


# --- what onnx does not infer ---------------------------------------------------------------------


def _complete(
    model: ModelProto,
    nodes: Sequence[FileNode],
    constants: Mapping[str, Tensor],
    known: Known,
    types: dict[str, TypeProto],
    *,
    unknown: list[str],
) -> None:
    """Add the types that onnxruntime names, or that the source of a cut has, and what follows.

    Args:
        types: changed.
        unknown: tensors of unknown rank.
    """
    found = {name: known.types[name] for name in unknown if name in known.types}
    if len(found) < len(unknown):
        work = partial(_named, model, nodes, constants, known, unknown)
        # a crash, or an endless inference: the other ways remain
        with suppress(ExporterError):
            size = model.ByteSize() + RUNNING_BYTES // 16
            found |= _unpacked(dict(call("onnxruntime naming shapes", size, work, _NAMING_S)))
    for name, kind in found.items():
        types[name] = merged_type(types.get(name), kind)
    with suppress(ExporterError):
        work = partial(_follow, model, nodes, constants, types)
        types |= _unpacked(dict(call("shape inference", model.ByteSize(), work)))


def _named(
    model: ModelProto,
    nodes: Sequence[FileNode],
    constants: Mapping[str, Tensor],
    known: Known,
    unknown: list[str],
) -> Mapping[str, Array]:
    from exporter.formats.onnx.runtime_shapes import named_types  # noqa: PLC0415 - rarely needed

    runnable = nested(join(model))
    nodes = nodes if runnable is model else file_nodes(runnable.graph)
    model = runnable
    light, _ = skeleton_of(model, nodes, constants, replace=False)
    return _packed(named_types(light, unknown) or named_types(model, unknown, known.external))


def _follow(
    model: ModelProto,
    nodes: Sequence[FileNode],
    constants: Mapping[str, Tensor],
    types: dict[str, TypeProto],
) -> Mapping[str, Array]:
    skeleton, nodes = skeleton_of(model, nodes, constants)
    complete_types(skeleton, nodes, types, constants)
    for add in (add_from_kernels, add_from_results):
        add(model, types, constants)
        complete_types(skeleton, nodes, types, constants)
    return _packed(types)


def _measure(
    model: ModelProto,
    wanted: list[str],
    constants: Mapping[str, Tensor],
    known: Known,
    types: dict[str, TypeProto],
) -> dict[str, Shape]:
    """The shapes of one run; a tensor of unknown type gets its dtype and rank too."""
    stated = {info.name: info.type for info in model.graph.input if info.name not in constants}
    inputs = [
        Tensor(name, shape_of(kind), dtype_of(kind), symbols=symbols_of(kind))
        for name, kind in stated.items()
    ]
    shapes = [input_shapes(inputs, known.lengths, batch) for batch in _BATCHES]
    found: dict[str, TypeProto] = {}
    with suppress(ExporterError):
        work = partial(_run, model, known, wanted, inputs, shapes)
        size = model.ByteSize() + RUNNING_BYTES // 16
        found = _unpacked(dict(call("onnxruntime measuring shapes", size, work, _MEASURING_S)))
    for name, kind in found.items():
        rank = len(shape_of(kind) or ())
        if _lacks_rank(types.get(name)):
            types[name] = tensor_type(dtype_of(kind), (None,) * rank)
    shapes_found = ((name, shape_of(kind)) for name, kind in found.items())
    return {name: _with_open_batch(s) for name, s in shapes_found if s is not None}


def _with_open_batch(shape: Shape) -> Shape:
    """A measured shape, in which the batch is not a length that the file states."""
    return (None, *shape[1:]) if shape[:1] == _BATCHES[:1] else shape


def _run(
    model: ModelProto,
    known: Known,
    wanted: list[str],
    inputs: Sequence[Tensor],
    shapes: Sequence[Mapping[str, Shape | None]],
) -> Mapping[str, Array]:
    from exporter.formats.onnx.runtime_shapes import measured_types  # noqa: PLC0415 - rarely needed

    return _packed(measured_types(nested(join(model)), known.external, wanted, inputs, shapes))


_LOOPS = frozenset({"Loop", "Scan"})  # may never end
_BATCHES = (2, 1)  # that of 1 could be any other axis of length 1; not all models take 2
_NAMING_S, _MEASURING_S = 20.0, 20.0


def _lacks_rank(kind: TypeProto | None) -> bool:
    if kind is not None and kind.tensor_type.HasField("shape"):
        return False
    is_other = (
        kind is not None and not kind.HasField("tensor_type") and bool(kind.WhichOneof("value"))
    )
    return not is_other


def _made(
    model: ModelProto, nodes: Sequence[FileNode], is_wanted: Callable[[str], bool]
) -> list[str]:
    """The names of tensors that nodes make and something reads, if they are wanted."""
    read = {name for node in nodes for name in node.inputs if name}
    read |= {info.name for info in model.graph.output}
    made = (name for node in nodes for name in node.outputs if name in read)
    return [name for name in made if is_wanted(name)]


def _is_undecided(
    model: ModelProto,
    nodes: Sequence[FileNode],
    types: Mapping[str, TypeProto],
    constants: Mapping[str, Tensor],
) -> bool:
    """Has a tensor of the last layers no axis whose length is known?

    The last layers are those after the last products with a constant kernel.
    """
    producers = {name: node for node in nodes for name in node.outputs if name}
    waiting, seen = [info.name for info in model.graph.output], set[str]()
    while waiting:
        name = waiting.pop()
        node = producers.get(name)
        if name in seen or name in constants or node is None:
            continue
        seen.add(name)
        if _has_no_width(types.get(name)):
            return True
        is_product = node.operator in PRODUCTS and any(n in constants for n in node.inputs[1:])
        if not is_product:
            waiting += node.inputs
    return False


def _has_no_width(kind: TypeProto | None) -> bool:
    shape = shape_of(kind)
    if shape is None:
        return _lacks_rank(kind)
    lengths = shape[1:]
    return None in lengths and all(length in {None, 1} for length in lengths)
