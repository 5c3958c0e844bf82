"""Files whose inputs leave more open than the batch, such as the height and width of a picture.

Where the units stand does not depend on such lengths, but following them through reshapes does. If
a file shows no head as it is, it is drawn as it would be for one size of input. That picture is
only looked at: what is written leaves open what was open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnx import ModelProto, TypeProto

from exporter.models.onnx.constants import Read
from exporter.models.onnx.draw import Drawing, draw
from exporter.models.onnx.protos import set_shape, shape_of
from exporter.trace import trace

_LENGTH = 96  # halves five times over, and gives a detector other numbers of boxes than of classes


def draw_traceable(model: ModelProto, read: Read) -> Drawing:
    """`draw`, for one size of input where only that shows a head (raises as `draw` does)."""
    drawing = draw(model, read)
    graph = drawing.graph
    if not any(None in (graph.tensors[name].shape or ())[1:] for name in graph.inputs):
        return drawing
    if trace(graph).heads:
        return drawing
    closed = draw(model, read, _LENGTH)
    if not trace(closed.graph).heads:
        return drawing
    inputs = {name: graph.tensors[name] for name in graph.inputs}
    shown = replace(closed.graph, tensors={**closed.graph.tensors, **inputs}, one_size=True)
    return Drawing(shown, drawing.names, _open(drawing.types, closed.types))


def _open(
    types: Mapping[str, TypeProto], closed: Mapping[str, TypeProto]
) -> Mapping[str, TypeProto]:
    """The types as they are; where not even the rank was known, the other's, every length open."""
    result = dict(types)
    for name, kind in closed.items():
        shape = shape_of(kind)
        if shape is not None and shape_of(types.get(name)) is None:
            result[name] = TypeProto()
            result[name].CopyFrom(kind)
            set_shape(result[name], (None,) * len(shape))
    return result
