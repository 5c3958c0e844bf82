"""ONNX files: parsed, drawn as a neutral graph, edited, and run by onnxruntime."""

from __future__ import annotations

import os

from exporter.formats.onnx.files import files_of, from_bytes, from_proto, open_file
from exporter.formats.onnx.model import OnnxModel

# From 1.29 on, builds of onnxruntime send telemetry unless this is set before the import. To send
# it, set the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["OnnxModel", "files_of", "from_bytes", "from_proto", "open_file"]
