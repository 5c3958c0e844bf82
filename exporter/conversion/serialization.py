"""Encode graphs and plans as JSON between parent and child: data only, no pickle.

Arrays inside edits become base64 with dtype and shape, bit-identical. Constants of a graph become
name, shape and dtype; their values are requested when they are read.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, get_args

import numpy as np

from exporter.graph import Array, Graph, Node, Tensor, Use
from exporter.graph.edits import ComputeStep, Edit, Plan
from exporter.graph.operations import Contraction, Operation, Window
from exporter.graph.products import Axis, Products

Json = dict[str, Any]

_OPERATIONS: Mapping[str, type] = {kind.__name__: kind for kind in get_args(Operation)}
_TUPLES: Mapping[str, Any] = {"contraction": Contraction, "window": Window}  # by field
_EDITS: Mapping[str, type] = {kind.__name__: kind for kind in (*get_args(Edit), ComputeStep)}


def encode_plan(plan: Plan) -> list[Json]:
    """The edits of a plan, without its remap."""
    return [_encode_record(edit) for edit in plan.edits]


def decode_plan(edits: list[Json]) -> Plan:
    """The plan of these edits, without a remap."""
    return Plan(tuple(_decode_record(edit, _EDITS) for edit in edits))


def encode_graph(graph: Graph) -> Json:
    """A graph without the values of its constants."""
    return {
        "nodes": [
            [n.name, n.operator, _encode_record(n.operation), n.inputs, n.outputs, n.products]
            for n in graph.nodes
        ],
        "tensors": [[t.name, t.shape, t.dtype, t.is_constant] for t in graph.tensors.values()],
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "labels": graph.labels,
    }


def decode_graph(data: Json, read: Callable[[str], Array]) -> Graph:
    """The graph; `read` returns the values of a constant by its name."""
    nodes = tuple(
        Node(
            name,
            operator,
            _decode_record(operation, _OPERATIONS),
            tuple(inputs),
            tuple(outputs),
            _decode_products(products),
        )
        for name, operator, operation, inputs, outputs, products in data["nodes"]
    )
    tensors = {
        name: Tensor(name, _frozen(shape), dtype, partial(read, name) if constant else None)
        for name, shape, dtype, constant in data["tensors"]
    }
    labels = {name: tuple(units) for name, units in data["labels"].items()}
    return Graph(nodes, tensors, tuple(data["inputs"]), tuple(data["outputs"]), labels)


def _decode_products(products: list[list[list[int] | int]] | None) -> Products:
    if products is None:
        return None
    return tuple(
        tuple(loop if isinstance(loop, int) else Axis(*loop) for loop in loops)
        for loops in products
    )


def encode_array(array: Array) -> Json:
    values = base64.b64encode(array.tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": array.shape, "base64": values}


def decode_array(data: Json) -> Array:
    flat = np.frombuffer(base64.b64decode(data["base64"]), np.dtype(data["dtype"]))
    return flat.reshape(data["shape"]).copy()


def _encode_record(record: Any) -> Json:
    values = {f.name: _encode(getattr(record, f.name)) for f in fields(record)}
    return {"type": type(record).__name__, **values}


def _decode_record(data: Json, kinds: Mapping[str, type]) -> Any:
    values = {name: _decode(name, value) for name, value in data.items() if name != "type"}
    return kinds[data["type"]](**values)


def _encode(value: Any) -> Any:
    if isinstance(value, ComputeStep):
        return _encode_record(value)
    if isinstance(value, np.ndarray):
        return encode_array(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {"mapping": {name: _encode(entry) for name, entry in value.items()}}
    if isinstance(value, tuple | list):
        return [_encode(entry) for entry in value]
    return value


def _decode(name: str, value: Any) -> Any:  # noqa: PLR0911 - a return for each type
    if name in _TUPLES and value is not None:
        return _TUPLES[name](*map(_decode, _TUPLES[name]._fields, value))
    if isinstance(value, dict):
        if "base64" in value:
            return decode_array(value)
        if "type" in value:
            return _decode_record(value, _EDITS)
        return {key: _decode(key, entry) for key, entry in value["mapping"].items()}
    if not isinstance(value, list):
        return value
    if name == "uses":
        return tuple(Use(*use) for use in value)
    return tuple(_decode(name, entry) for entry in value)


def _frozen(shape: list[int | None] | None) -> tuple[int | None, ...] | None:
    return None if shape is None else tuple(shape)
