"""The branch of a gate: operations that compute which units are on, and that switch the others off.

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

MASK = "unit_mask"  # name of the model input that contains the mask
_PREFIX = "gate"  # all tensor names of a branch start with it


def recomputes_activation(head: Head) -> bool:
    """Does the head have a quantized softmax, which gives no unit a probability of exactly 0?"""
    function = ACTIVATIONS.get(head.activation)
    quantized = head.tensor(head.z).quantization is not None
    return quantized and function is not None and function.mixes


def real_dtype(tensor: UnitTensor) -> np.dtype[np.floating]:
    """The dtype of the values after dequantization, if they are quantized."""
    return np.dtype("float32" if tensor.quantization is not None else tensor.dtype)


@dataclass
class GateBranch:
    """The edits of a gate, in order; names of operations in the branch begin with `gate/`."""

    edits: list[Edit]
    head: Head
    kept: Sequence[int]
    batched: bool = False  # the mask is an input [batch, units]
    flat: bool = False  # the mask is an input [units]
    real: str = ""  # name of the tensor with the real values of z, once one is needed

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
        """The name of the tensor with the real values of z.

        If z is quantized and also the output, only one operation reads it; the others read the
        result of that operation. If several operations read a quantized tensor, onnxruntime uses
        other kernels, which round differently. (If an activation follows, verification reads z
        anyway.)
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
        """The mask from a new input: [units], or [batch, units] if the batch size is not 1."""
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
        """The mask from a condition on the values of z."""
        condition = parse_condition(gate)
        along = [-1 if i == self.z.unit_axis.axis else 1 for i in range(len(self.z.shape))]
        if isinstance(condition, Threshold):
            return self.keep_only(self.compare(condition), along)
        condition.check_units(len(self.kept))
        return self.keep_only(self.largest(condition, along), along)

    def keep_only(self, on: str, shape: Sequence[int]) -> str:
        """The mask `on` with removed units off. `shape` broadcasts one flag per unit to it."""
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
        """Apply the head's softmax or sigmoid to real values in the shape of z."""
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
        """The mask of the largest kept units; of units with equal values, the first ones.

        A runtime's top-k may choose any of the equal ones. So the mask uses only its smallest value
        (the threshold): units above it are on, and then the first units that are equal to it, until
        `count` are on.
        """
        z, axis, count = self.z, self.z.unit_axis.axis, condition.count
        value = self.real_values()
        if len(self.kept) < self.head.units:
            flags = self.is_kept().reshape(along)
            value = self.insert("value", "where", value, flags, self.lowest())
        top_shape, single_shape = z.with_width(count), z.with_width(1)
        top = self.insert("top", "top", value, count=count, axis=axis, shape=top_shape)
        threshold = self.insert(
            "least", "gather", top, np.asarray([count - 1], np.int32), axis=axis, shape=single_shape
        )
        above = self.insert("above", "greater", value, threshold)
        equal = self.insert("level", "equal", value, threshold)
        above_count = self.insert("above_1", "cast", above, dtype="float32")
        above_count = self.insert("ahead", "reduce_sum", above_count, axis=axis, shape=single_shape)
        equal_count = self.insert("level_1", "cast", equal, dtype="float32")
        equal_count = self.insert("nth", "cumsum", equal_count, axis=axis)
        rank = self.insert("rank", "add", equal_count, above_count)
        in_count = self.insert("early", "less_equal", rank, np.asarray(count, np.float32))
        return self.insert("on", "or", above, self.insert("tied", "and", equal, in_count))

    def mask_for(self, on: str, name: str) -> str:
        """The mask in a shape that broadcasts to a tensor."""
        z, tensor = self.z, self.head.tensor(name)
        rank, axis = len(tensor.shape), tensor.unit_axis.axis
        if self.flat or self.batched:
            shape = [self.head.units if i == axis else 1 for i in range(rank)]
            if axis == rank - 1 and (self.flat or rank == _BATCH_AND_UNITS):
                return on
            result_shape: Shape = tuple(shape)
            if self.batched:
                shape[0], result_shape = -1, (z.shape[0], *shape[1:])
        else:
            if tensor.shape == z.shape:
                return on
            shape, result_shape = [-1 if n is None else n for n in tensor.shape], tensor.shape
        suffix = "z" if name == z.name else "output"
        return self.insert(f"at_{suffix}", "reshape", on, to=tuple(shape), shape=result_shape)

    # --- its consumers --------------------------------------------------------------------------

    def replace_off(self, name: str, on: str, value: float) -> None:
        """After a tensor, replace the values of units that are off by `value`."""
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
        """Compute the output again, in float: the activation of z over the units that are on."""
        output = self.head.tensor(self.head.output)
        dtype = real_dtype(self.z)
        masked = self.real_values()
        masked = self.insert(
            "masked", "where", masked, self.mask_for(on, self.z.name), np.asarray(floor, dtype)
        )
        recomputed = self.activate("shown", masked)
        if any(isinstance(node.operation, Reshape) for node in self.head.tail):
            to = tuple(-1 if n is None else n for n in output.shape)
            recomputed = self.insert("shown_1", "reshape", recomputed, to=to, shape=output.shape)
        zero = np.asarray(0.0, dtype)
        masked_output = ComputeStep(
            "where", (), (recomputed, self.mask_for(on, output.name), zero), shape=output.shape
        )
        steps = [masked_output]
        if output.quantization is not None:
            attributes = quantization_attributes(output)
            steps.append(ComputeStep("quantize", (1,), (), attributes, output.shape))
        self.edits.append(Compute(output.name, tuple(steps)))


_BATCH_AND_UNITS = 2
_COMPARED = {">": "greater", ">=": "greater_equal", "<": "less", "<=": "less_equal"}
