"""Keras and SavedModels to ONNX by tf2onnx, with the weights beside the graph where that can be.

1. The model is traced as one flat function, with its large weights as inputs, and given to tf2onnx.
2. The inputs that are not the model's become constants, and constants are folded once.
3. Inputs and outputs get the Keras names; what comes in besides is refused.
4. The graph is brought into its canonical form.
5. A head that was not built is grafted: what went so far was a stub (see `graft`).
6. It is checked: tf2onnx writes operators that ONNX does not have, and says nothing.
7. Where that fails, all weights go through tf2onnx and nothing is folded: the plain route. It is
   not tried where the memory that it is known to need is not there: the system would end it, or
   something else.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import tf2onnx
from onnx import ModelProto, ValueInfoProto, numpy_helper

from exporter.conversion.canonical import canonicalize, every_node
from exporter.conversion.check_onnx import check_standard
from exporter.conversion.freeze_savedmodel import trace_beside, trace_frozen
from exporter.conversion.signature import AnyModel, Interface, Shape, in_float32, interface_of
from exporter.conversion.to_onnx_fold import add_beside, fold
from exporter.conversion.to_onnx_graft import graft
from exporter.conversion.to_onnx_operators import HANDLERS, REWRITERS
from exporter.conversion.to_onnx_trace import (
    LARGE_BYTES,
    Traced,
    large_weights,
    trace,
    weight_bytes,
)
from exporter.errors import ConversionError, UsageError
from exporter.formats.keras.large_head_model import WideModel
from exporter.formats.keras.stub import Stub
from exporter.formats.onnx.external_data import ExternalData
from exporter.formats.onnx.write_large import write
from exporter.formats.savedmodel.model import SavedModel

_BATCH = "batch"


def convert(
    model: AnyModel | WideModel,
    path: Path,
    *,
    opset: int,
    batch: int,  # noqa: ARG001 - the batch stays open in ONNX
    input_shapes: Mapping[str, Sequence[int]],
    large_head_bytes: int = 0,  # noqa: ARG001 - the weights of a built head go beside the graph
) -> tuple[str, list[str]]:
    """Write a Keras model as ONNX; the batch stays open unless the model fixes it.

    Returns:
        The route, and warnings.

    Raises:
        UsageError: an opset that tf2onnx cannot write, or shapes that do not fit.
        ConversionError: tf2onnx failed, or what it wrote is not standard ONNX.
    """
    _check_opset(opset)
    if isinstance(model, WideModel):
        return _from_stub(model, _Target(path, opset, model.name, model.stub), input_shapes)
    whole, warnings = in_float32(model)
    interface, told = interface_of(whole, input_shapes), list(warnings)
    target = _Target(path, opset, interface.name)
    try:
        with _no_collection():
            bare = _bare(whole, interface)
            if bare is not None:
                _write(bare, interface, target, folded=True)
                return BARE_GRAPH, told
    except Exception as error:  # noqa: BLE001 - whatever it was, the plain route may not mind
        _check_memory(whole, error)
        told.append(f"all weights went through tf2onnx, which is slow: {_reason(error)}")
    _write(_plain(whole, interface), interface, target, folded=False)
    return PLAIN, told


@contextmanager
def _no_collection() -> Iterator[None]:
    """Tracing makes millions of small objects, and looking through them for cycles a sixth of the
    time; the weights are not among them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _bare(whole: AnyModel, interface: Interface) -> Traced | None:
    """The model without its large weights; None where it has none."""
    if isinstance(whole, SavedModel):
        return trace_beside(interface)
    weights = large_weights(whole.model)
    return trace(interface, weights) if weights else None


def _plain(whole: AnyModel, interface: Interface) -> Traced:
    return trace_frozen(interface) if isinstance(whole, SavedModel) else trace(interface, ())


def _from_stub(
    model: WideModel, target: _Target, input_shapes: Mapping[str, Sequence[int]]
) -> tuple[str, list[str]]:
    """Convert the stub and graft its head; where that fails, the model with its head built."""
    narrow, warnings = in_float32(model.stub.model)
    interface = interface_of(narrow, input_shapes)
    bare = _bare(narrow, interface)
    target = replace(target, name=interface.name)
    try:
        if bare is None:
            _write(_plain(narrow, interface), interface, target, folded=False)
        else:
            _write(bare, interface, target, folded=True)
    except Exception as error:  # noqa: BLE001 - whatever it was, the built head may not mind
        whole, opset = model.whole(), target.opset
        route, told = convert(whole, target.path, opset=opset, batch=1, input_shapes=input_shapes)
        return route, [f"the large head was built, which is slow: {_reason(error)}", *told]
    return f"{PLAIN if bare is None else BARE_GRAPH}; {model.stub.told()}", [
        *warnings,
        model.told(),
    ]


BARE_GRAPH = "tf2onnx, bare graph"
PLAIN = "tf2onnx"


