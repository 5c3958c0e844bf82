"""Running order of nodes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from onnx import ModelProto, NodeProto

from exporter.errors import ModelError
from exporter.formats.onnx.protos import captured, copy_without


def in_order(model: ModelProto) -> ModelProto:
    """The model with its nodes in running order; the model itself where they are.

    Some converters (onnxconverter-common, onnxruntime's for float16) append the casts of the inputs
    behind all other nodes. onnxruntime sorts for itself.

    Raises:
        ModelError: nodes read from each other in a circle.
    """
    nodes = list(model.graph.node)
    later = {name for node in nodes for name in node.output if name}
    for node in nodes:
        if not later.isdisjoint((*node.input, *captured(node))):
            break
        later.difference_update(node.output)
    else:
        return model
    result = copy_without(model, "graph")
    result.graph.CopyFrom(copy_without(model.graph, "node"))
    result.graph.node.extend(running_order(nodes))
    return result


def running_order(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """The nodes, each behind those it reads from, otherwise in the order given.

    Raises:
        ModelError: they read from each other in a circle.
    """
    makers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    readers: list[list[int]] = [[] for _ in nodes]
    missing = [0] * len(nodes)
    for i, node in enumerate(nodes):
        needed = {makers[name] for name in (*node.input, *captured(node)) if name in makers}
        missing[i] = len(needed)
        for maker in needed:
            readers[maker].append(i)
    ready = [i for i, count in enumerate(missing) if not count]
    result = []
    while ready:
        first = heapq.heappop(ready)
        result.append(nodes[first])
        for reader in readers[first]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(result) < len(nodes):
        circle = next(node for node, count in zip(nodes, missing, strict=True) if count)
        raise ModelError(f"{circle.op_type} {circle.name!r} reads what it makes itself")
    return result
