"""Indices and sizes that the flatbuffer verifier does not compare with each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite.constants import is_dense, stored_bytes, type_name

_LONGEST_AXIS = 2**26  # of what is computed; the trace holds a label for each of its positions


def check_bounds(model: Any, name: str) -> None:
    """Does every index of the file point at something, and is every constant as large as it says?

    Raises:
        ModelError: names the file and what is wrong.
    """
    if not model.subgraphs:
        raise ModelError(f"{name} has no subgraph")
    buffers = model.buffers or []
    _each(name, "a buffer", [entry.buffer for entry in model.metadata or ()], len(buffers))
    _each(name, "a buffer", _list(model.metadataBuffer), len(buffers))
    for subgraph in model.subgraphs:
        _check_subgraph(model, subgraph, name)
    for signature in model.signatureDefs or ():
        _each(name, "a subgraph", [signature.subgraphIndex], len(model.subgraphs))
        ends = [*(signature.inputs or ()), *(signature.outputs or ())]
        tensors = model.subgraphs[signature.subgraphIndex].tensors or ()
        _each(name, "a tensor", [end.tensorIndex for end in ends], len(tensors))


def _check_subgraph(model: Any, subgraph: Any, name: str) -> None:
    tensors = subgraph.tensors or []
    _each(name, "a tensor", [*_list(subgraph.inputs), *_list(subgraph.outputs)], len(tensors))
    for operator in subgraph.operators or ():
        _each(name, "an operator code", [operator.opcodeIndex], len(model.operatorCodes or ()))
        _each(name, "a tensor", _list(operator.outputs), len(tensors))
        _each(name, "a tensor", [i for i in _list(operator.inputs) if i != -1], len(tensors))
    for tensor in tensors:
        _each(name, "a buffer", [tensor.buffer], len(model.buffers or ()))
        if tensor.externalBuffer:
            raise ModelError(f"{name} keeps its weights in another file, which is not supported")
        data = model.buffers[tensor.buffer].data
        holds = data is not None and len(data) > 0
        if holds and is_dense(tensor):
            _check_size(tensor, len(data), name)
        longest = max([*_list(tensor.shape), *_list(tensor.shapeSignature)], default=0)
        if not holds and longest > _LONGEST_AXIS:
            raise ModelError(f"{name} is damaged: a computed tensor has an axis of {longest}")


def _check_size(tensor: Any, size: int, name: str) -> None:
    shape = _list(tensor.shape)
    count = int(np.prod([int(n) for n in shape], dtype=object))
    if min(shape, default=0) < 0 or stored_bytes(tensor, count) != size:
        raise ModelError(
            f"{name} is damaged: a {type_name(tensor)} tensor of shape {shape} holds {size} bytes"
        )


def _each(name: str, what: str, indices: Iterable[int], count: int) -> None:
    for index in indices:
        if not 0 <= index < count:
            raise ModelError(f"{name} is damaged: it refers to {what} that does not exist")


def _list(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]
