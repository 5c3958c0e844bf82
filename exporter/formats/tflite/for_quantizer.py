"""Prepare a file for litert-quantizer, and restore what the quantizer drops."""

from __future__ import annotations

from exporter.formats.tflite import schema
from exporter.formats.tflite.apply import REMAP
from exporter.formats.tflite.detach_outputs import detach_outputs
from exporter.formats.tflite.draw import draw
from exporter.formats.tflite.model import TfliteModel
from exporter.formats.tflite.pack import pack


def prepared(model: TfliteModel) -> tuple[bytes, str]:
    """The flatbuffer without the archive, in the form that the quantizer handles correctly.

    It has a signature, operator codes in the new field, and outputs that no operator reads.

    Returns:
        The bytes, and the key of a signature whose inputs and outputs have the graph's names.
    """
    file = schema.unpack(model.content)
    schema.bring_inside(file, model.content, model.name)
    for code in file.model.operatorCodes:
        code.builtinCode = schema.builtin_code(code)
    if not schema.signatures(file.model):
        drawing = draw(file)
        schema.add_signature(file.model, drawing.inputs.items(), drawing.outputs.items())
    detach_outputs(file.model)
    file.tail = b""
    key = schema.text(schema.signatures(file.model)[0].signatureKey)
    return pack(file, model.name), key


def restored(made: bytes, model: TfliteModel) -> bytes:
    """The quantized flatbuffer with the original's archive and remap.

    Buffers that the quantizer wrote after the flatbuffer are moved inside.
    """
    original = schema.unpack(model.content)
    file = schema.unpack(made)
    schema.bring_inside(file, made, model.name)
    file.tail, file.tail_start = original.tail, original.tail_start
    if model.remap is not None:
        schema.set_metadata(file.model, REMAP, model.remap.to_json(short=True).encode())
    return pack(file, model.name)
