"""The mode `mask`: removed units never win and have no probability; the output keeps its width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Array, Node, Use
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.edits import Edit, Fill, Insert
from exporter.graph.operations import Concat, Elementwise, Linear, Reshape, Slice, Split, Transpose
from exporter.graph.walk import REARRANGE, only_moves
from exporter.modes.activation_tail import apply_tail, replace_removed, select_units
from exporter.modes.mask_value import (
    contains_probabilities,
    divides_by_a_norm,
    has_quantized_values,
    joins_probabilities_of_parts,
    lowest_value,
    quantization_at,
    returns_probabilities,
)
from exporter.modes.mode import Expected, ModeFunctions
from exporter.modes.semantics import PLAIN, Semantics
from exporter.modes.slicing import resolve_slice, slice_edits, slice_oracle
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitConstant


def resolve_mask(head: Head, semantics: Semantics) -> Semantics:
    """Decide where removed units get their value: at z, or in the output of a narrower head.

    1. Absolute probabilities need the whole head; values are replaced after its output.
    2. A model that is or will be quantized gets a slice with its width restored: a floor at z would
       ruin a scale, and the lowest quantized logit still gets a share of a softmax.
    3. Exception: the lowest quantized value at z is enough (`_lowest_quantized`).
    4. So does a head with several softmaxes, and one whose last activation divides by a norm, which
       a floor would dominate or which returns something else than 0 for zeros.
    5. Otherwise removed units get a floor at z: 0 if z already contains probabilities.
    """
    if semantics.for_quantization and not (returns_probabilities(head) or semantics.restore_width):
        raise UsageError(
            f"head {head.name!r} returns no probabilities ({head.activation}): the low value of "
            "removed units would set the scale of the quantized output",
            "use --mode slice",
        )
    narrow = semantics.absolute or semantics.restore_width or semantics.for_quantization
    narrow = narrow or bool(head.normalized)
    floor = 0.0 if joins_probabilities_of_parts(head) else lowest_value(head, head.z)
    if divides_by_a_norm(head):
        fills = any("empty" in dict(getattr(n.operation, "parameters", ())) for n in head.tail)
        floor, narrow = 0.0, narrow or fills or not contains_probabilities(head, head.z)
    if not narrow and has_quantized_values(head):
        lowest = _lowest_quantized(head)
        narrow, floor = lowest is None, lowest or 0.0
    if narrow:
        return resolve_slice(head, replace(semantics, restore_width=True, for_quantization=False))
    return replace(semantics, floor=floor)


def _lowest_quantized(head: Head) -> float | None:
    """The lowest quantized value at z, if constants can produce it and the output becomes 0 or it.

    That is the case if z is the output, or if the sigmoid of the value rounds to 0.
    """
    at_z, at_output = quantization_at(head, head.z), quantization_at(head, head.output)
    if at_z is None or at_output is None or at_z.scale.size != 1:
        return None
    floor = lowest_value(head, head.z)
    if head.z != head.output:
        # Kernels interpolate a sigmoid of 16-bit values, and may be wrong by one step. A factor may
        # raise a value that rounds to 0.
        exact = head.activation == "sigmoid" and at_output.high - at_output.low < _8_BIT
        rounds = float(np.exp(-np.logaddexp(0.0, -floor))) < at_output.scale.item() / 2
        if not exact or head.factors or not rounds:
            return None
    return floor if _fills(head, (), floor, at_z.scale.item()) else None


_8_BIT = 256  # quantized values


def mask_edits(
    head: Head, kept: Sequence[int], semantics: Semantics = PLAIN, /
) -> tuple[Edit, ...]:
    """A slice with its width restored, or a floor at z.

    1. The bias adds the floor to kernel rows of zeros: exact, and without a new operation. This
       works if only operations that move values follow. In a quantized model it adds one scale step
       less than the floor, so that rounding ends at the lowest value.
    2. Otherwise (no bias; an activation, scale or clip before z) a Where after z inserts the floor.
    3. An activation that neither returns probabilities nor normalizes may map the floor to a value
       that wins: a Where after the output inserts the floor again.
    """
    resolved = resolve_mask(head, semantics)
    if resolved.restore_width:
        return slice_edits(head, kept, resolved)
    floor = resolved.floor
    assert floor is not None  # noqa: S101 - narrows the type; `resolve_mask` sets it
    if not len(head.tensor(head.z).unit_axis.removed(kept)):
        return ()
    quantized = quantization_at(head, head.z) if has_quantized_values(head) else None
    step = 0.0 if quantized is None else quantized.scale.item()
    edits = _fills(head, kept, floor, step) or [_where(head, head.z, kept, floor)]
    return (*edits, *mask_other_output(head, kept, resolved))


def mask_other_output(
    head: Head, kept: Sequence[int], semantics: Semantics = PLAIN, /
) -> tuple[Edit, ...]:
    """Case 3, also for another output that contains the same units."""
    if semantics.floor is None or semantics.restore_width or not _may_raise_floor(head):
        return ()
    return (_where(head, head.output, kept, semantics.floor),)


def mask_oracle(
    head: Head,
    kept: Sequence[int],
    z: Array,
    semantics: Semantics = PLAIN,
    present: Sequence[int] | None = None,
    /,
) -> Expected:
    """The floor at z for every removed unit; 0 if the output contains probabilities."""
    if semantics.restore_width:
        return slice_oracle(head, kept, z, semantics, present)
    floor = semantics.floor
    assert floor is not None  # noqa: S101 - narrows the type; the remap of a mask has it
    axis = head.tensor(head.z).unit_axis
    values = replace_removed(select_units(z, axis, present), axis, kept, present, floor)
    y = apply_tail(head, values, present)
    if returns_probabilities(head) or _may_raise_floor(head):
        value = 0.0 if returns_probabilities(head) else floor
        y = replace_removed(y, head.tensor(head.output).unit_axis, kept, present, value)
    return Expected(values, y)


def _may_raise_floor(head: Head) -> bool:
    """Whether the activation may map the floor to a value that is not the lowest."""
    function = ACTIVATIONS.get(head.activation)
    return function is not None and not (function.probability or function.mixes)


# --- with an inserted operation ------------------------------------------------------------------


def _where(head: Head, name: str, kept: Sequence[int], floor: float) -> Insert:
    """A Where after a tensor: its values for kept units, the floor for removed ones."""
    tensor, axis = head.tensor(name), head.tensor(name).unit_axis
    if tensor.dtype not in {"float16", "float32", "float64"}:
        raise ModelError(
            f"no operation can be inserted after {name!r}, which is {tensor.dtype}",
            "use --mode slice",
        )
    is_kept = np.ones(len(axis.units), bool)
    is_kept[axis.removed(kept)] = False
    condition = is_kept.reshape([-1, *[1] * (len(tensor.shape) - axis.axis - 1)])
    return Insert("where", name, (condition, np.asarray(floor, tensor.dtype)))


# --- with constants -------------------------------------------------------------------------------

_Setting = tuple[str, int, float]  # node, input slot, the value that the input must have


def _fills(head: Head, kept: Sequence[int], floor: float, step: float) -> list[Edit] | None:
    """Fills of constants that set z to exactly the floor; None if this is impossible.

    Args:
        head: to be masked.
        kept: the kept units.
        floor: a real value.
        step: how much lower the sum before z is, because z rounds it to the floor; 0.0 for a sum of
            exactly the floor.
    """
    settings = _set_floor(head, head.z, floor - step)
    found = None if settings is None else [_constant_at(head, each) for each in settings]
    if found is None or None in found or not all(_fits(*each, step) for each in found if each):
        return None
    uses: dict[tuple[int, float], list[Use]] = {}
    constants: dict[int, UnitConstant] = {}
    for constant, use, value in filter(None, found):
        constants[id(constant)] = constant
        uses.setdefault((id(constant), value), []).append(use)
    return [
        Fill(c.name, c.unit_axis.axis, c.unit_axis.removed(kept), value, tuple(those))
        for (key, value), those in uses.items()
        for c in (constants[key],)
        if len(c.unit_axis.removed(kept))
    ]


def _fits(constant: UnitConstant, _: Use, value: float, step: float) -> bool:
    """Whether the quantized constant represents the value, with an error below one step.

    The lowest quantized value itself is refused: kernels that add to it overflow, and the removed
    unit wins.
    """
    known = constant.quantization
    if known is None:  # real values, or a quantization by blocks, which cannot be checked here
        return constant.dtype.startswith(("float", "bfloat"))
    if value == 0.0:
        return not bool(np.isnan(known.zero_point).any())
    quantized = np.rint(value / known.scale) + known.zero_point
    return bool((quantized > known.low).all() and (known.scale <= step).all())


def _set_floor(head: Head, tensor: str, floor: float) -> list[_Setting] | None:
    """The settings that make a computed tensor exactly the floor."""
    node, _ = head.producers[tensor]
    match node.operation:
        case Linear(bias=int(bias), kernel=kernel, altered=False) if _zeros_suffice(node.operation):
            return [(node.name, kernel, 0.0), (node.name, bias, floor)]
        case Elementwise(function="add") if len(node.inputs) == 2:  # noqa: PLR2004 - a + b
            return _set_sum(head, node, floor)
        case Concat():
            names = [name for name in node.inputs if name in head.producers]
            if not all(_same_quantization(head, name, tensor) for name in names):
                return None
            parts = [_set_floor(head, name, floor) for name in names]
            return None if None in parts else [each for part in parts for each in part or ()]
        case _ if only_moves(node, kinds=REARRANGE | Slice | Split):
            return _set_floor(head, node.inputs[0], floor)
        case _:
            return None


def _same_quantization(head: Head, part: str, whole: str) -> bool:
    """Whether the lowest value of a part, which is its floor, is the lowest value of the whole."""
    left, right = head.tensor(part).quantization, head.tensor(whole).quantization
    if left is None or right is None:
        return left is right
    return np.array_equal(left.scale, right.scale) and np.array_equal(
        left.zero_point, right.zero_point
    )


def _set_sum(head: Head, node: Node, floor: float) -> list[_Setting] | None:
    """A product plus a constant: zeros in the kernel, the floor in the constant."""
    for product, offset in ((0, 1), (1, 0)):
        setting = (node.name, offset, floor)
        if node.inputs[product] in head.producers and _constant_at(head, setting):
            zeros = _set_zero(head, node.inputs[product])
            return None if zeros is None else [*zeros, setting]
    return None


def _set_zero(head: Head, tensor: str) -> list[_Setting] | None:
    node, _ = head.producers[tensor]
    match node.operation:
        case Linear(kernel=kernel, bias=None) if _zeros_suffice(node.operation):
            return [(node.name, kernel, 0.0)]
        case Reshape() | Transpose():
            return _set_zero(head, node.inputs[0])
        case _:
            return None


def _zeros_suffice(linear: Linear) -> bool:
    """Whether zeros in the kernel make a channel 0; separate zero points may prevent that."""
    return linear.kernel_zero == 0.0 and linear.packed_bits is None and not linear.along


def _constant_at(head: Head, setting: _Setting) -> tuple[UnitConstant, Use, float] | None:
    """The constant that the input reads, perhaps through a reshape or a cast."""
    node, slot, value = setting
    use = Use(node, slot)
    for constant in head.constants:
        if use in constant.uses:
            return constant, use, value
    reader = next(each for each in head.body if each.name == node)
    producer, _ = head.producers.get(reader.inputs[slot], (None, 0))
    if producer is None or not only_moves(producer, "dequantize"):
        return None
    return _constant_at(head, (producer.name, 0, value))


FUNCTIONS = ModeFunctions(mask_edits, mask_oracle, resolve_mask, mask_other_output)
