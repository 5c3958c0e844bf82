"""Quantize the inputs and outputs of a quantized TFLite file: its callers then do it.

litert-quantizer chooses for all inputs together, and for all outputs. It keeps them float here, so
that a QUANTIZE follows an input, and a DEQUANTIZE computes an output. Where that operator is
removed, its integer tensor takes the place and the name of the float one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.formats.tflite import schema as tflite
from exporter.formats.tflite.draw import draw
from exporter.formats.tflite.pack import pack
from exporter.formats.tflite.schema import operator_name
from exporter.quantization.interface import stays_float


def with_integer_ends(content: bytes, ends: frozenset[str], name: str) -> bytes:
    """The file with these inputs and outputs quantized.

    Args:
        content: a file whose buffers are inside the flatbuffer.
        ends: names of float inputs and outputs in the graph.
        name: of the file, for errors.

    Raises:
        ModelError: the file does not quantize an input, or dequantize an output.
    """
    if not ends:
        return content
    file = tflite.unpack(content)
    drawing = draw(file)
    for end, index in drawing.inputs.items():
        if end in ends:
            readers = [op for op in file.main.operators if index in op.inputs]
            if [operator_name(file.model, op) for op in readers] != ["QUANTIZE"]:
                raise stays_float(f"input {end!r} of {name}", "no single QUANTIZE follows it")
            _replace(file, readers[0], index, int(readers[0].outputs[0]))
    for end, index in drawing.outputs.items():
        if end in ends:
            makers = [op for op in file.main.operators if index in op.outputs]
            if [operator_name(file.model, op) for op in makers] != ["DEQUANTIZE"]:
                raise stays_float(f"output {end!r} of {name}", "no DEQUANTIZE computes it")
            _replace(file, makers[0], index, int(makers[0].inputs[0]))
    return pack(file, name)


def _replace(file: tflite.File, operator: Any, old: int, new: int) -> None:
    """Remove an operator between the float and the integer tensor of an input or output."""
    main = file.main
    main.operators.remove(operator)
    main.inputs, main.outputs = (_swapped(ends, old, new) for ends in (main.inputs, main.outputs))
    for signature in tflite.signatures(file.model):
        for end in (*(signature.inputs or ()), *(signature.outputs or ())):
            end.tensorIndex = new if end.tensorIndex == old else end.tensorIndex
    tensors = main.tensors
    tensors[old].name, tensors[new].name = tensors[new].name, tensors[old].name


def _swapped(indices: Any, old: int, new: int) -> Any:
    return np.where(np.equal(indices, old), new, indices).astype(np.int32)
