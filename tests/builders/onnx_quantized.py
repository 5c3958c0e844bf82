"""ONNX files with QuantizeLinear and DequantizeLinear, written by onnxruntime's quantizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from exporter.graph import Array


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
    def __init__(self, values: Sequence[Array]) -> None:
        self.left = iter(values)

    def get_next(self) -> dict[str, Array] | None:
        value = next(self.left, None)
        return None if value is None else {"x": value}


def quantized(
    model: ModelProto,
    values: Sequence[Array],
    folder: Path,
    *,
    per_channel: bool,
    operators: Sequence[str] | None = None,
) -> ModelProto:
    """The model, with all operators that onnxruntime quantizes, or only those of these types.

    Args:
        values: calibration samples for `x`.
    """
    source, target = folder / "float.onnx", folder / "codes.onnx"
    onnx.save(model, source)
    quantize_static(
        source,
        target,
        _Reader(values),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        op_types_to_quantize=operators,
        extra_options={"ForceQuantizeNoInputCheck": True},
    )
    return onnx.load(target)
