"""Check that a parsed ONNX file is a complete model. Model files are never trusted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import onnx
from google.protobuf.message import Message
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from exporter.errors import ModelError
from exporter.formats.onnx.classical.attributes import ML_DOMAIN
from exporter.formats.onnx.constants import is_constant_node
from exporter.formats.onnx.protos import (
    DEFAULT_DOMAINS,
    FileNode,
    all_nodes,
    opset_of,
    subgraphs,
)

_NOT_A_MODEL = "{} is not an ONNX model, or it is truncated: {}"


def check_model(model: ModelProto, nodes: Sequence[FileNode], name: str) -> None:
    """Check the parts that every model has.

    Args:
        model: the parsed file.
        nodes: of its graph.
        name: of the model, in messages.

    Raises:
        ModelError: no graph with an output, neither a standard opset nor that of ai.onnx.ml,
            text that is not UTF-8, an operator that only this package uses, or a function that
            runtimes do not run.
    """
    if not (model.HasField("graph") and model.graph.output):
        raise ModelError(_NOT_A_MODEL.format(name, "it has no graph with an output"))
    if not _has_valid_text(model, nodes):
        raise ModelError(f"{name} is damaged: it contains text that is not valid UTF-8")
    if not opset_of(model) and not any(o.domain == ML_DOMAIN for o in model.opset_import):
        raise ModelError(_NOT_A_MODEL.format(name, "it has no standard opset"))
    _check_domains(model, nodes, name)
    _check_functions(model, name)


def _check_domains(model: ModelProto, nodes: Sequence[FileNode], name: str) -> None:
    """Refuse operators that this package uses while a model is open.

    It would replace them by others when it runs or writes the model. No runtime knows them.
    """
    bodies = [GraphProto(node=function.node) for function in model.functions]
    bodies += (body for node in nodes if not node.plain for body in subgraphs(node.proto))
    inner = ((node.op_type, node.domain) for body in bodies for node in all_nodes(body))
    for operator, domain in (*((node.operator, node.domain) for node in nodes), *inner):
        if domain.startswith(_OWN_DOMAINS):
            raise ModelError(f"{name}: no runtime has the operator {operator} of {domain}")


_OWN_DOMAINS = "exporter."


def _check_functions(model: ModelProto, name: str) -> None:
    """Refuse functions that call themselves, expand to an absurd number of nodes, or are not run.

    onnxruntime runs its own operator if a function has the same name.

    onnx's shape inference enters each call of a function. A file of a few kilobytes with 30
    functions, each of which calls the next one twice, has 2^30 nodes for it.
    """
    for function in model.functions:
        domain = "" if function.domain in DEFAULT_DOMAINS else function.domain
        if domain.startswith(_RUNTIME_DOMAIN) or onnx.defs.has(function.name, domain=domain):
            raise ModelError(
                f"{name}: its function {function.name!r} has the name of an operator",
                "give the function a domain of its own: onnxruntime would run the operator",
            )
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int | None] = {}  # None: its calls are being followed

    def size(nodes: Sequence[NodeProto]) -> int:
        return sum(
            size_of_call(node) + sum(size(g.node) for g in subgraphs(node)) for node in nodes
        )

    def size_of_call(node: NodeProto) -> int:
        key = (node.domain, node.op_type)
        if key not in functions:
            return 1
        if key not in sizes:
            sizes[key] = None
            sizes[key] = size(functions[key].node)
        found = sizes[key]
        if found is None:
            raise ModelError(f"{name}: the function {node.op_type!r} calls itself")
        return found

    if functions and size(model.graph.node) > _MOST_NODES:
        raise ModelError(
            f"{name} has more than {_MOST_NODES} nodes when its functions are expanded",
            "export the model again without nested functions",
        )


_MOST_NODES = 10**6
_RUNTIME_DOMAIN = "com.microsoft"


def check_order(graph: GraphProto, nodes: Iterable[FileNode], known: set[str]) -> None:
    """Check that each tensor is made once, before it is read.

    Args:
        graph: of the file.
        nodes: of the graph.
        known: the graph's inputs and constants.

    Raises:
        ModelError: the message names the node or output, and the tensor.
    """
    known = {"", *known, *(sparse.values.name for sparse in graph.sparse_initializer)}
    for proto, name, operator, _, inputs, outputs, plain in nodes:
        if not known.issuperset(inputs):
            read = next(each for each in inputs if each not in known)
            raise ModelError(
                f"{operator} {name!r} reads {read!r}, which no node before it makes",
                "the file is truncated or damaged: save or copy the model again",
            )
        for tensor in () if not plain and is_constant_node(proto) else filter(None, outputs):
            if tensor in known:
                raise ModelError(f"{operator} {name!r} makes {tensor!r} a second time")
            known.add(tensor)
    for info in graph.output:
        if info.name not in known:
            raise ModelError(f"no node makes the output {info.name!r}")


def _has_valid_text(model: ModelProto, nodes: Sequence[FileNode]) -> bool:
    """Is all text in a model valid UTF-8?

    Protobuf does not check this: it gives bytes instead of a str.
    """
    texts = ((n.name, n.operator, n.domain, *n.inputs, *n.outputs) for n in nodes)
    try:
        "".join(chain.from_iterable(texts))
    except TypeError:
        return False
    others = (node.proto for node in nodes if not node.plain or _has_more_text(node.proto))
    rest = _is_valid_text(model, "graph") and _is_valid_text(model.graph, "node")
    return rest and all(map(_is_valid_text, others))


def _has_more_text(node: NodeProto) -> bool:
    """Has a node without attributes more text than a `FileNode` contains?"""
    return bool(node.doc_string or node.overload or node.metadata_props)


def _is_valid_text(message: Message, skipped: str = "") -> bool:
    """Is all text in a message and in the messages inside it valid UTF-8, except in one field?"""
    if isinstance(message, TensorProto):  # listing its fields would copy its values
        return isinstance(message.name, str) and isinstance(message.doc_string, str)
    for field, value in message.ListFields():
        if field.type not in {field.TYPE_STRING, field.TYPE_MESSAGE} or field.name == skipped:
            continue
        for entry in value if hasattr(value, "extend") else [value]:
            if isinstance(entry, bytes) or not (isinstance(entry, str) or _is_valid_text(entry)):
                return False
    return True
