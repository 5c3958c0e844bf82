"""Keras to TFLite: TensorFlow's converter on the traced model, builtin operators only.

1. The model is traced with a fixed batch. The converter takes the traced function alone: given the
   model too, or a SavedModel, it leaves the weights behind as resource variables (READ_VARIABLE).
2. What it wrote is checked for operators that are not builtin.
3. That way it writes no signature, and TensorFlow's names: both are put right in the flatbuffer.
4. A large head takes the converter minutes and many times its size: it is given a stub, whose whole
   head is grafted afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from exporter.conversion.freeze_savedmodel import trace_frozen
from exporter.conversion.remote import LARGE_HEAD_BYTES
from exporter.conversion.signature import AnyModel, Interface, in_float32, interface_of
from exporter.conversion.to_tflite_graft import graft
from exporter.errors import ConversionError, ExporterError, UsageError
from exporter.formats.keras.large_head_model import WideModel
from exporter.formats.keras.model import KerasModel
from exporter.formats.keras.stub import Stub, stub_of
from exporter.formats.savedmodel.model import SavedModel
from exporter.formats.tflite.draw import operator_name
from exporter.formats.tflite.pack import write
from exporter.formats.tflite.schema import File, add_signature, operators, text, unpack

_RESOURCES = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"}
_UNKNOWN_OPERATOR = re.compile(r"'(tf\.\w+)' op is neither a custom op nor a flex op")


def convert(
    model: AnyModel | WideModel,
    path: Path,
    *,
    opset: int,  # noqa: ARG001 - an ONNX matter
    batch: int,
    input_shapes: Mapping[str, Sequence[int]],
    large_head_bytes: int = LARGE_HEAD_BYTES,
) -> tuple[str, list[str]]:
    """Write a Keras model as TFLite with a fixed batch.

    Returns:
        The route, and warnings.

    Raises:
        UsageError: a dimension other than the batch is open and no shape is given, or the shapes
            do not fit.
        ConversionError: the converter failed, or needs operators that are not builtin.
    """
    stub, told = _stub(model, large_head_bytes), list[str]()
    if stub is not None:
        file, warnings = _converted(stub.model, input_shapes, batch)
        try:
            write(graft(file, stub), path.name, path)
        except ExporterError as error:
            told = [f"the large head went through the converter, which is slow: {error.message}"]
        else:
            told = [model.told()] if isinstance(model, WideModel) else []
            return f"TFLiteConverter; {stub.told()}", [*warnings, *told]
    whole = model.whole() if isinstance(model, WideModel) else model
    file, warnings = _converted(whole, input_shapes, batch)
    write(file, path.name, path)
    return "TFLiteConverter", [*warnings, *told]


def _stub(model: AnyModel | WideModel, large_head_bytes: int) -> Stub | None:
    if isinstance(model, WideModel):
        return model.stub
    return stub_of(model, large_head_bytes) if isinstance(model, KerasModel) else None


def _converted(
    model: AnyModel, input_shapes: Mapping[str, Sequence[int]], batch: int
) -> tuple[File, tuple[str, ...]]:
    whole, warnings = in_float32(model)
    interface = interface_of(whole, input_shapes, batch)
    _check_known(interface)
    if isinstance(whole, SavedModel):
        frozen = trace_frozen(interface).concrete()
        _refuse_half(frozen)
        content = _run_converter(frozen, one_sample=batch == 1)
    else:
        content = _run_converter(_concrete(interface))
    file = unpack(content)
    _check_operators(file)
    _name(file, interface)
    return file, warnings


def _check_known(interface: Interface) -> None:
    for name, shape in zip(interface.input_names, interface.input_shapes, strict=True):
        if None in shape:
            example = ",".join("1" if axis == 0 else str(n or 16) for axis, n in enumerate(shape))
            raise UsageError(
                f"dimension {shape.index(None)} of the input {name!r} is open, and TFLite needs "
                "its length",
                f"give it, for example --input-shape {name}={example}",
            )


def _refuse_half(function: Any) -> None:
    """What was exported in half precision cannot be built anew in float32, as layers can."""
    operations = function.graph.get_operations()
    if {tf.float16, tf.bfloat16} & {end.dtype for each in operations for end in each.outputs}:
        raise ConversionError(
            "a part of the model computes in half precision, which TFLite's builtin operators "
            "do not",
            "convert to onnx instead, or export the model with layers of float32",
        )


def _concrete(interface: Interface) -> Any:
    return tf.function(interface.call, input_signature=interface.specs()).get_concrete_function()


def _run_converter(function: Any, *, one_sample: bool = False) -> bytes:
    """Args: one_sample: loops that were traced with an open batch work on a batch of 1."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if one_sample:
        converter._experimental_default_to_single_batch_in_tensor_list_ops = True  # noqa: SLF001
    try:
        return bytes(converter.convert())
    except tf.errors.OpError as error:
        raise ConversionError(f"TensorFlow's converter failed: {_line(error)}") from error
    except Exception as error:
        # the class of the converter's error is not public
        if type(error).__name__ != "ConverterError":
            raise
        unknown = sorted(set(_UNKNOWN_OPERATOR.findall(str(error))))
        if not unknown:
            raise ConversionError(f"TensorFlow's converter failed: {_line(error)}") from error
        raise ConversionError(
            f"TFLite's builtin operators cannot express {', '.join(unknown)}, and LiteRT runs no "
            "others",
            "convert to onnx instead, or replace the layer that needs it",
        ) from error


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _check_operators(file: File) -> None:
    for operator in operators(file.model):
        name = operator_name(file.model, operator)
        code = file.model.operatorCodes[operator.opcodeIndex]
        if name in _RESOURCES or code.customCode:
            raise ConversionError(f"the converter wrote {name}, which is not a builtin operator")


def _name(file: File, interface: Interface) -> None:
    """Give inputs, outputs and the signature the Keras names."""
    tensors = file.main.tensors
    inputs = _in_order(file, file.main.inputs, r"input_(\d+)", interface.input_names)
    outputs = _in_order(file, file.main.outputs, r"Identity(?:_(\d+))?", interface.output_names)
    named = {index: name for name, index in (*inputs, *outputs)}
    taken = set(named.values())
    for index, tensor in enumerate(tensors):
        own = text(tensor.name)
        while index not in named and own in taken:
            own += "_"
        tensor.name = named.get(index, own)
    file.model.signatureDefs = None
    add_signature(file.model, inputs, outputs)


def _in_order(
    file: File, indices: Any, pattern: str, names: Sequence[str]
) -> list[tuple[str, int]]:
    """Keras name and tensor of each end; the converter may change their order, not their names."""
    found: dict[int, int] = {}
    for index in map(int, indices):
        own = text(file.main.tensors[index].name)
        match = re.fullmatch(pattern + r"(?::0)?", own)
        if match is None:
            raise ConversionError(f"the converter wrote {own!r} as an input or output")
        found[int(match[1] or 0)] = index
    if sorted(found) != list(range(len(names))):
        raise ConversionError(f"the converter wrote {len(found)} inputs or outputs of {len(names)}")
    return [(name, found[i]) for i, name in enumerate(names)]
