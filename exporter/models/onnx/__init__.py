"""ONNX files: parsed, drawn as a neutral graph, edited, and run by onnxruntime."""

from __future__ import annotations

from exporter.models.onnx.model import OnnxModel, from_bytes, from_proto, open_file

__all__ = ["OnnxModel", "from_bytes", "from_proto", "open_file"]
