"""What changes values and leaves positions: arithmetic, activations, casts, codes."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.tflite.call import NO_RANK, Call, Row
from exporter.graph import Quantization
from exporter.graph.operations import Activation, Elementwise, Opaque, Operation

# --- arithmetic ----------------------------------------------------------------------------------


def _sum(function: str) -> Row:
    return lambda call: Elementwise(offsets=call.constants(), function=_unfused(call, function))


def _product(call: Call) -> Operation:
    return Elementwise(function=_unfused(call, "mul"))


def _unfused(call: Call, function: str) -> str:
    """With an activation inside it is no plain sum or product, which others may look for."""
    return "other" if call.option("fusedActivationFunction") else function


def _quotient(call: Call) -> Operation:
    return Elementwise(keeps_zero=call.is_fixed(1), function=_unfused(call, "div"))


def _bound(sign: float) -> Row:
    """A maximum (1) or minimum (-1): 0 stays 0 where no constant is on its other side."""

    def row(call: Call) -> Operation:
        bounds = [call.real(slot) for slot in call.constants()]
        keeps = all((sign * bound <= 0.0).all() for bound in bounds if bound is not None)
        return Elementwise(keeps_zero=bool(keeps), function="max" if sign > 0.0 else "other")

    return row


def _other(function: str = "other", *, keeps_zero: bool) -> Row:
    """Of one input or of several; what it computes no oracle has to know."""
    return lambda _: Elementwise(keeps_zero=keeps_zero, function=function)


def _prelu(_: Call) -> Operation:
    return Elementwise(function="prelu")


def _cast(call: Call) -> Operation:
    """A constant's 0 stays 0, so that weights behind such an operator can be zeroed."""
    exact = call.outputs[0].dtype.startswith("float")
    return Elementwise(offsets=(0,), function="identity" if exact else "cast")


def _codes(function: str) -> Row:
    """Codes stand for real values: a quantized 0 is its zero point, and 0 for all that follows."""

    def row(call: Call) -> Operation:
        ends = (call.input(0), *call.outputs)
        if any(
            t is not None and not t.is_constant and _is_per_channel(t.quantization) for t in ends
        ):
            return Opaque("what it computes has a scale for each channel")
        return Elementwise(offsets=(0,), function=function)

    return row


def _is_per_channel(quantization: Quantization | None) -> bool:
    return quantization is not None and quantization.scale.size > 1


# --- activations ---------------------------------------------------------------------------------


def _activation(function: str, **parameters: float) -> Row:
    return lambda _: Activation(function, parameters=tuple(parameters.items()))


def _softmax(call: Call) -> Operation:
    """Its logits are multiplied by beta first; a beta below 0 would turn their order around."""
    beta, rank = float(call.option("beta", 1.0)), call.rank()
    if not beta > 0.0:
        return Opaque(f"its logits are multiplied by beta = {beta:g}")
    if rank is None:
        return NO_RANK
    return Activation("softmax", rank - 1, () if beta == 1.0 else (("beta", beta),))


def _normalized(function: str) -> Row:
    def row(call: Call) -> Operation:
        rank = call.rank()
        return NO_RANK if rank is None else Activation(function, axis=rank - 1)

    return row


def _leaky_relu(call: Call) -> Operation:
    return Activation("leaky_relu", parameters=(("alpha", float(call.option("alpha", 0.0))),))


def _gelu(call: Call) -> Operation:
    approximate = float(call.option("approximate", default=False))
    return Activation("gelu", parameters=(("approximate", approximate),))


_ZERO_TO_ZERO = (
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
)
_ZERO_TO_OTHERS = (
    *("COS", "EQUAL", "FLOOR_DIV", "FLOOR_MOD", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"),
    *("LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "NOT_EQUAL", "POW", "RSQRT", "SELECT_V2"),
)

ROWS: Mapping[str, Row] = {
    "ADD": _sum("add"),
    "ADD_N": _sum("sum"),
    "CAST": _cast,
    "DEQUANTIZE": _codes("dequantize"),
    "DIV": _quotient,
    "ELU": _activation("elu"),
    "EXP": _activation("exp"),
    "GELU": _gelu,
    "HARD_SWISH": _activation("hard_swish"),
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _activation("sigmoid"),
    "LOG": _other("log", keeps_zero=False),
    "LOG_SOFTMAX": _normalized("log_softmax"),
    "MAXIMUM": _bound(1.0),
    "MINIMUM": _bound(-1.0),
    "MUL": _product,
    "PRELU": _prelu,
    "QUANTIZE": _codes("quantize"),
    "RELU": _activation("relu"),
    "RELU6": _activation("relu6"),
    "RELU_0_TO_1": _activation("clip", min=0.0, max=1.0),
    "RELU_N1_TO_1": _activation("clip", min=-1.0, max=1.0),
    "SOFTMAX": _softmax,
    "SQUARED_DIFFERENCE": _sum("other"),
    "SUB": _sum("sub"),
    "TANH": _activation("tanh"),
    **{name: _other(keeps_zero=True) for name in _ZERO_TO_ZERO},
    **{name: _other(keeps_zero=False) for name in _ZERO_TO_OTHERS},
}
