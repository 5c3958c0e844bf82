"""TFLite files: read and written through the schema, run by LiteRT. TensorFlow is not imported."""

from __future__ import annotations

from exporter.formats.tflite.files import files_of, from_bytes, open_file
from exporter.formats.tflite.model import TfliteModel

__all__ = ["TfliteModel", "files_of", "from_bytes", "open_file"]
