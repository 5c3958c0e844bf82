"""Replace calls of a file's own functions by the nodes of the functions.

PyTorch and other exporters write a layer as a function of the file. The trace follows nodes, and an
edit of a function would change every call of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from onnx import ModelProto, inliner

from exporter.errors import ModelError
from exporter.formats.isolation import call
from exporter.graph import Array

_CONTENT = "model"


def without_functions(model: ModelProto, name: str) -> ModelProto:
    """The model without functions of its own; the model itself if it has none.

    Raises:
        ModelError: onnx cannot expand them.
    """
    if not model.functions:
        return model
    action = f"expanding the functions of {name}"
    found = call(action, model.ByteSize(), partial(_inlined, model, name))
    result: ModelProto = ModelProto.FromString(found[_CONTENT].tobytes())
    return result


def _inlined(model: ModelProto, name: str) -> Mapping[str, Array]:
    try:
        result = _without_calls(model)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{name}: its functions cannot be expanded: {' '.join(str(error).split())}",
            "export the model without functions, or expand them with onnx.inliner",
        ) from error
    return {_CONTENT: np.frombuffer(result.SerializeToString(), np.uint8)}


def _without_calls(model: ModelProto) -> ModelProto:
    result = inliner.inline_local_functions(model)
    if result.functions:  # of another opset
        result = inliner.inline_local_functions(model, convert_version=True)
    if result.functions:
        raise ValueError("some calls are left")
    return result
