"""Convert Keras models and SavedModels to ONNX with tf2onnx.

Where possible, tf2onnx sees only the bare graph, and the large weights are added afterwards:

1. The model is traced as one flat function with its large weights as inputs, and given to tf2onnx.
2. These inputs become constants, and constants are folded once.
3. Inputs and outputs get the Keras names; additional inputs are refused.
4. The graph is brought into its canonical form.
5. If tf2onnx converted a stub of a large head, the original weights are written (see `graft`).
6. The result is checked: tf2onnx writes operators that ONNX does not have, without a warning.

If that fails, all weights go through tf2onnx and nothing is folded: the plain route. It is not
tried without the memory that it is known to need, because the system would kill a process.
"""

from __future__ import annotations

import gc
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import tf2onnx
import tf2onnx.rewriter
from onnx import ModelProto, numpy_helper

from exporter.conversion.canonical import canonicalize
from exporter.conversion.check_onnx import check_standard
from exporter.conversion.freeze_savedmodel import trace_frozen, trace_with_weight_inputs
from exporter.conversion.graft import graft_for
from exporter.conversion.options import ConvertOptions
from exporter.conversion.remote import Conversion
from exporter.conversion.signature import AnyModel, Signature, in_float32, signature_of
from exporter.conversion.to_onnx_fold import add_external, fold
from exporter.conversion.to_onnx_operators import HANDLERS, REWRITERS
from exporter.conversion.to_onnx_trace import (
    LARGE_BYTES,
    Traced,
    large_weights,
    trace_function,
    weight_bytes,
)
from exporter.errors import ConversionError, UsageError, first_line
from exporter.formats.keras.large_head_model import LargeHeadModel
from exporter.formats.keras.stub import Stub
from exporter.formats.onnx.apply import apply_plan
from exporter.formats.onnx.draw import draw
from exporter.formats.onnx.external_data import ExternalData
from exporter.formats.onnx.inference import Known
from exporter.formats.onnx.protos import all_nodes, replace_messages, set_shape, shape_of
from exporter.formats.onnx.splice import write
from exporter.formats.savedmodel.model import SavedModel

BARE_GRAPH = "tf2onnx, bare graph"
PLAIN = "tf2onnx"
_BATCH = "batch"
_OLDEST_OPSET = 13  # earlier, Softmax flattens its input, and half of the operators are missing
_PLAIN_BYTES = 60  # per byte of weights; measured with networks of 100 to 180 MB: 54 to 68


@dataclass(frozen=True)
class _Target:
    path: Path
    opset: int
    signature: Signature
    stub: Stub | None = None


def convert(
    model: AnyModel | LargeHeadModel, path: Path, options: ConvertOptions | None = None
) -> Conversion:
    """Write a model as ONNX; the batch stays open unless the model fixes it.

    Args:
        options: `batch` and `large_head_bytes` have no effect here.

    Raises:
        UsageError: an opset that tf2onnx cannot write, or shapes that do not fit.
        ConversionError: tf2onnx failed, or the result is not standard ONNX.
    """
    options = options or ConvertOptions()
    _check_opset(options.opset)
    if isinstance(model, LargeHeadModel):
        return _convert_stub(model, path, options)
    whole, warnings = in_float32(model)
    target = _Target(path, options.opset, signature_of(whole, options.input_shapes))
    try:
        with _without_gc():
            if _write(whole, target, bare=True):
                return Conversion(path, BARE_GRAPH, warnings)
    except Exception as error:  # noqa: BLE001 - the plain route may work after any error
        _check_memory(whole, error)
        warning = f"all weights went through tf2onnx, which is slow: {_reason(error)}"
        warnings = (*warnings, warning)
    _write(whole, target, bare=False)
    return Conversion(path, PLAIN, warnings)


def _convert_stub(model: LargeHeadModel, path: Path, options: ConvertOptions) -> Conversion:
    """Convert the stub and write the original head; if that fails, convert the built model."""
    narrow, warnings = in_float32(model.stub.model)
    signature = signature_of(narrow, options.input_shapes)
    target = _Target(path, options.opset, signature, model.stub)
    try:
        bare = _write(narrow, target, bare=True)
        if not bare:
            _write(narrow, target, bare=False)
    except Exception as error:  # noqa: BLE001 - the built model may work after any error
        done = convert(model.built(), path, options)
        warning = f"the large head was built, which is slow: {_reason(error)}"
        return replace(done, warnings=(warning, *done.warnings))
    route = f"{BARE_GRAPH if bare else PLAIN}; {model.stub.description()}"
    return Conversion(path, route, (*warnings, model.warning()))


