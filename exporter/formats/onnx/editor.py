"""An ONNX model while it is edited. The source is only read; each part is copied at most once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import count

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx.constants import is_constant_node
from exporter.formats.onnx.draw import Drawing
from exporter.formats.onnx.external_data import ExternalData
from exporter.formats.onnx.lazy_parse import ARRAY_TYPES, LARGE_BYTES
from exporter.formats.onnx.order import running_order
from exporter.formats.onnx.protos import (
    FIRST_IR_WITHOUT_INPUTS,
    all_names,
    copy_of,
    copy_without,
    opset_of,
    rename_reads,
    tensor_type_of,
)
from exporter.formats.onnx.types import Types
from exporter.formats.onnx.without_outputs import remove_outputs
from exporter.graph import Array, Quantization, Tensor, Use
from exporter.graph.gathered import Gathered

_GRAPH = ""  # the consumer of the graph's outputs; no node has this name


class Editor:
    """Makes the changes of edits.

    All messages are copied at the start, in one step: a copy of each by itself takes four times as
    long. `finish` replaces the nodes and constants that were changed.

    Attributes:
        opset: version of the standard operators.
        model: the result; its nodes and initializers are still those of the source.
        types: the current type of every tensor.
        removed_outputs: names of the outputs that the result has no more.
    """

    def __init__(self, source: ModelProto, drawing: Drawing, external: ExternalData) -> None:
        """Args: external: receives the values of large constants that are new or change."""
        self.model = copy_of(source)
        self.opset = opset_of(source)
        self.types = Types(self.model.graph, drawing)
        self.removed_outputs: tuple[str, ...] = ()
        self._source = source
        self._graph = drawing.graph
        self._external = external
        self._nodes = dict(drawing.protos)
        self._copied = set[str]()  # names of the nodes that the source does not share
        self._values: dict[
            str, Array | Gathered
        ] = {}  # of the constants that are new or have changed
        self._producers = dict(drawing.producers)
        self._branches = set[str]()  # names of nodes, see `append_node`
        self._uses: dict[str, set[Use]] = {}  # of the tensors that edits met
        self._has_new_nodes = False

    @cached_property
    def _names(self) -> set[str]:
        """The names of all tensors."""
        return set(all_names(self._source.graph))

    def _uses_of(self, tensor: str) -> set[Use]:
        """The inputs that read a tensor now."""
        if tensor not in self._uses:
            read = self._graph.consumers.get(tensor, ())
            shown = enumerate(self._graph.outputs)
            self._uses[tensor] = {Use(node.name, slot) for node, slot in read} | {
                Use(_GRAPH, slot) for slot, name in shown if name == tensor
            }
        return self._uses[tensor]

    # --- names -----------------------------------------------------------------------------------

    def unique_name(self, name: str) -> str:
        """A name for a new tensor or node, made from this one; the same in every process."""
        numbered = (f"{name}__{n}" for n in count(1))
        found = next(n for n in numbered if n not in self._names and n not in self._nodes)
        self._names.add(found)
        return found

    def claim_name(self, name: str) -> str:
        """A name that the plan states (raises ModelError if a tensor has it)."""
        if name in self._names:
            raise ModelError(f"the model already has a tensor named {name!r}")
        self._names.add(name)
        return name

    # --- constants -------------------------------------------------------------------------------

    def change_constant(
        self, constant: str, uses: Iterable[Use], change: Callable[[Array], Array | Gathered]
    ) -> None:
        """Change the value of a constant for some of its uses; the others keep the old value.

        An earlier edit may have given some of the uses a separate copy already.
        """
        for name, group in self._uses_by_tensor(constant, uses).items():
            value = change(self._value(name))
            if not isinstance(value, Gathered) or value.nbytes < LARGE_BYTES:
                value = np.asarray(value.read() if isinstance(value, Gathered) else value)
            if self._uses_of(name) == group:
                self._values[name] = value
                self.types.set(name, shape=value.shape)
            else:
                copy = self.add_constant(self.unique_name(constant), value)
                self._redirect(name, copy, group)

    def add_constant(self, name: str, value: Array | Gathered) -> str:
        """Add an initializer under a new name; returns the name."""
        self.set_value(name, value)
        kind = tensor_type_of(value.dtype, value.shape)
        self.types.add(name, kind)
        if self.model.ir_version < FIRST_IR_WITHOUT_INPUTS:
            self.model.graph.input.append(ValueInfoProto(name=name, type=kind))
        return name

    def set_value(self, name: str, value: Array | Gathered) -> None:
        """Set the value of the initializer of that name, which is added if there is none."""
        self._values[name] = value

    def quantization(self, tensor: str) -> Quantization | None:
        """How a tensor of the source is quantized; None where its values are real."""
        known = self._graph.tensors.get(tensor)
        return None if known is None else known.quantization

    def constant(self, name: str) -> Tensor:
        """A constant of the source (raises ModelError if it is none)."""
        tensor = self._graph.tensors.get(name)
        if tensor is None or tensor.read is None:
            raise ModelError(f"{name!r} is not a constant")
        return tensor

    def _uses_by_tensor(self, constant: str, uses: Iterable[Use]) -> dict[str, set[Use]]:
        """The uses, grouped by the tensor that each reads now."""
        groups: dict[str, set[Use]] = {}
        for use in uses:
            node = self._nodes.get(use.node)
            if node is None or use.slot >= len(node.input):
                raise ModelError(f"{constant!r} is not read at input {use.slot} of {use.node!r}")
            groups.setdefault(node.input[use.slot], set()).add(use)
        return groups

    def _value(self, name: str) -> Array:
        if name in self._values:
            changed = self._values[name]
            return changed.read() if isinstance(changed, Gathered) else changed
        read = self.constant(name).read
        assert read is not None  # noqa: S101 - narrows the type; `constant` has checked it
        return read()

    def _redirect(self, old: str, new: str, uses: set[Use]) -> None:
        for use in uses:
            self.node(use.node).input[use.slot] = new
        self._uses[old] = self._uses_of(old) - uses
        self._uses[new] = uses

    # --- nodes -----------------------------------------------------------------------------------

    def node(self, name: str) -> NodeProto:
        """A node that may be changed (raises ModelError if there is none of that name)."""
        if name not in self._nodes:
            raise ModelError(f"the model has no node named {name!r}")
        if name not in self._copied:
            self._nodes[name] = copy_of(self._nodes[name])
            self._copied.add(name)
        return self._nodes[name]

    def append_node(self, node: NodeProto, *, branch: bool = False) -> None:
        """Add a node; `finish` moves it before those that read its outputs.

        Args:
            node: it gets a unique name.
            branch: `split_tensor` does not change the tensors that the node reads.
        """
        node.name = self.unique_name(node.name)
        if branch:
            self._branches.add(node.name)
        self._nodes[node.name] = node
        self._has_new_nodes = True
        self._copied.add(node.name)
        self._producers.update((made, node.name) for made in node.output)
        self._add_uses(node.name, node.input)

    def remove_unread(self, tensor: str) -> None:
        """Remove the producer of a tensor if nothing reads its outputs, then that of its inputs."""
        producer = self._producers.get(tensor, "")
        node = self._nodes.get(producer)
        if node is None or any(map(self._uses_of, node.output)):
            return
        del self._nodes[producer]
        for slot, name in enumerate(node.input):
            self._uses_of(name).discard(Use(producer, slot))
            self.remove_unread(name)

    def add_output(self, info: ValueInfoProto) -> None:
        """Append an output to those of the graph."""
        self.model.graph.output.append(info)
        self._add_uses(_GRAPH, [output.name for output in self.model.graph.output])

    def split_tensor(self, tensor: str, *, only_output: bool = False) -> tuple[str, str]:
        """Make two tensors from one, so that new nodes can be inserted between them.

        Args:
            tensor: its name.
            only_output: nodes still read the value; only the model's output is another tensor.

        Returns:
            The name of the value, and the name that all consumers and outputs read, which a new
            node has to make.
        """
        if tensor in self._producers:
            before = self._rename_value(tensor)
            if only_output:
                uses = {use for use in self._uses_of(tensor) if use.node != _GRAPH}
                for name in {use.node for use in uses}:
                    rename_reads(self.node(name), tensor, before)
                self._uses[before] = self._uses_of(before) | uses
                self._uses[tensor] = self._uses_of(tensor) - uses
            return before, tensor
        return tensor, self._rename_for_consumers(tensor)

    def _rename_value(self, tensor: str) -> str:
        before = self.unique_name(tensor)
        self.types.add(before, self.types.of(tensor))
        self.types.rename_statements(tensor, before)
        producer = self.node(self._producers.pop(tensor))
        producer.output[list(producer.output).index(tensor)] = before
        self._producers[before] = producer.name
        if branches := {use for use in self._uses_of(tensor) if use.node in self._branches}:
            self._redirect(tensor, before, branches)
        return before

    def _rename_for_consumers(self, tensor: str) -> str:
        all_uses = self._uses_of(tensor)
        branches = {use for use in all_uses if use.node in self._branches}
        uses = all_uses - branches
        self._uses[tensor] = branches
        if any(use.node == _GRAPH for use in uses):
            raise ModelError(
                f"no node makes the output {tensor!r}: exporter cannot insert an operation after it"
            )
        after = self.unique_name(tensor)
        self.types.add(after, self.types.of(tensor))
        for node in {use.node for use in uses}:
            rename_reads(self.node(node), tensor, after)
        self._uses[after] = uses
        return after

    def _add_uses(self, node: str, inputs: Iterable[str]) -> None:
        for slot, name in enumerate(inputs):
            self._uses_of(name).add(Use(node, slot))

    # --- the result ------------------------------------------------------------------------------

    def finish(self) -> ModelProto:
        """The edited model. Call it once, after all edits."""
        if self._values:
            self._write_values()
        self._write_nodes()
        if self.removed_outputs:
            remove_outputs(self.model, self.removed_outputs)
        return self.model

    def _write_values(self) -> None:
        """Replace the constants that have changed, and append those that are new."""
        new = {name: self._tensor(name, value) for name, value in self._values.items()}
        for tensor in self.model.graph.initializer:
            if (changed := new.pop(tensor.name, None)) is not None:
                changed.doc_string = tensor.doc_string
                tensor.CopyFrom(changed)
        for name, node in list(self._nodes.items()) if new else ():
            if is_constant_node(node) and node.output[0] in new:
                self._nodes[name] = _constant_node(node, new.pop(node.output[0]))
                self._copied.add(name)
            elif node.output and node.output[0] in new:  # a constant that the node computed
                del self._nodes[name]
        self.model.graph.initializer.extend(new.values())

    def _write_nodes(self) -> None:
        """Replace the nodes that have changed; all of them, if some are new or removed."""
        written, nodes = self.model.graph.node, self._nodes.values()
        if self._has_new_nodes or len(nodes) < len(written):
            del written[:]
            written.extend(running_order(list(nodes)) if self._has_new_nodes else nodes)
        elif self._copied:
            for index, (name, node) in enumerate(self._nodes.items()):
                if name in self._copied:
                    written[index].CopyFrom(node)

    def _tensor(self, name: str, value: Array | Gathered) -> TensorProto:
        """A constant; the values of a large one are not copied into the message."""
        if value.nbytes >= LARGE_BYTES and _element(value) in ARRAY_TYPES:
            return self._external.add_array(name, value)
        read = value.read() if isinstance(value, Gathered) else value
        return numpy_helper.from_array(read, name)


def _element(value: Array | Gathered) -> int:
    """ONNX's element type of an array."""
    return int(helper.np_dtype_to_tensor_dtype(value.dtype))


def _constant_node(node: NodeProto, value: TensorProto) -> NodeProto:
    """The Constant node with another value."""
    result = copy_without(node, "attribute")
    result.attribute.append(helper.make_attribute("value", value))
    return result
