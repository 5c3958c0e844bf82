"""What tf2onnx does not know about TensorFlow's operators."""

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


def _lift_numbers(graph: Any, nodes: list[Any]) -> list[Any]:
    """Make vectors of one of the numbers that are added to arrays.

    Behind a convolution a number ends the pass that moves transposes: none is moved then, and two
    stay around each convolution.
    """
    for node in nodes:
        if node.type not in {"Add", "AddV2"}:
            continue
        for slot, (own, other) in enumerate(zip(node.input, reversed(node.input), strict=True)):
            if (
                graph.get_shape(own) == []
                and graph.get_shape(other)
                and node.inputs[slot].is_const()
            ):
                value = node.inputs[slot].get_tensor_value(as_list=False).reshape(1)
                vector = graph.make_const(utils.make_name("vector"), value)
                graph.replace_input(node, own, vector.output[0], slot)
    lifted: list[Any] = graph.get_nodes()
    return lifted


HANDLERS: Mapping[str, tuple[Handler, list[Any]]] = {"Erfc": (_erfc, [])}
REWRITERS = (_lift_numbers,)