@contextmanager
def _without_gc() -> Iterator[None]:
    """Tracing creates millions of small objects; searching them for cycles takes 1/6 of the time.

    The weights are not among them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _trace(model: AnyModel, signature: Signature, *, bare: bool) -> Traced | None:
    """Trace a model; with `bare` without its large weights, and None if it has none."""
    if isinstance(model, SavedModel):
        return trace_with_weight_inputs(signature) if bare else trace_frozen(signature)
    weights = large_weights(model.model) if bare else []
    return None if bare and not weights else trace_function(signature, weights)


def _check_memory(model: AnyModel, error: Exception) -> None:
    size = model.weight_bytes if isinstance(model, SavedModel) else weight_bytes(model.model)
    needed, free = _PLAIN_BYTES * size, psutil.virtual_memory().available
    if needed > free:
        raise ConversionError(
            f"{_reason(error)}; the plain route would need about {needed / 1e9:.0f} GB of memory, "
            f"{free / 1e9:.0f} GB are free",
            "convert to tflite instead",
        ) from error


def _reason(error: Exception) -> str:
    return first_line(error) or type(error).__name__


def _check_opset(opset: int) -> None:
    known = tf2onnx.constants.OPSET_TO_IR_VERSION
    if opset not in known or opset < _OLDEST_OPSET:
        raise UsageError(
            f"opset {opset} cannot be written", f"choose one of {_OLDEST_OPSET} to {max(known)}"
        )


# --- from the traced function to the file ---------------------------------------------------------


def _write(model: AnyModel, target: _Target, *, bare: bool) -> bool:
    """Write the file by one route; False without writing if a bare model has no large weights."""
    traced = _trace(model, target.signature, bare=bare)
    if traced is None:
        return False
    converted = _run_tf2onnx(traced, target.opset)
    converted.graph.name = target.signature.name
    names = _names(converted, target.signature, traced)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ends = (*converted.graph.input, *converted.graph.output)
        canonicalize(converted, {info.name: info.name for info in ends})  # for stable folding
        _fill(converted, traced, folder)
        if bare:
            converted = fold(converted, folder)
        canonicalize(converted, names)
        _set_shapes(converted, target.signature)
        external = ExternalData(folder)
        if target.stub is not None:
            converted = _graft(converted, external, target.stub)
        check_standard(converted)
        write(converted, external, target.path, target.path.stem)
    return True


def _run_tf2onnx(traced: Traced, opset: int) -> ModelProto:
    with _stable_order():
        converted, _ = tf2onnx.convert.from_function(
            traced.function,
            input_signature=traced.specs,
            opset=opset,
            custom_op_handlers=dict(HANDLERS),
            custom_rewriter=list(REWRITERS),
        )
    if not isinstance(converted, ModelProto):
        raise ConversionError("tf2onnx returned no model")
    return converted


@contextmanager
def _stable_order() -> Iterator[None]:
    """Equal models are optimized in equal ways, in every process and at any time.

    1. tf2onnx visits sets of nodes, which Python orders by memory address: here in the order in
       which they are met first. Names would not do: Keras numbers the layers of a process.
    2. tf2onnx sorts nodes by names that end in a number, from a counter that never restarts.
    """
    node, names, numbers = tf2onnx.graph.Node, tf2onnx.utils, itertools.count()
    by_address, count = node.__hash__, names.INTERNAL_NAME
    node.__hash__ = lambda self: self.__dict__.setdefault("order", next(numbers))
    names.INTERNAL_NAME = 1
    try:
        yield
    finally:
        node.__hash__, names.INTERNAL_NAME = by_address, count


def _names(converted: ModelProto, signature: Signature, traced: Traced) -> dict[str, str]:
    """The converter's names of inputs and outputs -> the Keras names."""
    names = {f"input_{i}": name for i, name in enumerate(signature.inputs)}
    for info in converted.graph.input:
        if info.name not in names and info.name not in traced.values:
            raise ConversionError(
                f"tf2onnx made an input of {info.name!r}",
                "a layer stores something that is not an array; convert to tflite instead",
            )
    outputs = [info.name for info in converted.graph.output]
    if len(set(outputs)) != len(signature.outputs):
        raise ConversionError(f"tf2onnx wrote {len(outputs)} outputs: {', '.join(outputs)}")
    return names | dict(zip(outputs, signature.outputs, strict=True))


def _fill(converted: ModelProto, traced: Traced, folder: Path) -> None:
    """Turn the inputs that are not the model's into constants; drop those that nothing reads."""
    graph = converted.graph
    read = {name for node in all_nodes(graph) for name in node.input}
    used = [info.name for info in graph.input if info.name in traced.values and info.name in read]
    for name in used:
        values = traced.array(name)
        if values.nbytes >= LARGE_BYTES:
            graph.initializer.append(add_external(name, values, folder))
        else:
            graph.initializer.append(numpy_helper.from_array(values, name))
    replace_messages(graph.input, [i for i in graph.input if i.name not in traced.values])


def _set_shapes(converted: ModelProto, signature: Signature) -> None:
    """State the shapes that Keras knows; open dimensions get stable names."""
    shapes = {name: shape for name, (shape, _) in signature.inputs.items()}
    shapes |= signature.outputs
    for info in (*converted.graph.input, *converted.graph.output):
        traced = shape_of(info.type) or ()
        known = shapes[info.name] or (None,) * len(traced)
        lengths = zip(known, traced or (None,) * len(known), strict=True)
        set_shape(info.type, tuple(one or other or None for one, other in lengths))
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_param = _BATCH if axis == 0 else f"{info.name}_{axis}"


def _graft(converted: ModelProto, external: ExternalData, stub: Stub) -> ModelProto:
    """Replace the head of a converted stub by the original one.

    Args:
        external: has the large constants, and receives the original weights.

    Raises:
        ConversionError: the head cannot be found, or the converter changed it.
    """
    drawing = draw(converted, Known(external))
    graft = graft_for(drawing.graph, stub)
    whole, _ = apply_plan(converted, drawing, graft.plan, external)
    tensors = [
        external.add_array(tensor.name, graft.weights[tensor.name])
        if tensor.name in graft.weights
        else tensor
        for tensor in whole.graph.initializer
    ]
    replace_messages(whole.graph.initializer, tensors)
    whole.graph.ClearField("value_info")
    return whole
