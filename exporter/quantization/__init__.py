"""Quantize a float32 model to another precision."""

from __future__ import annotations

from exporter.quantization.precisions import FLOAT, PRECISIONS, QUANTIZED, QuantizationSpec
from exporter.quantization.quantize import Quantized, check_float, is_coarser, quantize_model

__all__ = [
    "FLOAT",
    "PRECISIONS",
    "QUANTIZED",
    "QuantizationSpec",
    "Quantized",
    "check_float",
    "is_coarser",
    "quantize_model",
]
