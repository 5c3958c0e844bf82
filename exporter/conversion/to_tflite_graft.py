"""Give a stub in a converted TFLite file its whole head back."""

from __future__ import annotations

from exporter.conversion.graft import graft_for
from exporter.formats.keras.stub import Stub
from exporter.formats.tflite.apply import apply_plan
from exporter.formats.tflite.draw import draw
from exporter.formats.tflite.editor import set_shape
from exporter.formats.tflite.schema import File


def graft(file: File, stub: Stub) -> File:
    """The whole model; its weights are views of the stub's, which are read when it is written.

    Args:
        file: the converted stub; taken apart for this alone.
        stub: what was converted.

    Raises:
        ConversionError: the head is not to be found, or was changed.
    """
    picture = draw(file)
    found = graft_for(picture.graph, stub)
    apply_plan(file, picture, found.plan)
    for constant, values in found.weights.items():
        tensor = file.main.tensors[picture.tensors[constant]]
        set_shape(tensor, values.shape)
        file.model.buffers[tensor.buffer].data = values
    return file
