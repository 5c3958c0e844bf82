"""The branch of a gate: the operations that find out which units are on, and what reads it."""

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

MASK = "unit_mask"  # the name of the input that chooses units
_NAME = "gate"  # in front of the names of all that a branch computes


def recomputes_activation(head: Head) -> bool:
    """Is there an activation of codes that mixes the units, so that none of them has no share?"""
    function = ACTIVATIONS.get(head.activation)
    coded = head.tensor(head.z).quantization is not None
    return coded and function is not None and function.mixes


def real_dtype(tensor: UnitTensor) -> np.dtype[np.floating]:
    """Of the values, or of those that its codes stand for."""
    return np.dtype("float32" if tensor.quantization is not None else tensor.dtype)


@dataclass
class GateBranch:
    """The edits of a gate, in order; each operation of the branch bears a name under `gate/`."""

    edits: list[Edit]
    head: Head
    kept: Sequence[int]
    batched: bool = False  # what is on is [batch, units]
    flat: bool = False  # or [units]
    real: str = ""  # the real values at z, once something asked for them

    @property
    def z(self) -> UnitTensor:
        return self.head.tensor(self.head.z)

    def put(self, name: str, operation: str, after: str, *operands: str | Array, **how: Any) -> str:
        """Add an operation; gives the name of its result."""
        shape = how.pop("shape", None)
        named = f"{_NAME}/{name}"
        self.edits.append(Insert(operation, after, operands, how, shape, named))
        return named

    def value(self) -> str:
        """The real values at z.

        Where they come from codes and are the output, one operation alone reads them, and the
        others its result: onnxruntime computes codes with several readers by other kernels, whose
        codes are others. (In front of an activation they are read besides when z is compared.)
        """
        z = self.z
        if not self.real:
            name = z.name
            if z.quantization is not None:
                name = self.put("real", "dequantize", name, **quantization_attributes(z))
            if z.name == self.head.output and quantization_at(self.head, z.name) is not None:
                name = self.put("read", "maximum", name, self.lowest())
            self.real = name
        return self.real

    def lowest(self) -> Array:
        """Below every value that is one."""
        return np.asarray(-6e4 if self.z.dtype == "float16" else -1e30, real_dtype(self.z))

    # --- what is on -----------------------------------------------------------------------------

    def given(self, gate: str) -> str:
        """From one more input: [units], or [batch, units] of a model that takes batches."""
        units, batch = self.head.units, self.z.shape[0]
        self.batched = batch != 1 and self.z.unit_axis.axis > 0
        self.flat = not self.batched
        shape: Shape = (batch, units) if self.batched else (units,)
        dtype = "bool" if gate == INPUT else "float32"
        default = np.ones([n or 1 for n in shape], dtype)
        self.edits.append(AddInput(MASK, shape, dtype, default))
        on = MASK
        if gate == INPUT_FLOAT:
            on = self.put("given", "greater", on, np.asarray(0.5, np.float32))
        return self.alive(on, [units])

    def chosen(self, gate: str) -> str:
        """By a condition on the values at z."""
        condition = parse_condition(gate)
        along = [-1 if i == self.z.unit_axis.axis else 1 for i in range(len(self.z.shape))]
        if isinstance(condition, Threshold):
            return self.alive(self.compared(condition), along)
        condition.check_units(len(self.kept))
        return self.alive(self.largest(condition, along), along)

    def alive(self, on: str, shape: Sequence[int]) -> str:
        """Of what is on, the kept units."""
        if len(self.kept) == self.head.units:
            return on
        return self.put("kept", "and", on, self.flags().reshape(shape))

    def flags(self) -> Array:
        return np.isin(np.arange(self.head.units), self.kept)

    def compared(self, condition: Threshold) -> str:
        value = self.value()
        match condition.subject_for(self.head.activation):
            case "abs":
                value = self.put("value", "abs", value)
            case "probability":
                value = self.activated("value", value)
        number = np.asarray(condition.number, real_dtype(self.z))
        return self.put("on", _COMPARED[condition.comparison], value, number)

    def activated(self, name: str, value: str) -> str:
        """The head's softmax or sigmoid of real values, of the shape of z."""
        operation = self.head.tail[0].operation
        assert isinstance(operation, Activation)  # noqa: S101 - narrows the type
        if self.head.activation != "softmax":
            return self.put(name, "sigmoid", value)
        if beta := dict(operation.parameters).get("beta"):
            value = self.put(f"{name}_scaled", "mul", value, np.asarray(beta, real_dtype(self.z)))
        return self.put(name, "softmax", value, axis=self.z.unit_axis.axis)

    def largest(self, condition: LargestUnits, along: Sequence[int]) -> str:
        """The largest of the kept units; of equal ones the first.

        A runtime's own top-k may take any of those: here it only says how large the last one is.
        """
        z, axis, count = self.z, self.z.unit_axis.axis, condition.count
        value = self.value()
        if len(self.kept) < self.head.units:
            flags = self.flags().reshape(along)
            value = self.put("value", "where", value, flags, self.lowest())
        many, one = (_with(z.shape, axis, n) for n in (count, 1))
        top = self.put("top", "top", value, count=count, axis=axis, shape=many)
        least = self.put(
            "least", "gather", top, np.asarray([count - 1], np.int32), axis=axis, shape=one
        )
        above = self.put("above", "greater", value, least)
        level = self.put("level", "equal", value, least)
        ahead = self.put("above_1", "cast", above, dtype="float32")
        ahead = self.put("ahead", "reduce_sum", ahead, axis=axis, shape=one)
        nth = self.put("level_1", "cast", level, dtype="float32")
        nth = self.put("nth", "cumsum", nth, axis=axis)
        rank = self.put("rank", "add", nth, ahead)
        early = self.put("early", "less_equal", rank, np.asarray(count, np.float32))
        return self.put("on", "or", above, self.put("tied", "and", level, early))

    def at(self, on: str, name: str) -> str:
        """What is on, in a shape that fits a tensor."""
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
        return self.put(f"at_{place}", "reshape", on, to=tuple(shape), shape=stated)

    # --- what reads it --------------------------------------------------------------------------

    def choose(self, name: str, on: str, otherwise: float) -> None:
        """Behind a tensor: its values where units are on, another one where they are off."""
        tensor, told = self.head.tensor(name), {}
        operands = self.at(on, name), np.asarray(otherwise, real_dtype(tensor))
        apart = name == self.z.name and self.real not in {"", name}
        if tensor.quantization is None and not apart:
            self.edits.append(Insert("where", name, operands))
            return
        steps = []
        if tensor.quantization is not None:
            told = quantization_attributes(tensor)
        if apart:
            steps.append(ComputeStep("where", (), (self.real, *operands), shape=tensor.shape))
        else:
            steps.append(ComputeStep("dequantize", (0,), (), told, tensor.shape))
            steps.append(ComputeStep("where", (1,), operands, shape=tensor.shape))
        if told:
            steps.append(ComputeStep("quantize", (len(steps),), (), told, tensor.shape))
        self.edits.append(Compute(name, tuple(steps)))

    def make_anew(self, on: str, floor: float) -> None:
        """From z to the output in float, with the activation over the units that are on."""
        output = self.head.tensor(self.head.output)
        dtype = real_dtype(self.z)
        masked = self.value()
        masked = self.put(
            "masked", "where", masked, self.at(on, self.z.name), np.asarray(floor, dtype)
        )
        shown = self.activated("shown", masked)
        if any(isinstance(node.operation, Reshape) for node in self.head.tail):
            to = tuple(-1 if n is None else n for n in output.shape)
            shown = self.put("shown_1", "reshape", shown, to=to, shape=output.shape)
        nothing = np.asarray(0.0, dtype)
        answer = ComputeStep(
            "where", (), (shown, self.at(on, output.name), nothing), shape=output.shape
        )
        coded: tuple[ComputeStep, ...] = ()
        if output.quantization is not None:
            coded = (
                ComputeStep("quantize", (1,), (), quantization_attributes(output), output.shape),
            )
        self.edits.append(Compute(output.name, (answer, *coded)))


_BATCH_AND_UNITS = 2
_COMPARED = {">": "greater", ">=": "greater_equal", "<": "less", "<=": "less_equal"}


def _with(shape: Shape, axis: int, length: int) -> Shape:
    return (*shape[:axis], length, *shape[axis + 1 :])
