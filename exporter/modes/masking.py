"""The mode `mask`: removed units never win and hold no probability; the width stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from exporter.trace.unit_axis import UnitConstant, UnitTensor


def resolve_mask(head: Head, semantics: Semantics) -> Semantics:
    """Where removed units get their answer: at z, or in the output of a narrower head.

    1. Absolute probabilities are those of a whole head; removed ones are replaced behind it.
    2. For quantization, and among integers, no floor at z does: it would ruin a scale, and the
       lowest code of a softmax still has a share. The head is a slice, and its width restored.
    3. Integers whose lowest code answers nothing that shows (`_lowest_is_none`) may have it.
    4. Elsewhere the floor stands at z: 0 where z is put together of probabilities.
    """
    inside = replace(semantics, restore_width=True, for_quantization=False)
    if semantics.for_quantization and not (returns_probabilities(head) or semantics.restore_width):
        raise UsageError(
            f"head {head.name!r} shows no probabilities ({head.activation}): its floor would set "
            "the scale of what is quantized",
            "use --mode slice",
        )
    if semantics.absolute or semantics.restore_width or semantics.for_quantization:
        return resolve_slice(head, inside)
    if has_quantized_values(head):
        floor = _lowest_is_none(head)
        return resolve_slice(head, inside) if floor is None else replace(semantics, floor=floor)
    return replace(
        semantics, floor=0.0 if joins_probabilities_of_parts(head) else lowest_value(head, head.z)
    )


def _lowest_is_none(head: Head) -> float | None:
    """The lowest value of integers at z, if constants can make it and the output shows nothing.

    So it is where the head ends at z, and where a sigmoid of it rounds to 0.
    """
    known, shown = quantization_at(head, head.z), quantization_at(head, head.output)
    if known is None or shown is None or known.scale.size != 1:
        return None
    floor = lowest_value(head, head.z)
    if head.z != head.output:
        # Kernels interpolate a sigmoid of wider codes, and may be a code off.
        sigmoid = head.activation == "sigmoid" and shown.high - shown.low < _WIDE
        sigmoid = sigmoid and not head.factors  # which may lift what rounds to 0
        rounds = float(np.exp(-np.logaddexp(0.0, -floor))) < shown.scale.item() / 2
        if not (sigmoid and rounds):
            return None
    return floor if _constants(head, (), floor, known.scale.item()) else None


_WIDE = 256  # codes


def mask_edits(
    head: Head, kept: Sequence[int], semantics: Semantics = PLAIN, /
) -> tuple[Edit, ...]:
    """A slice whose width is restored, or the floor at z.

    1. The sum that makes z adds the floor to rows of zeros: exact, and costs nothing. So it is
       where only moves stand between that sum and z. Among integers it adds a whole code less,
       so that rounding ends at the lowest one.
    2. Elsewhere (no bias; an activation, a scale, a clip that would lift the floor) an operation
       behind z puts the floor there.
    3. An activation that is neither a probability nor normalizes might map the floor to a value
       that wins: behind it an operation puts the floor once more.
    """
    settled = resolve_mask(head, semantics)
    if settled.restore_width:
        return slice_edits(head, kept, settled)
    floor = settled.floor
    assert floor is not None  # noqa: S101 - narrows the type; `resolve_mask` sees to it
    if not len(head.tensor(head.z).unit_axis.removed(kept)):
        return ()
    codes = quantization_at(head, head.z) if has_quantized_values(head) else None
    below = 0.0 if codes is None else codes.scale.item()
    edits = _constants(head, kept, floor, below) or [_operation(head, head.z, kept, floor)]
    if _hides_floor(head):
        edits.append(_operation(head, head.output, kept, floor))
    return tuple(edits)


def mask_other_output(
    head: Head, kept: Sequence[int], semantics: Semantics = PLAIN, /
) -> tuple[Edit, ...]:
    """Case 3, for another output that shows the same units."""
    if semantics.floor is None or semantics.restore_width or not _hides_floor(head):
        return ()
    return (_operation(head, head.output, kept, semantics.floor),)


def mask_oracle(
    head: Head,
    kept: Sequence[int],
    z: Array,
    semantics: Semantics = PLAIN,
    present: Sequence[int] | None = None,
    /,
) -> Expected:
    """The floor at z for every unit that is not kept; 0 where the output shows probabilities."""
    if semantics.restore_width:
        return slice_oracle(head, kept, z, semantics, present)
    floor = semantics.floor
    assert floor is not None  # noqa: S101 - narrows the type; a mask's table has it
    labels = head.tensor(head.z).unit_axis
    values = replace_removed(select_units(z, labels, present), labels, kept, present, floor)
    answer = apply_tail(head, values, present)
    if returns_probabilities(head) or _hides_floor(head):
        shown = 0.0 if returns_probabilities(head) else floor
        answer = replace_removed(answer, head.tensor(head.output).unit_axis, kept, present, shown)
    return Expected(values, answer)


def _hides_floor(head: Head) -> bool:
    """May the activation map the floor to a value that is not the lowest of all?"""
    function = ACTIVATIONS.get(head.activation)
    return function is not None and not (function.probability or function.mixes)


# --- by an operation ----------------------------------------------------------------------------


def _operation(head: Head, name: str, kept: Sequence[int], floor: float) -> Insert:
    """Behind a tensor: the value that is there for kept units, the floor for removed ones."""
    tensor = head.tensor(name)
    alive = np.ones(len(tensor.unit_axis.units), bool)
    alive[tensor.unit_axis.removed(kept)] = False
    behind = len(tensor.shape) - tensor.unit_axis.axis - 1
    condition = alive.reshape([-1, *[1] * behind])
    return Insert("where", name, (condition, np.asarray(floor, _dtype(tensor))))


def _dtype(tensor: UnitTensor) -> np.dtype[np.floating]:
    if tensor.dtype not in {"float16", "float32", "float64"}:
        raise ModelError(
            f"no operation can be put behind {tensor.name!r}, which is {tensor.dtype}",
            "use --mode slice",
        )
    return np.dtype(tensor.dtype)


# --- by constants -------------------------------------------------------------------------------

_Wanted = tuple[str, int, float]  # node, slot, the value that is wanted there


def _constants(head: Head, kept: Sequence[int], floor: float, below: float) -> list[Edit] | None:
    """Fills that make exactly the floor at z; None where there are none.

    Args:
        head: what makes z.
        kept: the units that stay.
        floor: a real value.
        below: how much lower the sum may be, since z then rounds it to the floor; 0.0 if it is
            to be the floor itself.
    """
    wanted = _floor_at(head, head.z, floor - below)
    found = None if wanted is None else [_stated(head, each) for each in wanted]
    if found is None or None in found or not all(_fits(*each, below) for each in found if each):
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


def _fits(constant: UnitConstant, _: Use, value: float, below: float) -> bool:
    """Has every removed unit's entry a code for the value, fine enough not to round it away?

    The lowest code of all is left alone: kernels that add to it overflow, and the unit wins.
    """
    known = constant.quantization
    if known is None:  # of codes whose blocks have scales of their own nothing is known here
        return constant.dtype.startswith(("float", "bfloat"))
    if value == 0.0:
        return not bool(np.isnan(known.zero_point).any())
    codes = np.rint(value / known.scale) + known.zero_point
    return bool((codes > known.low).all() and (known.scale <= below).all())


def _makers(head: Head) -> dict[str, Node]:
    return {name: node for node in head.body for name in node.outputs}


def _floor_at(head: Head, tensor: str, floor: float) -> list[_Wanted] | None:
    """What must stand where so that a computed tensor is exactly the floor."""
    node = _makers(head)[tensor]
    match node.operation:
        case Linear(bias=int(bias), kernel=kernel, altered=False) if _is_zeroed(node.operation):
            return [(node.name, kernel, 0.0), (node.name, bias, floor)]
        case Elementwise(function="add") if len(node.inputs) == 2:  # noqa: PLR2004 - a + b
            return _floor_added(head, node, floor)
        case Concat():
            names = list(_labeled(head, node))
            if not all(_same_codes(head, name, tensor) for name in names):
                return None
            parts = [_floor_at(head, name, floor) for name in names]
            return None if None in parts else [each for part in parts for each in part or ()]
        case _ if only_moves(node, kinds=REARRANGE | Slice | Split):
            return _floor_at(head, node.inputs[0], floor)
        case _:
            return None


def _same_codes(head: Head, part: str, whole: str) -> bool:
    """Is the lowest code of a part, which is as low as it can be, that of the whole?"""
    left, right = head.tensor(part).quantization, head.tensor(whole).quantization
    if left is None or right is None:
        return left is right
    return np.array_equal(left.scale, right.scale) and np.array_equal(
        left.zero_point, right.zero_point
    )


def _floor_added(head: Head, node: Node, floor: float) -> list[_Wanted] | None:
    """A sum of the floor and of a product whose rows are 0."""
    for value, offset in ((0, 1), (1, 0)):
        if node.inputs[value] in _makers(head) and _stated(head, (node.name, offset, floor)):
            zeros = _zero_at(head, node.inputs[value])
            return None if zeros is None else [*zeros, (node.name, offset, floor)]
    return None


def _zero_at(head: Head, tensor: str) -> list[_Wanted] | None:
    node = _makers(head)[tensor]
    match node.operation:
        case Linear(kernel=kernel, bias=None) if _is_zeroed(node.operation):
            return [(node.name, kernel, 0.0)]
        case Reshape() | Transpose():
            return _zero_at(head, node.inputs[0])
        case _:
            return None


def _is_zeroed(linear: Linear) -> bool:
    """Do zeros in the kernel alone make a channel 0? Its codes may have zero points beside it."""
    return linear.kernel_zero == 0.0 and linear.packed_bits is None and not linear.along


def _labeled(head: Head, node: Node) -> Iterator[str]:
    makers = _makers(head)
    yield from (name for name in node.inputs if name in makers)


def _stated(head: Head, wanted: _Wanted) -> tuple[UnitConstant, Use, float] | None:
    """The constant, perhaps moved or widened on its way, that is read there."""
    node, slot, value = wanted
    use = Use(node, slot)
    for constant in head.constants:
        if use in constant.uses:
            return constant, use, value
    nodes = {each.name: each for each in head.body}
    maker = _makers(head).get(nodes[node].inputs[slot])
    if maker is None:
        return None
    return _stated(head, (maker.name, 0, value)) if only_moves(maker, "dequantize") else None


FUNCTIONS = ModeFunctions(mask_edits, mask_oracle, resolve_mask, mask_other_output)
