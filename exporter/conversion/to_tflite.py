"""Convert Keras models and SavedModels to TFLite with TensorFlow's converter.

1. The model is traced with a fixed batch. The converter gets only the traced function: given the
   model too, or a SavedModel, it stores the weights as resource variables (READ_VARIABLE).
2. The result is refused if it contains operators that are not builtin.
3. From a function the converter writes no signature, and TensorFlow's names: both are fixed in the
   flatbuffer.
4. A large head takes the converter minutes and many times its size in memory: the converter gets a
   stub, and the original weights are written afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from exporter.conversion.freeze_savedmodel import trace_frozen
from exporter.conversion.graft import graft_for
from exporter.conversion.options import ConvertOptions
from exporter.conversion.remote import Conversion
from exporter.conversion.signature import AnyModel, Signature, in_float32, signature_of
from exporter.errors import ConversionError, ExporterError, UsageError, first_line
from exporter.formats.keras.large_head_model import LargeHeadModel
from exporter.formats.keras.model import KerasModel
from exporter.formats.keras.stub import Stub, stub_of
from exporter.formats.savedmodel.model import SavedModel
from exporter.formats.tflite.apply import apply_plan
from exporter.formats.tflite.draw import draw
from exporter.formats.tflite.editor import set_shape
from exporter.formats.tflite.pack import write
from exporter.formats.tflite.schema import (
    File,
    add_signature,
    operator_name,
    operators,
    text,
    unpack,
)

ROUTE = "TFLiteConverter"
_RESOURCES = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"}
_UNKNOWN_OPERATOR = re.compile(r"'(tf\.\w+)' op is neither a custom op nor a flex op")


def convert(
    model: AnyModel | LargeHeadModel, path: Path, options: ConvertOptions | None = None
) -> Conversion:
    """Write a model as TFLite with a fixed batch.

    Args:
        options: `opset` has no effect here.

    Raises:
        UsageError: a dimension other than the batch is open and no shape is given, or the shapes
            do not fit.
        ConversionError: the converter failed, or needs operators that are not builtin.
    """
    options = options or ConvertOptions()
    stub, failure = _stub(model, options.large_head_bytes), list[str]()
    if stub is not None:
        file, warnings = _converted(stub.model, options)
        try:
            write(_graft(file, stub), path.name, path)
        except ExporterError as error:
            failure = [f"the large head went through the converter, which is slow: {error.message}"]
        else:
            about_head = [model.warning()] if isinstance(model, LargeHeadModel) else []
            return Conversion(path, f"{ROUTE}; {stub.description()}", (*warnings, *about_head))
    whole = model.built() if isinstance(model, LargeHeadModel) else model
    file, warnings = _converted(whole, options)
    write(file, path.name, path)
    return Conversion(path, ROUTE, (*warnings, *failure))


def _stub(model: AnyModel | LargeHeadModel, large_head_bytes: int) -> Stub | None:
    if isinstance(model, LargeHeadModel):
        return model.stub
    return stub_of(model, large_head_bytes) if isinstance(model, KerasModel) else None


def _graft(file: File, stub: Stub) -> File:
    """Replace the head of a converted stub by the original one, in place.

    The weights are views of the stub's, which are read only when the file is written.

    Raises:
        ConversionError: the head cannot be found, or the converter changed it.
    """
    drawing = draw(file)
    graft = graft_for(drawing.graph, stub)
    apply_plan(file, drawing, graft.plan)
    for constant, values in graft.weights.items():
        tensor = file.main.tensors[drawing.tensors[constant]]
        set_shape(tensor, values.shape)
        file.model.buffers[tensor.buffer].data = values
    return file


def _converted(model: AnyModel, options: ConvertOptions) -> tuple[File, tuple[str, ...]]:
    """The converted file, and warnings."""
    whole, warnings = in_float32(model)
    signature = signature_of(whole, options.input_shapes, options.batch)
    _check_no_open_dimension(signature)
    if isinstance(whole, SavedModel):
        function = trace_frozen(signature).concrete()
        _refuse_half(function)
        content = _run_converter(function, one_sample=options.batch == 1)
    else:
        traced = tf.function(signature.call, input_signature=signature.specs())
        content = _run_converter(traced.get_concrete_function())
    file = unpack(content)
    _check_operators(file)
    _set_names(file, signature)
    return file, warnings


def _check_no_open_dimension(signature: Signature) -> None:
    for name, (known, _) in signature.inputs.items():
        shape = known or ()
        if None in shape:
            example = ",".join("1" if axis == 0 else str(n or 16) for axis, n in enumerate(shape))
            raise UsageError(
                f"dimension {shape.index(None)} of the input {name!r} is open, and TFLite needs "
                "its length",
                f"give it, for example --input-shape {name}={example}",
            )


def _refuse_half(function: Any) -> None:
    """A SavedModel in half precision cannot be rebuilt in float32, as layers can."""
    operations = function.graph.get_operations()
    if {tf.float16, tf.bfloat16} & {end.dtype for each in operations for end in each.outputs}:
        raise ConversionError(
            "a part of the model computes in half precision, which TFLite's builtin operators "
            "cannot",
            "convert to onnx instead, or export the model with layers of float32",
        )


def _run_converter(function: Any, *, one_sample: bool = False) -> bytes:
    """Convert a function; with `one_sample`, loops traced with an open batch get a batch of 1."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if one_sample:
        converter._experimental_default_to_single_batch_in_tensor_list_ops = True  # noqa: SLF001
    try:
        return bytes(converter.convert())
    except tf.errors.OpError as error:
        raise ConversionError(f"TensorFlow's converter failed: {first_line(error)}") from error
    except Exception as error:
        if type(error).__name__ != "ConverterError":  # its class is not public
            raise
        unknown = sorted(set(_UNKNOWN_OPERATOR.findall(str(error))))
        if not unknown:
            raise ConversionError(f"TensorFlow's converter failed: {first_line(error)}") from error
        raise ConversionError(
            f"TFLite's builtin operators cannot express {', '.join(unknown)}, and LiteRT runs only "
            "builtin operators",
            "convert to onnx instead, or replace the layer that needs it",
        ) from error


