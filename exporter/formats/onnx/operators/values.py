"""Operators that change values and keep positions: arithmetic, activations, casts."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.onnx.node_view import NodeView, Translate
from exporter.graph import Shape
from exporter.graph.operations import Activation, Elementwise, Operation

# --- arithmetic ----------------------------------------------------------------------------------


def elementwise(function: str = "other", *, keeps_zero: bool = True) -> Translate:
    """One input or several; "other" is a function that no oracle needs to compute."""
    return lambda _: Elementwise(keeps_zero=keeps_zero, function=function)


def _sum(function: str) -> Translate:
    """Each constant among the inputs is added to the others."""
    return lambda node: Elementwise(offsets=tuple(range(len(node.inputs))), function=function)


def _div(node: NodeView) -> Operation:
    return Elementwise(keeps_zero=node.is_constant(1), function="div")


def _broadcasting(translate: Translate) -> Translate:
    def checked(node: NodeView) -> Operation:
        if node.opset < _NUMPY_BROADCASTING and "axis" in node.attributes:
            raise UntranslatableError("it broadcasts along a stated axis, as before opset 7")
        return translate(node)

    return checked


def _dropout(node: NodeView) -> Operation:
    training = node.constant(2)
    if node.has(2) and (training is None or bool(training)):
        raise UntranslatableError("it drops values in training mode")
    if node.is_read(1):
        raise UntranslatableError("its mask is read")
    return Elementwise()


def _cast(node: NodeView) -> Operation:
    """Between float types, values are the same within the precision."""
    dtypes = (node.dtype(0), node.tensors[node.outputs[0]].dtype)
    exact = all(dtype in _FLOATS for dtype in dtypes)
    return Elementwise(function="identity" if exact else "cast")


def _batch_normalization(node: NodeView) -> Operation:
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias, with per-channel parameters."""
    if node.attributes.get("training_mode", 0) or any(map(node.is_read, range(1, 5))):
        raise UntranslatableError("it is in training mode")
    if node.attributes.get("spatial", 1) == 0:
        raise UntranslatableError("it normalizes each position separately, as before opset 9")
    bias, mean = 2, 3
    return Elementwise(offsets=(bias, mean), channel_axis=1, function="batch_normalization")


_NUMPY_BROADCASTING = 7  # the opset since which operands broadcast as in NumPy
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


# --- activations ---------------------------------------------------------------------------------


def activation(function: str, **defaults: float) -> Translate:
    """Parameters are the operator's attributes of the same names, with their defaults."""

    def translate(node: NodeView) -> Operation:
        values = {name: float(node.attributes.get(name, v)) for name, v in defaults.items()}
        return Activation(function, parameters=tuple(values.items()))

    return translate


def _gelu(node: NodeView) -> Operation:
    approximate = float(node.attributes.get("approximate", "none") == "tanh")
    return Activation("gelu", parameters=(("approximate", approximate),))


def _clip(node: NodeView) -> Operation:
    """The bounds are attributes before opset 11, inputs since."""
    bounds = {name: node.attributes.get(name) for name in ("min", "max")}
    for slot, name in ((1, "min"), (2, "max")):
        if node.has(slot):
            value = node.constant(slot)
            if value is None or value.size != 1:
                raise UntranslatableError("its bounds are computed")
            bounds[name] = value.item()
    stated = ((name, float(bound)) for name, bound in bounds.items() if bound is not None)
    return Activation("clip", parameters=tuple(stated))


def _softmax(function: str) -> Translate:
    def translate(node: NodeView) -> Operation:
        shape = node.known_shape()
        if not shape:
            raise UntranslatableError("its input has no axis")
        if node.opset >= PER_AXIS:
            return Activation(function, axis=node.axis(default=-1))
        first = node.attributes.get("axis", 1) % (len(shape) + 1)
        return Activation(function, axis=_single_axis(shape, first))

    return translate


def _single_axis(shape: Shape, first: int) -> int:
    """The one axis that a softmax before opset 13 normalizes.

    It flattens all axes from `first` on. That is a softmax along one axis if at most one of them
    is longer than 1.
    """
    wide = [axis for axis in range(first, len(shape)) if shape[axis] != 1]
    if len(wide) > 1 or first >= len(shape):
        raise UntranslatableError(JOINT_SOFTMAX.format(first))
    return wide[0] if wide else first


PER_AXIS = 13  # the opset since which a softmax normalizes along one axis
JOINT_SOFTMAX = "it normalizes all axes from {} on together, as before opset 13"

_ZERO_TO_ZERO = (
    *("Abs", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Erf", "Floor", "Neg", "Round", "Sign"),
    *("Sin", "Sinh", "Sqrt", "Tan"),
)
_ZERO_TO_OTHERS = (
    *("Acos", "Acosh", "Cos", "Cosh", "Greater", "GreaterOrEqual", "IsInf", "IsNaN"),
    *("LessOrEqual", "Min", "Not", "Or", "Pow", "Reciprocal"),
)

ROWS: Mapping[str, Translate] = {
    "Add": _broadcasting(_sum("add")),
    "And": elementwise("and", keeps_zero=False),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Celu": activation("celu", alpha=1.0),
    "Clip": _clip,
    "Div": _broadcasting(_div),
    "Dropout": _dropout,
    "Elu": activation("elu", alpha=1.0),
    "Equal": elementwise("equal", keeps_zero=False),
    "Exp": activation("exp"),
    "Gelu": _gelu,
    "HardSigmoid": activation("hard_sigmoid", alpha=0.2, beta=0.5),
    "HardSwish": activation("hard_swish"),
    "Identity": elementwise("identity"),
    "LeakyRelu": activation("leaky_relu", alpha=0.01),
    "Less": elementwise("less", keeps_zero=False),
    "Log": elementwise("log", keeps_zero=False),
    "LogSoftmax": _softmax("log_softmax"),
    "Max": elementwise("max", keeps_zero=False),
    "Mean": _sum("mean"),
    "Mish": activation("mish"),
    "Mod": elementwise("mod", keeps_zero=False),
    "Mul": _broadcasting(elementwise("mul")),
    "PRelu": elementwise("prelu"),
    "Relu": activation("relu"),
    "Selu": activation("selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    "Sigmoid": activation("sigmoid"),
    "Softmax": _softmax("softmax"),
    "Softplus": activation("softplus"),
    "Softsign": activation("softsign"),
    "Sub": _broadcasting(_sum("sub")),
    "Sum": _sum("sum"),
    "Tanh": activation("tanh"),
    "ThresholdedRelu": activation("thresholded_relu", alpha=1.0),
    "Where": elementwise("where", keeps_zero=False),
    "Xor": elementwise("xor", keeps_zero=False),
    **{name: elementwise(keeps_zero=True) for name in _ZERO_TO_ZERO},
    **{name: elementwise(keeps_zero=False) for name in _ZERO_TO_OTHERS},
}