_PLAIN_BYTES = 60  # for each byte of weights; measured with networks of 100 to 180 MB: 54 to 68


def _check_memory(whole: AnyModel, error: Exception) -> None:
    held = whole.weight_bytes if isinstance(whole, SavedModel) else weight_bytes(whole.model)
    needed, free = _PLAIN_BYTES * held, psutil.virtual_memory().available
    if needed > free:
        raise ConversionError(
            f"{_reason(error)}; the plain route would need about {needed / 1e9:.0f} GB of memory, "
            f"{free / 1e9:.0f} GB are free",
            "convert to tflite instead",
        ) from error


@dataclass(frozen=True)
class _Target:
    path: Path
    opset: int
    name: str
    stub: Stub | None = None


def _write(traced: Traced, interface: Interface, target: _Target, *, folded: bool) -> None:
    converted = _run_tf2onnx(traced, target.opset)
    converted.graph.name = target.name
    names = _names(converted, interface, traced)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        canonicalize(converted, _as_they_are(converted))  # so that it is folded one way only
        _fill(converted, traced, folder)
        if folded:
            converted = fold(converted, folder)
        canonicalize(converted, names)
        _set_shapes(converted, interface)
        outside = ExternalData(folder)
        if target.stub is not None:
            converted = graft(converted, outside, target.stub)
        check_standard(converted)
        write(converted, outside, target.path)


def _as_they_are(converted: ModelProto) -> dict[str, str]:
    ends = (*converted.graph.input, *converted.graph.output)
    return {info.name: info.name for info in ends}


def _fill(converted: ModelProto, traced: Traced, folder: Path) -> None:
    """Turn the inputs that are not the model's into constants; those that nothing reads go."""
    graph = converted.graph
    read = {name for node in every_node(graph) for name in node.input}
    own = [info for info in graph.input if info.name not in traced.values]
    for name in [
        info.name for info in graph.input if info.name in traced.values and info.name in read
    ]:
        values = traced.array(name)
        if values.nbytes >= LARGE_BYTES:
            graph.initializer.append(add_beside(name, values, folder))
        else:
            graph.initializer.append(numpy_helper.from_array(values, name))
    copies = [ValueInfoProto.FromString(info.SerializeToString()) for info in own]
    del graph.input[:]
    graph.input.extend(copies)


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _check_opset(opset: int) -> None:
    known = tf2onnx.constants.OPSET_TO_IR_VERSION
    if opset not in known or opset < _OLDEST_OPSET:
        raise UsageError(
            f"opset {opset} cannot be written", f"choose one of {_OLDEST_OPSET} to {max(known)}"
        )


_OLDEST_OPSET = 13  # before it Softmax flattens its input, and half of the operators are missing


def _run_tf2onnx(traced: Traced, opset: int) -> ModelProto:
    converted, _ = tf2onnx.convert.from_function(
        traced.function,
        input_signature=traced.specs,
        opset=opset,
        custom_op_handlers=dict(HANDLERS),
        custom_rewriter=list(REWRITERS),
    )
    if not isinstance(converted, ModelProto):
        raise ConversionError("tf2onnx gave no model")
    return converted


def _names(converted: ModelProto, interface: Interface, traced: Traced) -> dict[str, str]:
    """The converter's names of inputs and outputs -> those of Keras."""
    names = {f"input_{i}": name for i, name in enumerate(interface.input_names)}
    for info in converted.graph.input:
        if info.name not in names and info.name not in traced.values:
            raise ConversionError(
                f"tf2onnx made an input of {info.name!r}",
                "a layer holds something that is no array; convert to tflite instead",
            )
    outputs = [info.name for info in converted.graph.output]
    if len(set(outputs)) != len(interface.output_names):
        raise ConversionError(f"tf2onnx wrote {len(outputs)} outputs: {', '.join(outputs)}")
    return names | dict(zip(outputs, interface.output_names, strict=True))


def _set_shapes(converted: ModelProto, interface: Interface) -> None:
    """State the shapes that Keras knows; open dimensions get names that do not change."""
    shapes: dict[str, Shape | None]
    shapes = dict(zip(interface.input_names, interface.input_shapes, strict=True))
    shapes |= dict(zip(interface.output_names, interface.output_shapes, strict=True))
    for info in (*converted.graph.input, *converted.graph.output):
        _set_shape(info, shapes[info.name])


def _set_shape(info: ValueInfoProto, shape: Shape | None) -> None:
    kind = info.type.tensor_type
    known = [dim.dim_value or None for dim in kind.shape.dim]
    shape = (None,) * len(known) if shape is None else shape
    known = known or [None] * len(shape)
    kind.shape.ClearField("dim")
    kind.shape.SetInParent()
    for axis, (length, traced) in enumerate(zip(shape, known, strict=True)):
        dim = kind.shape.dim.add()
        if length or traced:
            dim.dim_value = length or traced or 0
        else:
            dim.dim_param = _BATCH if axis == 0 else f"{info.name}_{axis}"
