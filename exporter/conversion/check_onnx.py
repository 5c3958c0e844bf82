"""Is a converted ONNX graph one that every runtime of its opset knows?"""

from __future__ import annotations

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs, helper

from exporter.conversion.canonical import every_node
from exporter.errors import ConversionError
from exporter.formats.onnx.protos import DEFAULT_DOMAINS, copy_without, opset_of


def check_standard(converted: ModelProto) -> None:
    """Refuse what runtimes do not know; ConversionError names the operator."""
    opset = opset_of(converted)
    for node in every_node(converted.graph):
        if not _exists(node, opset):
            raise ConversionError(
                f"tf2onnx wrote the operator {node.op_type}"
                f"{f' of the domain {node.domain}' if node.domain else ''}, which is not in "
                f"ONNX opset {opset}",
                "convert to tflite instead, or replace the layer that needs it",
            )
    try:
        onnx.checker.check_model(_without_weights_beside(converted), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ConversionError(f"tf2onnx wrote an invalid graph: {line}") from error
    except ValueError as error:  # protobuf's limit
        raise ConversionError(f"the ONNX model would be larger than 2 GB: {error}") from error


def _without_weights_beside(model: ModelProto) -> ModelProto:
    """A model that takes as inputs what lies in other files: the checker would look for them."""
    light = copy_without(model, "graph")
    light.graph.CopyFrom(copy_without(model.graph, "initializer"))
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            _add_input(light.graph, tensor)
        else:
            light.graph.initializer.append(tensor)
    return light


def _add_input(graph: GraphProto, tensor: TensorProto) -> None:
    info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tuple(tensor.dims))
    graph.input.append(info)


def _exists(node: NodeProto, opset: int) -> bool:
    if node.domain not in DEFAULT_DOMAINS:
        return False
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return False
    return not schema.deprecated
