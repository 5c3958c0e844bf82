"""Products with a constant kernel: dense layers, convolutions, Einsum."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.onnx.node_view import COMPUTED_KERNEL, NodeView, Translate
from exporter.graph.operations import Contraction, Linear, Window

_MATRIX = 2


def gemm(node: NodeView, kernel: int = 1, bias: int | None = 2) -> Linear:
    """alpha scales the kernel and beta the bias; zeros remain zeros."""
    _require_fixed(node, kernel)
    kernel_axis = 0 if node.attributes.get("transB", 0) else 1
    scaled = node.attributes.get("beta", 1.0) != 1.0
    plain = not scaled and node.attributes.get("alpha", 1.0) == 1.0
    summed = None
    if plain and not node.attributes.get("transA", 0):
        summed = Contraction(0, input_axis=1, kernel_axis=1 - kernel_axis)
    return Linear(
        kernel,
        kernel_axis,
        output_axis=1,
        bias=node.optional(bias),
        altered=scaled,
        contraction=summed,
    )


def matmul(node: NodeView, kernel: int = 1, bias: int | None = None) -> Linear:
    left, matrix = node.shape(0), node.shape(kernel)
    _require_fixed(node, kernel)
    if matrix is None:
        raise UntranslatableError(COMPUTED_KERNEL)
    if left is None or len(matrix) != _MATRIX:
        raise UntranslatableError("it does not multiply a tensor of known rank by one matrix")
    last = len(left) - 1
    summed = Contraction(0, input_axis=last, kernel_axis=0)
    return Linear(
        kernel, kernel_axis=1, output_axis=last, bias=node.optional(bias), contraction=summed
    )


def conv(node: NodeView, kernel: int = 1, bias: int | None = 2) -> Linear:
    return _conv(node, kernel, bias, kernel_axis=0)


def _conv_transpose(node: NodeView) -> Linear:
    return _conv(node, kernel=1, bias=2, kernel_axis=1)


def _conv(node: NodeView, kernel: int, bias: int | None, kernel_axis: int) -> Linear:
    _require_fixed(node, kernel)
    groups = int(node.attributes.get("group", 1))
    window = _window(node, kernel)
    transposed = kernel_axis == 1
    summed = Contraction(0, 1, 1 - kernel_axis, None if transposed else window, transposed)
    return Linear(
        kernel,
        kernel_axis,
        output_axis=1,
        bias=node.optional(bias),
        groups=groups,
        contraction=summed if window else None,
        groups_attribute="group",
    )


def _window(node: NodeView, kernel: int) -> Window | None:
    """None if the rank of the kernel, or its padding, is not known."""
    rank = len(node.shape(kernel) or ())
    spatial = tuple(range(_MATRIX, rank))
    ones = (1,) * len(spatial)
    pads = tuple(int(n) for n in node.attributes.get("pads", ()))
    auto = str(node.attributes.get("auto_pad", "NOTSET"))
    if rank < _MATRIX or auto not in _AUTO_PADS:
        return None
    stated = pads or (0,) * 2 * len(spatial)
    ends = tuple(zip(stated[: len(spatial)], stated[len(spatial) :], strict=True))
    if auto == "VALID":
        ends = ((0, 0),) * len(spatial)
    return Window(
        spatial,
        spatial,
        tuple(int(n) for n in node.attributes.get("strides", ones)),
        tuple(int(n) for n in node.attributes.get("dilations", ones)),
        _AUTO_PADS[auto] or ends,
    )


_AUTO_PADS = {"NOTSET": "", "VALID": "", "SAME_UPPER": "upper", "SAME_LOWER": "lower"}


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
    return Linear(
        slots[0],
        kernel.index(channels[0]),
        _output_axis(node, output, channels[0]),
        contraction=_einsum_contraction(1 - slots[0], kernel, other, output),
    )


def _einsum_contraction(data: int, kernel: str, other: str, output: str) -> Contraction | None:
    """None where several axes are summed, or "..." hides the position of the axis."""
    summed = [letter for letter in kernel if letter not in output]
    if len(kernel) != _MATRIX or len(summed) != 1 or summed[0] not in other or "." in other:
        return None
    return Contraction(data, other.index(summed[0]), kernel.index(summed[0]))


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
