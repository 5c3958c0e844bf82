"""Integer inputs and outputs of a QDQ model: the quantization at its ends is left to who feeds it.

onnxruntime quantizes between float ends. Where an input goes, perhaps moved about, into one
QuantizeLinear, that node can go and the input be codes; likewise an output that a DequantizeLinear
makes. The scale and zero point stand in the graph's quantization annotations.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from exporter.errors import ModelError

_MOVING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def with_integer_ends(model: ModelProto, name: str) -> ModelProto:
    """Change the model, which is the caller's own, so that its float ends are codes.

    Raises:
        ModelError: a float input or output has no codes.
    """
    for info in model.graph.input:
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            _open_input(model, info, name)
    for info in model.graph.output:
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            _open_output(model, info, name)
    return model


def _open_input(model: ModelProto, info: ValueInfoProto, name: str) -> None:
    moved, quantize = _way(model, info.name)
    if quantize is None:
        raise _no_codes(name, "input", info.name)
    _annotate(model, info, quantize)
    codes, last = quantize.output[0], (moved[-1].output[0] if moved else info.name)
    _remove(model, quantize)
    for node in model.graph.node:
        for slot, read in enumerate(node.input):
            if read == codes:
                node.input[slot] = last
    _forget(model, {codes, *(each.output[0] for each in moved)})


def _way(model: ModelProto, start: str) -> tuple[list[NodeProto], NodeProto | None]:
    """The nodes that move an input about, and the QuantizeLinear that they end in."""
    moved: list[NodeProto] = []
    while True:
        readers = [node for node in model.graph.node if start in node.input]
        if len(readers) != 1:
            return moved, None
        (node,) = readers
        if node.op_type == "QuantizeLinear":
            return moved, node
        if node.op_type not in _MOVING or node.input[0] != start:
            return moved, None
        moved.append(node)
        start = node.output[0]


def _open_output(model: ModelProto, info: ValueInfoProto, name: str) -> None:
    makers = {node.output[0]: node for node in model.graph.node}
    dequantize = makers.get(info.name)
    quantize = makers.get(dequantize.input[0]) if dequantize else None
    if dequantize is None or quantize is None or quantize.op_type != "QuantizeLinear":
        raise _no_codes(name, "output", info.name)
    _annotate(model, info, quantize)
    codes = dequantize.input[0]
    _remove(model, dequantize)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for slot, each in enumerate(names):
                if each == codes:
                    names[slot] = info.name
    _forget(model, {codes})


def _annotate(model: ModelProto, info: ValueInfoProto, quantize: NodeProto) -> None:
    """State the type of the codes, and where their scale and zero point stand."""
    point = next(t for t in model.graph.initializer if t.name == quantize.input[2])
    info.type.tensor_type.elem_type = point.data_type
    for other in list(model.graph.quantization_annotation):
        if other.tensor_name == info.name:
            model.graph.quantization_annotation.remove(other)
    annotation = model.graph.quantization_annotation.add(tensor_name=info.name)
    for key, name in (("SCALE_TENSOR", quantize.input[1]), ("ZERO_POINT_TENSOR", point.name)):
        annotation.quant_parameter_tensor_names.add(key=key, value=name)


def _remove(model: ModelProto, node: NodeProto) -> None:
    model.graph.node.remove(node)


def _forget(model: ModelProto, names: set[str]) -> None:
    """What the file states of tensors that are codes now, or gone."""
    kept = [info for info in model.graph.value_info if info.name not in names]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def _no_codes(model: str, end: str, name: str) -> ModelError:
    return ModelError(
        f"the {end} {name!r} of {model} stays float: no quantization stands behind it"
        if end == "input"
        else f"the {end} {name!r} of {model} stays float: no dequantization makes it",
        "leave out --integer-io",
    )
