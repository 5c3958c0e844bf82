"""Operators of TensorFlow for which tf2onnx writes what ONNX does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tf2onnx import utils

Handler = Callable[[Any, Any, str, Any], None]


def _erfc(graph: Any, node: Any, name: str, _arguments: Any) -> None:
    """Erfc, of the exact GELU: 1 - Erf."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    kept = graph.make_node("Erf", [node.input[0]], shapes=shapes, dtypes=dtypes)
    one = graph.make_const(
        utils.make_name(f"{name}_one"), np.ones((), utils.map_onnx_to_numpy_type(dtypes[0]))
    )
    graph.make_node(
        "Sub",
        [one.output[0], kept.output[0]],
        name=name,
        outputs=[node.output[0]],
        shapes=shapes,
        dtypes=dtypes,
    )


HANDLERS: Mapping[str, tuple[Handler, list[Any]]] = {"Erfc": (_erfc, [])}
