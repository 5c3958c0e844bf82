"""The neutral graph that every format is translated into, its operations and the edits on it."""

from __future__ import annotations

from exporter.graph.graph import Array, Graph, Node, Quantization, Shape, Tensor, Use

__all__ = ["Array", "Graph", "Node", "Quantization", "Shape", "Tensor", "Use"]
