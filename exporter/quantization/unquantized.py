"""What a library left in float: libraries pass over operations that they do not know, silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from exporter.graph import Graph, Node
from exporter.graph.operations import Linear
from exporter.graph.walk import origin, through


@dataclass(frozen=True)
class Unquantized:
    """Linear operations with constant float32 kernels, after as before.

    Attributes:
        operators: "Conv", "MatMul", ... -> how many of them are float still.
        before: how many there were.
        bytes, bytes_before: of those kernels.
    """

    operators: Counter[str]
    before: int
    bytes: int
    bytes_before: int

    @property
    def everything(self) -> bool:
        """Nothing was quantized."""
        return self.operators.total() >= self.before

    def __str__(self) -> str:
        told = ", ".join(f"{count} {name}" for name, count in sorted(self.operators.items()))
        share = self.bytes / self.bytes_before
        return f"{told} of {self.before} linear operations ({share:.1%} of their weights)"


def unquantized(before: Graph, after: Graph) -> Unquantized:
    """Compare a float graph with what a library made of it."""
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
