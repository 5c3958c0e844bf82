"""Find the operations that a library left float: libraries skip unknown operations silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from exporter.graph import Graph, Node
from exporter.graph.operations import Linear
from exporter.graph.walk import origin, through


@dataclass(frozen=True)
class Unquantized:
    """Linear operations whose kernel was constant float32 before, and still is.

    Attributes:
        operators: "Conv", "MatMul", ... -> how many of them are still float.
        before: how many there were.
        bytes, bytes_before: of the kernels that are float now, and before.
    """

    operators: Counter[str]
    before: int
    bytes: int
    bytes_before: int

    @property
    def is_everything(self) -> bool:
        """Was nothing quantized?"""
        return self.operators.total() >= self.before

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.operators.items()))
        share = self.bytes / self.bytes_before
        return f"{counts} of {self.before} linear operations ({share:.1%} of their weights)"


def unquantized(before: Graph, after: Graph) -> Unquantized:
    """Compare a float graph with its quantized version."""
    old, new = list(_float_kernels(before)), list(_float_kernels(after))
    return Unquantized(
        operators=Counter(node.operator for node, _ in new),
        before=len(old),
        bytes=sum(size for _, size in new),
        bytes_before=max(1, sum(size for _, size in old)),
    )


def _float_kernels(graph: Graph) -> Iterator[tuple[Node, int]]:
    for node in graph.nodes:
        if isinstance(node.operation, Linear):
            kernel = node.inputs[node.operation.kernel]
            tensor = graph.tensors[origin(graph.producers, kernel, through("cast", "dequantize"))]
            if tensor.is_constant and tensor.dtype == "float32":
                yield node, tensor.size_bytes or 0
