"""Products with a constant kernel: dense layers, convolutions, Einsum."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.onnx.call import Call, Row
from exporter.graph.operations import Linear, Opaque, Operation

_MATRIX = 2
_COMPUTED_KERNEL = Opaque("its kernel is not a constant but computed")


def _gemm(call: Call) -> Operation:
    """alpha and beta scale kernel and bias, whose zeros stay zeros."""
    if not call.is_fixed(1):
        return _COMPUTED_KERNEL
    kernel_axis = 0 if call.attributes.get("transB", 0) else 1
    scaled = call.attributes.get("beta", 1.0) != 1.0
    return Linear(1, kernel_axis, output_axis=1, bias=_bias(call), altered=scaled)


def _matmul(call: Call) -> Operation:
    left, kernel = call.shape(0), call.shape(1)
    if not call.is_fixed(1) or kernel is None:
        return _COMPUTED_KERNEL
    if left is None or len(kernel) != _MATRIX:
        return Opaque("it does not multiply a tensor of known rank by one matrix")
    return Linear(1, kernel_axis=1, output_axis=len(left) - 1)


def _conv(call: Call) -> Operation:
    if not call.is_fixed(1):
        return _COMPUTED_KERNEL
    groups = int(call.attributes.get("group", 1))
    return Linear(1, kernel_axis=0, output_axis=1, bias=_bias(call), groups=groups)


def _conv_transpose(call: Call) -> Operation:
    if not call.is_fixed(1):
        return _COMPUTED_KERNEL
    groups = int(call.attributes.get("group", 1))
    return Linear(1, kernel_axis=1, output_axis=1, bias=_bias(call), groups=groups)


def _bias(call: Call) -> int | None:
    return 2 if call.has(2) else None


def _einsum(call: Call) -> Operation:
    """A computed operand and a constant one that share nothing but axes that are summed over."""
    inputs, arrow, output = (
        str(call.attributes.get("equation", "")).replace(" ", "").partition("->")
    )
    terms = inputs.split(",")
    if len(terms) != _MATRIX or not arrow:
        return Opaque("it is not a product of two operands with a stated result")
    slots = [slot for slot in (0, 1) if call.is_fixed(slot)]
    if len(slots) != 1:
        return _COMPUTED_KERNEL
    kernel, other = terms[slots[0]], terms[1 - slots[0]]
    channels = [axis for axis in kernel if axis in output]
    plain = all(_once(term) for term in (kernel, other, output))
    if len(channels) != 1 or channels[0] in other or not plain or "." in kernel:
        return Opaque(f"{inputs}->{output} does not make one axis of a constant the output's own")
    place = output.replace("...", ".").index(channels[0])
    if "." in output[: output.index(channels[0])]:
        shape = call.output_shape()
        if shape is None:
            return Opaque("the rank of its result is not known")
        place = len(shape) - len(output[output.index(channels[0]) :])
    return Linear(slots[0], kernel.index(channels[0]), place)


def _once(term: str) -> bool:
    letters = term.replace(".", "")
    return letters.isalpha() and len(set(letters)) == len(letters)


ROWS: Mapping[str, Row] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
