"""PRECISIONS: what weights and activations can be, and what makes a file so. Data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.errors import UsageError


@dataclass(frozen=True)
class Precision:
    """One precision of a model file.

    Attributes:
        weights, activations: in the file, and while it runs.
        calibrated: the ranges of the activations are measured on inputs before.
        libraries: kind of model -> the distribution that makes it; a kind that is not there has no
            way to this precision.
    """

    weights: str
    activations: str
    calibrated: bool = False
    libraries: Mapping[str, str] = field(default_factory=dict)


FLOAT = "fp32"  # what everything else is made from

PRECISIONS: Mapping[str, Precision] = {
    FLOAT: Precision("float32", "float32"),
    "fp16": Precision(
        "float16",
        "float16, or float32 where the runtime prefers it",
        libraries={"onnx": "onnxconverter-common", "tflite": "litert-quantizer"},
    ),
    "dynamic": Precision(
        "8-bit integers",
        "float32; 8-bit integers within an operation, by ranges found as it runs",
        libraries={"onnx": "onnxruntime", "tflite": "litert-quantizer"},
    ),
    "int8": Precision(
        "8-bit integers, one scale a channel",
        "8-bit integers",
        calibrated=True,
        libraries={"onnx": "onnxruntime", "tflite": "litert-quantizer"},
    ),
    "int16x8": Precision(
        "8-bit integers, one scale a channel",
        "16-bit integers",
        calibrated=True,
        libraries={"onnx": "onnxruntime", "tflite": "litert-quantizer"},
    ),
    "int4": Precision(
        "4-bit integers",
        "float32; 8-bit integers within an operation where the runtime prefers them",
        libraries={"onnx": "onnxruntime", "tflite": "litert-quantizer"},
    ),
}

QUANTIZED = frozenset(PRECISIONS) - {FLOAT} | {"uint8"}  # as files are found to be


@dataclass(frozen=True)
class QuantizationSpec:
    """What a file shall become.

    Attributes:
        precision: key of PRECISIONS, not "fp32".
        integer_io: its inputs and outputs are codes, as its activations are.

    Raises:
        UsageError: no such precision, or integer inputs beside float activations.
    """

    precision: str
    integer_io: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise UsageError(f"there is no precision {self.precision!r}", f"precisions: {known}")
        if self.integer_io and not PRECISIONS[self.precision].calibrated:
            integer = ", ".join(name for name, row in PRECISIONS.items() if row.calibrated)
            raise UsageError(
                f"a model at {self.precision} has no integer inputs and outputs",
                f"those of {integer} can be integers",
            )
