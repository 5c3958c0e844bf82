"""Quantize a float32 model to another precision."""

from __future__ import annotations

from exporter.quantization.precisions import FLOAT, PRECISIONS, QUANTISED, Wish
from exporter.quantization.quantize import Quantized, check_float, is_coarser, quantize_model

__all__ = [
    "FLOAT",
    "PRECISIONS",
    "QUANTISED",
    "Quantized",
    "Wish",
    "check_float",
    "is_coarser",
    "quantize_model",
]
