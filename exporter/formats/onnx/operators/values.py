"""What changes values and leaves positions: arithmetic, activations, casts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporter.formats.onnx.call import Call, Row
from exporter.graph import Shape
from exporter.graph.operations import Activation, Elementwise, Opaque, Operation

# --- arithmetic ----------------------------------------------------------------------------------


def _binary(function: str) -> Row:
    def row(call: Call) -> Operation:
        if call.opset < _NUMPY_BROADCASTING and "axis" in call.attributes:
            return Opaque("it broadcasts along a stated axis, as before opset 7")
        return _BINARY[function](call, function)

    return row


def _sum(call: Call, function: str) -> Operation:
    return Elementwise(offsets=tuple(range(len(call.inputs))), function=function)


def _product(_: Call, function: str) -> Operation:
    return Elementwise(function=function)


def _quotient(call: Call, function: str) -> Operation:
    return Elementwise(keeps_zero=call.is_constant(1), function=function)


def _prelu(_: Call) -> Operation:
    return Elementwise(function="prelu")


def _other(function: str = "other", *, keeps_zero: bool) -> Row:
    """Of one input or of several; what it computes no oracle has to know."""
    return lambda _: Elementwise(keeps_zero=keeps_zero, function=function)


def _identity(_: Call) -> Operation:
    return Elementwise()


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
    return Elementwise(function="identity" if exact else "cast")


def _batch_normalization(call: Call) -> Operation:
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias, one of each a channel."""
    if call.attributes.get("training_mode", 0) or any(map(call.is_read, range(1, 5))):
        return Opaque("it is in training mode")
    if call.attributes.get("spatial", 1) == 0:
        return Opaque("it normalizes each position on its own, as before opset 9")
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


def _normalized(function: str) -> Row:
    def row(call: Call) -> Operation:
        shape = call.shape(0)
        if not shape:
            return _UNKNOWN_RANK
        if call.opset >= _PER_AXIS:
            return Activation(function, axis=call.attributes.get("axis", -1) % len(shape))
        first = call.attributes.get("axis", 1) % (len(shape) + 1)
        axis = _only_axis(shape, first)
        if axis is None:
            return Opaque(f"it normalizes all axes from {first} on together, as before opset 13")
        return Activation(function, axis=axis)

    return row


def _only_axis(shape: Shape, first: int) -> int | None:
    """Where a flattening at `first` flattens nothing: the one axis behind it wider than 1."""
    wide = [axis for axis in range(first, len(shape)) if shape[axis] != 1]
    if len(wide) > 1 or first >= len(shape):
        return None
    return wide[0] if wide else first


_UNKNOWN_RANK = Opaque("the rank of its input is not known, or 0")
_PER_AXIS = 13  # the opset since which a softmax goes along one axis

_ZERO_TO_ZERO = frozenset(
    {
        "Abs",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Ceil",
        "Erf",
        "Floor",
        "Neg",
        "Round",
        "Sign",
        "Sin",
        "Sinh",
        "Sqrt",
        "Tan",
    }
)
_ZERO_TO_OTHERS = frozenset(
    {
        "Acos",
        "Acosh",
        "Cos",
        "Cosh",
        "Greater",
        "GreaterOrEqual",
        "IsInf",
        "IsNaN",
        "LessOrEqual",
        "Min",
        "Not",
        "Or",
        "Pow",
        "Reciprocal",
    }
)

ROWS: Mapping[str, Row] = {
    "Add": _binary("add"),
    "And": _other("and", keeps_zero=False),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Celu": _activation("celu", alpha=1.0),
    "Clip": _clip,
    "Div": _binary("div"),
    "Dropout": _dropout,
    "Elu": _activation("elu", alpha=1.0),
    "Equal": _other("equal", keeps_zero=False),
    "Exp": _activation("exp"),
    "Gelu": _gelu,
    "HardSigmoid": _activation("hard_sigmoid", alpha=0.2, beta=0.5),
    "HardSwish": _activation("hard_swish"),
    "Identity": _identity,
    "LeakyRelu": _activation("leaky_relu", alpha=0.01),
    "Less": _other("less", keeps_zero=False),
    "Log": _other("log", keeps_zero=False),
    "LogSoftmax": _normalized("log_softmax"),
    "Max": _other("max", keeps_zero=False),
    "Mean": lambda call: _sum(call, "mean"),
    "Mish": _activation("mish"),
    "Mul": _binary("mul"),
    "PRelu": _prelu,
    "Relu": _activation("relu"),
    "Selu": _activation("selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    "Sigmoid": _activation("sigmoid"),
    "Softmax": _normalized("softmax"),
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "Sub": _binary("sub"),
    "Sum": lambda call: _sum(call, "sum"),
    "Tanh": _activation("tanh"),
    "ThresholdedRelu": _activation("thresholded_relu", alpha=1.0),
    "Where": _other("where", keeps_zero=False),
    "Xor": _other("xor", keeps_zero=False),
    **{name: _other(keeps_zero=True) for name in _ZERO_TO_ZERO},
    **{name: _other(keeps_zero=False) for name in _ZERO_TO_OTHERS},
    "Mod": lambda _: Elementwise(keeps_zero=False, function="mod"),
}
