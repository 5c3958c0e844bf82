"""Write new operations into a TFLite model."""

from __future__ import annotations

from exporter.formats.tflite.insert.insert import compute, insert

__all__ = ["compute", "insert"]