def _check_operators(file: File) -> None:
    for operator in operators(file.model):
        name = operator_name(file.model, operator)
        code = file.model.operatorCodes[operator.opcodeIndex]
        if name in _RESOURCES or code.customCode:
            raise ConversionError(f"the converter wrote {name}, which is not a builtin operator")


def _set_names(file: File, signature: Signature) -> None:
    """Give inputs, outputs and the signature the Keras names."""
    main = file.main
    inputs = _tensors_by_name(file, main.inputs, r"input_(\d+)", tuple(signature.inputs))
    outputs = _tensors_by_name(file, main.outputs, r"Identity(?:_(\d+))?", tuple(signature.outputs))
    names = {index: name for name, index in (*inputs, *outputs)}
    taken = set(names.values())
    for index, tensor in enumerate(main.tensors):
        name = text(tensor.name)
        while index not in names and name in taken:
            name += "_"
        tensor.name = names.get(index, name)
    file.model.signatureDefs = None
    add_signature(file.model, inputs, outputs)


def _tensors_by_name(
    file: File, indices: Any, pattern: str, names: Sequence[str]
) -> list[tuple[str, int]]:
    """(Keras name, tensor) of each input or output.

    The converter may change their order, but the pattern finds their number in its names.
    """
    found: dict[int, int] = {}
    for index in map(int, indices):
        name = text(file.main.tensors[index].name)
        match = re.fullmatch(pattern + r"(?::0)?", name)
        if match is None:
            raise ConversionError(f"the converter wrote {name!r} as an input or output")
        found[int(match[1] or 0)] = index
    if sorted(found) != list(range(len(names))):
        raise ConversionError(
            f"the converter wrote {len(found)} inputs or outputs, not {len(names)}"
        )
    return [(name, found[i]) for i, name in enumerate(names)]
