"""Outputs that the model reads too, given a tensor of their own.

litert-quantizer makes such an output real for its readers inside as well, and leaves these with
integer kernels that take the real values for codes; a signature goes on to name the codes, whose
memory others use by then.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as generated

from exporter.formats.tflite.schema import text

_RESHAPE = int(generated.BuiltinOperator.RESHAPE)


def set_apart(model: Any) -> None:
    """Let each such output be returned behind a RESHAPE to its own shape, under its own name.

    One of whose lengths more than one is open stays as it is.
    """
    for number, subgraph in enumerate(model.subgraphs):
        subgraph.outputs = np.array(
            subgraph.outputs, np.int32
        )  # what was read cannot be written to
        read = {int(index) for operator in subgraph.operators for index in operator.inputs}
        for place, index in enumerate(subgraph.outputs):
            lengths = _lengths(subgraph.tensors[index])
            if int(index) in read and (lengths == -1).sum() <= 1:
                made = _returned(model, subgraph, int(index), lengths)
                subgraph.outputs[place] = made
                _name(model, number, int(index), made)


def _lengths(tensor: Any) -> Any:
    known = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return np.asarray([] if known is None else known, np.int32)


def _returned(model: Any, subgraph: Any, index: int, lengths: Any) -> int:
    """The index of the tensor that is returned; it takes over the name."""
    inner, target = subgraph.tensors[index], np.asarray(lengths, np.int32)
    own = copy(inner)
    name = text(inner.name)
    inner.name = f"{name}/inside"
    held = generated.BufferT(data=np.frombuffer(target.tobytes(), np.uint8))
    model.buffers = [*model.buffers, held]
    shape = generated.TensorT(
        shape=np.array([len(target)], np.int32),
        type=generated.TensorType.INT32,
        buffer=len(model.buffers) - 1,
        name=f"{name}/shape",
    )
    subgraph.tensors = [*subgraph.tensors, own, shape]
    made = len(subgraph.tensors) - 2
    operator = generated.OperatorT(
        opcodeIndex=_code(model),
        inputs=np.array([index, made + 1], np.int32),
        outputs=np.array([made], np.int32),
        builtinOptionsType=generated.BuiltinOptions.ReshapeOptions,
        builtinOptions=generated.ReshapeOptionsT(newShape=target),
    )
    subgraph.operators = [*subgraph.operators, operator]
    return made


def _code(model: Any) -> int:
    codes = list(model.operatorCodes)
    for index, code in enumerate(codes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == _RESHAPE and code.version == 1:
            return index
    model.operatorCodes = [*codes, generated.OperatorCodeT(_RESHAPE, None, 1, _RESHAPE)]
    return len(codes)


def _name(model: Any, number: int, before: int, now: int) -> None:
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == number:
            for entry in signature.outputs:
                if entry.tensorIndex == before:
                    entry.tensorIndex = now
