"""Put nodes in an order in which they can run."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from onnx import ModelProto, NodeProto

from exporter.errors import ModelError
from exporter.formats.onnx.protos import FileNode, model_without, names_read


def with_sorted_nodes(model: ModelProto, nodes: Sequence[FileNode]) -> ModelProto:
    """The model with its nodes in running order; the model itself if they are.

    Some converters (onnxconverter-common, onnxruntime's for float16) append the casts of the inputs
    after all other nodes. onnxruntime sorts the nodes when it loads a file.

    Args:
        model: any.
        nodes: of its graph.

    Raises:
        ModelError: nodes read from each other in a circle.
    """
    later = {name for node in nodes for name in node.outputs if name}
    for node in nodes:
        if not later.isdisjoint(node.inputs):
            break
        later.difference_update(node.outputs)
    else:
        return model
    result = model_without(model, "node")
    result.graph.node.extend(running_order([node.proto for node in nodes]))
    return result


def running_order(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """The nodes, each after those it reads from, otherwise in the given order.

    Raises:
        ModelError: they read from each other in a circle.
    """
    producers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    consumers: list[list[int]] = [[] for _ in nodes]
    missing = [0] * len(nodes)
    for i, node in enumerate(nodes):
        needed = {producers[name] for name in names_read(node) if name in producers}
        missing[i] = len(needed)
        for producer in needed:
            consumers[producer].append(i)
    ready = [i for i, count in enumerate(missing) if not count]
    result = []
    while ready:
        first = heapq.heappop(ready)
        result.append(nodes[first])
        for consumer in consumers[first]:
            missing[consumer] -= 1
            if not missing[consumer]:
                heapq.heappush(ready, consumer)
    if len(result) < len(nodes):
        node = next(node for node, count in zip(nodes, missing, strict=True) if count)
        raise ModelError(f"{node.op_type} {node.name!r} reads a tensor that depends on its output")
    return result
