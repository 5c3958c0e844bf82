"""The file while it is edited: who reads what, and which buffers may be written.

A constant is a tensor, and its bytes are a buffer; either may be shared. A tensor that others read
too is copied for the uses that an edit names. A buffer that other tensors hold, in whichever
subgraph, or that is metadata, is left as it is, and the edited tensor is given a new one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.formats.tflite import constants
from exporter.formats.tflite.draw import Picture, operator_name, signatures
from exporter.formats.tflite.schema import File, text
from exporter.graph import Array, Shape, Use

NO_BUFFER = 0  # by the format's convention empty; computed tensors have it


class Editor:
    """A file and its picture, both drawn for one plan alone.

    Attributes:
        tensors: names that edits may use -> index in subgraph 0; AddInput adds to them.
    """

    def __init__(self, file: File, picture: Picture) -> None:
        self.file = file
        self.main = file.main
        self.picture = picture
        self.tensors = dict(picture.tensors)
        operators = self.main.operators or []
        self.operators = {name: operators[i] for name, i in picture.nodes.items()}
        self.branches: list[
            Any
        ] = []  # operators that read what they read now, whatever is inserted
        self._left: list[int] = []  # buffers that a tensor was moved away from
        self._made: dict[int, list[int]] = {}  # those buffers -> what replaced them

    def index(self, tensor: str) -> int:
        """Where a tensor stands; ModelError if there is none of that name."""
        if tensor not in self.tensors:
            raise ModelError(f"there is no tensor {tensor!r}")
        return self.tensors[tensor]

    def operator(self, node: str) -> Any:
        """The OperatorT of a node, wherever insertions have moved it."""
        if node not in self.operators:
            raise ModelError(f"there is no operation {node!r}")
        return self.operators[node]

    def seen_by(self, constant: str, uses: tuple[Use, ...]) -> Iterator[Any]:
        """The tensors that stand for a constant at these uses, free to be edited.

        Mostly one. Earlier edits may have given some of the uses a copy of their own.
        """
        self.index(constant)
        reads: dict[int, list[tuple[Any, int]]] = {}
        for use in uses:
            operator = self.operator(use.node)
            slot = self.picture.file_slot(use, operator_name(self.file.model, operator))
            reads.setdefault(int(operator.inputs[slot]), []).append((operator, slot))
        for index, ends in reads.items():
            named = {(id(operator), slot) for operator, slot in ends}
            all_named = named >= {(id(o), slot) for o, slot in self.readers(index)}
            if all_named and not self._is_output(index) and self.producer(index) is None:
                yield self.main.tensors[index]
                continue
            own = self._copied(index)
            for operator, slot in ends:
                rewire(operator, slot, own)
            yield self.main.tensors[own]

    def readers(self, index: int) -> list[tuple[Any, int]]:
        """Every operator of subgraph 0 that reads a tensor, with the slot."""
        return [
            (operator, slot)
            for operator in self.main.operators or ()
            if operator.inputs is not None
            for slot in np.flatnonzero(np.asarray(operator.inputs) == index).tolist()
        ]

    def producer(self, index: int) -> int | None:
        """Where the operator that computes a tensor stands in the running order, or None."""
        for place, operator in enumerate(self.main.operators or ()):
            if operator.outputs is not None and index in operator.outputs:
                return place
        return None

    def values(self, tensor: Any) -> Array:
        return constants.values(tensor, self.file.model.buffers[tensor.buffer])

    def set_values(self, tensor: Any, values: Array) -> None:
        """Give a constant other values, and the shape that they have."""
        data = constants.stored(values, tensor)
        buffers = self.file.model.buffers
        made = self._made.setdefault(tensor.buffer, [])
        equal = [i for i in made if np.array_equal(buffers[i].data, data)]
        if not equal and self._holders(tensor.buffer) == 1 and tensor.buffer != NO_BUFFER:
            buffers[tensor.buffer] = schema.BufferT(data=data)
        else:
            self._left.append(tensor.buffer)
            tensor.buffer = equal[0] if equal else self.new_buffer(data)
            made.append(tensor.buffer)
        set_shape(tensor, values.shape)

    def new_buffer(self, data: Array) -> int:
        self.file.model.buffers.append(schema.BufferT(data=data))
        return len(self.file.model.buffers) - 1

    def new_tensor(self, name: str, dtype: str, shape: Shape) -> int:
        """Append an empty tensor under a name like this one; its index."""
        if dtype not in constants.CODES:
            raise ModelError(f"the format has no tensors of type {dtype}")
        tensor = schema.TensorT(type=constants.CODES[dtype], buffer=NO_BUFFER, hasRank=True)
        tensor.name = self._free(name)
        set_shape(tensor, shape)
        self.main.tensors.append(tensor)
        return len(self.main.tensors) - 1

    def new_constant(self, name: str, values: Array) -> int:
        index = self.new_tensor(name, values.dtype.name, values.shape)
        self.main.tensors[index].buffer = self.new_buffer(constants.as_bytes(values))
        return index

    def drop_unused(self) -> None:
        """Empty the buffers that no tensor holds any more, so that the file shrinks."""
        for index in self._left:
            if index != NO_BUFFER and not self._holders(index):
                self.file.model.buffers[index].data = None

    def drop_unread(self, index: int) -> None:
        """Take the operator away that computes a tensor which nobody reads, and so on upwards."""
        place = self.producer(index)
        if place is None:
            return
        operator = self.main.operators[place]
        if any(self.readers(int(each)) or self._is_output(int(each)) for each in operator.outputs):
            return
        del self.main.operators[place]
        for each in operator.inputs:
            self.drop_unread(int(each))

    def _holders(self, buffer: int) -> int:
        """How many tensors of all subgraphs, and metadata, hold a buffer."""
        model = self.file.model
        held = sum(t.buffer == buffer for s in model.subgraphs for t in s.tensors or ())
        legacy = () if model.metadataBuffer is None else model.metadataBuffer
        listed = [entry.buffer for entry in model.metadata or ()]
        return int(held + listed.count(buffer) + list(legacy).count(buffer))

    def _is_output(self, index: int) -> bool:
        named = {e.tensorIndex for each in signatures(self.file.model) for e in each.outputs or ()}
        return index in named or (self.main.outputs is not None and index in self.main.outputs)

    def _copied(self, index: int) -> int:
        tensor = copy.copy(self.main.tensors[index])
        tensor.quantization = copy.copy(tensor.quantization)
        tensor.name = self._free(f"{text(tensor.name)}/cut")
        self.main.tensors.append(tensor)
        return len(self.main.tensors) - 1

    def _free(self, name: str) -> str:
        taken = {text(tensor.name) for tensor in self.main.tensors} | set(self.tensors)
        tries = (name, *(f"{name}_{i}" for i in range(1, len(taken) + 1)))
        return next(each for each in tries if each not in taken)


def rewire(operator: Any, slot: int, index: int) -> None:
    """Let an operator read another tensor."""
    inputs = np.array(operator.inputs, np.int32)
    inputs[slot] = index
    operator.inputs = inputs


def set_shape(tensor: Any, shape: Shape) -> None:
    """The shape, and the signature where something is open or the file states one."""
    tensor.shape = np.array([1 if n is None else n for n in shape], np.int32)
    states = tensor.shapeSignature is not None and len(tensor.shapeSignature)
    if states or None in shape:
        tensor.shapeSignature = np.array([-1 if n is None else n for n in shape], np.int32)
