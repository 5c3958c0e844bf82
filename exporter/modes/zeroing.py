"""The mode `zero`: the values of removed units are exactly 0 at z; the output keeps its width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Array, Node, Use
from exporter.graph.activations import ACTIVATIONS, REDUCTIONS
from exporter.graph.edits import Edit, Fill
from exporter.graph.operations import (
    Activation,
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    Linear,
    Pool,
    Reduce,
    Slice,
    Split,
    TopK,
)
from exporter.graph.walk import REARRANGE
from exporter.modes.activation_tail import apply_tail, replace_removed, select_units
from exporter.modes.mode import Expected, ModeFunctions
from exporter.modes.semantics import PLAIN, Semantics
from exporter.trace.head import Head


def resolve_zero(_: Head, semantics: Semantics) -> Semantics:
    """The semantics as they are; UsageError for options that the mode does not support."""
    asked = {
        "probabilities": semantics.absolute,
        "restore_width": semantics.restore_width,
        "for_quantization": semantics.for_quantization,
    }
    for name, wanted in asked.items():
        if wanted:
            raise UsageError(
                f"mode zero does not support {name}: the logits of removed units are 0",
                "leave it out, or use --mode mask",
            )
    return semantics


def zero_edits(head: Head, kept: Sequence[int], _: Semantics = PLAIN, /) -> tuple[Edit, ...]:
    """Fill the constants of removed units so that each of their values is exactly 0 at z."""
    for node in head.body:
        if not _keeps_zero(node):
            raise ModelError(
                f"{node} does not map 0 to 0, so that a removed unit's value would not be 0",
                "use --mode slice",
            )
        for slot in _added(node):
            if not _has_unit_axis(head, node, slot):
                raise ModelError(
                    f"{node} adds {node.inputs[slot]!r} to all units, so that a removed unit's "
                    "value would not be 0",
                    "use --mode slice",
                )
    inside = {node.name for node in head.body}
    return tuple(
        Fill(c.name, c.unit_axis.axis, c.unit_axis.removed(kept), c.zero, uses)
        for c in head.constants
        if c.zero is not None
        and (uses := tuple(use for use in c.uses if use.node in inside))
        and len(c.unit_axis.removed(kept))
    )


def _keeps_zero(node: Node) -> bool:
    match node.operation:
        case Elementwise(keeps_zero=keeps) | Expand(keeps_zero=keeps):
            return keeps
        case Activation(function="clip", parameters=parameters):
            bounds = dict(parameters)
            return bounds.get("min", -np.inf) <= 0.0 <= bounds.get("max", np.inf)
        case Activation(function=function):
            return ACTIVATIONS[function].keeps_zero
        case Reduce(function=function):
            return REDUCTIONS[function].keeps_zero
        case operation:
            zeros = isinstance(operation, ConstantOfShape) and operation.value == 0.0
            return zeros or isinstance(operation, _KEEPS_ZERO)


_KEEPS_ZERO = REARRANGE | Linear | Pool | Concat | Split | Slice | TopK


def _added(node: Node) -> tuple[int, ...]:
    """The input slots that are added to the values of the node."""
    match node.operation:
        case Elementwise(offsets=offsets):
            return offsets
        case Linear(bias=int(bias)):
            return (bias,)
        case _:
            return ()


def _has_unit_axis(head: Head, node: Node, slot: int) -> bool:
    use = Use(node.name, slot)
    return any(use in constant.uses for constant in head.constants) or any(
        tensor.name == node.inputs[slot] for tensor in head.tensors
    )


def zero_oracle(
    head: Head,
    kept: Sequence[int],
    z: Array,
    _: Semantics = PLAIN,
    present: Sequence[int] | None = None,
    /,
) -> Expected:
    """0 at z for every removed unit, then the activation over all units."""
    axis = head.tensor(head.z).unit_axis
    values = replace_removed(select_units(z, axis, present), axis, kept, present, 0.0)
    return Expected(values, apply_tail(head, values, present))


FUNCTIONS = ModeFunctions(zero_edits, zero_oracle, resolve_zero)
