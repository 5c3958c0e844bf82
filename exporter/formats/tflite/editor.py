"""A file while it is edited: which operator reads a tensor, and which buffers may be changed.

A constant is a tensor, and its bytes are a buffer; either may be shared. If other operators read
the tensor too, the operators that an edit names get a copy. If other tensors (of any subgraph) or
metadata have the same buffer, the edited tensor gets a new buffer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite import constants
from exporter.formats.tflite.draw import Drawing
from exporter.formats.tflite.record import Record
from exporter.formats.tflite.schema import File, integers, operator_name, signatures, text
from exporter.graph import Array, Shape, Use

NO_BUFFER = 0  # by the format's convention empty; computed tensors have it


class Editor:
    """A file and its drawing, made for the edits of one plan.

    Attributes:
        tensors: names that edits may use -> index in subgraph 0; AddInput adds to them.
        branches: inserted operators that keep reading a tensor when an operation is inserted
            after it.
    """

    def __init__(self, file: File, drawing: Drawing) -> None:
        self.file = file
        self.main = file.main
        self.drawing = drawing
        self.tensors = dict(drawing.tensors)
        self.main.operators = list(self.main.operators or ())
        self.operators = {name: self.main.operators[i] for name, i in drawing.nodes.items()}
        self.branches: list[Any] = []
        self._replacements: dict[int, list[int]] = {}  # buffer -> the buffers that replaced it

    def index(self, tensor: str) -> int:
        """The index of a tensor; ModelError if there is none of that name."""
        if tensor not in self.tensors:
            raise ModelError(f"there is no tensor {tensor!r}")
        return self.tensors[tensor]

    def operator(self, node: str) -> Any:
        """The OperatorT of a node; ModelError if there is none of that name."""
        if node not in self.operators:
            raise ModelError(f"there is no operation {node!r}")
        return self.operators[node]

    def editable_tensors(self, constant: str, uses: tuple[Use, ...]) -> Iterator[Any]:
        """The tensors that these uses of a constant read, free to be edited.

        Mostly one. Several, if earlier edits have given some of the uses a copy.
        """
        self.index(constant)
        inputs: dict[int, list[tuple[Any, int]]] = {}
        for use in uses:
            operator = self.operator(use.node)
            slot = self.drawing.file_slot(use, operator_name(self.file.model, operator))
            inputs.setdefault(int(operator.inputs[slot]), []).append((operator, slot))
        for index, read in inputs.items():
            named = {(id(operator), slot) for operator, slot in read}
            all_named = named >= {(id(o), slot) for o, slot in self.consumers(index)}
            if all_named and not self._is_output(index) and self.producer(index) is None:
                yield self.main.tensors[index]
                continue
            copied = self._copied(index)
            for operator, slot in read:
                rewire(operator, slot, copied)
            yield self.main.tensors[copied]

    def consumers(self, index: int, *, branches: bool = True) -> list[tuple[Any, int]]:
        """Every operator of subgraph 0 that reads a tensor, with the slot.

        Args:
            branches: False: without the inserted branches.
        """
        excluded = set() if branches else {id(operator) for operator in self.branches}
        return [
            (operator, slot)
            for operator in self.main.operators
            if id(operator) not in excluded
            for slot, read in enumerate(integers(operator.inputs))
            if read == index
        ]

    def producer(self, index: int) -> int | None:
        """The position, in the running order, of the operator that computes a tensor."""
        for position, operator in enumerate(self.main.operators):
            if index in integers(operator.outputs):
                return position
        return None

    def values(self, tensor: Any) -> Array:
        return constants.values(tensor, self.file.model.buffers[tensor.buffer])

    def set_values(self, tensor: Any, values: Array) -> None:
        """Give a constant other values, and their shape."""
        data = constants.stored(values, tensor)
        buffers = self.file.model.buffers
        made = self._replacements.setdefault(tensor.buffer, [])
        equal = [i for i in made if np.array_equal(buffers[i].data, data)]
        if not equal and self._references(tensor.buffer) == 1 and tensor.buffer != NO_BUFFER:
            buffers[tensor.buffer] = Record("Buffer", data=data)
        else:
            tensor.buffer = equal[0] if equal else self.new_buffer(data)
            made.append(tensor.buffer)
        set_shape(tensor, values.shape)

    def new_buffer(self, data: Array) -> int:
        self.file.model.buffers.append(Record("Buffer", data=data))
        return len(self.file.model.buffers) - 1

    def new_tensor(self, name: str, dtype: str, shape: Shape) -> int:
        """Append a computed tensor, numbered if its name is taken; return its index."""
        if dtype not in constants.TYPE_CODES:
            raise ModelError(f"the format has no tensors of type {dtype}")
        tensor: Any = Record(
            "Tensor", type=constants.TYPE_CODES[dtype], buffer=NO_BUFFER, hasRank=True
        )
        tensor.name = self._free_name(name)
        set_shape(tensor, shape)
        return self._append(tensor)

    def new_constant(self, name: str, values: Array) -> int:
        index = self.new_tensor(name, values.dtype.name, values.shape)
        self.main.tensors[index].buffer = self.new_buffer(constants.as_bytes(values))
        return index

    def clear_unused_buffers(self) -> None:
        """Empty the replaced buffers that no tensor has any more, so that the file shrinks."""
        for index in self._replacements:
            if index != NO_BUFFER and not self._references(index):
                self.file.model.buffers[index].data = None

    def drop_unread(self, index: int) -> None:
        """Remove the operator that computes a tensor, if nothing reads it; then its producers."""
        position = self.producer(index)
        if position is None:
            return
        operator = self.main.operators[position]
        if any(
            self.consumers(each) or self._is_output(each) for each in integers(operator.outputs)
        ):
            return
        del self.main.operators[position]
        for each in integers(operator.inputs):
            self.drop_unread(each)

    def _references(self, buffer: int) -> int:
        """How many tensors, of all subgraphs, and metadata entries have a buffer."""
        model = self.file.model
        used = [tensor.buffer for each in model.subgraphs for tensor in each.tensors or ()]
        used += [entry.buffer for entry in model.metadata or ()]
        used += integers(model.metadataBuffer)
        return used.count(buffer)

    def _is_output(self, index: int) -> bool:
        named = {e.tensorIndex for each in signatures(self.file.model) for e in each.outputs or ()}
        return index in named or index in integers(self.main.outputs)

    def _copied(self, index: int) -> int:
        tensor = copy.copy(self.main.tensors[index])
        tensor.quantization = copy.copy(tensor.quantization)
        tensor.name = self._free_name(f"{text(tensor.name)}/cut")
        return self._append(tensor)

    def _append(self, tensor: Any) -> int:
        self.main.tensors.append(tensor)
        return len(self.main.tensors) - 1

    def _free_name(self, name: str) -> str:
        taken = {text(tensor.name) for tensor in self.main.tensors} | set(self.tensors)
        tries = (name, *(f"{name}_{i}" for i in range(1, len(taken) + 1)))
        return next(each for each in tries if each not in taken)


def rewire(operator: Any, slot: int, index: int) -> None:
    """Let an operator read another tensor."""
    inputs = np.array(operator.inputs, np.int32)
    inputs[slot] = index
    operator.inputs = inputs


def set_shape(tensor: Any, shape: Shape) -> None:
    """Set the shape, and the shape signature if a dimension is open or the file has a signature."""
    tensor.shape = np.array([1 if n is None else n for n in shape], np.int32)
    if integers(tensor.shapeSignature) or None in shape:
        tensor.shapeSignature = np.array([-1 if n is None else n for n in shape], np.int32)
