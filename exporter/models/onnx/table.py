"""The translation table: what each standard operator is as a neutral operation.

One row an operator; a row minds the version of the operators that the file imports. What has no
row is opaque: the trace refuses it by name where it meets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporter.graph import Shape
from exporter.models.onnx.call import Call
from exporter.models.onnx.protos import DEFAULT_DOMAINS
from exporter.operations import (
    Activation,
    Elementwise,
    Gather,
    Linear,
    Opaque,
    Operation,
    Reshape,
    Transpose,
)

Row = Callable[[Call], Operation]


def translate(domain: str, operator: str, call: Call) -> Operation:
    """The neutral operation that a node performs."""
    if domain not in DEFAULT_DOMAINS:
        return Opaque(f"it is not a standard operator but one of the domain {domain!r}")
    row = TABLE.get(operator)
    return row(call) if row is not None else Opaque()


# --- linear --------------------------------------------------------------------------------------


def _gemm(call: Call) -> Operation:
    """alpha and beta scale kernel and bias, whose zeros stay zeros."""
    if not call.is_constant(1):
        return _COMPUTED_KERNEL
    kernel_axis = 0 if call.attributes.get("transB", 0) else 1
    return Linear(1, kernel_axis, output_axis=1, bias=_bias(call))


def _matmul(call: Call) -> Operation:
    left, kernel = call.shape(0), call.shape(1)
    if not call.is_constant(1) or kernel is None:
        return _COMPUTED_KERNEL
    if left is None or len(kernel) != _MATRIX:
        return Opaque("it does not multiply a tensor of known rank by one matrix")
    return Linear(1, kernel_axis=1, output_axis=len(left) - 1)


def _conv(call: Call) -> Operation:
    if not call.is_constant(1):
        return _COMPUTED_KERNEL
    groups = int(call.attributes.get("group", 1))
    return Linear(1, kernel_axis=0, output_axis=1, bias=_bias(call), groups=groups)


def _bias(call: Call) -> int | None:
    return 2 if call.has(2) else None


_MATRIX = 2
_COMPUTED_KERNEL = Opaque("its kernel is not a constant but computed")


# --- element by element --------------------------------------------------------------------------


def _binary(function: str) -> Row:
    def row(call: Call) -> Operation:
        if call.opset < _NUMPY_BROADCASTING and "axis" in call.attributes:
            return Opaque("it broadcasts along a stated axis, as before opset 7")
        return _BINARY[function](call, function)

    return row


def _sum(_: Call, function: str) -> Operation:
    return Elementwise(offsets=(0, 1), function=function)


def _product(_: Call, function: str) -> Operation:
    return Elementwise(function=function)


def _quotient(call: Call, function: str) -> Operation:
    return Elementwise(keeps_zero=call.is_constant(1), function=function)


def _prelu(_: Call) -> Operation:
    return Elementwise(function="prelu")


def _identity(_: Call) -> Operation:
    """A constant's 0 stays 0, so that weights behind such a node can be zeroed."""
    return Elementwise(offsets=(0,))


def _dropout(call: Call) -> Operation:
    training = call.constant(2)
    if call.has(2) and (training is None or bool(training)):
        return Opaque("it drops values in training mode")
    if call.is_read(1):
        return Opaque("its mask is read")
    return Elementwise()


def _cast(call: Call) -> Operation:
    """Between float types values stay what they are, within the precision."""
    kinds = (call.dtype(0), call.tensors[call.outputs[0]].dtype)
    exact = all(kind in _FLOATS for kind in kinds)
    return Elementwise(offsets=(0,), function="identity" if exact else "cast")


def _batch_normalization(call: Call) -> Operation:
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias, one of each a channel."""
    if call.attributes.get("training_mode", 0) or any(map(call.is_read, range(1, 5))):
        return Opaque("it is in training mode")
    if call.attributes.get("spatial", 1) == 0:
        return Opaque("it normalises each position on its own, as before opset 9")
    bias, mean = 2, 3
    return Elementwise(offsets=(bias, mean), channel_axis=1, function="batch_normalization")


_NUMPY_BROADCASTING = 7  # the opset since which operands broadcast as in NumPy
_BINARY: Mapping[str, Callable[[Call, str], Operation]] = {
    "add": _sum,
    "sub": _sum,
    "mul": _product,
    "div": _quotient,
}
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


# --- activations ---------------------------------------------------------------------------------


def _activation(function: str, **defaults: float) -> Row:
    """Parameters are the operator's attributes of the same names, with their defaults."""

    def row(call: Call) -> Operation:
        values = {name: float(call.attributes.get(name, v)) for name, v in defaults.items()}
        return Activation(function, parameters=tuple(values.items()))

    return row


