"""Quantize a float32 model to another precision.

`precisions` is data that the command line reads; `quantize` does the work, and imports NumPy.
"""

from __future__ import annotations

from exporter.quantization.precisions import FLOAT, PRECISIONS, QUANTIZED, QuantizationSpec

__all__ = ["FLOAT", "PRECISIONS", "QUANTIZED", "QuantizationSpec"]
