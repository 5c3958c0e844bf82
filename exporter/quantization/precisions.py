"""PRECISIONS: one row per precision of a model file. Data only: the command line reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.errors import UsageError


@dataclass(frozen=True)
class Quantizer:
    """Quantizes models of one kind to one precision.

    Attributes:
        library: the distribution that does it, for messages.
        function: its module and name, see `quantization.quantize.Quantize`.
    """

    library: str
    function: str


@dataclass(frozen=True)
class Precision:
    """One precision of a model file.

    Attributes:
        limits: the row of `verification.limits.LIMITS` for the real values of a cut file.
        quantizers: kind of model -> its quantizer; no other kinds can be quantized.
        calibrated: the ranges of the activations are measured on samples first.
    """

    limits: str
    quantizers: Mapping[str, Quantizer] = field(default_factory=dict)
    calibrated: bool = False


def _quantizers(onnx_library: str, function: str) -> Mapping[str, Quantizer]:
    return {
        "onnx": Quantizer(onnx_library, f"exporter.quantization.onnx.{function}"),
        "tflite": Quantizer("litert-quantizer", f"exporter.quantization.tflite.{function}"),
    }


FLOAT = "fp32"  # the precision that all others are made from

PRECISIONS: Mapping[str, Precision] = {
    FLOAT: Precision("fp32"),
    # float16 weights; activations of float16, or of float32 where the runtime prefers it
    "fp16": Precision("fp16", _quantizers("onnxconverter-common", "to_fp16")),
    # 8-bit weights; float32 activations, quantized within an operation by ranges found at run time
    "dynamic": Precision("dynamic", _quantizers("onnxruntime", "to_dynamic")),
    # 8-bit weights with per-channel scales; 8-bit activations
    "int8": Precision("fp32", _quantizers("onnxruntime", "to_int8"), calibrated=True),
    # 8-bit weights with per-channel scales; 16-bit activations
    "int16x8": Precision("fp32", _quantizers("onnxruntime", "to_int16x8"), calibrated=True),
    # 4-bit weights; float32 activations, 8-bit within an operation where the runtime prefers them
    "int4": Precision("int4", _quantizers("onnxruntime", "to_int4")),
}

# Opened files may have other precisions than those that are made here.
QUANTIZED = frozenset(PRECISIONS) - {FLOAT} | {"uint8", "fp8", "fp4"}


Ends = bool | tuple[str, ...]  # names of inputs and outputs; True for all of them


def check_ends(integer_io: Ends, float_io: Ends) -> None:
    """Raise UsageError if both name the same input or output, or all of them."""
    if integer_io is True and float_io is True:
        raise UsageError(
            "integer_io and float_io exclude each other", "name the exceptions in one of them"
        )
    both = set(_names(integer_io)).intersection(_names(float_io))
    if both:
        raise UsageError(
            f"integer_io and float_io both name {min(both)!r}", "name it in one of them"
        )


def _names(ends: Ends) -> tuple[str, ...]:
    return () if isinstance(ends, bool) else ends


@dataclass(frozen=True)
class QuantizationSpec:
    """How to quantize a model.

    Attributes:
        precision: key of PRECISIONS, not "fp32".
        integer_io: the inputs and outputs that are quantized too, by name; True for all of them.
        float_io: those that stay float; True for all of them, which is the default.

    Raises:
        UsageError: an unknown precision, integer inputs or outputs with float activations, or both
            fields name the same.
    """

    precision: str
    integer_io: Ends = False
    float_io: Ends = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise UsageError(f"there is no precision {self.precision!r}", f"precisions: {known}")
        if (self.integer_io or self.float_io) and not PRECISIONS[self.precision].calibrated:
            integer = " and ".join(name for name, row in PRECISIONS.items() if row.calibrated)
            raise UsageError(
                f"a model at {self.precision} has float inputs and outputs",
                f"{integer} models can have integer ones",
            )
        check_ends(self.integer_io, self.float_io)
