"""The structure of an ONNX model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from exporter.formats.onnx.constants import ReadTensor, constants_of, is_constant_node
from exporter.formats.onnx.external_data import ExternalData
from exporter.formats.onnx.protos import (
    DEFAULT_DOMAINS,
    FIRST_IR_WITHOUT_INPUTS,
    dtype_name,
    dtype_of,
    read_tensor,
    serialized,
    shape_of,
)
from exporter.formats.structure import Constant, End, Step, Structure, facts_of
from exporter.graph import Shape


def structure_of(model: ModelProto, external: ExternalData | None, skipped: str) -> Structure:
    """The structure of a model.

    Args:
        model: the parsed file, its nodes in an order in which they can run. Its own functions were
            expanded when it was opened.
        external: the values of constants that the model does not contain.
        skipped: a key of the metadata that is not part of the structure.
    """
    has_defaults = model.ir_version >= FIRST_IR_WITHOUT_INPUTS
    opsets = _opsets(model)
    read = read_tensor if external is None else external.read
    graph = _View(opsets, read, has_defaults).graph(model.graph)
    for tensor in model.graph.initializer if external else ():
        values = external.gathered(tensor) if external else None
        constant = graph.constants.get(tensor.name)
        if values is not None and constant is not None:
            streamed = replace(constant, blocks=values.blocks)
            graph = replace(graph, constants={**graph.constants, tensor.name: streamed})
    facts = facts_of(_facts(model, skipped))
    used = _used(opsets, model.graph)
    return replace(graph, facts=facts, operator_sets=used)


def _facts(model: ModelProto, skipped: str) -> Iterator[tuple[str, str]]:
    """Metadata, and what tools for training or quantization may read."""
    for entry in model.metadata_props:
        if entry.key != skipped:
            yield f"metadata {entry.key!r}", entry.value
    for each in model.opset_import:
        if _opsets(model)[_domain(each)] != each.version:
            yield "two versions of an operator set", f"{_domain(each) or 'ai.onnx'} {each.version}"
    for name, messages in (
        ("training", model.training_info),
        ("quantization annotation", model.graph.quantization_annotation),
    ):
        if messages:
            yield name, hashlib.sha256(b"".join(map(serialized, messages))).hexdigest()


def _opsets(message: Any) -> dict[str, int]:
    """Domain -> version of the operator sets that a model imports."""
    return {_domain(each): each.version for each in message.opset_import}


def _domain(message: Any) -> str:
    """Of a node or an operator set; the standard one has two names."""
    return "" if message.domain in DEFAULT_DOMAINS else str(message.domain)


def _used(opsets: Mapping[str, int], graph: Any) -> dict[str, int]:
    """The operator sets whose operators a graph uses."""
    graphs = [graph]
    found: set[str] = set()
    while graphs:
        for node in graphs.pop().node:
            found.add(_domain(node))
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs
    return {domain: opsets[domain] for domain in found if domain in opsets}


class _View:
    """Reads graphs of one model.

    Args:
        opsets: domain -> version, for the defaults of attributes.
        read: gives the values of a constant.
        has_defaults: a graph input with an initializer may be left out. Before IR version 4, every
            initializer had to be an input too, and none could be replaced.
    """

    def __init__(self, opsets: Mapping[str, int], read: ReadTensor, has_defaults: bool) -> None:
        self._opsets, self._read, self._has_defaults = opsets, read, has_defaults

    def graph(self, graph: GraphProto) -> Structure:
        constants = {
            name: Constant(tensor.dtype, _whole(tensor.shape), tensor.read)
            for name, tensor in constants_of(graph, self._read).items()
            if tensor.read is not None
        }
        for sparse in graph.sparse_initializer:
            constants[sparse.values.name] = self._tensor(sparse.values, sparse.indices, sparse.dims)
        inputs = tuple(self._inputs(graph.input, constants))
        for end in inputs:
            constants.pop(end.tensor, None)  # a default is no constant: a run may replace it
        return Structure(
            inputs,
            tuple(End(o.name, o.name, dtype_of(o.type), shape_of(o.type)) for o in graph.output),
            tuple(self._step(node) for node in graph.node if not is_constant_node(node)),
            constants,
            stated={v.name: (dtype_of(v.type), shape_of(v.type)) for v in graph.value_info},
        )

    def _inputs(self, infos: Any, constants: Mapping[str, Constant]) -> Iterator[End]:
        for info in infos:
            default = constants.get(info.name)
            if default is None or self._has_defaults:
                yield End(info.name, info.name, dtype_of(info.type), shape_of(info.type), default)

    def _step(self, node: NodeProto) -> Step:
        domain = _domain(node)
        defaults = self._defaults(node.op_type, domain)
        attributes = {a.name: self._attribute(a) for a in node.attribute}
        return Step(
            name=node.name or (node.output[0] if node.output else node.op_type),
            operator=f"{domain}.{node.op_type}".lstrip("."),
            attributes={n: v for n, v in attributes.items() if defaults.get(n) != v},
            inputs=_without_absent(node.input),
            outputs=_without_absent(node.output),
        )

    def _attribute(self, attribute: AttributeProto) -> str | Constant | Structure:
        if attribute.type == AttributeProto.GRAPH:
            return self.graph(attribute.g)
        if attribute.type == AttributeProto.TENSOR:
            return self._tensor(attribute.t)
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            sparse = attribute.sparse_tensor
            return self._tensor(sparse.values, sparse.indices, sparse.dims)
        return _plain(attribute)

    def _tensor(self, tensor: TensorProto, *more: Any) -> Constant:
        facts = {f"part {i}": repr(part) for i, part in enumerate(more)}
        dtype = dtype_name(tensor.data_type)
        return Constant(dtype, tuple(tensor.dims), partial(self._read, tensor), facts)

    def _defaults(self, operator: str, domain: str) -> Mapping[str, str]:
        """The default values of attributes, which some writers state and others leave out."""
        version = self._opsets.get(domain)
        if version is None or not onnx.defs.has(operator, domain=domain):
            return {}
        try:
            schema = onnx.defs.get_schema(operator, max_inclusive_version=version, domain=domain)
        except onnx.defs.SchemaError:
            return {}
        stated = {n: a.default_value for n, a in schema.attributes.items() if not a.required}
        return {name: _plain(value) for name, value in stated.items() if value.type}


def _plain(attribute: AttributeProto) -> str:
    """A text that differs where the value does; floats with all their digits."""
    field = _FIELDS.get(attribute.type)
    if field is None:
        return repr(_serialized_value(attribute))
    value = getattr(attribute, field)
    return repr(list(value) if field.endswith("s") and len(field) > 1 else value)


_FIELDS: Mapping[int, str] = {
    AttributeProto.INT: "i",
    AttributeProto.FLOAT: "f",
    AttributeProto.STRING: "s",
    AttributeProto.INTS: "ints",
    AttributeProto.FLOATS: "floats",
}


def _serialized_value(attribute: AttributeProto) -> bytes:
    value = AttributeProto()
    value.CopyFrom(attribute)
    value.ClearField("name")
    value.ClearField("doc_string")
    return serialized(value)


def _without_absent(names: Any) -> tuple[str, ...]:
    """The names without absent optional ones at the end, which writers may leave out."""
    found = list(names)
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def _whole(shape: Shape | None) -> tuple[int, ...]:
    return tuple(n or 0 for n in shape or ())
