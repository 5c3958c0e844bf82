"""The branch of a gate: operations that compute which units are on, and those that use the result.

A *mask* here is a bool tensor, True for units that are on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.graph import Array, Shape
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.edits import AddInput, Compute, ComputeStep, Edit, Insert
from exporter.graph.operations import Activation, Reshape
from exporter.modes.mask_value import quantization_at, quantization_attributes
from exporter.modes.semantics import INPUT, INPUT_FLOAT
from exporter.selection.conditions import LargestUnits, Threshold, parse_condition
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitTensor

MASK = "unit_mask"  # name of the input that chooses units
_PREFIX = "gate"  # of the names of all tensors of a branch


def recomputes_activation(head: Head) -> bool:
    """Whether the head has a quantized softmax, under which no unit gets exactly 0."""
    function = ACTIVATIONS.get(head.activation)
    quantized = head.tensor(head.z).quantization is not None
    return quantized and function is not None and function.mixes


def real_dtype(tensor: UnitTensor) -> np.dtype[np.floating]:
    """The dtype of the values, or of the dequantized values."""
    return np.dtype("float32" if tensor.quantization is not None else tensor.dtype)


@dataclass
class GateBranch:
    """The edits of a gate, in order; each operation of the branch has a name under `gate/`."""

    edits: list[Edit]
    head: Head
    kept: Sequence[int]
    batched: bool = False  # the mask is an input [batch, units]
    flat: bool = False  # the mask is an input [units]
    real: str = ""  # name of the real values at z, after the first use

    @property
    def z(self) -> UnitTensor:
        return self.head.tensor(self.head.z)

    def insert(
        self, name: str, operation: str, after: str, *operands: str | Array, **attributes: Any
    ) -> str:
        """Add an operation; returns the name of its result."""
        shape, result = attributes.pop("shape", None), f"{_PREFIX}/{name}"
        self.edits.append(Insert(operation, after, operands, attributes, shape, result))
        return result

    def real_values(self) -> str:
        """The name of the real values at z.

        If they are quantized and the output, only one operation reads them, and all others read its
        result: onnxruntime uses other kernels, with other roundings, for a quantized tensor that
        several operations read. (If an activation follows, z is read when it is compared anyway.)
        """
        z = self.z
        if not self.real:
            name = z.name
            if z.quantization is not None:
                name = self.insert("real", "dequantize", name, **quantization_attributes(z))
            if z.name == self.head.output and quantization_at(self.head, z.name) is not None:
                name = self.insert("read", "maximum", name, self.lowest())
            self.real = name
        return self.real

    def lowest(self) -> Array:
        """A value below all logits."""
        return np.asarray(-6e4 if self.z.dtype == "float16" else -1e30, real_dtype(self.z))

    # --- the mask -------------------------------------------------------------------------------

    def mask_from_input(self, gate: str) -> str:
        """A new input: [units], or [batch, units] if the batch size is not 1."""
        units, batch = self.head.units, self.z.shape[0]
        self.batched = batch != 1 and self.z.unit_axis.axis > 0
        self.flat = not self.batched
        shape: Shape = (batch, units) if self.batched else (units,)
        dtype = "bool" if gate == INPUT else "float32"
        default = np.ones([n or 1 for n in shape], dtype)
        self.edits.append(AddInput(MASK, shape, dtype, default))
        on = MASK
        if gate == INPUT_FLOAT:
            on = self.insert("given", "greater", on, np.asarray(0.5, np.float32))
        return self.keep_only(on, [units])

    def mask_from_condition(self, gate: str) -> str:
        """A condition on the values at z."""
        condition = parse_condition(gate)
        along = [-1 if i == self.z.unit_axis.axis else 1 for i in range(len(self.z.shape))]
        if isinstance(condition, Threshold):
            return self.keep_only(self.compare(condition), along)
        condition.check_units(len(self.kept))
        return self.keep_only(self.largest(condition, along), along)

    def keep_only(self, on: str, shape: Sequence[int]) -> str:
        """The mask without units that are not kept."""
        if len(self.kept) == self.head.units:
            return on
        return self.insert("kept", "and", on, self.is_kept().reshape(shape))

    def is_kept(self) -> Array:
        return np.isin(np.arange(self.head.units), self.kept)

    def compare(self, condition: Threshold) -> str:
        value = self.real_values()
        match condition.subject_for(self.head.activation):
            case "abs":
                value = self.insert("value", "abs", value)
            case "probability":
                value = self.activate("value", value)
        number = np.asarray(condition.number, real_dtype(self.z))
        return self.insert("on", _COMPARED[condition.comparison], value, number)

    def activate(self, name: str, value: str) -> str:
        """The head's softmax or sigmoid of real values, in the shape of z."""
        operation = self.head.tail[0].operation
        assert isinstance(operation, Activation)  # noqa: S101 - narrows the type
        if self.head.activation != "softmax":
            return self.insert(name, "sigmoid", value)
        if beta := dict(operation.parameters).get("beta"):
            value = self.insert(
                f"{name}_scaled", "mul", value, np.asarray(beta, real_dtype(self.z))
            )
        return self.insert(name, "softmax", value, axis=self.z.unit_axis.axis)

    def largest(self, condition: LargestUnits, along: Sequence[int]) -> str:
        """The mask of the largest kept units; of equal ones the first.

        The top-k of a runtime may choose any of the equal ones, so only its smallest value is used.
        """
        z, axis, count = self.z, self.z.unit_axis.axis, condition.count
        value = self.real_values()
        if len(self.kept) < self.head.units:
            flags = self.is_kept().reshape(along)
            value = self.insert("value", "where", value, flags, self.lowest())
        many, one = z.with_width(count), z.with_width(1)
        top = self.insert("top", "top", value, count=count, axis=axis, shape=many)
        least = self.insert(
            "least", "gather", top, np.asarray([count - 1], np.int32), axis=axis, shape=one
        )
        above = self.insert("above", "greater", value, least)
        level = self.insert("level", "equal", value, least)
        ahead = self.insert("above_1", "cast", above, dtype="float32")
        ahead = self.insert("ahead", "reduce_sum", ahead, axis=axis, shape=one)
        nth = self.insert("level_1", "cast", level, dtype="float32")
        nth = self.insert("nth", "cumsum", nth, axis=axis)
        rank = self.insert("rank", "add", nth, ahead)
        early = self.insert("early", "less_equal", rank, np.asarray(count, np.float32))
        return self.insert("on", "or", above, self.insert("tied", "and", level, early))

    def mask_for(self, on: str, name: str) -> str:
        """The mask in a shape that broadcasts to a tensor."""
        z, tensor = self.z, self.head.tensor(name)
        rank, axis = len(tensor.shape), tensor.unit_axis.axis
        if self.flat or self.batched:
            shape = [self.head.units if i == axis else 1 for i in range(rank)]
            if axis == rank - 1 and (self.flat or rank == _BATCH_AND_UNITS):
                return on
            stated: Shape = tuple(shape)
            if self.batched:
                shape[0], stated = -1, (z.shape[0], *shape[1:])
        else:
            if tensor.shape == z.shape:
                return on
            shape, stated = [-1 if n is None else n for n in tensor.shape], tensor.shape
        place = "z" if name == z.name else "output"
        return self.insert(f"at_{place}", "reshape", on, to=tuple(shape), shape=stated)

    # --- its readers ----------------------------------------------------------------------------

    def replace_off(self, name: str, on: str, value: float) -> None:
        """After a tensor: its values for units that are on, another value for the others."""
        tensor = self.head.tensor(name)
        operands = self.mask_for(on, name), np.asarray(value, real_dtype(tensor))
        has_real_values = name == self.z.name and self.real not in {"", name}
        if tensor.quantization is None and not has_real_values:
            self.edits.append(Insert("where", name, operands))
            return
        attributes = quantization_attributes(tensor) if tensor.quantization is not None else {}
        steps = []
        if has_real_values:
            steps.append(ComputeStep("where", (), (self.real, *operands), shape=tensor.shape))
        else:
            steps.append(ComputeStep("dequantize", (0,), (), attributes, tensor.shape))
            steps.append(ComputeStep("where", (1,), operands, shape=tensor.shape))
        if attributes:
            steps.append(ComputeStep("quantize", (len(steps),), (), attributes, tensor.shape))
        self.edits.append(Compute(name, tuple(steps)))

    def recompute_activation(self, on: str, floor: float) -> None:
        """Compute the output in float from z, with the activation over the units that are on."""
        output = self.head.tensor(self.head.output)
        dtype = real_dtype(self.z)
        masked = self.real_values()
        masked = self.insert(
            "masked", "where", masked, self.mask_for(on, self.z.name), np.asarray(floor, dtype)
        )
        shown = self.activate("shown", masked)
        if any(isinstance(node.operation, Reshape) for node in self.head.tail):
            to = tuple(-1 if n is None else n for n in output.shape)
            shown = self.insert("shown_1", "reshape", shown, to=to, shape=output.shape)
        zero = np.asarray(0.0, dtype)
        masked_output = ComputeStep(
            "where", (), (shown, self.mask_for(on, output.name), zero), shape=output.shape
        )
        steps = [masked_output]
        if output.quantization is not None:
            attributes = quantization_attributes(output)
            steps.append(ComputeStep("quantize", (1,), (), attributes, output.shape))
        self.edits.append(Compute(output.name, tuple(steps)))


_BATCH_AND_UNITS = 2
_COMPARED = {">": "greater", ">=": "greater_equal", "<": "less", "<=": "less_equal"}
