"""The operations that edits can write, and the inputs and attributes that each takes.

Each format has its own table with the same keys, which contains how it writes each operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.errors import ModelError
from exporter.graph.edits import ComputeStep, Insert


@dataclass(frozen=True)
class Signature:
    """What an operation takes and returns.

    Attributes:
        operands: the number of inputs after the first one; None: any number.
        attributes: name -> default; None: the edit must give it.
        dtype: of the result; "": the attribute "dtype", else the dtype of the first input.
    """

    operands: int | None = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = ""


@dataclass(frozen=True, eq=False)
class CheckedOperation:
    """An operation whose operands and attributes were checked.

    Attributes:
        attributes: of the edit, completed with the defaults.
        dtype: of the result; None: the dtype of the first input.
    """

    attributes: Mapping[str, Any]
    dtype: str | None


def check_operation(
    edit: Insert | ComputeStep, writable: Iterable[str], title: str
) -> CheckedOperation:
    """Compare an edit with the signature of its operation.

    Args:
        edit: names the operation, its operands and its attributes.
        writable: the operations that the format can write.
        title: of the format.

    Raises:
        ModelError: the format cannot write the operation, or the operation takes other operands or
            attributes.
    """
    name, known = edit.operation, tuple(writable)
    if name not in known:
        raise ModelError(f"{title} cannot write the operation {name!r}; it can: {', '.join(known)}")
    signature = SIGNATURES[name]
    inputs = edit.inputs if isinstance(edit, ComputeStep) else (edit.after,)
    count = len((*inputs, *edit.operands)[1:])
    if signature.operands not in {None, count}:
        raise ModelError(f"the operation {name!r} does not take {count} operands")
    unknown = set(edit.attributes) - set(signature.attributes)
    required = {each for each, default in signature.attributes.items() if default is None}
    for each in sorted(unknown | required - set(edit.attributes)):
        verb = "has no" if each in unknown else "needs the"
        raise ModelError(f"the operation {name!r} {verb} attribute {each!r}")
    attributes = {**signature.attributes, **edit.attributes}
    return CheckedOperation(attributes, signature.dtype or attributes.get("dtype"))


_AXIS: Mapping[str, Any] = {"axis": None}
_LAST_AXIS: Mapping[str, Any] = {"axis": -1}
_COUNT: Mapping[str, Any] = {"count": None, "axis": -1}
_QUANTIZATION: Mapping[str, Any] = {"dtype": None, "scale": None, "zero_point": None}

# Operands broadcast as in NumPy. Elementwise operations take no attributes.
SIGNATURES: Mapping[str, Signature] = {
    **dict.fromkeys(("abs", "exp", "identity", "log", "relu", "sigmoid"), Signature()),
    **dict.fromkeys(("add", "and", "div", "maximum", "minimum", "mul", "or", "sub"), Signature(1)),
    **dict.fromkeys(
        ("equal", "greater", "greater_equal", "less", "less_equal"), Signature(1, dtype="bool")
    ),
    "arg_max": Signature(0, _AXIS, "int32"),  # without the axis
    "cast": Signature(0, {"dtype": None}),
    "concat": Signature(None, _AXIS),
    "cumsum": Signature(0, _AXIS),
    # The attribute "dtype" of these two is the integer type of the quantized values.
    "dequantize": Signature(0, _QUANTIZATION, "float32"),
    "quantize": Signature(0, _QUANTIZATION),
    "gather": Signature(1, _AXIS),  # operand: indices
    "log_softmax": Signature(0, _LAST_AXIS),
    "look_up": Signature(1, {"dtype": None}),  # inputs: indices, table of this dtype
    "pad": Signature(0, {"axis": None, "value": None}),  # appends one position of a real value
    "reduce_max": Signature(0, _AXIS),  # keeps the axis, with one position
    "reduce_sum": Signature(0, _AXIS),  # keeps the axis, with one position
    "reshape": Signature(0, {"to": None}),
    "softmax": Signature(0, _LAST_AXIS),
    "top": Signature(0, _COUNT),  # the largest values
    "top_ids": Signature(0, _COUNT, "int32"),  # their indices
    "where": Signature(2),  # inputs: value, condition, value where the condition is false
}
