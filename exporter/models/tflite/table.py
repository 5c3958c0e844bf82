"""The translation table: what each operator of the format is as a neutral operation.

One row an operator. What has no row is opaque: the trace refuses it by name where it meets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.models.tflite import shapes
from exporter.models.tflite.call import Call
from exporter.models.tflite.fitting import fits
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
_NO_RANK = "the rank of its output is not known"


def translate(call: Call) -> Operation:
    """The neutral operation that an operator performs."""
    if call.sparse:
        return Opaque("its constants are stored sparsely")
    if call.option("fusedActivationFunction") == schema.ActivationFunctionType.SIGN_BIT:
        return Opaque("its fused activation keeps the sign alone")
    row = TABLE.get(call.operator)
    if row is None or not call.outputs or call.input(0) is None:
        return Opaque()
    operation = row(call)
    return operation if fits(operation, call) else Opaque("its tensors do not fit together")


# --- linear -------------------------------------------------------------------------------------
# An activation fused into one of these stays inside: z is read behind it. All of them map 0 to 0.


def _fully_connected(call: Call) -> Operation:
    rank = call.rank()
    if call.option("weightsFormat"):
        return Opaque("its weights are shuffled for one kind of processor")
    if rank is None:
        return Opaque(_NO_RANK)
    return Linear(1, kernel_axis=0, output_axis=rank - 1, bias=_bias(call))


def _conv_2d(call: Call) -> Operation:
    image, kernel = call.input(0), call.input(1)  # [batch, h, w, in], [out, h, w, in / groups]
    groups = 1
    if image is not None and kernel is not None and image.shape and kernel.shape:
        groups = (image.shape[-1] or 1) // (kernel.shape[-1] or 1) or 1
    return Linear(1, kernel_axis=0, output_axis=3, bias=_bias(call), groups=groups)


def _batch_matmul(call: Call) -> Operation:
    rank, kernel_rank = call.rank(), call.rank(1)
    if 1 not in call.constants() or rank is None or kernel_rank is None:
        return Opaque("its right side is not a constant")
    axis = kernel_rank - (2 if call.option("adjY", default=False) else 1)
    return Linear(1, kernel_axis=axis, output_axis=rank - 1)


def _bias(call: Call) -> int | None:
    return None if call.input(2) is None else 2


# --- element by element -------------------------------------------------------------------------


def _sum(function: str) -> Row:
    return lambda call: Elementwise(offsets=call.constants(), function=function)


def _product(_: Call) -> Operation:
    return Elementwise(function="mul")


def _quotient(call: Call) -> Operation:
    return Elementwise(keeps_zero=1 in call.constants(), function="div")


def _same_value(_: Call) -> Operation:
    """A constant's 0 stays 0, so that weights behind such an operator can be zeroed."""
    return Elementwise(offsets=(0,))


def _cast(call: Call) -> Operation:
    exact = call.outputs[0].dtype.startswith("float")
    return Elementwise(offsets=(0,), function="identity" if exact else "cast")


# --- activations --------------------------------------------------------------------------------


def _activation(function: str, **parameters: float) -> Row:
    return lambda _: Activation(function, parameters=tuple(parameters.items()))


def _softmax(call: Call) -> Operation:
    beta = float(call.option("beta", 1.0))
    if beta != 1.0:
        return Opaque(f"its logits are multiplied by beta = {beta:g}")
    return _normalised("softmax")(call)


def _normalised(function: str) -> Row:
    def row(call: Call) -> Operation:
        rank = call.rank()
        if rank is None:
            return Opaque(_NO_RANK)
        return Activation(function, axis=rank - 1)

    return row


def _leaky_relu(call: Call) -> Operation:
    return Activation("leaky_relu", parameters=(("alpha", float(call.option("alpha", 0.0))),))


def _gelu(call: Call) -> Operation:
    approximate = float(call.option("approximate", default=False))
    return Activation("gelu", parameters=(("approximate", approximate),))


# --- positions ----------------------------------------------------------------------------------


def _reshape(call: Call) -> Operation:
    """The runtime takes the shape from the second input and, where there is none, the option."""
    option = call.option("newShape", None)
    stated = None if option is None else tuple(int(n) for n in option)
    if call.input(1) is None:
        return Opaque("it has no shape") if stated is None else Reshape(stated, None, "newShape")
    target = shapes.entries(call.input(1), call.values)
    if target is None or sum(n is None for n in target) > 1:
        return Opaque("its shape is computed while the model runs")
    whole = tuple(-1 if n is None else n for n in target)
    return Reshape(whole, 1, "newShape" if stated == whole else None)


def _follows(_: Call) -> Operation:
    return Reshape()


def _transpose(call: Call) -> Operation:
    permutation = call.constant(1)
    if permutation is None:
        return Opaque("its permutation is computed while the model runs")
    return Transpose(tuple(int(n) for n in np.atleast_1d(permutation)))


def _gather(call: Call) -> Operation:
    if call.option("batchDims"):
        return Opaque("it gathers batch by batch")
    return Gather(int(call.option("axis")))


def _embedding(_: Call) -> Operation:
    return Gather(0)


TABLE: Mapping[str, Row] = {
    "ADD": _sum("add"),
    "BATCH_MATMUL": _batch_matmul,
    "CAST": _cast,
    "CONV_2D": _conv_2d,
    "DEQUANTIZE": _same_value,
    "DIV": _quotient,
    "ELU": _activation("elu"),
    "EMBEDDING_LOOKUP": _embedding,
    "EXP": _activation("exp"),
    "EXPAND_DIMS": _follows,
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "GELU": _gelu,
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _activation("sigmoid"),
    "LOG_SOFTMAX": _normalised("log_softmax"),
    "MUL": _product,
    "QUANTIZE": _same_value,
    "RELU": _activation("relu"),
    "RELU6": _activation("relu6"),
    "RELU_0_TO_1": _activation("clip", min=0.0, max=1.0),
    "RELU_N1_TO_1": _activation("clip", min=-1.0, max=1.0),
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "SQUEEZE": _follows,
    "SUB": _sum("sub"),
    "TANH": _activation("tanh"),
    "TRANSPOSE": _transpose,
}

# Operators whose inputs stand in another order than the neutral operation's: the slot in the file
# of each neutral slot.
SLOTS: Mapping[str, tuple[int, ...]] = {"EMBEDDING_LOOKUP": (1, 0)}
