"""What is said of an operation that can be written, and where one is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnx import NodeProto, helper

from exporter.errors import ModelError
from exporter.graph import Array


@dataclass(frozen=True, eq=False)
class Site:
    """Where an operation is written.

    Attributes:
        inputs: the parted tensor first, then the operands.
        result: the tensor that the operation has to make.
        rank: of the first input; None where it is not known.
        dtype: of the first input.
        fresh: makes names for tensors in between.
        constant: writes a constant and gives its name.
        encoded: a real value as the first input holds it.
    """

    inputs: tuple[str, ...]
    result: str
    attributes: Mapping[str, Any]
    opset: int
    rank: int | None
    dtype: str
    fresh: Callable[[str], str]
    constant: Callable[[Array], str]
    encoded: Callable[[float], Array]

    def axis(self) -> int:
        """The attribute `axis`, counted from the front."""
        axis = int(self.attributes["axis"])
        if axis >= 0:
            return axis
        if self.rank is None:
            raise ModelError(f"the rank of {self.inputs[0]!r} is not known: axis {axis} is nowhere")
        return axis + self.rank

    def node(self, operator: str, *more: str, **attributes: Any) -> NodeProto:
        """One node that reads all inputs, and constants behind them."""
        inputs = [*self.inputs, *more]
        return helper.make_node(operator, inputs, [self.result], self.result, **attributes)


@dataclass(frozen=True)
class Writable:
    """How one operation is written; `formats.writable_operations` says what it takes.

    Attributes:
        write: site -> nodes in running order.
        since: the first opset that has the operation as it is written here.
    """

    write: Callable[[Site], list[NodeProto]]
    since: int = 1
