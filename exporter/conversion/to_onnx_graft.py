"""Give a stub in a converted ONNX graph its whole head back."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, TensorProto

from exporter.conversion.graft import graft_for
from exporter.conversion.to_onnx_fold import add_beside
from exporter.models.keras.stub import Stub
from exporter.models.onnx.apply import apply_plan
from exporter.models.onnx.draw import draw
from exporter.models.onnx.outside import Outside


def graft(converted: ModelProto, folder: Path, stub: Stub) -> ModelProto:
    """The whole model.

    Args:
        converted: the stub's graph; its large constants may lie in `folder`.
        folder: the whole weights are written there too.
        stub: what was converted.

    Raises:
        ConversionError: the head is not to be found, or was changed.
    """
    drawing = draw(converted, Outside(folder).read)
    found = graft_for(drawing.graph, stub)
    made = apply_plan(converted, drawing, found.plan)
    kept: list[TensorProto] = []
    for tensor in made.graph.initializer:
        values = found.weights.get(tensor.name)
        if values is None:
            kept.append(TensorProto.FromString(tensor.SerializeToString()))
        else:
            kept.append(add_beside(tensor.name, values, folder))
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    made.graph.ClearField("value_info")
    return made
