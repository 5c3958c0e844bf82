"""Shapes that onnxruntime finds, where onnx's inference does not.

onnxruntime knows the shapes of its own operators, and of the custom ones that it loads. Without
optimization it keeps every tensor, so that each can be made an output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto

from exporter.errors import ModelError
from exporter.formats.onnx.external_data import ExternalData
from exporter.formats.onnx.protos import (
    copy_of,
    dtype_name,
    model_without,
    numpy_dtype,
)
from exporter.formats.onnx.session import (
    RUNTIME_ERRORS,
    Session,
    dtype_of_type,
    is_plain,
    load_session,
    ort_values,
)
from exporter.graph import Array, Shape, Tensor

_FATAL = 4  # log severity: lower ones are not logged
_TRIED = (8, 64, 1, 224, 512)  # lengths of dimensions about which nothing is known


def named_types(
    model: ModelProto, wanted: Collection[str], external: ExternalData | None = None
) -> dict[str, TypeProto]:
    """The types that onnxruntime states for these tensors; {} if it does not load the model.

    Args:
        model: large constants may be inputs.
        wanted: names of tensors that nodes make.
        external: constants that it does not contain.
    """
    try:
        session, _kept = load_session(_showing(model, wanted), "", _options(), external)
    except (*RUNTIME_ERRORS, ModelError):
        return {}
    found: dict[str, TypeProto] = {}
    for output in session.get_outputs():
        dtype = dtype_of_type(output.type)
        if output.name in wanted and dtype and output.shape:  # [] also means an unknown rank
            found[output.name] = _type(dtype, output.shape)
    return found


def measured_types(
    model: ModelProto,
    external: ExternalData | None,
    wanted: Collection[str],
    inputs: Sequence[Tensor],
    shapes: Sequence[Mapping[str, Shape | None]],
) -> dict[str, TypeProto]:
    """The types of these tensors in one run; {} if no run succeeds.

    Args:
        model: the complete file.
        external: constants that it does not contain.
        wanted: names of tensors that nodes make.
        inputs: of the file.
        shapes: input name -> shape of a sample, as far as it is known; the first that runs counts.
    """
    if None in shapes[0].values():
        return {}
    try:
        session, _kept = load_session(_showing(model, wanted), "", _options(), external)
    except (*RUNTIME_ERRORS, ModelError):
        return {}
    names = [output.name for output in session.get_outputs() if output.name in wanted]
    for feed in _feeds(inputs, shapes):
        with suppress(*RUNTIME_ERRORS, ModelError):
            return _run(session, names, feed)
    return {}


def _run(session: Session, names: Sequence[str], feed: Mapping[str, Array]) -> dict[str, TypeProto]:
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = _FATAL
    if any(value.dtype == object for value in feed.values()):  # strings
        plain = [n.name for n in session.get_outputs() if n.name in names and is_plain(n.type)]
        shapes = [np.shape(value) for value in session.run(plain, dict(feed), quiet)]
        dtypes = {output.name: dtype_of_type(output.type) for output in session.get_outputs()}
        pairs = zip(plain, shapes, strict=True)
        return {name: _type(dtypes[name], shape) for name, shape in pairs}
    values = session.run_with_ort_values(names, ort_values(session, feed), quiet)
    return {
        name: _type(dtype, value.shape())
        for name, value in zip(names, values, strict=True)
        if value.is_tensor() and (dtype := dtype_of_type(value.data_type()))
    }


def _feeds(
    inputs: Sequence[Tensor], shapes: Sequence[Mapping[str, Shape | None]]
) -> Iterator[dict[str, Array]]:
    """Inputs in which every unknown length is the same, for several lengths."""
    is_open = any(None in (shape or ()) for shape in shapes[0].values())
    for length, known in product(_TRIED if is_open else _TRIED[:1], shapes):
        random = np.random.default_rng(0)
        closed = {n: [length if m is None else m for m in s or ()] for n, s in known.items()}
        yield {each.name: _values(each.dtype, closed[each.name], random) for each in inputs}


def _values(dtype: str, shape: Sequence[int], random: np.random.Generator) -> Array:
    """Noise for floats; 0, which indexes every table, for integers."""
    if dtype == "string":
        return np.full(shape, "a", object)
    if "float" in dtype:
        return random.uniform(size=shape).astype(numpy_dtype(dtype))
    return np.zeros(shape, numpy_dtype(dtype))


def _showing(model: ModelProto, wanted: Collection[str]) -> ModelProto:
    """The model with these tensors as outputs; the shapes that its outputs state are left out."""
    result = model_without(model, "output", "value_info")
    for output in model.graph.output:
        info = result.graph.output.add(name=output.name, type=copy_of(output.type))
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    made = {name for node in model.graph.node for name in node.output}
    inner = made.intersection(wanted) - {output.name for output in model.graph.output}
    result.graph.output.extend(ValueInfoProto(name=name) for name in sorted(inner))
    return result


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = _FATAL
    return options


def _type(dtype: str, shape: Sequence[int | str | None]) -> TypeProto:
    """A type with numbers, names, and open dimensions."""
    kind = TypeProto()
    kind.tensor_type.elem_type = _ELEMENTS[dtype]
    kind.tensor_type.shape.SetInParent()
    for length in shape:
        dim = kind.tensor_type.shape.dim.add()
        if isinstance(length, str):
            dim.dim_param = length
        elif length is not None and length >= 0:
            dim.dim_value = length
    return kind


_ELEMENTS = {dtype_name(element): element for element in TensorProto.DataType.values() if element}
