"""Quantize the inputs and outputs of a QDQ model: its callers then quantize and dequantize.

onnxruntime keeps them float. If an input goes into one QuantizeLinear, perhaps through a Reshape or
the like, that node can be removed and the input be integer; likewise an output that a
DequantizeLinear computes. Scale and zero point go into the graph's quantization annotations.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import count

from onnx import ModelProto, NodeProto, ValueInfoProto

from exporter.quantization.interface import stays_float

_MOVING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def quantize_io(model: ModelProto, ends: Container[str], name: str) -> None:
    """Change the model so that these float inputs and outputs are quantized.

    Raises:
        ModelError: an input is not quantized, or an output not dequantized, by the model.
    """
    for info in model.graph.input:
        if info.name in ends:
            _quantize_input(model, info, name)
    for info in model.graph.output:
        if info.name in ends:
            _quantize_output(model, info, name)


def _quantize_input(model: ModelProto, info: ValueInfoProto, name: str) -> None:
    moving, quantize = _to_quantize(model, info.name)
    if quantize is None:
        raise stays_float(f"input {info.name!r} of {name}", "no QuantizeLinear follows it")
    _annotate(model, info, quantize)
    quantized, last = quantize.output[0], (moving[-1].output[0] if moving else info.name)
    model.graph.node.remove(quantize)
    for node in model.graph.node:
        for slot, read in enumerate(node.input):
            if read == quantized:
                node.input[slot] = last
    _remove_types(model, {quantized, *(each.output[0] for each in moving)})


def _to_quantize(model: ModelProto, start: str) -> tuple[list[NodeProto], NodeProto | None]:
    """The nodes that only move an input's values, and the QuantizeLinear after them."""
    moving: list[NodeProto] = []
    while True:
        consumers = [node for node in model.graph.node if start in node.input]
        if len(consumers) != 1:
            return moving, None
        (node,) = consumers
        if node.op_type == "QuantizeLinear":
            return moving, node
        if node.op_type not in _MOVING or node.input[0] != start:
            return moving, None
        moving.append(node)
        start = node.output[0]


def _quantize_output(model: ModelProto, info: ValueInfoProto, name: str) -> None:
    producers = {node.output[0]: node for node in model.graph.node}
    dequantize = producers.get(info.name)
    quantize = producers.get(dequantize.input[0]) if dequantize else None
    if dequantize is None or quantize is None or quantize.op_type != "QuantizeLinear":
        raise stays_float(f"output {info.name!r} of {name}", "no DequantizeLinear computes it")
    _annotate(model, info, quantize)
    quantized = dequantize.input[0]
    if any(info.name in node.input for node in model.graph.node):
        real = _new_name(model, f"{info.name}_real")  # other operators go on reading real values
        _rename(model, info.name, real)
    else:
        model.graph.node.remove(dequantize)
    _rename(model, quantized, info.name)
    _remove_types(model, {quantized})


def _rename(model: ModelProto, old: str, new: str) -> None:
    """Rename a tensor in the nodes that compute and read it."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for slot, each in enumerate(names):
                if each == old:
                    names[slot] = new


def _new_name(model: ModelProto, wanted: str) -> str:
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    return next(name for name in (wanted + "_" * i for i in count()) if name not in taken)


def _annotate(model: ModelProto, info: ValueInfoProto, quantize: NodeProto) -> None:
    """State the integer type, and the names of scale and zero point."""
    point = next(t for t in model.graph.initializer if t.name == quantize.input[2])
    info.type.tensor_type.elem_type = point.data_type
    for other in list(model.graph.quantization_annotation):
        if other.tensor_name == info.name:
            model.graph.quantization_annotation.remove(other)
    annotation = model.graph.quantization_annotation.add(tensor_name=info.name)
    for key, name in (("SCALE_TENSOR", quantize.input[1]), ("ZERO_POINT_TENSOR", point.name)):
        annotation.quant_parameter_tensor_names.add(key=key, value=name)


def _remove_types(model: ModelProto, names: set[str]) -> None:
    """Remove the stated types of tensors that are quantized now, or removed."""
    remaining = [info for info in model.graph.value_info if info.name not in names]
    del model.graph.value_info[:]
    model.graph.value_info.extend(remaining)
