"""Operators that change values and no positions: arithmetic, activations, casts, quantization."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.tflite.operator_view import OperatorView, Translate
from exporter.graph import Tensor
from exporter.graph.operations import Activation, Elementwise, Operation

# --- arithmetic ----------------------------------------------------------------------------------


def _sum(view: OperatorView, function: str) -> Operation:
    return Elementwise(offsets=view.constants(), function=_without_fused(view, function))


def _product(view: OperatorView) -> Operation:
    return Elementwise(function=_without_fused(view, "mul"))


def _quotient(view: OperatorView) -> Operation:
    return Elementwise(keeps_zero=view.is_fixed(1), function=_without_fused(view, "div"))


def _without_fused(view: OperatorView, function: str) -> str:
    """ "other" if an activation is fused: the operator is not a plain sum or product then."""
    return "other" if view.option("fusedActivationFunction") else function


def _bound(view: OperatorView, sign: float, function: str) -> Operation:
    """A maximum (sign 1) or minimum (-1): keeps 0 if no constant is on the other side of 0."""
    bounds = [view.real(slot) for slot in view.constants()]
    keeps_zero = all((sign * bound <= 0.0).all() for bound in bounds if bound is not None)
    return Elementwise(keeps_zero=bool(keeps_zero), function=function)


def _elementwise(_: OperatorView, *, keeps_zero: bool, function: str = "other") -> Operation:
    return Elementwise(keeps_zero=keeps_zero, function=function)


def _cast(view: OperatorView) -> Operation:
    """The input may be a constant: its 0 stays 0, so that cast weights can be zeroed."""
    to_float = view.outputs[0].dtype.startswith("float")
    return Elementwise(offsets=(0,), function="identity" if to_float else "cast")


def _requantize(view: OperatorView, function: str) -> Operation:
    """Keeps 0: a quantized 0 is the zero point."""
    tensors = (view.input(0), *view.outputs)
    if any(tensor is not None and _is_computed_per_channel(tensor) for tensor in tensors):
        raise UntranslatableError("it computes values with per-channel scales")
    return Elementwise(offsets=(0,), function=function)


def _is_computed_per_channel(tensor: Tensor) -> bool:
    quantization = tensor.quantization
    return not tensor.is_constant and quantization is not None and quantization.scale.size > 1


# --- activations ---------------------------------------------------------------------------------


def _activation(_: OperatorView, function: str, **parameters: float) -> Operation:
    return Activation(function, parameters=tuple(parameters.items()))


def _softmax(view: OperatorView) -> Operation:
    """Multiplies the logits by beta first; a negative beta would reverse their order."""
    beta = float(view.option("beta", 1.0))
    if not beta > 0.0:
        raise UntranslatableError(f"its logits are multiplied by beta = {beta:g}")
    parameters = () if beta == 1.0 else (("beta", beta),)
    return Activation("softmax", view.known_rank() - 1, parameters)


def _log_softmax(view: OperatorView) -> Operation:
    return Activation("log_softmax", axis=view.known_rank() - 1)


def _leaky_relu(view: OperatorView) -> Operation:
    return Activation("leaky_relu", parameters=(("alpha", float(view.option("alpha", 0.0))),))


def _gelu(view: OperatorView) -> Operation:
    approximate = float(view.option("approximate", default=False))
    return Activation("gelu", parameters=(("approximate", approximate),))


_KEEPING_ZERO = [
    "ABS",
    "CEIL",
    "FAKE_QUANT",
    "FLOOR",
    "NEG",
    "ROUND",
    "SIGN",
    "SIN",
    "SQRT",
    "SQUARE",
]
_CHANGING_ZERO = (
    *("COS", "FLOOR_DIV", "FLOOR_MOD", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"),
    *("LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "POW", "RSQRT"),
)
_ACTIVATIONS: Mapping[str, str] = {
    "ELU": "elu",
    "EXP": "exp",
    "HARD_SWISH": "hard_swish",
    "LOGISTIC": "sigmoid",
    "RELU": "relu",
    "RELU6": "relu6",
    "TANH": "tanh",
}

ROWS: Mapping[str, Translate] = {
    "ADD": partial(_sum, function="add"),
    "ADD_N": partial(_sum, function="sum"),
    "CAST": _cast,
    "DEQUANTIZE": partial(_requantize, function="dequantize"),
    "DIV": _quotient,
    "EQUAL": partial(_elementwise, keeps_zero=False, function="equal"),
    "GELU": _gelu,
    "LEAKY_RELU": _leaky_relu,
    "LOG": partial(_elementwise, keeps_zero=False, function="log"),
    "LOG_SOFTMAX": _log_softmax,
    "MAXIMUM": partial(_bound, sign=1.0, function="max"),
    "MINIMUM": partial(_bound, sign=-1.0, function="other"),
    "MUL": _product,
    "NOT_EQUAL": partial(_elementwise, keeps_zero=False, function="not_equal"),
    "PRELU": partial(_elementwise, keeps_zero=True, function="prelu"),
    "QUANTIZE": partial(_requantize, function="quantize"),
    "RELU_0_TO_1": partial(_activation, function="clip", min=0.0, max=1.0),
    "RELU_N1_TO_1": partial(_activation, function="clip", min=-1.0, max=1.0),
    "SELECT_V2": partial(_elementwise, keeps_zero=False, function="where"),
    "SOFTMAX": _softmax,
    "SQUARED_DIFFERENCE": partial(_sum, function="other"),
    "SUB": partial(_sum, function="sub"),
    **{name: partial(_activation, function=function) for name, function in _ACTIVATIONS.items()},
    **dict.fromkeys(_KEEPING_ZERO, partial(_elementwise, keeps_zero=True)),
    **dict.fromkeys(_CHANGING_ZERO, partial(_elementwise, keeps_zero=False)),
}
