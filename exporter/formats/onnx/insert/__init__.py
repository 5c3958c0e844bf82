"""Insert new operations into an ONNX model."""

from __future__ import annotations

from exporter.formats.onnx.insert.insert import compute, insert

__all__ = ["compute", "insert"]
