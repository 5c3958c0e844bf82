"""Variables that hold a constant: converters write weights that way if they are not frozen.

An initialization subgraph, which CALL_ONCE runs, assigns the constant; READ_VARIABLE reads it.
While a file is open, such reads are constants of the subgraph that reads them, so that they are cut
and written as all other constants are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from exporter.formats.tflite.layout import enumeration
from exporter.formats.tflite.schema import File, builtin_code, integers, operator_name, text

_ASSIGN = enumeration("BuiltinOperator")["ASSIGN_VARIABLE"]
_Key = tuple[str, str]  # container and name of a variable


def fold_variables(file: File) -> None:
    """Turn each read of a variable that always holds one constant into that constant."""
    if _ASSIGN not in map(builtin_code, file.model.operatorCodes):
        return
    values = {key: each for key, each in _constants(file).items() if each is not None}
    if not values:
        return
    for subgraph in file.model.subgraphs:
        handles = dict(_handles(file, subgraph))
        read = _named(file, subgraph, "READ_VARIABLE")
        folded = [each for each in read if handles.get(int(each.inputs[0])) in values]
        for operator in folded:
            source = values[handles[int(operator.inputs[0])]]
            target = subgraph.tensors[int(operator.outputs[0])]
            target.buffer, target.shape, target.type = source.buffer, source.shape, source.type
            target.shapeSignature, target.quantization = None, source.quantization
        assigned = [
            each
            for each in _named(file, subgraph, "ASSIGN_VARIABLE")
            if handles.get(int(each.inputs[0])) in values
        ]
        _remove(subgraph, [*folded, *assigned])
        _remove(
            subgraph,
            [each for each in _named(file, subgraph, "VAR_HANDLE") if _unread(subgraph, each)],
        )
    for subgraph in file.model.subgraphs:
        calls = _named(file, subgraph, "CALL_ONCE")
        empty = [c for c in calls if not file.model.subgraphs[_initializer(c)].operators]
        for call in empty:
            _drop_values(file.model.subgraphs[_initializer(call)])
        _remove(subgraph, empty)


def _constants(file: File) -> dict[_Key, Any]:
    """Variable -> the constant tensor that is assigned to it; None if other values are too."""
    initializers = {
        _initializer(call)
        for subgraph in file.model.subgraphs
        for call in _named(file, subgraph, "CALL_ONCE")
    }
    found: dict[_Key, Any] = {}
    for index, subgraph in enumerate(file.model.subgraphs):
        handles = dict(_handles(file, subgraph))
        for operator in _named(file, subgraph, "ASSIGN_VARIABLE"):
            key = handles.get(int(operator.inputs[0]))
            value = subgraph.tensors[int(operator.inputs[1])]
            data = file.model.buffers[value.buffer].data
            is_constant = data is not None and len(data) and index in initializers
            if key is not None:
                found[key] = value if is_constant and key not in found else None
    return found


def _handles(file: File, subgraph: Any) -> Iterator[tuple[int, _Key]]:
    """Index of a tensor with a handle -> its variable."""
    for operator in _named(file, subgraph, "VAR_HANDLE"):
        options = operator.builtinOptions
        yield int(operator.outputs[0]), (text(options.container), text(options.sharedName))


def _named(file: File, subgraph: Any, name: str) -> list[Any]:
    operators = subgraph.operators or ()
    return [each for each in operators if operator_name(file.model, each) == name]


def _initializer(call: Any) -> int:
    return int(call.builtinOptions.initSubgraphIndex)


def _unread(subgraph: Any, operator: Any) -> bool:
    read = {i for each in subgraph.operators for i in integers(each.inputs)}
    return read.isdisjoint(integers(operator.outputs))


def _remove(subgraph: Any, operators: list[Any]) -> None:
    removed = set(map(id, operators))
    subgraph.operators = [each for each in subgraph.operators or () if id(each) not in removed]


def _drop_values(subgraph: Any) -> None:
    """Let an initialization that is not called any more keep no weights in the file."""
    for tensor in subgraph.tensors or ():
        tensor.buffer, tensor.shape = 0, np.ones(1, np.int32)
        tensor.shapeSignature = tensor.quantization = None
