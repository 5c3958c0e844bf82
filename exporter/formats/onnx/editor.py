"""A model while it is edited: the source is only read, and each part is copied once at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx.constants import is_constant_node
from exporter.formats.onnx.draw import Drawing
from exporter.formats.onnx.order import running_order
from exporter.formats.onnx.protos import (
    FIRST_IR_WITHOUT_INPUTS,
    copy_without,
    every_name,
    opset_of,
    rename_reads,
    tensor_type_of,
)
from exporter.formats.onnx.types import Types
from exporter.graph import Array, Quantization, Tensor, Use

_OUTSIDE = ""  # who reads the outputs: a node that no edit can name


class Draft:
    """What an edit may do to a model.

    Nodes and constants stay those of the source until they are written to; all else is copied at
    the start. `finish` puts the parts together.

    Attributes:
        opset: version of the standard operators.
        model: the result, without its nodes and initializers.
        types: of every tensor, as they stand.
    """

    def __init__(self, source: ModelProto, drawing: Drawing) -> None:
        self.model = copy_without(source, "graph")
        self.model.graph.CopyFrom(copy_without(source.graph, "node", "initializer"))
        self.opset = opset_of(source)
        self.types = Types(self.model.graph, drawing)
        self._source = source
        self._graph = drawing.graph
        self._nodes: dict[str, NodeProto] = dict(zip(drawing.names, source.graph.node, strict=True))
        self._written = set[str]()  # names of the nodes that are no longer the source's own
        self._values: dict[str, Array] = {}  # of the constants that are new or have changed
        self._names = set(every_name(source.graph))
        self._makers = {name: node.name for name, (node, _) in self._graph.producers.items()}
        self._branch = set[str]()  # names of the nodes of branches
        self._uses: dict[str, set[Use]] = {}
        for node in self._graph.nodes:
            self._add_uses(node.name, node.inputs)
        self._add_uses(_OUTSIDE, self._graph.outputs)

    # --- names -----------------------------------------------------------------------------------

    def fresh(self, name: str) -> str:
        """A name that nothing has yet, made from this one; the same in every process."""
        numbered = (f"{name}__{n}" for n in count(1))
        found = next(n for n in numbered if n not in self._names and n not in self._nodes)
        self._names.add(found)
        return found

    def claim(self, name: str) -> str:
        """A name that was chosen outside (raises ModelError if something has it)."""
        if name in self._names:
            raise ModelError(f"the model already has a tensor named {name!r}")
        self._names.add(name)
        return name

    # --- constants -------------------------------------------------------------------------------

    def change(self, constant: str, uses: Iterable[Use], change: Callable[[Array], Array]) -> None:
        """Give those uses of a constant another value; what else uses it keeps the one it has.

        An earlier edit may have given some of the uses a copy of their own already.
        """
        for name, group in self._as_read_now(constant, uses).items():
            value = np.asarray(change(self._value(name)))
            if self._uses[name] == group:
                self._values[name] = value
                self.types.set(name, shape=value.shape)
            else:
                self._redirect(name, self.add_constant(self.fresh(constant), value), group)

    def add_constant(self, name: str, value: Array) -> str:
        """A new initializer under a name that is claimed or fresh; gives the name back."""
        self.set_value(name, value)
        kind = tensor_type_of(value)
        self.types.add(name, kind)
        if self.model.ir_version < FIRST_IR_WITHOUT_INPUTS:
            self.model.graph.input.append(ValueInfoProto(name=name, type=kind))
        return name

    def set_value(self, name: str, value: Array) -> None:
        """The initializer of that name, which is added if there is none."""
        self._values[name] = value

    def quantization(self, tensor: str) -> Quantization | None:
        """What the codes of a tensor of the source stand for; None where its values are real."""
        known = self._graph.tensors.get(tensor)
        return None if known is None else known.quantization

    def constant(self, name: str) -> Tensor:
        """A constant as it was drawn (raises ModelError if it is none)."""
        tensor = self._graph.tensors.get(name)
        if tensor is None or tensor.read is None:
            raise ModelError(f"{name!r} is not a constant")
        return tensor

    def _as_read_now(self, constant: str, uses: Iterable[Use]) -> dict[str, set[Use]]:
        """The uses by the name that they read now."""
        groups: dict[str, set[Use]] = {}
        for use in uses:
            node = self._nodes.get(use.node)
            if node is None or use.slot >= len(node.input):
                raise ModelError(f"{constant!r} is not read at input {use.slot} of {use.node!r}")
            groups.setdefault(node.input[use.slot], set()).add(use)
        return groups

    def _value(self, name: str) -> Array:
        if name in self._values:
            return self._values[name]
        read = self.constant(name).read
        assert read is not None  # noqa: S101 - narrows the type; `constant` sees to it
        return read()

    def _redirect(self, old: str, new: str, uses: set[Use]) -> None:
        for use in uses:
            self.node(use.node).input[use.slot] = new
        self._uses[old] -= uses
        self._uses[new] = uses

    # --- nodes -----------------------------------------------------------------------------------

    def node(self, name: str) -> NodeProto:
        """A node to write to (raises ModelError if there is none of that name)."""
        if name not in self._nodes:
            raise ModelError(f"the model has no node named {name!r}")
        if name not in self._written:
            self._nodes[name] = copy_without(self._nodes[name])
            self._written.add(name)
        return self._nodes[name]

    def append(self, node: NodeProto, *, branch: bool = False) -> None:
        """A new node; `finish` moves it in front of those that read its results.

        A node of a branch reads what it reads now, also where a gap opens behind that.
        """
        node.name = self.fresh(node.name)
        if branch:
            self._branch.add(node.name)
        self._nodes[node.name] = node
        self._written.add(node.name)
        self._makers.update((made, node.name) for made in node.output)
        self._add_uses(node.name, node.input)

    def drop_unread(self, tensor: str) -> None:
        """Take the node away that makes a tensor which nobody reads, and so on upwards."""
        maker = self._makers.get(tensor, "")
        node = self._nodes.get(maker)
        if node is None or any(self._uses.get(name) for name in node.output):
            return
        del self._nodes[maker]
        for slot, name in enumerate(node.input):
            self._uses[name].discard(Use(maker, slot))
            self.drop_unread(name)

    def add_output(self, info: ValueInfoProto) -> None:
        """One more output, behind the others."""
        self.model.graph.output.append(info)
        self._add_uses(_OUTSIDE, [output.name for output in self.model.graph.output])

    def part(self, tensor: str) -> tuple[str, str]:
        """Open a gap behind a tensor.

        Returns:
            The name of its value, and the name that all its readers, outputs too, now read, and
            that a new node has to make.
        """
        if tensor in self._makers:
            return self._part_from_maker(tensor), tensor
        return tensor, self._part_from_readers(tensor)

    def _part_from_maker(self, tensor: str) -> str:
        before = self.fresh(tensor)
        self.types.add(before, self.types.of(tensor))
        self.types.rename_statements(tensor, before)
        maker = self.node(self._makers.pop(tensor))
        maker.output[list(maker.output).index(tensor)] = before
        self._makers[before] = maker.name
        if apart := {use for use in self._uses.get(tensor, ()) if use.node in self._branch}:
            self._redirect(tensor, before, apart)
        return before

    def _part_from_readers(self, tensor: str) -> str:
        every = self._uses.pop(tensor, set())
        apart = {use for use in every if use.node in self._branch}
        uses = every - apart
        self._uses[tensor] = apart
        if any(use.node == _OUTSIDE for use in uses):
            raise ModelError(f"{tensor!r} is an output that no node makes; nothing fits behind it")
        after = self.fresh(tensor)
        self.types.add(after, self.types.of(tensor))
        for node in {use.node for use in uses}:
            rename_reads(self.node(node), tensor, after)
        self._uses[after] = uses
        return after

    def _add_uses(self, node: str, inputs: Iterable[str]) -> None:
        for slot, name in enumerate(inputs):
            self._uses.setdefault(name, set()).add(Use(node, slot))

    # --- the result ------------------------------------------------------------------------------

    def finish(self) -> ModelProto:
        """The edited model; nothing may be edited any more."""
        left = dict(self._values)
        initializers = self.model.graph.initializer
        for tensor in self._source.graph.initializer:
            if tensor.name in left:
                initializers.append(_with_value(tensor, left.pop(tensor.name)))
            else:
                initializers.append(tensor)
        for name, node in list(self._nodes.items()):
            if is_constant_node(node) and node.output[0] in left:
                self._nodes[name] = _holding(node, left.pop(node.output[0]))
            elif node.output and node.output[0] in left:  # a constant that the node came to
                del self._nodes[name]
        initializers.extend(numpy_helper.from_array(v, name) for name, v in left.items())
        self.model.graph.node.extend(running_order(list(self._nodes.values())))
        return self.model


def _with_value(tensor: TensorProto, value: Array) -> TensorProto:
    result = numpy_helper.from_array(value, tensor.name)
    result.doc_string = tensor.doc_string
    return result


def _holding(node: NodeProto, value: Array) -> NodeProto:
    """The Constant node with another value."""
    result = copy_without(node, "attribute")
    attribute = result.attribute.add(name="value", type=AttributeProto.TENSOR)
    attribute.t.CopyFrom(numpy_helper.from_array(value, node.output[0]))
    return result
