"""How an operation is written in ONNX, and the place where it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from exporter.errors import ModelError
from exporter.formats.onnx.editor import Editor
from exporter.formats.onnx.protos import dtype_of, element_type, numpy_dtype
from exporter.graph import Array


@dataclass(frozen=True, eq=False)
class Site:
    """The place where an operation is written.

    Attributes:
        editor: of the model.
        tensor: the one that the edit names; the first input has its dtype and quantization.
        inputs: the first input, then the operands.
        result: the tensor that the operation has to make.
        attributes: of the operation.
    """

    editor: Editor
    tensor: str
    inputs: tuple[str, ...]
    result: str
    operation: str
    attributes: Mapping[str, Any]

    @property
    def opset(self) -> int:
        return self.editor.opset

    @property
    def dtype(self) -> str:
        """Of the first input."""
        return dtype_of(self.editor.types.of(self.inputs[0]))

    def rank(self) -> int:
        """Of the first input (raises ModelError if it is not known)."""
        shape = self.editor.types.shape(self.inputs[0])
        if shape is None:
            raise ModelError(f"the rank of {self.inputs[0]!r} is not known")
        return len(shape)

    def axis(self) -> int:
        """The attribute `axis`, counted from the front."""
        axis = int(self.attributes["axis"])
        return axis if axis >= 0 else axis + self.rank()

    def new_name(self, suffix: str) -> str:
        """A name for a tensor between two nodes."""
        return self.editor.unique_name(f"{self.result}__{suffix}")

    def constant(self, value: Array) -> str:
        """Add a constant; returns its name."""
        return self.editor.add_constant(self.new_name(self.operation), value)

    def quantized(self, value: float) -> Array:
        """A real value as the first input stores it, as a scalar."""
        known = self.editor.quantization(self.tensor)
        stored = value if known is None else known.quantize(np.asarray(value))
        dtype = dtype_of(self.editor.types.of(self.tensor))
        return np.asarray(stored).astype(numpy_dtype(dtype)).reshape(())

    def node(self, operator: str, *more: str, **attributes: Any) -> NodeProto:
        """A node that reads all inputs, then `more`, and makes the result."""
        return make_node(operator, [*self.inputs, *more], self.result, **attributes)

    def to_result(self, name: str, dtype: str) -> NodeProto:
        """A Cast of a tensor that makes the result."""
        return make_node("Cast", [name], self.result, to=element_type(dtype))


def make_node(operator: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    """A node with one output, named like the output."""
    return helper.make_node(operator, inputs, [output], output, **attributes)


@dataclass(frozen=True)
class Writable:
    """How one operation is written; `formats.writable_operations` says what it takes.

    Attributes:
        write: gives the nodes in running order.
        since: the first opset in which the operators have this form.
    """

    write: Callable[[Site], list[NodeProto]]
    since: int = 1
