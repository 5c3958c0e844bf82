"""Give a stub in a converted ONNX graph its whole head back."""

from __future__ import annotations

from onnx import ModelProto, TensorProto

from exporter.conversion.graft import graft_for
from exporter.formats.keras.stub import Stub
from exporter.formats.onnx.apply import apply_plan
from exporter.formats.onnx.draw import draw
from exporter.formats.onnx.external_data import ExternalData


def graft(converted: ModelProto, outside: ExternalData, stub: Stub) -> ModelProto:
    """The whole model.

    Args:
        converted: the stub's graph.
        outside: holds its large constants, and is given the whole weights.
        stub: what was converted.

    Raises:
        ConversionError: the head is not to be found, or was changed.
    """
    drawing = draw(converted, outside.read)
    found = graft_for(drawing.graph, stub)
    made = apply_plan(converted, drawing, found.plan)
    kept: list[TensorProto] = []
    for tensor in made.graph.initializer:
        values = found.weights.get(tensor.name)
        if values is None:
            kept.append(TensorProto.FromString(tensor.SerializeToString()))
        else:
            kept.append(outside.add_array(tensor.name, values))
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    made.graph.ClearField("value_info")
    return made
