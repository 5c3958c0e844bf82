"""Give an output that operators read too a tensor that nothing reads.

litert-quantizer makes such an output real for these operators too, but leaves them integer kernels,
which read the real values as quantized ones. A signature goes on to name the quantized tensor,
whose memory is reused by then.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from exporter.formats.tflite.layout import enumeration
from exporter.formats.tflite.record import Record
from exporter.formats.tflite.schema import integers, operator_code, text

_RESHAPE = enumeration("BuiltinOperator")["RESHAPE"]


def detach_outputs(model: Any) -> None:
    """Return each such output through a RESHAPE to the same shape, under the same name.

    An output with several open dimensions is not changed: RESHAPE allows one.
    """
    for number, subgraph in enumerate(model.subgraphs):
        outputs = integers(subgraph.outputs)
        read = {index for operator in subgraph.operators for index in integers(operator.inputs)}
        for i, index in enumerate(outputs):
            tensor = subgraph.tensors[index]
            shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
            target = np.array(integers(shape), np.int32)
            if index in read and (target == -1).sum() <= 1:
                outputs[i] = _reshaped(model, subgraph, index, target)
                _rename(model, number, index, outputs[i])
        subgraph.outputs = np.array(outputs, np.int32)


def _reshaped(model: Any, subgraph: Any, index: int, target: Any) -> int:
    """The index of the tensor that is returned; it takes over the name."""
    inner = subgraph.tensors[index]
    returned = copy(inner)
    name = text(inner.name)
    inner.name = f"{name}/inside"
    model.buffers = [
        *model.buffers,
        Record("Buffer", data=np.frombuffer(target.tobytes(), np.uint8)),
    ]
    shape = Record(
        "Tensor",
        shape=np.array([len(target)], np.int32),
        type=enumeration("TensorType")["INT32"],
        buffer=len(model.buffers) - 1,
        name=f"{name}/shape",
    )
    subgraph.tensors = [*subgraph.tensors, returned, shape]
    result = len(subgraph.tensors) - 2
    operator = Record(
        "Operator",
        opcodeIndex=operator_code(model, _RESHAPE, 1),
        inputs=np.array([index, result + 1], np.int32),
        outputs=np.array([result], np.int32),
        builtinOptionsType=enumeration("BuiltinOptions")["ReshapeOptions"],
        builtinOptions=Record("ReshapeOptions", newShape=target),
    )
    subgraph.operators = [*subgraph.operators, operator]
    return result


def _rename(model: Any, subgraph: int, index: int, replacement: int) -> None:
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == subgraph:
            for output in signature.outputs:
                if output.tensorIndex == index:
                    output.tensorIndex = replacement
