"""ONNX files: parsed, drawn as a neutral graph, edited, and run by onnxruntime."""

from __future__ import annotations

import os

from exporter.formats.onnx.external_data import files_of
from exporter.formats.onnx.model import OnnxModel, from_bytes, from_proto, open_file

# From 1.29 on, onnxruntime's builds tell their maker which models they run unless this stands when
# it is imported. Nothing is sent from here; who wants that can set the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["OnnxModel", "files_of", "from_bytes", "from_proto", "open_file"]
