"""ONNX models with an open batch: lengths are read from shapes, as PyTorch's exporter does it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from exporter.graph import Array
from tests.builders.onnx_models import node


def any_batch(model: ModelProto) -> ModelProto:
    """The model for any batch: a Reshape to [1, ...] becomes one to [batch, ...]."""
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    nodes = [new for each in graph.node for new in _with_open_batch(each, constants)]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    for info in (*graph.input, *graph.output):
        info.type.tensor_type.shape.dim[0].dim_param = "batch"
    return result


def _with_open_batch(each: NodeProto, constants: dict[str, Array]) -> Iterator[NodeProto]:
    target = constants.get(each.input[1]) if each.op_type == "Reshape" else None
    if target is not None and target[0] == 1:
        name = each.input[1]
        constants[f"{name}.0"], constants[f"{name}.front"] = np.array(0), np.array([0])
        constants[f"{name}.rest"] = target[1:]
        yield node("Shape", ["x"], [f"{name}.shape"], f"{name}.shape")
        yield node("Gather", [f"{name}.shape", f"{name}.0"], [f"{name}.batch"], f"{name}.batch")
        batch = [f"{name}.batch", f"{name}.front"]
        yield node("Unsqueeze", batch, [f"{name}.batch1"], f"{name}.batch1")
        parts = [f"{name}.batch1", f"{name}.rest"]
        yield node("Concat", parts, [f"{name}.all"], f"{name}.all", axis=0)
        each.input[1] = f"{name}.all"
    yield each
