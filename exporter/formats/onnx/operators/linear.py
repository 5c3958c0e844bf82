"""Products with a constant kernel: dense layers, convolutions, Einsum."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.onnx.node_view import COMPUTED_KERNEL, NodeView, Translate
from exporter.graph.operations import Linear

_MATRIX = 2


def gemm(node: NodeView, kernel: int = 1, bias: int | None = 2) -> Linear:
    """alpha scales the kernel and beta the bias; zeros remain zeros."""
    _require_fixed(node, kernel)
    kernel_axis = 0 if node.attributes.get("transB", 0) else 1
    scaled = node.attributes.get("beta", 1.0) != 1.0
    return Linear(kernel, kernel_axis, output_axis=1, bias=node.optional(bias), altered=scaled)


def matmul(node: NodeView, kernel: int = 1, bias: int | None = None) -> Linear:
    left, matrix = node.shape(0), node.shape(kernel)
    _require_fixed(node, kernel)
    if matrix is None:
        raise UntranslatableError(COMPUTED_KERNEL)
    if left is None or len(matrix) != _MATRIX:
        raise UntranslatableError("it does not multiply a tensor of known rank by one matrix")
    return Linear(kernel, kernel_axis=1, output_axis=len(left) - 1, bias=node.optional(bias))


def conv(node: NodeView, kernel: int = 1, bias: int | None = 2) -> Linear:
    return _conv(node, kernel, bias, kernel_axis=0)


def _conv_transpose(node: NodeView) -> Linear:
    return _conv(node, kernel=1, bias=2, kernel_axis=1)


def _conv(node: NodeView, kernel: int, bias: int | None, kernel_axis: int) -> Linear:
    _require_fixed(node, kernel)
    groups = int(node.attributes.get("group", 1))
    return Linear(kernel, kernel_axis, output_axis=1, bias=node.optional(bias), groups=groups)


def _require_fixed(node: NodeView, kernel: int) -> None:
    if not node.is_fixed(kernel):
        raise UntranslatableError(COMPUTED_KERNEL)


def _einsum(node: NodeView) -> Linear:
    """A computed operand times a constant one, which share only axes that are summed over.

    Example: "bti,io->bto", where o is the axis of units.
    """
    equation = str(node.attributes.get("equation", "")).replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    if len(terms) != _MATRIX or not arrow:
        raise UntranslatableError("it is not a product of two operands with a stated result")
    slots = [slot for slot in (0, 1) if node.is_fixed(slot)]
    if len(slots) != 1:
        raise UntranslatableError(COMPUTED_KERNEL)
    kernel, other = terms[slots[0]], terms[1 - slots[0]]
    channels = [axis for axis in kernel if axis in output]
    plain = all(_has_distinct_axes(term) for term in (kernel, other, output))
    if len(channels) != 1 or channels[0] in other or not plain or "." in kernel:
        raise UntranslatableError(
            f"{inputs}->{output} does not give the result one axis that only the constant has"
        )
    return Linear(slots[0], kernel.index(channels[0]), _output_axis(node, output, channels[0]))


def _output_axis(node: NodeView, output: str, channel: str) -> int:
    """The position of a letter in the output, in which "..." means any number of axes."""
    position = output.index(channel)
    if "." not in output[:position]:
        return position
    shape = node.output_shape()
    if shape is None:
        raise UntranslatableError("the rank of its result is not known")
    return len(shape) - len(output[position:])


def _has_distinct_axes(term: str) -> bool:
    letters = term.replace(".", "")
    return letters.isalpha() and len(set(letters)) == len(letters)


ROWS: Mapping[str, Translate] = {
    "Conv": conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": gemm,
    "MatMul": matmul,
}
