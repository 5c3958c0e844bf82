"""Files as today's tools expect them, and what such tools lose put back."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as generated

from exporter.formats.tflite import schema
from exporter.formats.tflite.apply import REMAP
from exporter.formats.tflite.detach_outputs import set_apart
from exporter.formats.tflite.draw import draw, signatures
from exporter.formats.tflite.model import TfliteModel
from exporter.formats.tflite.schema import set_metadata, text


def modernized(model: TfliteModel) -> tuple[bytes, str]:
    """The flatbuffer alone, with a signature, with operator codes in the field of today, and with
    outputs that nothing inside reads.

    Returns:
        The bytes, and the key of the signature that names the inputs and outputs as the model's
        graph does.
    """
    file = schema.unpack(model.content)
    schema.bring_inside(file, model.content, model.name)
    for code in file.model.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    if not signatures(file.model):
        picture = draw(file)
        ends = (
            [generated.TensorMapT(name=name, tensorIndex=index) for name, index in named.items()]
            for named in (picture.inputs, picture.outputs)
        )
        signature = generated.SignatureDefT(*ends, signatureKey="serving_default")
        file.model.signatureDefs = [*(file.model.signatureDefs or ()), signature]
    set_apart(file.model)
    file.tail = b""
    return schema.pack(file, model.name), text(signatures(file.model)[0].signatureKey)


def following(made: bytes, model: TfliteModel) -> bytes:
    """What another tool made of a model, with the model's archive behind it and its remap inside.

    Buffers that the tool wrote behind the flatbuffer come inside.
    """
    before = schema.unpack(model.content)
    file = schema.unpack(made)
    schema.bring_inside(file, made, model.name)
    file.tail, file.tail_start = before.tail, before.tail_start
    if model.remap is not None:
        set_metadata(file.model, REMAP, model.remap.to_json().encode())
    return schema.pack(file, model.name)
