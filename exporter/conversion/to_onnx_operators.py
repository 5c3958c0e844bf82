"""Additions to tf2onnx for operators of TensorFlow that it lacks or converts badly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tf2onnx import utils

Handler = Callable[[Any, Any, str, Any], None]


def _erfc(graph: Any, node: Any, name: str, _arguments: Any) -> None:
    """Erfc, part of the exact GELU, as 1 - Erf."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", [node.input[0]], shapes=shapes, dtypes=dtypes)
    one = np.ones((), utils.map_onnx_to_numpy_type(dtypes[0]))
    graph.make_node(
        "Sub",
        [graph.make_const(utils.make_name(f"{name}_one"), one).output[0], erf.output[0]],
        name=name,
        outputs=[node.output[0]],
        shapes=shapes,
        dtypes=dtypes,
    )


def _scalars_to_vectors(graph: Any, nodes: list[Any]) -> list[Any]:
    """Turn scalars that are added to arrays into vectors of length 1.

    A scalar after a convolution stops tf2onnx' pass that moves transposes: it would then move none,
    and two would remain around each convolution.
    """
    for node in nodes:
        if node.type not in {"Add", "AddV2"}:
            continue
        for slot, (scalar, array) in enumerate(zip(node.input, reversed(node.input), strict=True)):
            is_scalar = graph.get_shape(scalar) == [] and node.inputs[slot].is_const()
            if is_scalar and graph.get_shape(array):
                value = node.inputs[slot].get_tensor_value(as_list=False).reshape(1)
                vector = graph.make_const(utils.make_name("vector"), value)
                graph.replace_input(node, scalar, vector.output[0], slot)
    return list(graph.get_nodes())


HANDLERS: Mapping[str, tuple[Handler, list[Any]]] = {"Erfc": (_erfc, [])}
REWRITERS = (_scalars_to_vectors,)
