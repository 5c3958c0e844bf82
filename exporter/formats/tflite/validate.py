"""Check indices and sizes that the flatbuffer verifier does not compare with each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite.constants import is_dense, stored_bytes, type_name
from exporter.formats.tflite.schema import SAVE_AGAIN, integers

_MAX_COMPUTED_AXIS = 2**26  # the trace has a tuple with an entry for each position of an axis


def check_bounds(model: Any, name: str) -> None:
    """Check that every index refers to something, and that every constant has its stated size.

    Raises:
        ModelError: names the file and the defect.
    """
    if not model.subgraphs:
        raise ModelError(f"{name} has no subgraph", SAVE_AGAIN)
    buffers = model.buffers or []
    _check(name, "a buffer", [entry.buffer for entry in model.metadata or ()], len(buffers))
    _check(name, "a buffer", integers(model.metadataBuffer), len(buffers))
    for subgraph in model.subgraphs:
        _check_subgraph(model, subgraph, name)
    for signature in model.signatureDefs or ():
        _check(name, "a subgraph", [signature.subgraphIndex], len(model.subgraphs))
        ends = [*(signature.inputs or ()), *(signature.outputs or ())]
        tensors = model.subgraphs[signature.subgraphIndex].tensors or ()
        _check(name, "a tensor", [end.tensorIndex for end in ends], len(tensors))


def _check_subgraph(model: Any, subgraph: Any, name: str) -> None:
    tensors = subgraph.tensors or []
    ends = [*integers(subgraph.inputs), *integers(subgraph.outputs)]
    for operator in subgraph.operators or ():
        _check(name, "an operator code", [operator.opcodeIndex], len(model.operatorCodes or ()))
        ends += integers(operator.outputs)
        left_out = -1  # an input or intermediate result that an operator does without
        read = (*integers(operator.inputs), *integers(operator.intermediates))
        ends += [index for index in read if index != left_out]
    _check(name, "a tensor", ends, len(tensors))
    _check(name, "a buffer", [tensor.buffer for tensor in tensors], len(model.buffers or ()))
    for tensor in tensors:
        _check_tensor(tensor, model.buffers[tensor.buffer].data, name)


def _check_tensor(tensor: Any, data: Any, name: str) -> None:
    if tensor.externalBuffer:
        raise ModelError(
            f"{name} keeps its weights in another file, which is not supported",
            "convert the model again with its weights inside",
        )
    shape = integers(tensor.shape)
    _check_scales(tensor.quantization, shape, name)
    longest = max([*shape, *integers(tensor.shapeSignature)], default=0)
    if data is None or not len(data):
        if longest > _MAX_COMPUTED_AXIS:
            raise ModelError(
                f"{name} is damaged: a computed tensor has an axis of {longest}", SAVE_AGAIN
            )
    elif is_dense(tensor):
        count = int(np.prod(shape, dtype=object))
        if min(shape, default=0) < 0 or stored_bytes(tensor, count) != len(data):
            raise ModelError(
                f"{name} is damaged: a {type_name(tensor)} tensor of shape {shape} has "
                f"{len(data)} bytes",
                SAVE_AGAIN,
            )


def _check_scales(quantization: Any, shape: list[int], name: str) -> None:
    """Scales are one for the tensor, or one for each channel; so are zero points."""
    scales = 0 if quantization is None else _length(quantization.scale)
    if not scales or quantization.detailsType:
        return
    zero_points, axis = _length(quantization.zeroPoint), quantization.quantizedDimension
    channels = shape[axis] if 0 <= axis < len(shape) else (1 if axis >= 0 and not shape else None)
    if channels is None or scales not in {1, channels} or zero_points not in {0, scales}:
        raise ModelError(
            f"{name} is damaged: {scales} scales and {zero_points} zero points do not fit a tensor "
            f"of shape {shape}",
            SAVE_AGAIN,
        )


def _length(values: Any) -> int:
    return 0 if values is None else len(values)


def _check(name: str, item: str, indices: Iterable[int], count: int) -> None:
    for index in indices:
        if not 0 <= index < count:
            raise ModelError(
                f"{name} is damaged: it refers to {item} that does not exist", SAVE_AGAIN
            )