def _gelu(call: Call) -> Operation:
    approximate = float(call.attributes.get("approximate", "none") == "tanh")
    return Activation("gelu", parameters=(("approximate", approximate),))


def _clip(call: Call) -> Operation:
    """The bounds are attributes before opset 11, inputs since."""
    bounds = {n: call.attributes[n] for n in ("min", "max") if n in call.attributes}
    for slot, name in ((1, "min"), (2, "max")):
        if call.has(slot):
            value = call.constant(slot)
            if value is None or value.size != 1:
                return Opaque("its bounds are computed")
            bounds[name] = value.item()
    return Activation("clip", parameters=tuple((n, float(v)) for n, v in bounds.items()))


def _normalised(function: str) -> Row:
    def row(call: Call) -> Operation:
        shape = call.shape(0)
        if not shape:
            return Opaque("the rank of its input is not known, or 0")
        if call.opset >= _PER_AXIS:
            return Activation(function, axis=call.attributes.get("axis", -1) % len(shape))
        first = call.attributes.get("axis", 1) % (len(shape) + 1)
        axis = _only_axis(shape, first)
        if axis is None:
            return Opaque(f"it normalises all axes from {first} on together, as before opset 13")
        return Activation(function, axis=axis)

    return row


def _only_axis(shape: Shape, first: int) -> int | None:
    """Where a flattening at `first` flattens nothing: the one axis behind it wider than 1."""
    wide = [axis for axis in range(first, len(shape)) if shape[axis] != 1]
    if len(wide) > 1 or first >= len(shape):
        return None
    return wide[0] if wide else first


_PER_AXIS = 13  # the opset since which a softmax goes along one axis


# --- positions -----------------------------------------------------------------------------------


def _reshape(call: Call) -> Operation:
    """The target is an attribute before opset 5, an input since."""
    if "shape" in call.attributes:
        return Reshape(call.attributes["shape"], attribute="shape")
    values = call.constant(1)
    if values is None:
        return Opaque("its shape is computed while the model runs")
    target = tuple(int(n) for n in values.ravel())
    if call.attributes.get("allowzero", 0) and 0 in target:
        return Opaque("it makes an empty tensor")
    return Reshape(target, slot=1)


def _follows(_: Call) -> Operation:
    return Reshape()


def _squeeze(call: Call) -> Operation:
    """Without stated axes, a single unit left over would lose its axis."""
    if "axes" not in call.attributes and not call.is_constant(1):
        return Opaque("it does not state which axes it removes")
    return Reshape()


def _transpose(call: Call) -> Operation:
    shape = call.shape(0)
    if "perm" in call.attributes:
        return Transpose(call.attributes["perm"])
    if shape is None:
        return Opaque("the rank of its input is not known")
    return Transpose(tuple(reversed(range(len(shape)))))


def _gather(call: Call) -> Operation:
    shape = call.shape(0)
    axis = call.attributes.get("axis", 0)
    if call.is_constant(1) or (shape is None and axis < 0):
        return Opaque("it does not look rows up by computed indices")
    return Gather(axis if shape is None else axis % len(shape))


TABLE: Mapping[str, Row] = {
    "Add": _binary("add"),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Div": _binary("div"),
    "Dropout": _dropout,
    "Elu": _activation("elu", alpha=1.0),
    "Exp": _activation("exp"),
    "Flatten": _follows,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": _activation("hard_sigmoid", alpha=0.2, beta=0.5),
    "Identity": _identity,
    "LeakyRelu": _activation("leaky_relu", alpha=0.01),
    "LogSoftmax": _normalised("log_softmax"),
    "MatMul": _matmul,
    "Mul": _binary("mul"),
    "PRelu": _prelu,
    "Relu": _activation("relu"),
    "Reshape": _reshape,
    "Selu": _activation("selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    "Sigmoid": _activation("sigmoid"),
    "Softmax": _normalised("softmax"),
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "Squeeze": _squeeze,
    "Sub": _binary("sub"),
    "Tanh": _activation("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _follows,
}
