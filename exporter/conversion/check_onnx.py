"""Check that every runtime of a converted ONNX graph's opset can run it."""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto, TensorProto, defs, helper

from exporter.errors import ConversionError, first_line
from exporter.formats.onnx.protos import DEFAULT_DOMAINS, all_nodes, model_without, opset_of


def check_standard(converted: ModelProto) -> None:
    """Refuse operators that are not standard (ConversionError names the operator)."""
    opset = opset_of(converted)
    for node in all_nodes(converted.graph):
        if not _is_standard(node, opset):
            raise ConversionError(
                f"tf2onnx wrote the operator {node.op_type}"
                f"{f' of the domain {node.domain}' if node.domain else ''}, which is not in "
                f"ONNX opset {opset}",
                "convert to tflite instead, or replace the layer that needs it",
            )
    try:
        onnx.checker.check_model(_without_external_weights(converted), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(f"tf2onnx wrote an invalid graph: {first_line(error)}") from error
    except ValueError as error:  # protobuf's limit
        raise ConversionError(f"the ONNX model would be larger than 2 GB: {error}") from error


def _without_external_weights(model: ModelProto) -> ModelProto:
    """A model with inputs in place of external weights: the checker would look for their files."""
    light = model_without(model, "initializer")
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            shape = tuple(tensor.dims)
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, shape)
            light.graph.input.append(info)
        else:
            light.graph.initializer.append(tensor)
    return light


def _is_standard(node: NodeProto, opset: int) -> bool:
    if node.domain not in DEFAULT_DOMAINS:
        return False
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return False
    return not schema.deprecated
